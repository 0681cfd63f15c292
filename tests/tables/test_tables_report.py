import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from markupsafe import escape

from tests.tables.conftest import make_bench
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, png_bytes, read_shards, write_shard
from workflow_scripts.common.manifest import FINDINGS, read_prompts
from workflow_scripts.common.records import Record, Value, read_record
from workflow_scripts.costs.attempts import Attempt, attempts_to_csv
from workflow_scripts.preflight.check import read_config
from workflow_scripts.tables import build_figures
from workflow_scripts.tables.all_tables import every_table
from workflow_scripts.tables.assemble import joined_table
from workflow_scripts.tables.cohort_counts import count_cohort
from workflow_scripts.tables.costs import cost_table
from workflow_scripts.tables.dot_plot import LEFT, RIGHT, WIDTH, dot_plot
from workflow_scripts.tables.examples import choose, gallery, parse_images
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.matrices import PAIRED
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.render.files import FORMATS, write_tables
from workflow_scripts.tables.report import headlines, main
from workflow_scripts.tables.results import MEASUREMENTS, RESULTS
from workflow_scripts.tables.run import Run

ROOT = Path(__file__).resolve().parents[2]
CONFIG = read_config([str(ROOT / "config.yaml"), str(ROOT / "profiles/demo/overlay.yaml")])
VOID = {"meta", "link", "img", "line", "circle", "path", "use", "br", "input"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; a tag closed out of order fails."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(
    bench: SimpleNamespace,
    name: str = "report.html",
    attempts: list[Attempt] | None = None,
    figures: bool = True,
    audit: Path | None = None,
    config: str | None = None,
) -> Path:
    built = bench.built(bench)
    jobs = []
    if attempts is not None:
        (bench.root / "jobs.csv").write_text(attempts_to_csv(attempts), encoding="utf-8")
        costs = cost_table(attempts, parse_models(json.dumps(bench.models)), "World")
        write_tables({"costs": costs}, bench.root / "out")
        jobs = ["--jobs", str(bench.root / "jobs.csv")]
    if attempts is not None and figures:
        prompts = ["--test-prompts", str(bench.prompts), "--prompts", f"llava_rad={bench.prompts}"]
        out = ["--rules", "[]", "--out", str(bench.root / "out")]
        measured = ["--measurements", str(bench.root / "out" / MEASUREMENTS)]
        build_figures.main([*built, *measured, *prompts, *jobs, *out])
        jobs += ["--figures", str(bench.root / "out")]
    jobs += ["--audit", str(audit)] if audit else []
    jobs += ["--config", config] if config else []
    output = bench.root / name
    images = [word for pair in bench.images for word in ("--images", pair)]
    main(
        [
            *built,
            *("--prompts", str(bench.prompts)),
            *images,
            *("--tables", str(bench.root / "out")),
            *jobs,
            *("--output", str(output), "--public", str(bench.root / f"public-{name}")),
        ]
    )
    return output


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def tables_of(bench):
    """Every table but the paired differences, which the page draws as matrices."""
    models = parse_models(json.dumps(bench.models))
    records = Records()
    for files in bench.files.values():
        for path in files:
            records.add(read_record(path))
    tables = every_table(Run(records, models, "World", count_cohort(bench.manifest)))
    return {stem: table for stem, table in tables.items() if stem != PAIRED.stem}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small benchmark and its report, for tests that only read."""
    bench = make_bench(tmp_path_factory.mktemp("written"))
    bench.report = report(bench)
    return bench


@pytest.fixture
def made(written):
    return written.report


@pytest.fixture(scope="module")
def costed(tmp_path_factory):
    """The same with its costs, the tables' bytes without and with them, for tests that only read.

    Its figures are drawn, which takes many seconds.
    """
    bench = make_bench(tmp_path_factory.mktemp("costed"))
    bench.models[1]["settings"] = {"base": "a folder", "finetune": '{"epochs": 20}'}
    report(bench)
    bench.before = {path.name: path.read_bytes() for path in (bench.root / "out").iterdir()}
    bench.report = report(bench, attempts=ATTEMPTS, config=json.dumps(CONFIG))
    bench.after = {path.name: path.read_bytes() for path in (bench.root / "out").iterdir()}
    return bench


def test_the_page_is_well_formed_and_its_ids_are_unique(made):
    read = page(made)
    assert read.open == []
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for t, a in read.tags if t == "a" and a["href"].startswith("#")}
    assert len(targets) >= 6
    assert targets <= set(ids)


def test_no_list_of_links_names_a_place_twice(costed):
    """A model's settings are among its own and on the page of tables with that name."""
    text = costed.report.read_text(encoding="utf-8")
    lists = re.findall(r"<nav.*?</nav>", text, re.S)
    assert len(lists) > 10
    for links in lists:
        targets = re.findall(r'href="(.*?)"', links)
        assert len(targets) == len(set(targets)), links
    card = text[text.index('id="/model/sana"') :]
    card = card[: card.index("</section>")]
    titles = re.findall(r"<h2 id=[^>]*>(.*?)</h2>", card)
    assert titles.count("Settings") == 1
    assert "Base checkpoint" in card
    assert "Table 11." in card


