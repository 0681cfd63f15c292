"""Make the inputs of faithfulness's scoring scripts: what judges and CXAS saw, of a small cohort.

    python -m tests.scoring.make_faithfulness

They lie beside the other inputs, whose manifest and test prompts they belong to (see
`make_inputs`). Organs are drawn as ellipses, some absent, and anatomy is measured on them;
probabilities, texture and the stress set's evidence are drawn by NumPy from one seed. The model
`tiny` draws what its prompts ask for less plainly than radiographs show it; one radiograph and one
image in fifteen lack a structure.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image

from tests.scoring.paths import INPUTS
from workflow_scripts.cohort.stress_prompts import stress_set, write_stress
from workflow_scripts.common.images import png_bytes
from workflow_scripts.common.manifest import FINDINGS, read_manifest, read_prompts
from workflow_scripts.downstream.outcomes import write_outcomes
from workflow_scripts.faithfulness.anatomy import STRUCTURES, measure
from workflow_scripts.faithfulness.evidence import REGIONS
from workflow_scripts.faithfulness.judges import DENSENET, DENSENET_OUTPUTS
from workflow_scripts.faithfulness.score_labeller import BITS
from workflow_scripts.faithfulness.seen import (
    KEPT_SIDE,
    pack_organs,
    pack_structures,
    probability_column,
    write_seen,
)
from workflow_scripts.faithfulness.texture import frequencies

FOLDER: Final = INPUTS / "faithfulness"

PAIRS: Final = 12
"""Of images whose MS-SSIM is known."""

GROUPS: Final = 60
"""Of the stress set."""

KNOWN: Final = np.array([name in DENSENET_OUTPUTS for name in FINDINGS])

CLASSES: Final = 20
"""Of the labeller."""

SETTINGS: Final = {"cxas_sha256": "3" * 64, "cxas_size": 96, "protocol": "sound"}


def main() -> None:
    """Write all of them anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    rng = np.random.default_rng(20271)
    manifest = read_manifest(INPUTS / "manifest.parquet")
    test = manifest[manifest["split"] == "test"].reset_index(drop=True)
    prompts = read_prompts(INPUTS / "prompts/test.parquet")
    prompts = prompts[~prompts["second_wording"]].reset_index(drop=True)
    owners = dict(zip(test["image_id"], test["patient_id"], strict=True))
    real = test.assign(id=test["image_id"])
    asked = prompts.assign(id=prompts["prompt_id"], patient_id=prompts["image_id"].map(owners))
    make_seen("real", real, rng, skill=2.0, blurred=0.0)
    make_seen("tiny", asked.iloc[rng.permutation(len(asked))], rng, skill=1.2, blurred=0.6)
    make_exact(real, rng)
    make_stress(test, rng)


def truth_of(rows: pd.DataFrame) -> np.ndarray:
    """Return the findings of radiographs or prompts, float64 (n, 14)."""
    return rows[list(FINDINGS)].eq(1).fillna(False).to_numpy(float)


def made(collection: str, **more: Any) -> dict[str, Any]:
    """Return what is said of what looked at a collection."""
    judges = {"classifier": {"seed 42": "4" * 64}, DENSENET: {"weights": "5" * 64}}
    settings = SETTINGS | {"judges": judges}
    return {
        "collection": collection,
        "settings": settings,
        "provenance": {"device": "cpu"},
        **more,
    }


def make_seen(
    name: str, rows: pd.DataFrame, rng: np.random.Generator, skill: float, blurred: float
) -> None:
    """Write what was seen in a collection.

    Args:
        name: of the collection.
        rows: `id`, `image_id`, `patient_id` and the findings.
        rng: what draws it.
        skill: how plainly findings are shown, in logits.
        blurred: what the highest frequencies lose, log10 of the power.
    """
    n, truth = len(rows), truth_of(rows)
    of_patient = np.unique(rows["patient_id"].to_numpy(str), return_inverse=True)[1]
    own = rng.standard_normal((of_patient.max() + 1, len(FINDINGS)))[of_patient]
    columns: dict[str, Any] = {key: rows[key].tolist() for key in ("id", "image_id", "patient_id")}
    for judge, knows in (("classifier", np.ones(len(FINDINGS), bool)), (DENSENET, KNOWN)):
        logits = 0.6 * own + rng.standard_normal(truth.shape) + skill * (truth - 0.4)
        found = np.where(knows, np.round(20 / (1 + np.exp(-logits))) / 20, np.nan)
        columns[probability_column(judge)] = list(found.astype(np.float32))
    large = truth[:, FINDINGS.index("Cardiomegaly")]
    masks = [organs(rng, 0.04 * skill * heart, lacks=k % 15 == 4) for k, heart in enumerate(large)]
    measured = pd.DataFrame([asdict(measure(one)) for one in masks])
    columns |= {key: measured[key].tolist() for key in measured}
    columns["ribs"] = rng.integers(8, 20, n).tolist()
    columns["structures"] = pack_structures(structures(n, skill))
    columns["organs"] = [pack_organs({key: x[None] for key, x in m.items()})[0] for m in masks]
    textured = rng.permutation(n)[: 2 * PAIRS + 6]
    spectra: list[list[float] | None] = [None] * n
    noise: list[float | None] = [None] * n
    slope: list[float | None] = [None] * n
    for k in textured:
        falls = -3 - 4 * frequencies() - blurred * (frequencies() > 0.3)
        spectra[k] = np.round(falls + 0.1 * rng.standard_normal(len(falls)), 4).tolist()
        noise[k] = float(np.round(np.exp(-9 - blurred + 0.2 * rng.standard_normal()), 9))
        slope[k] = float(np.round(1e-4 * rng.standard_normal(), 9))
    columns |= {"spectrum": spectra, "noise": noise, "signal_dependence": slope}
    names = [columns["id"][k] for k in textured]
    alike = [
        (names[2 * k], names[2 * k + 1], round(float(rng.beta(6, 6)), 4)) for k in range(PAIRS)
    ]
    run = made(name, pairs=alike)
    run["settings"]["cxas_classes"] = CLASSES
    write_seen(FOLDER / f"seen/{name}.parquet", columns, run)


