"""Who is in the world: patients, their studies, findings with the paper's long tail, labels, split.

Each finding of each study has a latent normal variable and is present where it exceeds the
threshold of its prevalence, so prevalences hold whatever the correlations. A patient's own part
of the latent variable makes chronic findings last over studies; shared factors make findings
coincide (edema with effusion, consolidation with opacity). What has no finding is No Finding.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtri

from workflow_scripts.common.manifest import FINDINGS, SPLITS
from workflow_scripts.world.anatomy import Patient, Study, draw_patient, draw_study
from workflow_scripts.world.captions import describe
from workflow_scripts.world.findings import Finding, draw_finding

_COHORT: Final = 237388
PREVALENCE: Final = {
    name: count / _COHORT
    for name, count in {
        "No Finding": 78939,
        "Support Devices": 71537,
        "Pleural Effusion": 56433,
        "Lung Opacity": 53513,
        "Atelectasis": 47704,
        "Cardiomegaly": 46602,
        "Edema": 28601,
        "Pneumonia": 16832,
        "Consolidation": 11290,
        "Pneumothorax": 10971,
        "Enlarged Cardiomediastinum": 7454,
        "Lung Lesion": 6491,
        "Fracture": 4671,
        "Pleural Other": 2024,
    }.items()
}
"""Share of images positive for each finding (CheXGenBench, Table 9)."""

# For each finding: loadings on general illness, congestion and infection, and the share of the
# rest that stays with the patient.
_LOADINGS: Final = {
    "Atelectasis": (0.27, 0.25, 0.15, 0.3),
    "Cardiomegaly": (0.22, 0.45, 0.0, 0.95),
    "Consolidation": (0.17, 0.0, 0.70, 0.2),
    "Edema": (0.27, 0.60, 0.0, 0.2),
    "Enlarged Cardiomediastinum": (0.17, 0.20, 0.0, 0.95),
    "Fracture": (0.07, 0.0, 0.0, 0.98),
    "Lung Lesion": (0.07, 0.0, 0.15, 0.95),
    "Lung Opacity": (0.27, 0.0, 0.65, 0.3),
    "Pleural Effusion": (0.27, 0.55, 0.15, 0.4),
    "Pleural Other": (0.12, 0.0, 0.0, 0.98),
    "Pneumonia": (0.17, 0.0, 0.60, 0.2),
    "Pneumothorax": (0.17, 0.0, 0.0, 0.3),
    "Support Devices": (0.47, 0.20, 0.0, 0.5),
}
DRAWN: Final = tuple(_LOADINGS)
_STEADY: Final = 0.7
"""Share of a shared factor that stays with the patient."""

_UNSURE: Final = 0.06
"""Findings reported as uncertain, as a share of the certain ones."""

_STUDIES: Final = (0.30, 0.30, 0.25, 0.15)
_CHRONIC: Final = ("Cardiomegaly", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
                   "Pleural Other")  # fmt: skip


@dataclass(frozen=True)
class Exposure:
    """One image of the world, before it is drawn.

    Attributes:
        patient_id, study_id, image_id: 8 digits, 8 digits, and a DICOM-like id.
        patient, study, findings: what `render` takes.
        labels: finding to 1, 0, -1 or None, the CheXpert labels of the study.
        split: train, validate or test.
        caption: findings section of the report; None for a lateral view or where it is missing.
        annotated: whether the annotation file has an entry for the image at all.
    """

    patient_id: str
    study_id: str
    image_id: str
    patient: Patient
    study: Study
    findings: tuple[Finding, ...]
    labels: dict[str, int | None]
    split: str
    caption: str | None
    annotated: bool


def draw_labels(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw studies and what is present in them.

    Args:
        patients: how many patients.
        seed: of all draws.

    Returns:
        the patient's number of each study, int (n,), and the state of each finding of DRAWN in it:
        1 present, -1 uncertain, 0 absent, int8 (n, 13).
    """
    rng = np.random.default_rng([seed, 40])
    owner = np.repeat(np.arange(patients), rng.choice([1, 2, 3, 4], patients, p=_STUDIES))
    studies = len(owner)

    def own(columns: int) -> np.ndarray:
        # Stratified, so that a small world has the tail in its right share, too.
        grid = ndtri((np.arange(patients) + 0.5) / patients)
        return np.stack([rng.permutation(grid) for _ in range(columns)], 1)

    factors = np.sqrt(_STEADY) * own(3)[owner]
    factors += np.sqrt(1 - _STEADY) * rng.standard_normal((studies, 3))
    table = np.array(list(_LOADINGS.values()))
    loadings, steady = table[:, :3], table[:, 3]
    rest = np.sqrt(steady) * own(len(DRAWN))[owner]
    rest += np.sqrt(1 - steady) * rng.standard_normal((studies, len(DRAWN)))
    latent = factors @ loadings.T + np.sqrt(1 - (loadings**2).sum(1)) * rest
    share = np.array([PREVALENCE[name] for name in DRAWN])
    unsure = np.array([0.0 if name == "Support Devices" else _UNSURE for name in DRAWN])
    state = np.zeros(latent.shape, np.int8)
    state[latent > ndtri(1 - share * (1 + unsure))] = -1
    state[latent > ndtri(1 - share)] = 1
    return owner, state