def test_the_overview_answers_five_questions(made, costed):
    start = page(made).text.split("Which model is best at what?")[1]
    assert start.startswith(
        " Best by the measured values: Sana in fidelity (FID 54.225) and reports (micro F1 0.31); "
        "SD V1-4 in privacy (re-ID score 0.539); SD V1-4 and Sana in classification (AUROC 0.76)."
    )
    for words in (
        "Which differences are noise? 0 of 3 differences between two models",
        "6 of 6 gains in downstream tasks cannot be told from noise",
        "What is risky? Sana has the highest re-ID score, 0.551 (Table 3).",
        "What was not measured? SD V1-4 and Sana have no value for segmentation",
        "findings asked for; Mine & co_1 100%",
        "What did it cost? Not known: no job's cost was found.",
    ):
        assert words in page(made).text
    assert "What did it cost? 20.00 GPU-hours" in page(costed.report).text


def test_the_plan_stands_beside_what_the_run_took(costed):
    text = page(costed.report).text
    assert "Table P. Planned and actual GPU-hours" in text
    assert "no rate was measured on the" in text
    assert "Sana: Fine-tuning" in text


def test_without_a_config_no_plan_is_shown(made):
    assert "Table P." not in page(made).text


def test_a_config_that_is_no_json_is_refused(bench):
    with pytest.raises(InputError, match="not JSON"):
        report(bench, attempts=[], figures=False, config="{")


def test_the_page_loads_nothing_from_elsewhere(made):
    for tag, attributes in page(made).tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value[:80])
    text = made.read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text


def test_every_value_of_the_tables_stands_in_the_page(written, made):
    words = set(page(made).text.split())
    for table in tables_of(written).values():
        for row in table.rows:
            for cell in row.cells:
                if cell.value is not None:
                    assert cell.text in words


def test_every_dash_has_its_reason_in_the_page(made):
    text = page(made).text
    assert "no images of the prompt set privacy were given" in text
    assert "<code>privacy</code> were given" in made.read_text(encoding="utf-8")
    assert "`" not in text, "a backtick is markup, which a page has no use for"
    assert "1 generated image: at least 2 are needed" in text
    assert "not run" in text


def test_differences_stand_in_a_matrix_that_says_which_way_is_better(made):
    """KID: sana 0.054, mine 0.080, sd_v1_4 0.125, noise 0.9; replicates spread by about 0.01."""
    matrix = page(made).text.split("Table 1c.")[1].split("Table 2.")[0]
    assert "-0.071" in matrix  # sana less sd_v1_4
    assert "+0.071" in matrix
    cells = [
        attributes["class"]
        for tag, attributes in page(made).tags
        if tag == "td" and attributes.get("class") in ("better", "worse", "alike", "self")
    ]
    # In each metric's matrix what is better one way is worse the other way.
    assert cells.count("better") == cells.count("worse") >= 4
    assert cells.count("self") == 4
    first = cells[:4]  # sana, the best, has nobody better beside it
    assert "worse" not in first


def test_names_and_captions_are_escaped(bench):
    bench.models[2]["display"]["name"] = "<script>alert(1)</script> & co"
    made = report(bench)
    assert "<script>alert(1)" not in made.read_text(encoding="utf-8")
    text = page(made).text
    assert "<script>alert(1)</script> & co" in text
    assert "Caption <" in text


def test_the_attrition_and_the_provenance_are_shown(made):
    text = page(made).text
    assert "no caption, so no prompt" in text
    assert "0123456789abcdef0123456789abcdef01234567" in text
    assert "torch 2.13.0" in text
    assert "h5py" not in text


def test_only_the_owner_may_read_the_report(made):
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_the_banner_stands_on_the_papers_data_only(bench, made):
    assert "do not publish" not in page(made).text
    bench.dataset = "MIMIC-CXR"
    read = page(report(bench, "mimic.html"))
    assert "contains images of the cohort: do not publish" in read.text
    assert "paper 125.186" in read.text