def structures(n: int, skill: float) -> np.ndarray:
    """Return which classes n images show, bool (n, CLASSES).

    Radiographs show the first five always, the next five nearly always, five more sometimes, and
    the last five never. Images show each less often, and the last one once.
    """
    rng = np.random.default_rng(n)
    often = np.repeat([1.0, 0.985, 0.6, 0.0], 5)
    present = rng.random((n, CLASSES)) < often * (0.5 + skill / 4)
    if skill < 2:
        present[0, -1] = True
    return present


def organs(rng: np.random.Generator, heart: float, lacks: bool) -> dict[str, np.ndarray]:
    """Return the masks of all structures, bool (96, 96); the heart that much wider."""
    masks = {name: np.zeros((KEPT_SIDE, KEPT_SIDE), bool) for name in STRUCTURES}
    shapes = {
        "right_lung": (0.48, 0.30, 0.28, 0.15),
        "left_lung": (0.48, 0.70, 0.28, 0.14),
        "heart": (0.62, 0.54, 0.14, 0.15 + heart),
        "right_clavicle": (0.18, 0.34, 0.02, 0.12),
        "left_clavicle": (0.18, 0.66, 0.02, 0.12),
    }
    for name, shape in shapes.items():
        row, column, high, wide = shape + rng.normal(0, (0.02, 0.015, 0.01, 0.008))
        masks[name] = ellipse(row, column, high, wide)
    if lacks:
        absent = ("heart", "left_clavicle", "right_lung")[int(rng.integers(3))]
        masks[absent] = np.zeros_like(masks[absent])
    return masks


def ellipse(row: float, column: float, high: float, wide: float) -> np.ndarray:
    """Return an ellipse, in shares of the side; bool (96, 96)."""
    y, x = np.mgrid[:KEPT_SIDE, :KEPT_SIDE] / KEPT_SIDE
    return ((y - row) / high) ** 2 + ((x - column) / wide) ** 2 < 1


def make_exact(real: pd.DataFrame, rng: np.random.Generator) -> None:
    """Write exact organs of every fourth radiograph; one lacks its heart."""
    (FOLDER / "organs").mkdir()
    for k, name in enumerate(real["id"].iloc[::4]):
        masks = organs(rng, 0.0, lacks=False)
        if k == 3:
            masks["heart"] &= False
        bits = sum(bit * masks[key].astype(np.uint8) for key, bit in BITS.items())
        wide = np.pad(bits, ((0, 0), (7, 9)))  # of which the central square counts
        (FOLDER / f"organs/{name}.png").write_bytes(png_bytes(Image.fromarray(wide)))


def make_stress(test: pd.DataFrame, rng: np.random.Generator) -> None:
    """Write the stress set, and what the judge saw of a model's images and of radiographs."""
    stress = stress_set(GROUPS)
    write_stress(stress, FOLDER / "stress.parquet")
    shown = np.zeros((len(stress), len(FINDINGS)))
    level = {"present": 1.0, "mild": 0.5, "severe": 1.5, "unmentioned": 0.0, "denied": -0.2}
    for k, (finding, what) in enumerate(zip(stress["finding"], stress["level"], strict=True)):
        if finding in FINDINGS:
            shown[k, FINDINGS.index(finding)] = level.get(what, 1.0)
    sides = {name: (stress["level"] == name).to_numpy(float) for name in REGIONS}
    none = [None] * len(stress)
    columns = {"id": stress["prompt_id"].tolist(), "image_id": none, "patient_id": none}
    columns |= looked(shown, sides, rng)
    write_outcomes(FOLDER / "stress_tiny.parquet", columns, made("tiny"))
    truth = truth_of(test)
    said = test["caption"].fillna("")
    sides = {name: said.str.contains(f" {name} ").to_numpy(float) for name in REGIONS}
    columns = {"id": test["image_id"].tolist()}
    columns |= {name: test[name].tolist() for name in ("image_id", "patient_id")}
    columns |= looked(truth, sides, rng)
    write_outcomes(FOLDER / "stress_real.parquet", columns, made("real"))


def looked(
    shown: np.ndarray, sides: dict[str, Sequence[float] | np.ndarray], rng: np.random.Generator
) -> dict[str, Any]:
    """Return the columns of what the judge saw of images and of the mirrored ones.

    Args:
        shown: (n, 14), how plainly each finding is shown.
        sides: by region, (n,), how much more of it is there.
        rng: what draws it.
    """
    columns: dict[str, Any] = {}
    for prefix, turned in (("", False), ("mirrored_", True)):
        logits = 1.5 * shown - 1 + 0.8 * rng.standard_normal(shown.shape)
        named = {
            "probabilities": 1 / (1 + np.exp(-logits)),
            "features": np.c_[shown[:, :6], rng.standard_normal((len(shown), 2))],
        }
        for name in REGIONS:
            seen_as = {"left": "right", "right": "left"}.get(name, name) if turned else name
            more = np.asarray(sides[seen_as])[:, None]
            noise = 0.5 * rng.standard_normal(shown.shape)
            named[f"evidence_{name}"] = shown * (0.3 + 0.7 * more) + noise
        columns |= {
            f"{prefix}{key}": list(np.round(x, 3).astype(np.float32)) for key, x in named.items()
        }
    return columns


if __name__ == "__main__":
    main()
