"""The world's population: patients, studies, findings with the paper's long tail, labels, split.

It reproduces awkward properties of MIMIC-CXR. A few patients have many studies and hold most of the
test set's radiographs. All films of a study share its report, and a study with the same findings as
the patient's last one often repeats its report. A report is available as the radiologist wrote it
(rule-based, with marks of de-identification), as rewritten by GPT-4, or both. Radiographs of
patients from another site look different and have no report.

Each finding of each study has a latent normal variable, and the finding is present if the variable
exceeds the threshold of its prevalence. So prevalences do not depend on the correlations. A
patient-specific part of the latent variable makes chronic findings persist over studies. Shared
factors make findings coincide (edema with effusion, consolidation with opacity). A study without
findings is labelled No Finding.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtri

from workflow_scripts.common.manifest import FINDINGS, SPLITS
from workflow_scripts.world.anatomy import Patient, Study, draw_patient, draw_study
from workflow_scripts.world.captions import describe, marked
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

# For each finding: loadings on general illness, congestion and infection, and the patient-specific
# share of the residual.
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
"""Patient-specific share of a shared factor."""

_UNSURE: Final = 0.06
"""Ratio of uncertain to certain findings."""

_STUDIES: Final = (0.38, 0.31, 0.21, 0.10)
"""Shares of patients with 1, 2, 3 and 4 studies, without long-term patients."""

_LONG: Final = (5, 8)
"""Fewest and most studies of a long-term patient."""

_PER_LONG: Final = 20
"""One in this many patients is a long-term patient; all of these are in the test split."""

_FEW: Final = 2
"""Preferred largest number of studies of the other test patients."""

_TESTABLE: Final = 10
"""Fewest positive patients for an AUROC (downstream/classification/score.py)."""

_PER_ELSEWHERE: Final = {"train": 16, "validate": 16, "test": 6}
"""In each split, one in this many patients is from another site."""

_UNCHANGED: Final = 0.7
"""Share of repeated reports among studies with the same findings as the patient's last one."""

_CHRONIC: Final = ("Cardiomegaly", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
                   "Pleural Other")  # fmt: skip


@dataclass(frozen=True)
class Exposure:
    """One image of the world, before it is drawn.

    Attributes:
        patient_id: 8 digits.
        study_id: 8 digits.
        image_id: an id like DICOM's.
        patient: the anatomy, for `render`.
        study: pose and exposure, for `render`.
        findings: the findings, for `render`.
        labels: the study's CheXpert labels, from finding to 1, 0, -1 or None.
        split: train, validate or test.
        annotations: (method, findings section) for each entry in the annotation file, with the
            method gpt4 or rule-based. Some images have no entry, and some a section of None.
    """

    patient_id: str
    study_id: str
    image_id: str
    patient: Patient
    study: Study
    findings: tuple[Finding, ...]
    labels: dict[str, int | None]
    split: str
    annotations: tuple[tuple[str, str | None], ...] = ()

    @property
    def caption(self) -> str | None:
        """The caption that the cohort uses: GPT-4's, else the radiologist's, else None."""
        return next((text for _, text in self.annotations), None)


@dataclass(frozen=True)
class _Report:
    """A study's findings and report.

    Attributes:
        state: the state of each finding of DRAWN, as bytes.
        findings: the findings that are drawn.
        denied: the findings that the report denies.
        view: the view of its frontal films.
        words: seed of the wording.
        methods: the methods by which the report is annotated, gpt4 first.
    """

    state: bytes
    findings: tuple[Finding, ...]
    denied: tuple[str, ...]
    view: str
    words: int
    methods: tuple[str, ...]


