"""Croissant metadata: validated, and its records loaded, by MLCommons' own reader.

The reader and its dependencies live in `.venv/croissant` (`envs/croissant.txt` says why), which
only a subprocess sees.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.curate.small_set import decision, describe
from workflow_scripts.common.manifest import FINDINGS

INSTALLED = Path(__file__).parents[2] / ".venv" / "croissant"
needs_reader = pytest.mark.skipif(
    not (INSTALLED / "mlcroissant").is_dir(),
    reason="MLCommons' reader is not installed: make .venv/croissant/installed",
)
READ = """
import json, sys
import mlcroissant

read = mlcroissant.Dataset(jsonld=sys.argv[1])
issues = read.metadata.ctx.issues
found = []
if read.metadata.record_sets:
    for record in read.records(record_set="images"):
        image = record["images/image"]
        edema = record["images/Edema"]  # null where the prompt says nothing of it
        found.append({"size": image.size, "edema": None if edema is None else float(edema)})
rai = {key: getattr(read.metadata, key) for key in ("data_biases", "data_limitations")}
print(json.dumps({
    "errors": sorted(issues.errors), "warnings": sorted(issues.warnings), "records": found,
    "version": str(read.metadata.ctx.conforms_to.value), "rai": rai,
}))
"""


def read(folder: Path) -> dict:
    """Return what MLCommons' reader says of a folder's metadata."""
    env = {**os.environ, "PYTHONPATH": str(INSTALLED), "CROISSANT_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder / "croissant.json")],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "not standard" not in done.stderr  # the context
    return json.loads(done.stdout)


@pytest.mark.full
@needs_reader
def test_the_reader_validates_it_and_loads_every_record(tmp_path: Path):
    told = read(describe(tmp_path, decision(), prompts=True))
    assert told["errors"] == []
    assert told["version"] == "http://mlcommons.org/croissant/1.1"
    # Neither a day of publication nor an address is known before a set is published.
    assert all("datePublished" in text or "url" in text for text in told["warnings"])
    assert [record["size"] for record in told["records"]] == [[16, 16]] * 5
    assert sorted(record["edema"] for record in told["records"]) == [0, 0, 0, 1, 1]
    assert any("biases" in text for text in told["rai"]["data_biases"])
    assert any("at most 3 leaks" in text for text in told["rai"]["data_limitations"])


@pytest.mark.full
@needs_reader
def test_the_reader_validates_a_set_of_nothing(tmp_path: Path):
    refused = decision(kept=0, verdict="do_not_release")
    for shards in (0, 1):
        told = read(describe(tmp_path / str(shards), refused, shards=shards))
        assert (told["errors"], told["records"]) == ([], [])


def test_every_shard_has_its_digest_and_every_column_a_field(tmp_path: Path):
    folder = describe(tmp_path, decision())
    metadata = json.loads((folder / "croissant.json").read_text())
    assert "http://mlcommons.org/croissant/1.1" in metadata["conformsTo"]
    assert "http://mlcommons.org/croissant/RAI/1.0" in metadata["conformsTo"]
    *files, together = metadata["distribution"]
    for file in files:
        data = (folder / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
    found = sorted(folder.glob(together["includes"]))
    assert [path.relative_to(folder).as_posix() for path in found] == [f["name"] for f in files]
    (records,) = metadata["recordSet"]
    names = [field["name"] for field in records["field"]]
    assert names == ["image", *FINDINGS, "latent_distance"]


def test_the_responsible_ai_fields_say_what_the_decision_says(tmp_path: Path):
    metadata = json.loads((describe(tmp_path, decision()) / "croissant.json").read_text())
    told = {key: value for key, value in metadata.items() if key.startswith("rai:")}
    assert "Alarms of the latent lens: 0.05" in told["rai:dataPreprocessingProtocol"][0]
    assert "copies, crops" in told["rai:dataManipulationProtocol"]
    assert any("membership" in text for text in told["rai:dataLimitations"])
    # Two images were asked to show edema, none of them pneumonia.
    rare = " ".join(told["rai:dataBiases"])
    assert "Pneumonia" in rare
    assert "Edema" not in rare