def test_the_report_is_the_same_bytes_from_run_to_run(bench):
    assert report(bench).read_bytes() == report(bench, "again.html").read_bytes()


def test_without_records_and_images_the_report_still_says_why(bench):
    bench.files = {stage: [] for stage in bench.files}
    bench.images = []
    text = page(report(bench)).text
    assert "No model has an FID" in text
    assert "No images were given" in text


def test_tables_that_were_not_built_are_refused(bench):
    report(bench)
    (bench.root / "out" / "table03_privacy.csv").unlink()
    with pytest.raises(InputError, match="cannot read a table"):
        main(
            [
                *("--results", str(bench.root / "out" / RESULTS)),
                *("--manifest", str(bench.manifest)),
                *("--prompts", str(bench.prompts)),
                *("--tables", str(bench.root / "out")),
                *("--output", str(bench.root / "other.html")),
            ]
        )
    assert not (bench.root / "other.html").exists()


def test_every_row_of_every_table_is_on_the_page(written, made):
    text = made.read_text(encoding="utf-8")
    for stem, table in tables_of(written).items():
        start = text.index(f'id="table-{table.layout.number}"')
        shown = text[start : text.index("</figure>", start)]
        headings = re.findall(r"<th scope=[^>]*>(.*?)</th>", shown)
        names = {re.sub(r"<span.*?</span>|<[^>]+>", "", heading) for heading in headings}
        assert {str(escape(row.label)) for row in table.rows} <= names, stem


# Headlines and dot plots


def test_headlines_name_the_best_the_riskiest_and_the_gain(bench):
    fidelity, privacy, utility = (entry["sentence"] for entry in headlines(tables_of(bench), 0.85))
    assert fidelity == (
        "Sana has the lowest FID, 54.225 (52.225 to 56.225). For scale: Noise 900.500."
    )
    assert privacy == (
        "Sana has the highest average score, 0.551 (0.541 to 0.561). "
        "6 of its 40 prompts exceed the threshold δ = 0.85."
    )
    assert utility == (
        "Training on real images and those of Sana gives a mean AUROC of 0.76; real images alone "
        "give 0.75. The difference is 0.011 (0.001 to 0.021). With one training run it cannot be "
        "told from the noise of the seed."
    )


@pytest.mark.parametrize("values", [{"a": 1.0}, {"a": 0.0, "b": 0.0}, {"a": -3.0, "b": 900.0}])
def test_dots_lie_inside_the_plot_in_the_order_of_their_values(values):
    models = parse_models(json.dumps([{"key": key, "family": "external"} for key in values]))
    records = Records()
    for key, value in values.items():
        bounds = (value - 0.5, value + 0.25)
        fid = Value("fid", value, "lower", 50, interval=bounds, interval_kind="b")
        records.add(Record("fidelity", key, "rad_dino", "sound", [fid]))
    table = joined_table(LAYOUTS["table01_fidelity"], Run(records, models, "World"))
    drawn = dot_plot(table, "fid", "all", "FID")
    assert drawn is not None
    for dot, value in zip(drawn.dots, values.values(), strict=True):
        assert dot.text == f"{value:.3f}"
        assert LEFT <= dot.low <= dot.x <= dot.high <= WIDTH - RIGHT
    order = [dot.x for dot in sorted(drawn.dots, key=lambda dot: float(dot.text))]
    assert order == sorted(order)


def test_what_reads_as_zero_stretches_no_logarithmic_axis():
    """A copy's FID is 1e-14 and reads 0.000: it stands at the edge, and the axis says so."""
    models = parse_models(
        json.dumps([{"key": key, "family": "external"} for key in ("copy", "a", "b", "c")])
    )
    records = Records()
    for model, value in zip(models, (1.5e-14, 3.0, 40.0, 300.0), strict=True):
        fid = Value("fid", value, "lower", 50)
        records.add(Record("fidelity", model.key, "rad_dino", "sound", [fid]))
    table = joined_table(LAYOUTS["table01_fidelity"], Run(records, models, "World"))
    drawn = dot_plot(table, "fid", "all", "FID")
    assert drawn is not None
    assert [label for _, label in drawn.ticks] == ["1", "10", "100", "1000"]
    assert drawn.axis == "lower is better, logarithmic, zero at the left edge"
    assert [(dot.text, dot.x == LEFT) for dot in drawn.dots] == [
        ("0.000", True),
        ("3.000", False),
        ("40.000", False),
        ("300.000", False),
    ]


