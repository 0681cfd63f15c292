"""Files of handwritten reports for the tests of report metrics."""

from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.downstream.outcomes import write_outcomes


def write_reports(
    path: Path,
    references: Sequence[str],
    generated: Sequence[str],
    *,
    patients: Sequence[str] | None = None,
    setting: str = "augmented",
    model: str = "sana",
    seed: int = 0,
) -> Path:
    """Write the outcomes of a training run; by default each report has a patient of its own."""
    n = len(references)
    columns = {
        "image_id": [f"i{k}" for k in range(n)],
        "patient_id": list(patients or [f"p{k}" for k in range(n)]),
        "reference": list(references),
        "generated": list(generated),
    }
    run = {
        "setting": setting,
        "model": model,
        "protocol": "sound",
        "seed": seed,
        "provenance": {"device": "cpu"},
    }
    write_outcomes(path, columns, run)
    return path
