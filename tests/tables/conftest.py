"""A small benchmark without a benchmark: records, a manifest, prompts and images by hand."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from workflow_scripts.common.images import ImageItem, png_bytes, write_shard
from workflow_scripts.common.manifest import FINDINGS, write_manifest, write_prompts
from workflow_scripts.common.records import Record, Value, write_record
from workflow_scripts.tables import build
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.results import RESULTS

MODELS = [
    {
        "key": "sd_v1_4",
        "family": "stable_diffusion",
        "display": {
            "name": "SD V1-4",
            "size": "0.86B",
            "default_resolution": 512,
            "previously_available": True,
        },
        "finetuning": "FFT",
    },
    {
        "key": "sana",
        "family": "sana",
        "display": {
            "name": "Sana",
            "size": "0.60B",
            "default_resolution": 512,
            "previously_available": False,
        },
        "finetuning": "FFT",
    },
    {
        "key": "mine",
        "family": "external",
        "display": {"name": "Mine & co_1 100%"},
        "finetuning": "-",
        "missing": {"privacy": "no images of the prompt set `privacy` were given"},
    },
    {"key": "noise", "family": "control", "display": {"name": "Noise"}, "finetuning": "-"},
]

FID = {"sd_v1_4": 125.1864, "sana": 54.2251, "mine": 80.0, "noise": 900.5}
PRIVACY = {"sd_v1_4": 0.539, "sana": 0.551, "noise": 0.01}
PROVENANCE = {
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
    "settings_sha256": "f" * 64,
    "versions": {"torch": "2.13.0", "python": "3.11.9", "h5py": None},
    "device": "cpu",
    "slurm_job_id": "4711",
    "slurm_node": "gpu-node-17",
    "written": "2026-01-01T00:00:00+00:00",
}


def fidelity(model: str, protocol: str = "sound") -> Record:
    fid = FID[model]
    values = [
        Value("fid", fid, "lower", 60, "all", 55, (fid - 2, fid + 2), "bootstrap 95%"),
        Value("kid", fid / 1000, "lower", 60, "all", 55, (fid / 1100, fid / 900), "bootstrap 95%"),
        Value("alignment", 0.6 - fid / 1000, "higher", 60),
    ]
    for metric in ("precision", "recall", "density", "coverage"):
        values.append(Value(metric, 0.5, "higher", 60, "all", 55))
    for i, finding in enumerate(FINDINGS):
        if finding == "Pleural Other":
            few = "1 generated image: at least 2 are needed"
            values.append(Value("fid", None, "lower", 1, finding, 2, reason=few))
            values.append(Value("fid_floor", None, "lower", 1, finding, 2, reason=few))
            continue
        values.append(
            Value("fid", fid + i, "lower", 30 - i, finding, 28 - i, (fid + i - 9, fid + i + 9), "b")
        )
        values.append(Value("fid_floor", 20.0 + i, "lower", 30 - i, finding, 28 - i))
    noise = np.random.default_rng(list(FID).index(model)).standard_normal(50)
    kept = {"kid": {"kind": "bootstrap", "units": 50, "values": list((fid + 10 * noise) / 1000)}}
    details = {"images_sha256": {"real": "r", "generated": "g"}, "replicates": kept}
    return Record("fidelity", model, "rad_dino", protocol, values, details, PROVENANCE)


def privacy(model: str, protocol: str = "sound") -> Record:
    score = PRIVACY[model]
    values = [
        Value("reid_mean_of_max", score, "lower", 40, interval=(score - 0.01, score + 0.01)),
        Value("latent_mean_of_min", 1 - score, "higher", 40),
        Value("pixel_mean_of_min", 60 * (1 - score), "higher", 40),
        Value("reid_max", min(1.0, score + 0.4), "lower", 40),
        Value("reid_count", float(round(score * 10)), "none", 40),
    ]
    return Record("privacy", model, "pairwise", protocol, values, {}, PROVENANCE)


def classification(model: str, setting: str, protocol: str = "sound") -> Record:
    base = {"real": 0.75, "sd_v1_4": 0.76, "sana": 0.761, "mine": 0.70, "noise": 0.5}[model]
    values = [
        Value("auroc", base + i / 200, "higher", 55, name, None, (base - 0.05, base + 0.15), "d")
        for i, name in enumerate(FINDINGS)
    ]
    values.append(Value("auroc", base, "higher", 55, "all", None, (base - 0.02, base + 0.02), "p"))
    gain = round(base - 0.75, 6)
    for subset in (*FINDINGS, "all"):
        if model == "real":
            why = "real data alone is what the gains are measured against"
            values.append(Value("auroc_gain", None, "higher", 55, subset, reason=why))
        else:
            bounds = (gain - 0.01, gain + 0.01)
            values.append(Value("auroc_gain", gain, "higher", 55, subset, None, bounds, "p"))
    return Record(
        "downstream", model, f"classification/{setting}", protocol, values, {}, PROVENANCE
    )


def reports(model: str, setting: str, protocol: str = "sound") -> Record:
    base = {"real": 0.25, "sd_v1_4": 0.22, "sana": 0.31, "mine": 0.2, "noise": 0.1}[model]
    values = []
    for metric in (column.metric for column in LAYOUTS["table06_rrg_augmented"].columns):
        scale = 100 if metric.startswith("bleu") else 1
        score, gain = base * scale, (base - 0.25) * scale
        own = (score - 0.02 * scale, score + 0.02 * scale)
        values.append(Value(metric, score, "higher", 55, interval=own, interval_kind="b"))
        if setting in ("real_only", "released"):
            values.append(Value(f"{metric}_gain", None, "higher", 55, reason="measured against"))
        else:
            values.append(
                Value(f"{metric}_gain", gain, "higher", 55, interval=(gain - 1, gain + 1))
            )
    values.append(Value("distinct_share", 0.5, "none", 55))
    return Record(
        "downstream", model, f"report_generation/{setting}", protocol, values, {}, PROVENANCE
    )


@pytest.fixture
def bench(tmp_path: Path) -> SimpleNamespace:
    """Records of three models and a control, their manifest, prompts and images."""
    return make_bench(tmp_path)


@pytest.fixture
def published_bench(tmp_path: Path) -> SimpleNamespace:
    """The same under `as_published`, on the paper's data."""
    bench = make_bench(tmp_path, "as_published")
    bench.dataset = "MIMIC-CXR"
    return bench


