"""What is published shows no patient: the packer refuses, and another search finds what it must."""

import base64
import html
import io
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.tables import leaks
from tests.tables.conftest import make_bench
from tests.workflow.checkouts import ROOT
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import read_manifest, write_manifest
from workflow_scripts.tables import report
from workflow_scripts.tables.release import (
    check,
    figures_of,
    main,
    pack,
    without_nodes,
    without_site,
)

PASSAGES = [
    "The lungs are clear. No pleural effusion or pneumothorax is seen.",
    "Clear lungs.",
    "Fall from a ladder, rule out fracture",
]
IDS = {"p10000032", "s50414267", "02aa804e-bde0afdd-112c0b34-7bc16630", "12"}


def jpeg(size=64):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).resize((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seen: p10000032", "1 ids"),
        ('{"patient": 10000032}', "1 ids"),
        ("features/p10/p10000032/s50414267.h5", "2 ids"),
        ("02aa804e-bde0afdd-112c0b34-7bc16630.jpg", "1 ids"),
        ("prefix_s50414267_suffix", "1 ids"),
        ("x THE LUNGS  are\nclear; no pleural x", "1 captions"),
        ("asked: fall from a ladder; rule out", "1 captions or indications"),
        (f'<a href="data:text/csv;base64,{base64.b64encode(b"a,p10000032").decode()}">', "1 ids"),
        ('<img src="data:image/png;base64,AAAA">', "image is embedded"),
        ("<svg><image href='x.png'/></svg>", "image is embedded"),
        (json.dumps({"x": base64.b64encode(jpeg()).decode()}), "image is encoded"),
        (jpeg(), "only text"),
        (b"plain\0zero", "only text"),
    ],
)
def test_a_bundle_that_would_tell_is_refused(text, message):
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(InputError, match=message) as caught:
        check({"good.txt": b"nothing here", "bad.txt": data}, IDS, PASSAGES)
    assert "bad.txt" in str(caught.value)
    assert "10000032" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["12 of 2,000 prompts", "Clear lungs.", "the lungs are clear in 12", "p100000321", ""],
)
def test_what_tells_nothing_is_packed(text):
    check({"good.txt": text.encode()}, IDS, PASSAGES)


def test_absolute_paths_of_the_site_are_shortened():
    config = {"root": "/home/someone/mimic", "list": ["/a/b", "weights/x", 3], "plain": "a/b"}
    expected = {"root": ".../mimic", "list": [".../b", "weights/x", 3], "plain": "a/b"}
    assert without_site(config) == expected


def test_the_same_members_give_the_same_bytes_in_any_order():
    assert pack({"a": b"1", "b": b"2"}) == pack({"b": b"2", "a": b"1"})


def svg(*lines):
    """An SVG whose letters are outlines, beside each line its text, as matplotlib writes it."""
    return "<svg>" + "".join(f"<!-- {line} --><path d='M 0 1'/>" for line in lines) + "</svg>"


def pdf(part, filters=b"/Filter /FlateDecode"):
    return (
        b"%PDF-1.4\n1 0 obj\n<< /Length 9 " + filters + b" >>\nstream\n" + part + b"\nendstream\n"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (svg("The lungs are", "clear. No pleural", "effusion").encode(), "captions or indications"),
        (svg("of p10000032").encode(), r"\d ids"),
        (pdf(zlib.compress(b"<< /Type /XObject /Subtype /Image /Width 8 >>")), "shows an image"),
        (pdf(jpeg(), b"/Subtype /Image /Filter /DCTDecode"), "shows an image"),
        (pdf(b"\0" * 40, b"/Filter /LZWDecode"), "shows an image"),
        (pdf(b"not compressed"), "cannot be read"),
    ],
)
def test_a_figure_that_would_tell_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        check({"figure": data}, IDS, PASSAGES)


