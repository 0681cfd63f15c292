import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tables.conftest import privacy
from tests.tables.stems import STEMS
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import Record, Value, read_record, write_record
from workflow_scripts.tables.assemble import joined_table
from workflow_scripts.tables.build import main
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.render.as_latex import to_latex
from workflow_scripts.tables.render.escapes import latex
from workflow_scripts.tables.results import MEASUREMENTS, RESULTS
from workflow_scripts.tables.run import Run


def build(bench: SimpleNamespace, out: str = "out") -> Path:
    main([*bench.argv(bench), "--out", str(bench.root / out)])
    return bench.root / out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def markdown_row(path: Path, label: str) -> list[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == label:
            return cells
    raise AssertionError(f"no row {label!r} in {path}")


def table_of(fids: dict[str, float], metric: str = "fid", direction: str = "lower", **families):
    """Build Table 1 of models that have one value each."""
    models = [{"key": key, "family": families.get(key, "external")} for key in fids]
    records = Records()
    for key, value in fids.items():
        values = [Value(metric, value, direction, 90)]
        records.add(Record("fidelity", key, "rad_dino", "sound", values))
    run = Run(records, parse_models(json.dumps(models)), "World")
    return joined_table(LAYOUTS["table01_fidelity"], run)


def ranks(table, metric: str = "fid") -> dict[str, str | None]:
    return {
        row.key: cell.rank
        for row in table.rows
        for cell in row.cells
        if cell.column.metric == metric
    }


def test_the_caption_names_models_whose_images_are_no_draws_of_their_own():
    models, records = [{"key": key, "family": "external"} for key in ("mine", "other")], Records()
    for model, repeated in (("mine", 4), ("other", 0)):
        read = {"encoder": "rad_dino", "repeated_images": repeated, "constant_images": 0}
        for stage, family in (("fidelity", "rad_dino"), ("privacy", "pairwise")):
            values = [Value("fid", 1.0, "lower", 90)] if stage == "fidelity" else []
            given = {"inputs": [read] if stage == "fidelity" else []}
            records.add(Record(stage, model, family, "sound", values, {}, given))
    run = Run(records, parse_models(json.dumps(models)), "World")
    stems = ("table01_fidelity", "table03_privacy")
    tables = {stem: joined_table(LAYOUTS[stem], run) for stem in stems}
    said = "not independent, although the intervals treat them so: mine: 4 repeat another."
    assert said in tables["table01_fidelity"].caption
    assert "not independent" not in tables["table03_privacy"].caption


# The join


def test_every_table_in_four_formats_with_the_papers_columns_first(bench):
    out = build(bench)
    expected = {f"{stem}.{suffix}" for stem in STEMS for suffix in ("csv", "md", "tex", "html")}
    expected |= {RESULTS, MEASUREMENTS}
    assert {path.name for path in out.iterdir()} == expected
    header = (out / "table01_fidelity.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith(
        "Model,Size,Default Resolution,Prev. Available For CXR?,Fine-Tuning,FID ↓ (RadDino),"
        "KID ↓ (RadDino),Alignment Score ↑,Precision ↑,Recall ↑,Density ↑,Coverage ↑,"
    )
    header = (out / "table02_fid_per_pathology.csv").read_text(encoding="utf-8")
    assert header.startswith(
        "Model,Atelectasis,Cardiomegaly,Consolid.,Edema,EC,Fracture,LL,LO,NF,PE,PO,PN,PT,SD,"
    )


def test_a_row_holds_every_digit_n_and_interval(bench):
    rows = rows_of(build(bench) / "table01_fidelity.csv")
    assert [row["Model"] for row in rows] == ["SD V1-4", "Sana", "Mine & co_1 100%", "Noise"]
    assert [row["Block"] for row in rows] == ["model", "model", "model", "control"]
    first = rows[0]
    assert (first["Size"], first["Default Resolution"], first["Fine-Tuning"]) == (
        "0.86B",
        "512",
        "FFT",
    )
    assert first["Prev. Available For CXR?"] == "✓"
    assert rows[1]["Prev. Available For CXR?"] == "✗"
    assert rows[2]["Prev. Available For CXR?"] == "–"
    fid = "FID ↓ (RadDino)"
    assert float(first[fid]) == 125.1864
    assert (first[f"{fid} [n]"], first[f"{fid} [n reference]"]) == ("60", "55")
    assert float(first[f"{fid} [low]"]) == pytest.approx(123.1864)
    assert float(first[f"{fid} [high]"]) == pytest.approx(127.1864)


def test_a_name_that_is_a_formula_is_run_by_no_spreadsheet(bench):
    bench.models[2]["display"]["name"] = "=HYPERLINK(A1)"
    rows = rows_of(build(bench) / "table01_fidelity.csv")
    assert rows[2]["Model"] == "'=HYPERLINK(A1)"
    controls = {float(row["Alignment Score ↑"]) for row in rows if row["Block"] == "control"}
    assert max(controls) < 0  # and a number below zero has no apostrophe


def test_privacy_is_transposed_and_a_missing_model_says_why(bench):
    out = build(bench)
    rows = rows_of(out / "table03_privacy.csv")
    assert [row["Model"] for row in rows] == [
        "Avg. Re-ID Score ↓",
        "Avg. Latent Distance ↑",
        "Avg. Pixel Distance ↑",
        "Max. Re-ID Score ↓",
        "Count Re-ID > δ ↓",
    ]
    assert float(rows[0]["Sana"]) == 0.551
    assert rows[0]["Mine & co_1 100%"] == "–"
    reason = "no images of the prompt set `privacy` were given"
    assert rows[0]["Notes"] == f"{reason} (Mine & co_1 100%)"
    markdown = (out / "table03_privacy.md").read_text(encoding="utf-8")
    assert "–<sup>1</sup>" in markdown
    assert f"<sup>1</sup> {reason}".replace("`", "\\`") in markdown
    latex = (out / "table03_privacy.tex").read_text(encoding="utf-8")
    assert r"--\textsuperscript{1}" in latex
    assert rf"\textsuperscript{{1}}\,{reason}" in latex


def test_a_model_that_was_not_run_has_dashes_that_say_so(bench):
    bench.files["fidelity"].remove(bench.path_of("fidelity", "sana"))
    out = build(bench)
    row = rows_of(out / "table01_fidelity.csv")[1]
    assert row["Model"] == "Sana"
    assert row["KID ↓ (RadDino)"] == "–"
    assert row["Notes"].startswith("not run (")
    assert "<sup>1</sup> not run" in (out / "table01_fidelity.md").read_text(encoding="utf-8")


def test_a_value_that_cannot_be_computed_keeps_its_n_and_reason(bench):
    row = rows_of(build(bench) / "table02_fid_per_pathology.csv")[0]
    assert (row["PO"], row["PO [n]"]) == ("–", "1")
    assert row["Notes"] == "1 generated image: at least 2 are needed (PO)"


def test_the_floor_is_a_row_of_its_own_below_the_controls(bench):
    rows = rows_of(build(bench) / "table02_fid_per_pathology.csv")
    assert [row["Block"] for row in rows] == ["model", "model", "model", "control", "floor"]
    assert [float(rows[-1][name]) for name in ("Atelectasis", "SD")] == [20.0, 33.0]
    assert "Floor" in (bench.root / "out" / "table02_fid_per_pathology.tex").read_text()


def test_a_floor_says_which_radiographs_it_is_drawn_from(bench):
    label = "*Radiographs of the floor*"
    assert label not in (build(bench) / "table02_fid_per_pathology.md").read_text()
    for path in bench.files["fidelity"]:
        floors = {"Atelectasis": {"drawn_from": "finding"}, "Edema": {"drawn_from": "all"}}
        record = read_record(path)
        own = replace(record, details=record.details | {"floors": {"fid_floor": floors}})
        write_record(own, path)
    out = build(bench, "again")
    row = markdown_row(out / "table02_fid_per_pathology.md", label)
    assert (row[1], row[4]) == ("with it", "all")
    assert set(row[1:]) == {"with it", "all", "–"}
    assert label not in (out / "table02b_kid_per_pathology.md").read_text()


def test_other_references_stand_beside_the_prompts_radiographs(bench):
    path = bench.path_of("fidelity", "sana")
    record = read_record(path)
    beside = [Value("fid_test_set", 99.0, "lower", 60, n_reference=75)]
    write_record(replace(record, values=[*record.values, *beside]), path)
    row = rows_of(build(bench) / "table01d_references.csv")[1]
    assert float(row["FID ↓, prompts' radiographs"]) == record.get("fid").value
    assert float(row["FID ↓, whole test set"]) == 99
    assert row["FID ↓, whole test set [n reference]"] == "75"
    assert "the record has no kid_studies" in row["Notes"]


def test_real_data_alone_heads_the_classification_tables(bench):
    out = build(bench)
    for stem, label in (
        ("table04_classification_augmented", "Original"),
        ("table15_classification_synthetic_only", "Original (Real)"),
    ):
        rows = rows_of(out / f"{stem}.csv")
        assert (rows[0]["Model"], rows[0]["Block"]) == (label, "real")
        assert float(rows[0]["Edema"]) == pytest.approx(0.75 + 3 / 200)
    averages = [row["Average"] for row in rows_of(out / "table04_classification_augmented.csv")]
    assert [float(value) for value in averages] == [0.75, 0.76, 0.761, 0.70, 0.5]
    assert rows_of(out / "table15_classification_synthetic_only.csv")[-1]["EC"] == "–"


def test_feet_count_what_the_values_rest_on(bench):
    out = build(bench)
    generated = markdown_row(out / "table02_fid_per_pathology.md", "*Generated images*")
    assert generated[1:4] == ["30", "29", "28"]
    positives = markdown_row(out / "table04_classification_augmented.md", "*Positive test images*")
    tested = bench.frame[bench.frame["split"] == "test"]
    assert positives[1:] == [str(int((tested[name] == 1).sum())) for name in FINDINGS] + ["–"]


def test_a_changed_record_changes_the_tables_that_show_it_and_no_other(bench):
    before = {path.name: path.read_bytes() for path in build(bench).iterdir()}
    path = bench.path_of("fidelity", "sana")
    bench.rewrite(path, read_record(path), "fid", "Edema", value=1.5, interval=None)
    after = {path.name: path.read_bytes() for path in build(bench, "again").iterdir()}
    changed = {name.partition(".")[0] for name in before if before[name] != after[name]}
    changed -= {"tables", "measurements"}
    prevalence = {"table09_prevalence", "table09b_prevalence_correlation"}
    assert changed == {"table02_fid_per_pathology"} | prevalence
    assert rows_of(bench.root / "again/table02_fid_per_pathology.csv")[1]["Edema"] == "1.5"


def test_tables_are_the_same_bytes_from_run_to_run_and_from_any_order_of_files(bench):
    first = {path.name: path.read_bytes() for path in build(bench).iterdir()}
    for files in bench.files.values():
        files.reverse()
    assert {path.name: path.read_bytes() for path in build(bench, "again").iterdir()} == first


# Best and second


def test_lower_is_better_for_fid_and_higher_for_coverage():
    assert ranks(table_of({"a": 3.0, "b": 1.0, "c": 2.0})) == {
        "a": None,
        "b": "best",
        "c": "second",
    }
    coverage = table_of({"a": 0.3, "b": 0.1, "c": 0.2}, "coverage", "higher")
    assert ranks(coverage, "coverage") == {"a": "best", "b": None, "c": "second"}


def test_values_that_read_the_same_share_their_mark():
    tied = ranks(table_of({"a": 1.00001, "b": 1.00002, "c": 2.0, "d": 3.0}))
    assert tied == {"a": "best", "b": "best", "c": "second", "d": None}
    second = ranks(table_of({"a": 1.0, "b": 2.0, "c": 2.0}))
    assert second == {"a": "best", "b": "second", "c": "second"}


def test_controls_do_not_compete():
    table = table_of({"a": 3.0, "b": 2.0, "copies": 0.0}, copies="control")
    assert ranks(table) == {"a": "second", "b": "best", "copies": None}


def test_one_model_alone_is_not_the_best():
    assert ranks(table_of({"a": 3.0, "noise": 9.0}, noise="control")) == {"a": None, "noise": None}


def test_marks_stand_in_markdown_and_latex(bench):
    out = build(bench)
    assert markdown_row(out / "table01_fidelity.md", "Sana")[5].startswith("**54.225** (52.225 to")
    assert markdown_row(out / "table01_fidelity.md", "Mine & co\\_1 100%")[5].startswith(
        "<u>80.000"
    )
    latex = (out / "table01_fidelity.tex").read_text(encoding="utf-8")
    assert r"\textbf{54.225}$^{56.225}_{52.225}$" in latex
    assert r"\underline{80.000}" in latex


def test_zero_has_no_sign():
    cell = table_of({"a": -0.0001}, "kid", "lower").rows[0].cells[1]
    assert cell.text == "0.000"


# Published beside measured


def test_published_stands_beside_the_papers_models_on_its_data_only(bench):
    bench.dataset = "MIMIC-CXR"
    out = build(bench)
    rows = rows_of(out / "table01_fidelity.csv")
    published = [row["FID ↓ (RadDino) [published]"] for row in rows]
    assert published == ["125.186", "54.225", "", ""]
    markdown = (out / "table01_fidelity.md").read_text(encoding="utf-8")
    assert markdown.count("*published*") == 2
    assert "protocols differ" in markdown
    privacy = rows_of(out / "table03_privacy.csv")[4]
    assert privacy["SD V1-4 [published]"] == "434"


@pytest.mark.parametrize("dataset", ["World", "MIMIC-CXR-JPG", "mimic-cxr", ""])
def test_published_never_stands_beside_other_data(bench, dataset):
    bench.dataset = dataset
    for path in build(bench).iterdir():
        if path.name == MEASUREMENTS:  # has no column for them
            continue
        text = re.sub(r"[Aa]s[ _\\]*published", "", path.read_text(encoding="utf-8"))
        assert "ublished" not in text
        assert 'class="paper"' not in text


def test_under_as_published_the_difference_to_the_paper_stands_beside(published_bench):
    """Sana's KID: 0.0542251 measured, 0.016 printed; SD V1-4's FID: 125.1864 and 125.186."""
    out = build(published_bench)
    rows = rows_of(out / "table01_fidelity.csv")
    kid, fid = "KID ↓ (RadDino)", "FID ↓ (RadDino)"
    assert float(rows[1][f"{kid} [difference]"]) == pytest.approx(0.0382251)
    assert float(rows[0][f"{fid} [difference]"]) == pytest.approx(0.0004)
    assert rows[2][f"{fid} [difference]"] == ""  # the paper has no such model
    assert markdown_row(out / "table01_fidelity.md", "*published*")[6] == "*0.172 (-0.047)*"
    assert r"\itshape 0.172 ($-$0.047)" in (out / "table01_fidelity.tex").read_text()
    assert "paper 0.016 (+0.038)" in (out / "table01_fidelity.html").read_text()
    privacy = rows_of(out / "table03_privacy.csv")[4]
    assert float(privacy["SD V1-4 [difference]"]) == 5 - 434


def test_between_protocols_no_difference_is_taken(bench):
    bench.dataset = "MIMIC-CXR"
    out = build(bench)
    assert "[difference]" not in (out / "table01_fidelity.csv").read_text()
    assert markdown_row(out / "table01_fidelity.md", "*published*")[5] == "*125.186*"
    text = (out / "table01_fidelity.html").read_text()
    assert "paper 125.186<" in text
    assert "The protocols differ" in text


def test_both_protocols_stand_side_by_side_and_published_values_beside_theirs(bench):
    bench.dataset = "MIMIC-CXR"
    other = replace(privacy("sana", "as_published"), protocol="as_published")
    values = [replace(v, value=0.4) if v.metric == "reid_mean_of_max" else v for v in other.values]
    path = bench.root / "as_published/sana.json"
    write_record(replace(other, values=values), path)
    bench.files["privacy"].append(str(path))
    rows = rows_of(build(bench) / "table03f_protocols.csv")
    row = next(row for row in rows if row["Model"] == "Sana")
    header = "Avg. Re-ID Score ↓"
    assert (row[f"{header} (sound)"], row[f"{header} (as published)"]) == ("0.551", "0.4")
    assert row[f"{header} (as published) [published]"] == "0.551"
    assert row[f"{header} (sound) [published]"] == ""
    # Under `sound` too, the columns of the paper's own protocol are set against the paper.
    assert float(row[f"{header} (as published) [difference]"]) == pytest.approx(0.4 - 0.551)
    # Elsewhere the other protocol's record changes nothing.
    assert rows_of(bench.root / "out/table03_privacy.csv")[0]["Sana"] == "0.551"


def test_table_17_sets_models_side_by_side_that_differ_in_their_captions_alone(bench):
    settings = {"base": "weights/a", "caption_source": "llava_rad"}
    for model in bench.models[:3]:
        model["settings"] = settings
    bench.models[1]["settings"] = settings | {"base": "weights/b"}
    bench.models[2]["settings"] = settings | {"caption_source": "impression"}
    out = build(bench)
    rows = rows_of(out / "table17a_caption_fidelity.csv")
    assert [
        [row[name] for name in ("Model", "Prompt Type", "FID (RadDino) ↓")] for row in rows
    ] == [
        ["SD V1-4", "LLaVA-Rad", "125.1864"],
        ["Mine & co_1 100%", "Original MIMIC", "80.0"],
    ]
    # The second has no privacy images: its dash says why.
    text = (out / "table17b_caption_privacy.md").read_text()
    assert "no images of the prompt set `privacy` were given" in text.replace("\\", "")


def test_without_models_that_differ_in_their_captions_table_17_says_so(bench):
    text = (build(bench) / "table17a_caption_fidelity.md").read_text()
    assert "no two models differ in their caption source alone" in text


def test_a_control_without_images_of_a_prompt_set_by_design_has_no_row(bench):
    bench.models[3]["missing"] = {"test": "no images of the prompt set `test` were given"}
    bench.files["fidelity"].remove(bench.path_of("fidelity", "noise"))
    assert "Noise" not in (build(bench) / "table01_fidelity.md").read_text()
    assert "Noise" in (bench.root / "out/table03_privacy.md").read_text()


def test_under_as_published_the_protocols_do_not_differ(published_bench):
    markdown = (build(published_bench) / "table01_fidelity.md").read_text(encoding="utf-8")
    assert "protocol as\\_published" in markdown
    assert "Published: the paper's value" in markdown
    assert "differ" not in markdown


# Refusals


def test_a_record_of_an_unknown_model_is_refused(bench):
    bench.models.pop(1)
    with pytest.raises(InputError, match=r"'sana'.*not among"):
        build(bench)
    assert not (bench.root / "out").exists()


def read_of(encoder: str = "rad_dino", collection: str = "real", **changes: str) -> dict[str, str]:
    """What a record says of a feature file that it rests on."""
    own = {"weights_sha256": "w", "preprocessing": "resize", "collection_sha256": collection}
    return {"encoder": encoder, "collection": collection, **own, **changes}


def rests_on(bench: SimpleNamespace, stage: str, model: str, *inputs: dict[str, str]) -> None:
    """Let a record say what feature files it rests on."""
    path = bench.path_of(stage, model)
    record = read_record(path)
    said = {**record.provenance, "inputs": list(inputs)}
    write_record(replace(record, provenance=said), path)


def test_records_of_the_same_encoders_stand_in_one_table(bench):
    for model in ("sd_v1_4", "sana"):
        rests_on(bench, "fidelity", model, read_of(), read_of(collection=model))
        # Privacy prepares images in its own way, and compares with other radiographs.
        own = read_of(preprocessing="squash", collection_sha256="training")
        rests_on(bench, "privacy", model, own, read_of("reid", weights_sha256="r"))
    build(bench)


@pytest.mark.parametrize(
    ("stage", "changes", "told"),
    [
        ("fidelity", {"weights_sha256": "other"}, "another weights_sha256 of rad_dino.*'w' and"),
        ("privacy", {"weights_sha256": "other"}, "another weights_sha256 of rad_dino"),
        ("fidelity", {"preprocessing": "squash"}, "another preprocessing of rad_dino"),
        ("fidelity", {"collection_sha256": "others"}, "another collection_sha256 of rad_dino"),
    ],
)
def test_records_that_rest_on_other_weights_or_references_are_refused(bench, stage, changes, told):
    rests_on(bench, "fidelity", "sd_v1_4", read_of())
    rests_on(bench, stage, "sana", read_of(**changes))
    with pytest.raises(InputError, match=told) as caught:
        build(bench)
    assert "fidelity/rad_dino of sd_v1_4" in str(caught.value.where)
    assert f"{stage}/" in str(caught.value.where)
    assert "of sana" in str(caught.value.where)


def test_a_record_of_another_protocol_is_refused(bench):
    path = bench.path_of("fidelity", "sana")
    write_record(replace(read_record(path), protocol="as_published"), path)
    with pytest.raises(InputError, match="as_published"):
        build(bench)


def test_a_record_of_another_stage_is_refused(bench):
    bench.files["privacy"].append(bench.path_of("fidelity", "sana"))
    with pytest.raises(InputError, match="a fidelity record"):
        build(bench)


def test_two_records_of_one_model_are_refused(bench):
    bench.files["fidelity"].append(bench.path_of("fidelity", "sana"))
    with pytest.raises(InputError, match="two fidelity records"):
        build(bench)


def test_a_record_with_the_opposite_direction_is_refused(bench):
    path = bench.path_of("fidelity", "sana")
    bench.rewrite(path, read_record(path), "fid", "all", direction="higher")
    with pytest.raises(InputError, match="higher is better"):
        build(bench)


def test_a_record_of_no_known_family_is_refused(bench):
    path = bench.path_of("downstream", "sana")
    write_record(replace(read_record(path), family="classification/misspelt"), path)
    with pytest.raises(InputError, match="misspelt"):
        build(bench)


def test_a_truncated_record_is_refused(bench):
    path = Path(bench.path_of("fidelity", "sana"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot read a record"):
        build(bench)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '["sana"]',
        '[{"key": "a"}]',
        '[{"key": "a", "family": "control"}, {"key": "a", "family": "control"}]',
        '[{"key": "a", "family": "control", "colour": "red"}]',
        '[{"key": "a", "family": "control", "missing": {"fidelity": "a stage, not a prompt set"}}]',
    ],
)
def test_a_bad_list_of_models_is_refused(text):
    with pytest.raises(InputError):
        parse_models(text)


# LaTeX


def test_latex_escapes_what_is_special():
    assert latex("50% of a_b & c#d $x {y} ~z^2") == (
        r"50\% of a\_b \& c\#d \$x \{y\} \textasciitilde{}z\textasciicircum{}2"
    )
    assert latex("a\\b") == r"a\textbackslash{}b"
    assert latex("Pixart Σ ≥ ↑ –") == r"Pixart $\Sigma$ $\geq$ $\uparrow$ --"
    assert latex("Pérez-García, ő, 漢") == r"P\'{e}rez-Garc\'{i}a, o, ?"
    assert latex("two\nlines") == "two lines"


def test_latex_has_every_letter_of_the_tables():
    package = Path(__file__).resolve().parents[2] / "workflow_scripts"
    files = [package / "tables/phrases.yaml", *package.rglob("table*.yaml")]
    files += package.rglob("measures.py")
    assert len(files) > 50
    letters = {letter for file in files for letter in file.read_text(encoding="utf-8")} - {"?"}
    assert not [letter for letter in letters if "?" in latex(letter)]


def test_latex_is_balanced_and_every_row_is_as_wide_as_the_table(bench):
    bench.dataset = "MIMIC-CXR"
    for path in build(bench).glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        bare = re.sub(r"\\[{}]", "", text)
        assert bare.count("{") == bare.count("}")
        assert text.isascii()
        columns = re.search(r"\\begin\{tabular\}\{(.*)\}\n", text)
        assert columns is not None
        width = len(re.sub(r"@\{[^}]*\}\}?", "", columns[1]).replace("}", ""))
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {width}
        assert text.count("\\toprule") == text.count("\\bottomrule") == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
@pytest.mark.parametrize("packages", ["booktabs", "booktabs,graphicx"])
def test_latex_compiles_as_it_is(bench, packages):
    bench.dataset = "MIMIC-CXR"
    bench.models[2]["display"]["name"] = r'Mine_1 & 50% #2 {x} ~ ^ \ $ "é" <Σ>'
    out = build(bench)
    document = out / "all.tex"
    # LaTeX keeps no more than some fifty tables that it has not placed.
    body = "\n".join(f"\\input{{{stem}}}\n\\clearpage" for stem in STEMS)
    document.write_text(
        f"\\documentclass{{article}}\n\\usepackage{{{packages}}}\n"
        f"\\begin{{document}}\n{body}\n\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", document.name],
        cwd=out,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (out / "all.pdf").is_file()


def test_latex_of_an_empty_run_says_why_everything_is_a_dash():
    models = parse_models(json.dumps([{"key": "a", "family": "external"}]))
    derived = {f"{number:02}" for number in range(8, 15)}
    joined = [
        stem
        for stem in STEMS
        if stem[5:7] not in derived and stem[5:8] not in ("01c", "21c", "21d", "25_", "25b", "25c")
    ]
    assert len(joined) == 44
    for stem in joined:
        table = joined_table(LAYOUTS[stem], Run(Records(), models, "World"))
        assert all(note.startswith("not run") for note in table.notes)
        assert "not run" in to_latex(table)


def test_what_rests_on_few_images_is_not_marked_and_neither_is_what_stands_beside_it():
    """A KID of one or two images is the lowest by chance."""

    def marks(n, n_reference):
        found = []
        for key, kid in (("a", -1.9), ("b", 0.2), ("c", 0.1)):
            count = (n, n_reference) if key == "a" else (40, 40)
            value = Value("kid", kid, "lower", count[0], "Fracture", count[1])
            found.append(Record("fidelity", key, "rad_dino", "sound", [value]))
        records = Records("sound")
        for record in found:
            records.add(record)
        models = parse_models(json.dumps([{"key": key, "family": "external"} for key in "abc"]))
        run = Run(records, models, "World")
        table = joined_table(LAYOUTS["table02b_kid_per_pathology"], run)
        (j,) = (j for j, c in enumerate(table.layout.columns) if c.subset == "Fracture")
        return [row.cells[j].rank for row in table.rows if row.kind == "model"]

    assert marks(10, 10) == ["best", None, "second"]
    assert marks(9, 40) == [None] * 3
    assert marks(40, 9) == [None] * 3
