"""The figures: each mark that ought to be there and no other, whole files, no patient in public."""

import html
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.tables import leaks
from tests.tables.conftest import make_bench
from tests.tables.test_release import flags_of as release_flags
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.costs.attempts import attempts_to_csv
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.score import LENSES, PAIR_SCHEMA
from workflow_scripts.privacy.score_closest import PAIR_SCHEMA as CLOSEST_SCHEMA
from workflow_scripts.tables import build_figures, release
from workflow_scripts.tables.figures.rows import QUANTILES, spreads
from workflow_scripts.tables.figures.style import COLOURS, MARKERS, model_styles
from workflow_scripts.tables.results import MEASUREMENTS

RULES = [
    {"name": "cohort_manifest", "jobs": 1, "inputs": []},
    {"name": "generate_sample", "jobs": 4, "inputs": ["cohort_manifest"]},
    {"name": "generate_export", "jobs": 0, "inputs": ["generate_sample"]},
    {"name": "tables_build", "jobs": 1, "inputs": ["cohort_manifest", "generate_sample"]},
]
NO_JOBS = attempts_to_csv([])


def scores_of(prompts, seed):
    rng = np.random.default_rng(seed)
    rows = [
        {"prompt_id": f"{p}-r{k}", "image_id": f"i{i}", "replicate": k}
        | {lens: float(rng.random()) for lens in LENSES}
        for i, p in enumerate(prompts)
        for k in range(3)
    ]
    return pd.DataFrame(rows)


def closest_of(prompts, seed):
    rng = np.random.default_rng(seed)
    n = len(prompts)
    training = rng.integers(10, 30, n)
    return pd.DataFrame(
        {
            "prompt_id": prompts,
            "patient_id": [f"p{i}" for i in range(n)],
            "match": np.zeros(n, np.int32),
            "latent_image_id": [f"i{k}" for k in training],
            "latent_patient_id": [f"p{k}" for k in training],
            "latent": rng.random(n),
            "training_latent": 0.5,
            "reid_image_id": [f"i{k}" for k in training],
            "reid_patient_id": [f"p{k}" for k in training],
            "reid": rng.random(n),
        }
    )