def draw_population(patients: int, seed: int) -> list[Exposure]:
    """Return every image of a world, sorted by patient, study and image.

    The split is by patient: 60 % train, 20 % validate, 20 % test. About one study in eight has a
    second frontal view and one in eight a lateral one; one frontal image in forty has no
    annotation or an empty one.
    """
    owner, state = draw_labels(patients, seed)
    rng = np.random.default_rng([seed, 41])
    split_of = _split(owner, state, patients, rng)
    exposures = []
    for number, (patient, row) in enumerate(zip(owner.tolist(), state, strict=True)):
        draws = np.random.default_rng([seed, 42, number])
        anatomy = draw_patient(1_000_003 * seed + patient)
        findings = tuple(
            _of_patient(name, int(value), anatomy.seed, int(draws.integers(2**31)))
            for name, value in zip(DRAWN, row.tolist(), strict=True)
            if value
        )
        denied = [name for name in _DENIABLE if row[DRAWN.index(name)] == 0]
        denied = [name for name in denied if draws.random() < (0.5 if findings else 0.25)]
        labels = _labels(findings, denied)
        bedridden = any(f.name in ("Support Devices", "Edema") for f in findings)
        views = ["AP" if draws.random() < (0.75 if bedridden else 0.25) else "PA"]
        if draws.random() < 0.12:
            views.append(views[0])
        if draws.random() < 0.12:
            views.append("LATERAL")
        for view in views:
            picture = int(draws.integers(2**31))
            digits = "".join(f"{digit:x}" for digit in draws.integers(0, 16, 32))
            missing = draws.random()
            annotated = view != "LATERAL" and missing >= 0.012
            caption = None
            if annotated and missing >= 0.025:
                caption = describe(findings, view, picture, denied)
            exposures.append(
                Exposure(
                    patient_id=f"9999{patient:04d}",
                    study_id=f"9999{number:04d}",
                    image_id="-".join(["00000000", *(digits[i : i + 8] for i in range(0, 32, 8))]),
                    patient=anatomy,
                    study=draw_study(picture, view),
                    findings=findings,
                    labels=labels,
                    split=str(split_of[patient]),
                    caption=caption,
                    annotated=annotated,
                )
            )
    return sorted(exposures, key=lambda e: (e.patient_id, e.study_id, e.image_id))


_DENIABLE: Final = ("Consolidation", "Edema", "Pleural Effusion", "Pneumonia", "Pneumothorax")


def _split(
    owner: np.ndarray, state: np.ndarray, patients: int, rng: np.random.Generator
) -> list[str]:
    """Return each patient's split; of 64 draws the one that leaves fewest findings out of a split.

    A small world would else have no patient to test a rare finding on.
    """
    has = np.zeros((patients, len(DRAWN)), bool)
    np.logical_or.at(has, owner, state == 1)
    sizes = [round(0.6 * patients), round(0.8 * patients) - round(0.6 * patients)]
    parts = np.repeat([0, 1, 2], [*sizes, patients - sum(sizes)])
    draws = [rng.permutation(parts) for _ in range(64)]
    lacking = [sum(int((~has[part == k].any(0)).sum()) for k in range(3)) for part in draws]
    return [SPLITS[k] for k in draws[int(np.argmin(lacking))]]


def _of_patient(name: str, value: int, patient_seed: int, study_seed: int) -> Finding:
    """Return a finding; a chronic one keeps its place and shape over the patient's studies."""
    seed = patient_seed + FINDINGS.index(name) if name in _CHRONIC else study_seed
    return draw_finding(name, seed, certain=value == 1)


def _labels(findings: tuple[Finding, ...], denied: list[str]) -> dict[str, int | None]:
    labels: dict[str, int | None] = dict.fromkeys(FINDINGS)
    labels |= dict.fromkeys(denied, 0)
    labels |= {finding.name: 1 if finding.certain else -1 for finding in findings}
    if all(finding.name == "Support Devices" for finding in findings):
        labels["No Finding"] = 1
    return labels
