"""What attacks over checkpoints of two trainings say: the tables of guarantee.md.

    snakemake --profile profiles/demo \\
        --configfile config.yaml profiles/demo/overlay.yaml tests/workflow/checkpoints.yaml
    python -m tests.docs.checkpoints results

The first table has a row for each checkpoint. The second compares two attacks' AUC between a
full fine-tuning and LoRA: after as many epochs, and where LoRA's KID is nearest. Its intervals are
of a bootstrap that draws the same patients for both.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from workflow_scripts.common.records import Value, read_record

SHOWN: Final = (
    ("KID", "fidelity/rad_dino", "kid", 2),
    ("AUC by caption", "privacy/membership", "member_caption_calibrated_auc", 2),
    ("AUC by loss", "privacy/membership", "member_loss_calibrated_auc", 2),
    ("images with an alarm", "privacy/extraction", "images_alarmed", 3),
    ("captions extracted", "privacy/extraction", "extracted_share", 2),
    ("re-ID", "privacy", "reid_mean_of_max", 2),
)
"""Header, folder of records, metric and decimals."""

DRAWS: Final = 2000
SEED: Final = 1


def value_of(results: Path, folder: str, model: str, metric: str) -> Value:
    """Return a model's value of a metric."""
    return read_record(results / folder / f"{model}.json").get(metric)


def said(value: Value, decimals: int) -> str:
    """Return a value with its interval, as text."""
    if value.value is None:
        return "–"
    interval = value.interval
    bounds = f" ({interval[0]:.{decimals}f} to {interval[1]:.{decimals}f})" if interval else ""
    return f"{value.value:.{decimals}f}{bounds}"


def steps_of(results: Path, model: str) -> int:
    """Return how many steps a model was trained."""
    return int(pd.read_csv(results / f"finetune/{model}/training.csv")["step"].max())


def rows(results: Path, models: Sequence[str]) -> list[str]:
    """Return the first table's rows."""
    found = []
    for model in models:
        cells = [
            said(value_of(results, folder, model, metric), decimals)
            for _, folder, metric, decimals in SHOWN
        ]
        found.append(f"| {model} | {steps_of(results, model)} | {' | '.join(cells)} |")
    return found


def difference(results: Path, one: str, other: str, score: str) -> tuple[float, float, float]:
    """Return AUC of `one` less that of `other`, with a 95% interval over the same patients."""
    tables = [
        pd.read_parquet(results / f"privacy/membership/{model}_scores.parquet").sort_values(
            ["member", "patient_id"], ignore_index=True
        )
        for model in (one, other)
    ]
    if not tables[0][["image_id", "member"]].equals(tables[1][["image_id", "member"]]):
        raise SystemExit(f"{one} and {other} were attacked with other radiographs")
    member = tables[0]["member"].to_numpy(bool)
    sides = np.flatnonzero(member), np.flatnonzero(~member)
    scores = np.stack([table[score].to_numpy() for table in tables])
    rng = np.random.default_rng(SEED)
    drawn = [_gap(scores, [rng.choice(side, len(side)) for side in sides]) for _ in range(DRAWS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return _gap(scores, list(sides)), float(low), float(high)


def _gap(scores: np.ndarray, sides: list[np.ndarray]) -> float:
    members, others = sides
    ranks = rankdata(scores[:, np.concatenate(sides)], axis=1)[:, : len(members)]
    areas = (ranks.mean(axis=1) - (len(members) + 1) / 2) / len(others)
    return float(areas[0] - areas[1])


def main(results: Path) -> None:
    """Print both tables."""
    models = sorted(
        (path.parent.name for path in (results / "finetune").glob("*/training.csv")),
        key=lambda model: (model.split("_")[0], int(model.split("_")[1])),
    )
    heads = [head for head, *_ in SHOWN]
    print(f"| training, epochs | steps | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 2)}")
    print("\n".join(rows(results, models)))
    kid = {m: value_of(results, "fidelity/rad_dino", m, "kid").value or 0.0 for m in models}
    full, lora = ([m for m in models if m.startswith(kind)] for kind in ("full", "lora"))
    pairs = {"as many epochs": [(m.replace("full", "lora"), m) for m in full]}
    pairs["nearest KID"] = [(min(lora, key=lambda x: abs(kid[x] - kid[m])), m) for m in full]
    print("\n| compared | LoRA, full | KID | AUC by caption, LoRA less full | AUC by loss |")
    print("|---|---|---|---|---|")
    for why, both in pairs.items():
        for one, other in [(one, other) for one, other in both if one in kid]:
            gaps = [
                "{:+.2f} ({:+.2f} to {:+.2f})".format(*difference(results, one, other, score))
                for score in ("caption_calibrated", "loss_calibrated")
            ]
            print(
                f"| {why} | {one}, {other} | {kid[one]:.2f}, {kid[other]:.2f} | {gaps[0]} "
                f"| {gaps[1]} |"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