def flags_of(bench, out, models=("sd_v1_4", "sana", "noise")):
    prompts = pd.read_parquet(bench.prompts)["prompt_id"].tolist()
    flags = []
    for seed, model in enumerate(models):
        scores, pairs = bench.root / f"{model}_scores.parquet", bench.root / f"{model}.parquet"
        write_private_table(scores_of(prompts, seed), PAIR_SCHEMA, scores)
        write_private_table(closest_of(prompts, seed), CLOSEST_SCHEMA, pairs)
        flags += ["--scores", f"{model}={scores}", "--pairs", f"{model}={pairs}"]
        flags += ["--privacy-images", *[i for i in bench.images if i.startswith(f"{model}=")]]
    vocabulary = bench.root / "radedit" / "text_encoder" / "vocab.txt"
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "caption", "of", "the", "lungs"]
    vocabulary.write_text("\n".join(words))
    base = {"family": "radedit", "base": str(bench.root / "radedit"), "parts": {}}
    jobs = bench.root / "jobs.csv"
    jobs.write_text(bench.jobs)
    return [
        *bench.built(bench, "built"),
        *("--measurements", str(bench.root / "built" / MEASUREMENTS)),
        *flags,
        *("--images", *bench.images, "--test-prompts", str(bench.prompts)),
        *("--prompts", f"llava_rad={bench.prompts}", "--tokenizers", json.dumps({"sana": base})),
        *("--rules", json.dumps(RULES), "--jobs", str(jobs), "--out", str(out)),
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The figures of the small benchmark, built once."""
    bench = make_bench(tmp_path_factory.mktemp("bench"))
    bench.jobs = NO_JOBS
    bench.out = bench.root / "out"
    bench.flags = flags_of(bench, bench.out)
    build_figures.main(bench.flags)
    bench.listed = json.loads((bench.out / "figures.json").read_text())
    return bench


def svg_of(drawn, stem):
    return (drawn.out / f"{stem}.svg").read_text()


def marks(svg, colour):
    """How many marks an SVG has in a colour: lines and text are none."""
    return len(re.findall(rf'<use [^>]*style="fill: {colour.lower()}[;"]', svg))


def test_every_figure_is_written_and_listed(drawn):
    names = {path.name for path in drawn.out.iterdir()}
    listed = {name for entry in drawn.listed for name in (*entry["files"], *entry["data"])}
    assert names == listed | {"figures.json", "figures_inline.json"}
    assert [entry["number"] for entry in drawn.listed] == [str(k) for k in range(1, 15)]
    for entry in drawn.listed:
        assert entry["title"]
        assert len(entry["caption"]) > 20
    # The small benchmark has no KID of a finding and no texture, and no job has run.
    missing = {entry["stem"] for entry in drawn.listed if not entry["drawn"]}
    undrawn = {"figure05_kid_per_pathology", "figure12_costs", "figure13_texture_topology"}
    assert missing == undrawn


@pytest.mark.full
def test_the_same_inputs_give_the_same_bytes_in_two_other_processes(drawn, tmp_path):
    flags = [*drawn.flags, "--threads", "2"]
    flags[flags.index("--out") + 1] = str(tmp_path)
    subprocess.run(
        [sys.executable, "-m", "workflow_scripts.tables.build_figures", *flags],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONHASHSEED": "123"},
    )
    for path in drawn.out.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_patients_are_shown_to_the_owner_alone(drawn):
    of_patients = {entry["stem"] for entry in drawn.listed if entry["owner_only"]}
    assert of_patients == {"figure02_real_and_synthetic", "figure08_riskiest_pairs"}
    for path in drawn.out.glob("figure*.svg"):
        shows = "<image" in path.read_text()
        assert shows == (path.stem in of_patients)
        if shows:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.with_suffix(".pdf").stat().st_mode) == 0o600
    shown = html.unescape(svg_of(drawn, "figure02_real_and_synthetic"))
    captions = pd.read_parquet(drawn.prompts)["caption"]
    assert sum(caption in shown for caption in captions) == 6


def test_an_svg_needs_nothing_beside_it(drawn):
    for path in drawn.out.glob("figure*.svg"):
        text = path.read_text()
        assert re.findall(r'href="(?!#|data:)[^"]*"', text) == []
        assert "<!DOCTYPE" not in text
        assert "<text" not in text, "a letter needs a font"
        assert "<dc:date>" not in text


@pytest.mark.skipif(shutil.which("pdffonts") is None, reason="poppler is not installed")
def test_fonts_are_embedded_as_truetype(drawn):
    for path in drawn.out.glob("figure*.pdf"):
        lines = subprocess.run(
            ["pdffonts", str(path)], check=True, capture_output=True, text=True
        ).stdout.splitlines()[2:]
        assert lines, path.name
        for line in lines:
            assert "TrueType" in line, line
            assert "Type 3" not in line, line
        assert b"CreationDate" not in path.read_bytes()


def test_each_known_value_per_pathology_has_a_mark_and_a_missing_one_has_none(drawn):
    svg = svg_of(drawn, "figure04_fid_per_pathology")
    known = len(FINDINGS) - 1  # Pleural Other has too few images
    for colour in COLOURS[:3]:
        assert marks(svg, colour) == known + 1, "and one in the legend"
    assert "<!-- Pleural Other" in svg


def test_models_keep_their_mark_in_every_figure_and_without_colour():
    styles = model_styles(24)
    assert len({(s["color"], s["marker"]) for s in styles}) == 24
    assert len({s["marker"] for s in styles[: len(MARKERS)]}) == 12, "the paper has eleven models"
    assert {s["color"] for s in styles} == set(COLOURS)


def test_the_workflow_names_every_rule_and_how_many_jobs_it_has(drawn):
    svg = svg_of(drawn, "figure01_workflow")
    for rule in RULES:
        assert f'id="rule-{rule["name"]}"' in svg
    assert "<!-- × 4 -->" in svg
    assert "<!-- × 0 -->" not in svg
    # tables_build reads the manifest, which the path over generate_sample implies.
    lines = re.findall(r'<g id="patch_\d+">\s*<path d="[^"]*C[^"]*"[^>]*style="fill: none', svg)
    assert len(lines) == 3


def test_a_prompt_counts_with_its_riskiest_image():
    frame = scores_of([f"x{i}" for i in range(40)], 5)
    found = {spread.lens: spread for spread in spreads({"m": frame})}
    for lens, worst in (("reid", max), ("latent", min), ("pixel", min), ("mirrored", min)):
        values = [worst(group[lens]) for _, group in frame.groupby("image_id")]
        assert found[lens].prompts == 40
        expected = np.percentile(values, [100 * q for q in QUANTILES])
        assert found[lens].quantiles == pytest.approx(expected)


def test_distributions_and_gains_have_a_mark_for_each_model_that_has_them(drawn):
    privacy = svg_of(drawn, "figure07_privacy_distributions")
    # A median in each lens and the two extremes: `mine` has no images of the privacy prompts.
    for colour, lenses in zip(COLOURS[:3], (4, 4, 0), strict=True):
        assert marks(privacy, colour) == 3 * lenses
    gains = svg_of(drawn, "figure09_downstream_gains")
    for colour in COLOURS[:3]:
        assert marks(gains, colour) == 2, "classification and report generation"
    table = pd.read_csv(drawn.out / "figure07_privacy_distributions.csv")
    assert len(table) == 3 * 4
    assert (table["q0"] <= table["q50"]).all()


def test_captions_are_counted_in_tokens_and_cut_at_the_limit(drawn):
    cut = pd.read_csv(drawn.out / "figure03_captions_cut.csv")
    captions = pd.read_parquet(drawn.prompts)["caption"]
    # One token a word or mark that the vocabulary has or has not, and two around them.
    tokens = [len(re.findall(r"\w+|[^\w\s]", caption)) + 2 for caption in captions]
    assert cut["mean_length"].tolist() == pytest.approx([np.mean(tokens)])
    assert cut["longest"].tolist() == [max(tokens)]
    assert cut[["model", "limit", "share_cut"]].values.tolist() == [["sana", 128, 0.0]]
    lengths = pd.read_csv(drawn.out / "figure03_caption_lengths.csv")
    assert lengths["captions"].sum() == len(captions)
    assert (lengths["length"] * lengths["captions"]).sum() == sum(tokens)


def test_figures_of_radiographs_are_for_their_owner_and_on_no_page():
    of_patients = {figure.stem for figure in build_figures.FIGURES if figure.owner_only}
    assert of_patients == {"figure02_real_and_synthetic", "figure08_riskiest_pairs"}


def test_two_processes_make_figures_in_the_order_of_the_list_and_their_faults_arrive():
    figures = list(build_figures.FIGURES)
    with build_figures._mapped(attrgetter("stem"), 2) as made:
        assert list(made) == [figure.stem for figure in figures]
    with (
        build_figures._mapped(attrgetter("no_such_thing"), 2) as made,
        pytest.raises(AttributeError, match="no_such_thing"),
    ):
        next(made)


def test_without_any_record_each_figure_says_why(tmp_path):
    bench = make_bench(tmp_path)
    bench.jobs, bench.images = NO_JOBS, []
    bench.files = {stage: [] for stage in bench.files}
    out = tmp_path / "out"
    flags = flags_of(bench, out, models=())
    build_figures.main(flags)
    listed = {e["stem"]: e for e in json.loads((out / "figures.json").read_text())}
    assert {s for s, e in listed.items() if e["drawn"]} == {
        "figure01_workflow",
        "figure03_caption_lengths",
    }
    text = (out / "figure06_prevalence.svg").read_text()
    assert "<!-- Not drawn: no finding has both a count and an FID. -->" in text
    assert (out / "figure02_real_and_synthetic.pdf").is_file()


def test_figures_are_packed_but_for_those_of_patients(drawn):
    of_patients = ("figure02_real_and_synthetic", "figure08_riskiest_pairs")
    files = [path for path in sorted(drawn.out.iterdir()) if path.stem not in of_patients]
    (drawn.root / "core.lock.txt").write_text("torch==2.13.0\n")
    (drawn.root / "table.csv").write_text("nothing of patients\n")
    flags = release_flags(drawn, drawn.root / "table.csv", [drawn.root / "table.csv"])
    release.main([*flags, "--figures", *map(str, files)])
    data = (drawn.root / "release.tar.gz").read_bytes()
    with tarfile.open(drawn.root / "release.tar.gz") as archive:
        names = {Path(name).name for name in archive.getnames()}
    assert {path.name for path in files} <= names
    assert {"figure01_workflow.svg", "figure01_workflow.pdf", "figures.json"} <= names
    assert not [name for name in names if name.startswith(of_patients)]
    assert leaks.images_in(data) == []
    words = leaks.words_in(data)
    assert not [text for text in drawn.frame["caption"].dropna() if text.lower() in words]
    (drawn.root / "release.tar.gz").unlink()
    for stem in of_patients:
        for taken in (["svg"], ["pdf", "svg"]):
            paths = [str(drawn.out / f"{stem}.{suffix}") for suffix in taken]
            with pytest.raises(InputError, match=r"image is embedded|shows an image"):
                release.main([*flags, "--figures", *paths])
    assert not (drawn.root / "release.tar.gz").exists()
