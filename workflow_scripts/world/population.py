"""Who is in the world: patients, their studies, findings with the paper's long tail, labels, split.

It has MIMIC's awkward shape. Few patients stay long and have most of the test set's radiographs.
All films of a study carry its report, and a study that shows what the last one showed repeats that
one's words. A report stands as the radiologist wrote it (rule-based, with the marks of
de-identification), as gpt4 rewrote it, or both ways. The radiographs of another site's patients
look otherwise and have no report.

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

_STUDIES: Final = (0.38, 0.31, 0.21, 0.10)
"""Shares of patients with 1, 2, 3 and 4 studies, those who stay long apart."""

_LONG: Final = (5, 8)
"""Fewest and most studies of a patient who stays long."""

_PER_LONG: Final = 20
"""Patients among whom one stays long. All of them are tested on."""

_FEW: Final = 2
"""Studies at most of the other patients who are tested on."""

_TESTABLE: Final = 10
"""Positive patients from which on an AUROC is reported (downstream/classification/score.py)."""

_PER_ELSEWHERE: Final = {"train": 16, "validate": 16, "test": 6}
"""Patients of a split among whom one is of another site."""

_UNCHANGED: Final = 0.7
"""Share of the studies with the last one's findings whose report repeats its words."""

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
        annotations: the findings section by method (gpt4, rule-based), as the annotation file has
            it: none at all for some images, and an entry with None where the section is missing.
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
        """The caption that the cohort takes: gpt4's, else the radiologist's words, else None."""
        return next((text for _, text in self.annotations), None)


@dataclass(frozen=True)
class _Report:
    """What a study shows and says.

    Attributes:
        state: of each finding of DRAWN, as bytes.
        findings, denied: what is drawn; what the report denies.
        view: of its frontal films.
        words: seed of the wording.
        methods: by which methods the report stands in the annotations, gpt4 first.
    """

    state: bytes
    findings: tuple[Finding, ...]
    denied: tuple[str, ...]
    view: str
    words: int
    methods: tuple[str, ...]


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
    counts = rng.choice([1, 2, 3, 4], patients, p=_STUDIES)
    long = rng.permutation(patients)[: -(-patients // _PER_LONG)]
    counts[long] = rng.integers(_LONG[0], _LONG[1] + 1, len(long))
    owner = np.repeat(np.arange(patients), counts)
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
    annotation or an empty one, and those of another site have none.
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
    """Return a study's report, or its patient's last one again where nothing has changed."""
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
    # The radiologist's own words are there for every test image, gpt4's for most training images.
    both = ("gpt4", "rule-based")
    others = both[1:] if split == "test" else both[:1]
    methods = (both, both[1:], others, others)[int(draws.integers(4))]
    words = int(draws.integers(2**31))
    return _Report(row.tobytes(), findings, tuple(denied), view, words, methods)


def _text(report: _Report, method: str) -> str:
    """Return a report's findings section; gpt4 leaves out the marks, and has words of its own."""
    if method == "gpt4":
        return describe(report.findings, report.view, report.words + 1, report.denied)
    text = describe(report.findings, report.view, report.words, report.denied)
    return marked(text, report.words) if report.words % 2 else text


_DENIABLE: Final = ("Consolidation", "Edema", "Pleural Effusion", "Pneumonia", "Pneumothorax")


def _split(
    owner: np.ndarray, state: np.ndarray, patients: int, rng: np.random.Generator
) -> list[str]:
    """Return each patient's split; of 64 draws the one that leaves fewest findings out of a split.

    A small world would else have no patient to test a rare finding on. Among equal draws it is the
    one with most findings that `_TESTABLE` patients are tested on. Who stays long is tested on,
    beside patients of few studies.
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
    """Return the patients of another site: some of each split, none of those who stay long."""
    studies = np.bincount(owner, minlength=len(split_of))
    chosen: set[int] = set()
    for split, one_of in _PER_ELSEWHERE.items():
        inside = [i for i, own in enumerate(split_of) if own == split and studies[i] < _LONG[0]]
        chosen |= set(rng.permutation(inside)[: len(inside) // one_of].tolist())
    return chosen


def _of_patient(name: str, value: int, patient_seed: int, study_seed: int) -> Finding:
    """Return a finding; a chronic one keeps its place and shape over the patient's studies."""
    seed = patient_seed + FINDINGS.index(name) if name in _CHRONIC else study_seed
    return draw_finding(name, seed, certain=value == 1)


def _labels(findings: tuple[Finding, ...], denied: tuple[str, ...]) -> dict[str, int | None]:
    labels: dict[str, int | None] = dict.fromkeys(FINDINGS)
    labels |= dict.fromkeys(denied, 0)
    labels |= {finding.name: 1 if finding.certain else -1 for finding in findings}
    if all(finding.name == "Support Devices" for finding in findings):
        labels["No Finding"] = 1
    return labels