def test_a_pdf_is_packed_only_beside_the_svg_that_says_the_same(tmp_path):
    for name in ("a.svg", "a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(b"x")
    found = figures_of([tmp_path / "a.pdf", tmp_path / "a.svg"])
    assert set(found) == {"figures/a.pdf", "figures/a.svg"}
    with pytest.raises(InputError, match=r"only beside the SVG(.|\n)*b\.pdf"):
        figures_of([tmp_path / "a.svg", tmp_path / "b.pdf"])


def flags_of(bench, public, tables=None):
    tables = tables or sorted((bench.root / "out").glob("table[0-9]*"))
    records = [path for files in bench.files.values() for path in files]
    return [
        *("--dataset", "World", "--tables", *map(str, tables)),
        *("--records", *records, "--report", str(public)),
        *("--config", json.dumps({"run_models": ["sana"], "root": str(bench.root)})),
        *("--lock", str(bench.root / "core.lock.txt"), "--citation", str(ROOT / "CITATION.cff")),
        *("--manifest", str(bench.manifest)),
        *("--prompts", str(bench.prompts), "--output", str(bench.root / "release.tar.gz")),
    ]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A small benchmark and its report without images, of built tables."""
    return publish(make_bench(tmp_path_factory.mktemp("published")))


def publish(bench):
    """Build a benchmark's tables and its reports, with images and without."""
    built, out = bench.built(bench), bench.root / "out"
    bench.public = bench.root / "public.html"
    report.main(
        [
            *built,
            *("--prompts", str(bench.prompts), "--tables", str(out)),
            *("--images", *bench.images),
            *("--output", str(bench.root / "report.html"), "--public", str(bench.public)),
        ]
    )
    return bench


@pytest.fixture
def bench(published):
    """The same without what other tests packed."""
    (published.root / "core.lock.txt").write_text("torch==2.13.0\n")
    (published.root / "release.tar.gz").unlink(missing_ok=True)
    return published


@pytest.fixture
def public(bench):
    return bench.public


def cohort_of(bench):
    return np.stack([leaks.small(Image.open(path)) for path in bench.frame["path"]])


def test_the_bundle_holds_tables_records_config_and_no_patient(bench, public):
    main(flags_of(bench, public))
    data = (bench.root / "release.tar.gz").read_bytes()
    with tarfile.open(bench.root / "release.tar.gz") as archive:
        names = [name.removeprefix("chexgenbench-release/") for name in archive.getnames()]
        config = yaml.safe_load(archive.extractfile("chexgenbench-release/config.yaml"))
    others = {"config.yaml", "contents.json", "report.html", "core.lock.txt", "CITATION.cff"}
    assert others <= set(names)
    assert "tables/table01_fidelity.csv" in names
    records = [name for name in names if name.startswith("records/sound/")]
    assert "records/sound/downstream/classification/augmented/sana.json" in records
    assert len(records) == sum(len(files) for files in bench.files.values())
    assert config == {"run_models": ["sana"], "root": f".../{bench.root.name}"}
    assert leaks.images_in(data) == []
    words = leaks.words_in(data)
    for column in ("caption", "indication"):
        for text in bench.frame[column].dropna():
            assert text.lower() not in words


def test_the_bundle_names_no_node_but_the_job_and_the_gpu(bench, public):
    assert "gpu-node-17" in Path(bench.files["privacy"][0]).read_text()
    main(flags_of(bench, public))
    with tarfile.open(bench.root / "release.tar.gz") as archive:
        texts = {m.name: archive.extractfile(m).read().decode() for m in archive.getmembers()}
    assert [name for name, text in texts.items() if "gpu-node-17" in text] == []
    record = json.loads(texts["chexgenbench-release/records/sound/privacy/pairwise/sana.json"])
    assert record["provenance"]["slurm_node"] is None
    assert (record["provenance"]["slurm_job_id"], record["provenance"]["device"]) == ("4711", "cpu")


def test_nodes_of_training_runs_inside_a_record_are_taken_out():
    content = {"details": {"runs": [{"provenance": {"slurm_node": "n1", "device": "cpu"}}]}}
    expected = {"details": {"runs": [{"provenance": {"slurm_node": None, "device": "cpu"}}]}}
    assert without_nodes(content) == expected


def test_the_whole_report_is_refused_and_the_search_finds_its_radiographs(bench, public):
    whole = bench.root / "report.html"
    with pytest.raises(InputError, match="image is embedded"):
        main(flags_of(bench, whole))
    assert not (bench.root / "release.tar.gz").exists()
    # The other search, on what was refused: it would have seen radiographs and captions.
    data = whole.read_bytes()
    found = leaks.images_in(data)
    assert len(found) > 6
    assert any(leaks.resembles(image, cohort_of(bench)) for image in found)
    words = html.unescape(leaks.words_in(data))
    assert any(caption.lower() in words for caption in bench.frame["caption"].dropna())


def test_the_public_report_says_nothing_of_images(public):
    text = public.read_text(encoding="utf-8")
    assert "<img" not in text
    assert "riskiest_pairs" not in text
    assert 'id="examples"' not in text


def test_a_record_that_names_a_patient_is_refused(bench, public):
    frame = read_manifest(bench.manifest)
    frame["image_id"] = frame["image_id"].replace({"i0": "image-zero"})
    write_manifest(frame, bench.root / "other.parquet")
    flags = flags_of(bench, public)
    lock = bench.root / "core.lock.txt"
    lock.write_text("image-zero\n")
    flags[flags.index(str(bench.manifest))] = str(bench.root / "other.parquet")
    with pytest.raises(InputError, match=r"1 ids(.|\n)*core\.lock\.txt"):
        main(flags)


def test_a_record_that_repeats_an_indication_is_refused(bench, public):
    lock = bench.root / "core.lock.txt"
    lock.write_text("asked for: fall from height 3 days ago\n")
    with pytest.raises(InputError, match=r"1 captions or indications(.|\n)*core\.lock\.txt"):
        main(flags_of(bench, public))
