"""A data source that is touched, copied or given another name reruns nothing; another content does.

Everything follows from the cohort, so what does not rerun it reruns no fine-tuning either. The
tables count as large: no checksum of Snakemake's is asked (`--max-checksum-file-size 0`).
"""

import gzip
import os
import shutil

import pytest

from tests.cohort.conftest import ANNOTATIONS, mimic  # noqa: F401  a fixture
from tests.workflow.checkouts import make_checkout, planned_jobs, run
from tests.workflow.stubs import write_overlay

MANIFEST = "results/cohort/manifest.parquet"
LARGE = ("--max-checksum-file-size", "0")
COHORT = {("cohort_manifest", None)}


def overlay_of(source, **cohort):
    paths = {"root": str(source.root), "annotations": str(source.captions)}
    return {"cohort": {"mimic_cxr_jpg": paths, **cohort}}


@pytest.fixture
def made(tmp_path, mimic):  # noqa: F811
    """A checkout with the cohort of twelve radiographs, made by the workflow; and these."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    make_checkout(checkout)
    source = mimic.write()
    flags = write_overlay(checkout, overlay_of(source))
    run(["snakemake", "--cores", "1", "--no-hooks", MANIFEST, *LARGE, *flags], checkout)
    return checkout, source, flags


def test_only_another_content_of_the_tables_reruns_the_cohort(made):
    checkout, source, flags = made

    def planned():
        return planned_jobs(checkout, MANIFEST, *LARGE, *flags)

    tables = [*source.root.glob("*.csv.gz"), *source.captions.glob("*.json")]
    assert len(tables) == 6
    for path in tables:
        os.utime(path)
    assert planned() == set()
    for path in tables:  # a second download: other files with the same bytes
        copy = path.with_name("copy")
        shutil.copyfile(path, copy)
        copy.replace(path)
    assert planned() == set()
    write_overlay(checkout, overlay_of(source, dataset="Another name"))
    assert planned() == set()

    path = source.captions / ANNOTATIONS.format("test")
    times, text = path.stat(), path.read_text()
    path.write_text(text[:-1] + " ]")  # also with the times of before
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert planned() == COHORT
    path.write_text(text)
    assert planned() == set()
    table = source.root / "mimic-cxr-2.0.0-split.csv.gz"
    with gzip.open(table, "at") as stream:
        stream.write("x,1,1,train\n")
    assert planned() == COHORT