def test_wide_ranges_are_drawn_on_a_logarithmic_axis(bench):
    drawn = dot_plot(tables_of(bench)["table01_fidelity"], "fid", "all", "FID")
    assert "logarithmic" in drawn.axis
    assert [label for _, label in drawn.ticks] == ["10", "100", "1000"]


# Example images


def test_examples_are_shared_by_the_models_and_show_different_findings(bench):
    prompts = read_prompts(bench.prompts)
    models = parse_models(json.dumps(bench.models))[:2]
    everything = set(prompts["prompt_id"])
    ids = {"sd_v1_4": everything, "sana": everything - {prompts["prompt_id"][0]}}
    chosen = choose(prompts, models, ids)
    assert set(chosen) <= ids["sana"]
    assert len(chosen) == len(set(chosen)) == 6
    first = prompts.set_index("prompt_id").loc[chosen[0]]
    assert first["No Finding"] == 1


def test_the_gallery_shows_the_prompts_own_radiograph_and_each_models_image(bench):
    models = parse_models(json.dumps(bench.models))
    shown = gallery(parse_images(bench.images), models, bench.prompts, bench.manifest)
    assert shown.left_out == ()
    for example in shown.examples:
        assert [image.label for image in example.images] == [
            "Real",
            "SD V1-4",
            "Sana",
            "Mine & co_1 100%",
            "Noise",
        ]
        assert all(image.uri.startswith("data:image/jpeg;base64,") for image in example.images)
        assert all(image.caption == example.caption for image in example.images)
        row = bench.frame[bench.frame["caption"] == example.caption].iloc[0]
        assert example.findings == tuple(name for name in FINDINGS if row[name] == 1)


def test_a_control_with_its_own_caption_is_told_apart(bench):
    pair = bench.images[-1]
    path = Path(pair.partition("=")[2])
    items = [
        ImageItem(item.id, "x.png", png_bytes(item.open()), "another caption", "i3")
        for item in read_shards([path])
    ]
    write_shard(items, path)
    assert "(own caption)" in page(report(bench)).text


def test_a_model_with_other_prompts_is_left_out_by_name(bench):
    path = Path(bench.images[-1].partition("=")[2])
    items = [
        ImageItem(f"other-{i}", "x.png", png_bytes(item.open()), item.caption)
        for i, item in enumerate(read_shards([path]))
    ]
    write_shard(items, path)
    models = parse_models(json.dumps(bench.models))
    shown = gallery(parse_images(bench.images), models, bench.prompts, bench.manifest)
    assert shown.left_out == ("Noise",)
    assert all(len(example.images) == 4 for example in shown.examples)


def test_a_broken_real_image_is_named(bench):
    for path in bench.frame["path"]:
        Path(path).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot decode an image(.|\n)*\.png"):
        report(bench)


def test_images_of_an_unknown_model_are_refused(bench):
    bench.images[0] = bench.images[0].replace("sd_v1_4=", "sd_v9=", 1)
    with pytest.raises(InputError, match="sd_v9"):
        report(bench)
    with pytest.raises(InputError, match="MODEL=FILE"):
        parse_images(["sana"])


ATTEMPTS = [
    Attempt("f", "finetune", "sana", "sana", source, state=state, elapsed_s=9000, gpus=4, node="n7")
    for source, state in (("accounting", "TIMEOUT"), ("accounting", "COMPLETED"))
]


def test_the_cost_stands_in_a_sentence_a_figure_and_a_table_without_nodes(costed):
    read = page(costed.report)
    assert read.open == []
    assert "20.00 GPU-hours and 5.000 hours of wall time for 1 job, in 2 attempts" in read.text
    assert "Sana Fine-tuning 20.00 5.000" in read.text
    assert 'aria-label="GPU-hours by model and stage"' in costed.report.read_text(encoding="utf-8")
    files = [a["download"] for tag, a in read.tags if tag == "a" and "download" in a]
    assert {"costs.csv", "costs.md", "costs.tex"} <= set(files)
    assert "n7" not in read.text.split()
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_report_of_unknown_cost_says_so(bench, made):
    assert "No job's cost is known." in page(made).text
    assert "No job's cost is known." in page(report(bench, attempts=[], figures=False)).text


def test_the_cost_changes_no_other_table(costed):
    before, after = costed.before, costed.after
    new = {name for name in after.keys() - before.keys() if not name.startswith("figure")}
    assert new == {f"costs.{suffix}" for suffix in FORMATS}
    assert all(after[name] == before[name] for name in before)