def make_bench(root: Path, protocol: str = "sound") -> SimpleNamespace:
    files: dict[str, list[str]] = {"fidelity": [], "privacy": [], "downstream": []}

    def put(record: Record) -> None:
        path = root / record.stage / record.family / f"{record.model}.json"
        write_record(record, path)
        files[record.stage].append(str(path))

    for model in FID:
        put(fidelity(model, protocol))
        put(classification(model, "augmented", protocol))
        put(reports(model, "augmented", protocol))
        if model != "noise":
            put(classification(model, "synthetic_only", protocol))
            put(reports(model, "synthetic_only", protocol))
    for model in PRIVACY:
        put(privacy(model, protocol))
    put(classification("real", "real_only", protocol))
    for setting in ("real_only", "released"):
        put(reports("real", setting, protocol))

    manifest, prompts = _cohort(root)
    attrition = root / "attrition.csv"
    attrition.write_text(
        "step,unit,removed,kept,reason\n"
        "frontal,images,7,30,lateral views\n"
        'captioned_test,captions,2,10,"no caption, so no prompt"\n',
        encoding="utf-8",
    )
    images = []
    for shade, model in enumerate(FID):
        path = root / "generate" / model / "part-00000-of-00001.parquet"
        write_shard(
            [
                ImageItem(row.prompt_id, f"{row.prompt_id}.png", _png(40 * shade + i), row.caption)
                for i, row in enumerate(prompts.itertuples())
            ],
            path,
        )
        images.append(f"{model}={path}")
    return SimpleNamespace(
        root=root,
        files=files,
        models=json.loads(json.dumps(MODELS)),
        dataset="World",
        protocol=protocol,
        manifest=root / "manifest.parquet",
        prompts=root / "test.parquet",
        attrition=attrition,
        images=images,
        frame=manifest,
        path_of=lambda stage, model: next(
            path for path in files[stage] if path.endswith(f"/{model}.json")
        ),
        rewrite=_rewrite,
        argv=_argv,
        built=_built,
    )


def _built(bench: SimpleNamespace, folder: str = "out") -> list[str]:
    """Build the tables and return the flags of whoever reads `tables.json`."""
    out = bench.root / folder
    build.main([*bench.argv(bench), "--out", str(out)])
    return ["--results", str(out / RESULTS), "--manifest", str(bench.manifest)]


def _argv(bench: SimpleNamespace) -> list[str]:
    argv = []
    for stage, files in bench.files.items():
        argv += [f"--{stage}", *files]
    return [
        *argv,
        "--models",
        json.dumps(bench.models),
        "--dataset",
        bench.dataset,
        "--protocol",
        bench.protocol,
        "--manifest",
        str(bench.manifest),
        "--attrition",
        str(bench.attrition),
    ]


def _rewrite(path: str, record: Record, metric: str, subset: str, **changes: object) -> None:
    """Write a record again with one value changed."""
    values = [
        replace(value, **changes) if (value.metric, value.subset) == (metric, subset) else value
        for value in record.values
    ]
    write_record(replace(record, values=values), path)


def _cohort(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = []
    for i in range(30):
        image = root / "files" / f"{i}.png"
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(_png(8 * i))
        rows.append(
            {
                "image_id": f"i{i}",
                "patient_id": f"p{i}",
                "study_id": f"s{i}",
                "path": str(image),
                "view": "AP",
                "site": None,
                "split": "test" if i < 10 else "train",
                "caption": f"Caption <{i}> of the lungs." if i != 9 else None,
                "caption_source": "report" if i != 9 else None,
                "indication": f"Fall from height {i} days ago, now fever." if i % 2 else None,
                "report": None,
                **{name: int((i + k) % (2 + k) == 0) for k, name in enumerate(FINDINGS)},
            }
        )
    manifest = pd.DataFrame(rows)
    manifest[list(FINDINGS)] = manifest[list(FINDINGS)].astype("Int8")
    write_manifest(manifest, root / "manifest.parquet")
    prompts = manifest[(manifest["split"] == "test") & manifest["caption"].notna()].copy()
    prompts["prompt_id"] = [f"test-{i:016x}-r00" for i in range(len(prompts))]
    prompts = prompts.assign(second_wording=False, replicate=0, seed=7)
    write_prompts(prompts, root / "test.parquet")
    return manifest, prompts


def _png(shade: int) -> bytes:
    gradient = np.linspace(0, 255, 32) * 0.5 + shade % 128
    pixels = np.tile(gradient.astype("uint8"), (32, 1))
    return png_bytes(Image.fromarray(pixels).convert("RGB"))
