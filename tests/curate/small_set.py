"""A small curated set, in the form that `curate` writes."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import Record, Value, write_record
from workflow_scripts.curate.describe import main

DECISION: dict[str, Any] = {
    "model": "sana",
    "cohort": {"name": "Embedded world", "source": "mimic_cxr_jpg"},
    "pool": {"prompt_set": "stress", "images": 12},
    "policy": [{"key": "flagged", "words": "Alarms of the latent lens", "limit": 0.05}],
    "measured": [
        {
            "key": "flagged",
            "words": "Alarms of the latent lens",
            "value": 0.0312,
            "low": 0.01,
            "high": 0.07,
            "limit": 0.05,
            "passed": True,
            "reason": None,
        },
        {
            "key": "unseen",
            "words": "Finding visible to the judge",
            "value": None,
            "low": None,
            "high": None,
            "limit": 0.5,
            "passed": None,
            "reason": "no judge was trained",
        },
    ],
    "planted": [
        {"kind": "copies", "planted": 20, "caught": 20, "sensitivity": 1.0, "low": 0.8616},
        {"kind": "crops", "planted": 20, "caught": 13, "sensitivity": 0.65, "low": 0.4421},
    ],
    "remaining_leaks_upper": 3,
    "kept": 5,
    "verdict": "release",
    "reasons": ["Every limit is kept to"],
    "not_tested": ["membership inference by a second model"],
}


def decision(**changed: Any) -> dict[str, Any]:
    """Return the decision with some members changed."""
    return {**json.loads(json.dumps(DECISION)), **changed}


def write_set(
    folder: Path, content: dict[str, Any], prompts: bool = False, shards: int = 2
) -> tuple[Path, Path]:
    """Write decision and shards; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "decision.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(content["kept"]):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(stream, "PNG")
        row: dict[str, Any] = {"image": {"bytes": stream.getvalue(), "path": f"{i}.png"}}
        row |= dict.fromkeys(FINDINGS)
        row |= {"Edema": 1 if i < 2 else 0, "Fracture": -1}
        rows.append(row | {"prompt": f"prompt {i}", "latent_distance": i / 8})
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            *((name, pa.int8()) for name in FINDINGS),
            *([("prompt", pa.string())] if prompts else []),
            ("latent_distance", pa.float32()),
        ]
    )
    data = folder / "dataset" / "data"
    data.mkdir(parents=True)
    for part in range(shards):
        name = f"train-{part:05d}-of-{shards:05d}.parquet"
        table = pa.Table.from_pylist(rows[part::shards], schema)
        pq.write_table(table, data / name, row_group_size=2)
    return path, folder / "dataset"


def write_records(folder: Path) -> list[Path]:
    """Write a few records of the model, and one of another."""
    own = "bootstrap 95% over patients"
    contents = [
        Record(
            "fidelity",
            "sana",
            "rad_dino",
            "sound",
            [
                Value("kid", 0.1234567, "lower", 40, n_reference=40, interval=(0.1, 0.2),
                      interval_kind=own),
                Value("recall", None, "higher", 40, n_reference=40, reason="too few images"),
                Value("fid", 1.5, "lower", 40, "Edema", 40),
                Value("fid", 3.25, "lower", 40, "Fracture", 40),
            ],
        ),
        Record("fidelity", "noise", "rad_dino", "sound",
               [Value("precision", 0.987, "higher", 40, n_reference=40)]),
        Record("privacy", "sana", "lenses", "sound", [Value("any_seen", 0.07, "lower", 30)]),
    ]  # fmt: skip
    paths = []
    for i, record in enumerate(contents):
        paths.append(folder / f"record-{i}.json")
        write_record(record, paths[-1])
    return paths


def describe(
    folder: Path,
    content: dict[str, Any],
    prompts: bool = False,
    family: str = "sana",
    base: str = "results/world/weights/tiny-sana",
    shards: int = 2,
) -> Path:
    """Write a set, run the script on it, and return its folder."""
    path, dataset = write_set(folder, content, prompts, shards)
    flags = ["--decision", path, "--dataset", dataset, "--family", family, "--base", base]
    flags += ["--records", *write_records(folder), "--output", folder / "published"]
    main([str(flag) for flag in flags])
    return folder / "published"