def draw_labels(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the studies and their findings.

    Args:
        patients: number of patients.
        seed: seed of all draws.

    Returns:
        The number of each study's patient, int (n,), and the state of each finding of DRAWN: 1
        present, -1 uncertain, 0 absent, int8 (n, 13).
    """
    rng = np.random.default_rng([seed, 40])
    counts = rng.choice([1, 2, 3, 4], patients, p=_STUDIES)
    long = rng.permutation(patients)[: -(-patients // _PER_LONG)]
    counts[long] = rng.integers(_LONG[0], _LONG[1] + 1, len(long))
    owner = np.repeat(np.arange(patients), counts)
    studies = len(owner)

    def own(columns: int) -> np.ndarray:
        # Stratified, so that rare findings have the right share even in a small world.
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

    The split is by patient: 60% train, 20% validate, 20% test. About one study in eight has a
    second frontal view, and one in eight a lateral view. One frontal image in forty has no
    annotation or an empty one, and images from another site have none.
    """
    owner, state = draw_labels(patients, seed)
    rng = np.random.default_rng([seed, 41])
    split_of = _split(owner, state, patients, rng)
    elsewhere = _elsewhere(owner, split_of, rng)
    exposures = []
    last: dict[int, _Report] = {}
    for number, (patient, row) in enumerate(zip(owner.tolist(), state, strict=True)):
        draws = np.random.default_rng([seed, 42, number])
        anatomy = draw_patient(1_000_003 * seed + patient)
        report = last[patient] = _report(row, anatomy, split_of[patient], last.get(patient), draws)
        views = [report.view]
        if draws.random() < 0.12:
            views.append(report.view)
        if draws.random() < 0.12:
            views.append("LATERAL")
        for view in views:
            picture = int(draws.integers(2**31))
            digits = "".join(f"{digit:x}" for digit in draws.integers(0, 16, 32))
            missing = draws.random()
            annotations: tuple[tuple[str, str | None], ...] = ()
            if view != "LATERAL" and patient not in elsewhere and missing >= 0.012:
                annotations = tuple(
                    (method, _text(report, method) if missing >= 0.025 else None)
                    for method in report.methods
                )
            exposures.append(
                Exposure(
                    patient_id=f"9999{patient:04d}",
                    study_id=f"9999{number:04d}",
                    image_id="-".join(["00000000", *(digits[i : i + 8] for i in range(0, 32, 8))]),
                    patient=anatomy,
                    study=draw_study(picture, view, patient in elsewhere),
                    findings=report.findings,
                    labels=_labels(report.findings, report.denied),
                    split=split_of[patient],
                    annotations=annotations,
                )
            )
    return sorted(exposures, key=lambda e: (e.patient_id, e.study_id, e.image_id))


def _report(
    row: np.ndarray,
    anatomy: Patient,
    split: str,
    last: _Report | None,
    draws: np.random.Generator,
) -> _Report:
    """Return a study's report; it may be the patient's last one if the findings are the same."""
    if last is not None and last.state == row.tobytes() and draws.random() < _UNCHANGED:
        return last
    findings = tuple(
        _of_patient(name, int(value), anatomy.seed, int(draws.integers(2**31)))
        for name, value in zip(DRAWN, row.tolist(), strict=True)
        if value
    )
    denied = [name for name in _DENIABLE if row[DRAWN.index(name)] == 0]
    denied = [name for name in denied if draws.random() < (0.5 if findings else 0.25)]
    bedridden = any(f.name in ("Support Devices", "Edema") for f in findings)
    view = "AP" if draws.random() < (0.75 if bedridden else 0.25) else "PA"
    # Every test image has the radiologist's report; most training images have GPT-4's.
    both = ("gpt4", "rule-based")
    others = both[1:] if split == "test" else both[:1]
    methods = (both, both[1:], others, others)[int(draws.integers(4))]
    words = int(draws.integers(2**31))
    return _Report(row.tobytes(), findings, tuple(denied), view, words, methods)


def _text(report: _Report, method: str) -> str:
    """Return a report's findings section; GPT-4's has another wording and no marks."""
    if method == "gpt4":
        return describe(report.findings, report.view, report.words + 1, report.denied)
    text = describe(report.findings, report.view, report.words, report.denied)
    return marked(text, report.words) if report.words % 2 else text


_DENIABLE: Final = ("Consolidation", "Edema", "Pleural Effusion", "Pneumonia", "Pneumothorax")


def _split(
    owner: np.ndarray, state: np.ndarray, patients: int, rng: np.random.Generator
) -> list[str]:
    """Return each patient's split: of 64 draws the one with the fewest findings missing in a split.

    Otherwise a small world might have no test patient with a rare finding. Among equal draws, the
    one with the most findings of at least `_TESTABLE` test patients wins. Long-term patients and
    patients with few studies make up the test split.
    """
    has = np.zeros((patients, len(DRAWN)), bool)
    np.logical_or.at(has, owner, state == 1)
    studies = np.bincount(owner, minlength=patients)
    rank = np.select([studies >= _LONG[0], studies <= _FEW], [0, 1], 2)
    train = round(0.6 * patients)
    tested = patients - round(0.8 * patients)
    draws = []
    for _ in range(64):
        order = rng.permutation(patients)
        order = order[np.argsort(rank[order], kind="stable")]
        part = np.full(patients, 1)
        part[order[:tested]] = 2
        part[rng.permutation(order[tested:])[:train]] = 0
        draws.append(part)
    lacking = [sum(int((~has[part == k].any(0)).sum()) for k in range(3)) for part in draws]
    few = [int((has[part == 2].sum(0) < _TESTABLE).sum()) for part in draws]
    best = min(range(len(draws)), key=lambda i: (lacking[i], few[i]))
    return [SPLITS[k] for k in draws[best]]


def _elsewhere(owner: np.ndarray, split_of: list[str], rng: np.random.Generator) -> set[int]:
    """Return the patients of another site: some of each split, but no long-term patients."""
    studies = np.bincount(owner, minlength=len(split_of))
    chosen: set[int] = set()
    for split, one_of in _PER_ELSEWHERE.items():
        inside = [i for i, own in enumerate(split_of) if own == split and studies[i] < _LONG[0]]
        chosen |= set(rng.permutation(inside)[: len(inside) // one_of].tolist())
    return chosen


def _of_patient(name: str, value: int, patient_seed: int, study_seed: int) -> Finding:
    """Return a finding; a chronic one has the same place and shape in all studies of a patient."""
    seed = patient_seed + FINDINGS.index(name) if name in _CHRONIC else study_seed
    return draw_finding(name, seed, certain=value == 1)


def _labels(findings: tuple[Finding, ...], denied: tuple[str, ...]) -> dict[str, int | None]:
    labels: dict[str, int | None] = dict.fromkeys(FINDINGS)
    labels |= dict.fromkeys(denied, 0)
    labels |= {finding.name: 1 if finding.certain else -1 for finding in findings}
    if all(finding.name == "Support Devices" for finding in findings):
        labels["No Finding"] = 1
    return labels
