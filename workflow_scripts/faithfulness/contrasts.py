"""The stress set's numbers: does an image change where, and only where, its prompt does?

Of each contrast a judge is asked for one score of each image, and whether that tells the images of
one wording from those of the other. The value is the area under the ROC curve over all groups of a
finding: how often an image that was asked one way scores above one that was asked the other way,
0.5 by chance.

| value | images asked | against | score |
| --- | --- | --- | --- |
| presence | finding present | not mentioned | probability of the finding |
| negation | finding denied | not mentioned | the same; here 0.5 is right |
| side | left | right | evidence in the left lung less that in the right one |
| severity | severe | mild | probability of the finding |
| zone | upper | lower | evidence in the upper lungs less that in the lower ones |
| device | a device in place | not mentioned | probability of support devices |

**Corrected for the judge's errors.** On radiographs the same score has an AUROC of its own, the
ceiling: of those that are labelled with the finding against the others, or of those whose captions
say one side, zone or severity against the other one (`caption_attributes`). Where a share e of the
captions was falsely read, and says neither, the AUROC is 0.5 + (1 - e)(ceiling - 0.5) where scores
overlap much, and somewhat more where they overlap little; the former is undone, up to 1. The share
of the ceiling above chance (`against_ceiling`) is 0 at chance and 1 where it is as plain as on
radiographs. It is no share of images: where each lies on one side or the other, a share s means
that (1 + s) / 2 lie where asked. Where captions do not say it, or the judge cannot tell it on
radiographs, there is no share: the value stands uncorrected, and the reason beside it. Which
findings have a share is decided on the radiographs whose ceiling is reported.

Beside these: Kendall's tau of severity within triples, which share the seed; the mirrored images'
value of side; and the distance in the judge's features between two wordings of one content, as a
share of that between two contents (a finding present or not mentioned), both of one seed.

The unit is the group: prompts of a group share a seed. Intervals are percentiles of draws of
groups, and, for the ceiling, of patients.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import Value
from workflow_scripts.downstream.classification.metrics import weighted_auroc
from workflow_scripts.downstream.classification.score import FEWEST_PATIENTS
from workflow_scripts.downstream.gains import patient_draws
from workflow_scripts.faithfulness.against_ceiling import (
    BY_PATIENT,
    LEVEL,
    Drawn,
    share_of_ceiling,
    why_not_asked,
)
from workflow_scripts.faithfulness.caption_attributes import ERRORS, read_caption
from workflow_scripts.faithfulness.evidence import Readings
from workflow_scripts.faithfulness.stress_measures import DISTANCES, METRICS, QUESTIONS, Question

CHANCE: Final = 0.5

FEWEST_GROUPS: Final = 10
"""Of one finding, below which percentiles of drawn groups are no interval."""

_BY_GROUP: Final = f"bootstrap {LEVEL:.0%} over groups of prompts"
_BY_BOTH: Final = f"bootstrap {LEVEL:.0%} over groups of prompts and test patients"


@dataclass(frozen=True)
class Radiographs:
    """Held-out radiographs: what the judge says of them, and what is known of them.

    Attributes:
        readings: of n radiographs.
        patients: (n,).
        labels: bool (n, 14).
        captions: (n,), None where there is none.
    """

    readings: Readings
    patients: np.ndarray
    labels: np.ndarray
    captions: Sequence[str | None]


def stress_values(
    stress: pd.DataFrame,
    images: Readings,
    mirrored: Readings,
    radiographs: Radiographs,
    bootstrap: int,
    seed: int,
) -> list[Value]:
    """Return the METRICS of a model, by finding and, as subset `all`, over findings.

    `all` is the mean over the findings that have a share; where none has, over all that were asked,
    uncorrected.

    Args:
        stress: the prompts with their attributes, see `stress_prompts.STRESS_SCHEMA`, (n rows).
        images: of the n images.
        mirrored: of the same images, mirrored.
        radiographs: for the ceilings.
        bootstrap: how many sets of groups, and of patients, are drawn.
        seed: of the draws.
    """
    stress = stress.reset_index(drop=True)
    ceilings = _Ceilings(radiographs, bootstrap, seed)
    values: list[Value] = []
    for number, question in enumerate(QUESTIONS):
        rows = _rows(stress, question)
        if rows.size == 0:
            values += _no_question(question)
            continue
        own = stress.loc[rows]
        draws = _group_draws(own["group"].to_numpy(), bootstrap, [seed, number])
        scored = _scores(images.rows(rows), own, question.regions)
        values += _answers(question, own, scored, draws, ceilings)
        if question.key == "side":
            turned = _scores(mirrored.rows(rows), own, question.regions)
            values += _mirrored(question, own, turned, draws, ceilings)
    told = {v.subset for v in values if v.metric == "stress_severity_share" and v.value is not None}
    values += _tau_values(stress, images, told - {"all"}, bootstrap, seed)
    for number, contrast in enumerate(DISTANCES):
        values.append(_distance_value(contrast, stress, images, bootstrap, [seed, 100 + number]))
    return values


def image_scores(stress: pd.DataFrame, images: Readings, values: Sequence[Value]) -> pd.DataFrame:
    """Return each image's score in its contrast, and whether its group came out as asked.

    Args:
        stress: the prompts, (n rows).
        images: of the n images.
        values: what `stress_values` made of them.

    Returns:
        SCORE_COLUMNS, in the prompts' order. `score`: a probability; of side and zone a difference
        of evidence; of wording and view the distance to the other image, as a share of the mean
        distance of two contents. `as_asked`: of the group; of presence two things are asked,
        present above not mentioned, and denied nearer to not mentioned than to present. `told`:
        whether the judge tells the finding on radiographs, so that there is a share.
    """
    stress = stress.reset_index(drop=True)
    regions = {question.contrast: question.regions for question in QUESTIONS}
    between = _pair_distances(stress, images, "presence", ("present", "unmentioned"))
    unit = float(np.mean(between)) if len(between) else float("nan")
    parts = []
    for contrast, own in stress.groupby("contrast", sort=False):
        rows = own.index.to_numpy()
        if contrast in regions:
            score = _scores(images.rows(rows), own, regions[str(contrast)])
        else:
            score = np.empty(len(own))
            for where in own.groupby("group").indices.values():
                one, other = rows[where[:2]]
                gap = float(np.linalg.norm(images.features[one] - images.features[other]))
                score[where] = gap / unit if unit > 0 else np.nan
        frame = own[["prompt_id", "contrast", "group", "level", "finding", "caption"]].copy()
        frame["score"] = score
        frame["as_asked"] = _as_asked(frame, str(contrast))
        key = next((q.key for q in QUESTIONS if q.contrast == contrast), "presence")
        told = {
            v.subset for v in values if v.metric == f"stress_{key}_share" and v.value is not None
        }
        frame["told"] = frame["finding"].isin(told)
        parts.append(frame)
    return pd.concat(parts).loc[stress.index].reset_index(drop=True)


def _as_asked(frame: pd.DataFrame, contrast: str) -> np.ndarray:
    right = np.zeros(len(frame), bool)
    for where in frame.groupby("group").indices.values():
        own = frame.iloc[where]
        of = dict(zip(own["level"], own["score"], strict=True))
        if contrast == "presence":
            middle = (of["present"] + of["unmentioned"]) / 2
            good = of["present"] > of["unmentioned"] and of["denied"] < middle
        elif contrast == "severity":
            good = of["mild"] < of["moderate"] < of["severe"]
        elif contrast in DISTANCES:
            good = bool(own["score"].iloc[0] < 1)
        else:
            high, low = next(q.levels for q in QUESTIONS if q.contrast == contrast)
            good = of[high] > of[low]
        right[where] = good
    return right


def _rows(stress: pd.DataFrame, question: Question) -> np.ndarray:
    asked = (stress["contrast"] == question.contrast) & stress["level"].isin(question.levels)
    return np.flatnonzero(asked.to_numpy())


def _scores(images: Readings, own: pd.DataFrame, regions: tuple[str, str] | None) -> np.ndarray:
    """Return the score of each image for the finding of its prompt, (n,)."""
    columns = np.array([FINDINGS.index(name) for name in own["finding"]])
    rows = np.arange(len(own))
    if regions is None:
        return images.probabilities[rows, columns]
    first, second = (images.evidence[name][rows, columns] for name in regions)
    return np.asarray(first - second)


def _group_draws(groups: np.ndarray, draws: int, seed: Sequence[int]) -> np.ndarray:
    """Return how often each row counts, (draws, n), in sets of groups drawn with replacement."""
    names, of = np.unique(groups, return_inverse=True)
    times = np.random.default_rng(list(seed)).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=draws
    )
    return np.asarray(times[:, of], dtype=np.float64)


def _auroc(high: np.ndarray, scores: np.ndarray, draws: np.ndarray) -> Drawn:
    whole = np.concatenate([np.ones((1, len(scores))), draws])
    found = weighted_auroc(high, scores, whole)
    return Drawn(float(found[0]), found[1:])


class _Ceilings:
    """What the judge reaches on radiographs, for each question and finding, computed once."""

    def __init__(self, radiographs: Radiographs, bootstrap: int, seed: int):
        self.radiographs = radiographs
        self.draws = np.concatenate(list(patient_draws(radiographs.patients, bootstrap, seed)))
        self.said = [read_caption(text) if text else {} for text in radiographs.captions]
        self._found: dict[tuple[str, str], tuple[Drawn | None, np.ndarray, str | None]] = {}

    def of(self, question: Question, finding: str) -> tuple[Drawn | None, np.ndarray, str | None]:
        """Return the ceiling, the rows of its radiographs, and why there is no share."""
        key = (f"{question.told_by}/{question.regions}", finding)
        if key not in self._found:
            self._found[key] = self._measure(question, finding)
        return self._found[key]

    def _measure(
        self, question: Question, finding: str
    ) -> tuple[Drawn | None, np.ndarray, str | None]:
        high, rows = self._told(question, finding)
        patients = self.radiographs.patients[rows]
        fewest = min(len(set(patients[high])), len(set(patients[~high])))
        if fewest < FEWEST_PATIENTS:
            what = (
                "label" if question.told_by == "label" else f"caption that says the {question.key}"
            )
            reason = (
                f"uncorrected: on one side {fewest} test patient(s) whose {what} tells it "
                f"({FEWEST_PATIENTS} needed)"
            )
            return None, rows, reason
        own = pd.DataFrame({"finding": [finding] * len(rows)})
        scores = _scores(self.radiographs.readings.rows(rows), own, question.regions)
        seen = _auroc(high, scores, self.draws[:, rows])
        kept = 1 - ERRORS.get(question.told_by, 0.0)
        undone = np.minimum(CHANCE + (np.array([seen.value, *seen.draws]) - CHANCE) / kept, 1.0)
        ceiling = Drawn(float(undone[0]), undone[1:])
        return ceiling, rows, why_not_asked(ceiling, CHANCE)

    def _told(self, question: Question, finding: str) -> tuple[np.ndarray, np.ndarray]:
        if question.told_by == "label":
            return self.radiographs.labels[:, FINDINGS.index(finding)], np.arange(len(self.said))
        told = np.array(
            [
                question.values.index(value)
                if finding in own
                and own[finding].present
                and (value := getattr(own[finding], question.told_by)) in question.values
                else -1
                for own in self.said
            ]
        )
        rows = np.flatnonzero(told >= 0)
        return told[rows] == 0, rows


def _answers(
    question: Question,
    own: pd.DataFrame,
    scores: np.ndarray,
    draws: np.ndarray,
    ceilings: _Ceilings,
) -> list[Value]:
    """Return value, ceiling and share of a question, by finding and over findings."""
    high = (own["level"] == question.levels[0]).to_numpy()
    findings = own["finding"].to_numpy()
    found: dict[str, _Found] = {}
    for name in dict.fromkeys(findings):
        rows = findings == name
        score = _auroc(high[rows], scores[rows], draws[:, rows])
        ceiling, told, reason = ceilings.of(question, name)
        groups = int(own["group"][rows].nunique())
        found[name] = _Found(score, ceiling, told, reason, int(rows.sum()), groups)
    values: list[Value] = []
    for name, one in found.items():
        values += _three(question, name, one)
    shared = {name: one for name, one in found.items() if one.reason is None}
    asked = shared or found
    n = sum(one.n for one in asked.values())
    score = _mean([one.score for one in asked.values()])
    if not shared:
        name, entry = next(iter(found.items()))
        others = f"of none of {len(found)} findings; of {name.lower()}: " if len(found) > 1 else ""
        none = np.empty(0, int)
        whole = _Found(score, None, none, f"{others}{entry.reason}", n, None)
        return values + _three(question, "all", whole)
    ceiling = _mean([one.ceiling for one in shared.values() if one.ceiling is not None])
    told = functools.reduce(np.union1d, [one.told for one in shared.values()])
    return values + _three(question, "all", _Found(score, ceiling, told, None, n, None))


@dataclass(frozen=True)
class _Found:
    """What is known of a question and a finding, or over findings.

    Attributes:
        score: of the images.
        ceiling: of the radiographs, None where there are too few.
        told: which radiographs the ceiling rests on, row numbers.
        reason: why there is no share.
        n: images.
        groups: that the score's draws rest on; None over findings, which always have an interval.
    """

    score: Drawn
    ceiling: Drawn | None
    told: np.ndarray
    reason: str | None
    n: int
    groups: int | None


def _three(question: Question, subset: str, of: _Found) -> list[Value]:
    key = f"stress_{question.key}"
    n, n_real = of.n, len(of.told)
    raw_way = "none" if question.key == "negation" else question.direction
    values = [of.score.as_value(key, raw_way, n, subset, _kind(of.groups))]
    why = of.reason or "no ceiling"
    if of.ceiling is None:
        values.append(Value(f"{key}_ceiling", None, "none", n_real, subset, reason=why))
    else:
        values.append(of.ceiling.as_value(f"{key}_ceiling", "none", n_real, subset, BY_PATIENT))
    if of.ceiling is None or of.reason is not None:
        values.append(Value(f"{key}_share", None, question.direction, n, subset, reason=why))
    else:
        share = share_of_ceiling(of.score, of.ceiling, CHANCE)
        kind = _kind(of.groups, _BY_BOTH)
        values.append(share.as_value(f"{key}_share", question.direction, n, subset, kind, n_real))
    return values


def _mirrored(
    question: Question,
    own: pd.DataFrame,
    scores: np.ndarray,
    draws: np.ndarray,
    ceilings: _Ceilings,
) -> list[Value]:
    """Return the value of side on the mirrored images, over the findings of `all`."""
    values = _answers(question, own, scores, draws, ceilings)
    whole = next(v for v in values if (v.metric, v.subset) == ("stress_side", "all"))
    return [
        Value(
            "stress_side_mirrored",
            whole.value,
            "lower",
            whole.n,
            interval=whole.interval,
            interval_kind=whole.interval_kind,
        )
    ]


def _mean(parts: Sequence[Drawn]) -> Drawn:
    """Return the mean of values, and of each draw over those that are defined in it."""
    stacked = np.stack([part.draws for part in parts])
    defined = np.isfinite(stacked)
    sums = np.where(defined, stacked, 0.0).sum(0)
    counts = defined.sum(0)
    draws = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return Drawn(float(np.mean([part.value for part in parts])), draws)


def _kind(groups: int | None, kind: str = _BY_GROUP) -> str | None:
    """Return the kind of an interval; None where there are too few groups for one."""
    return kind if groups is None or groups >= FEWEST_GROUPS else None


def _no_question(question: Question) -> list[Value]:
    reason = f"no prompt of the contrast `{question.contrast}` was drawn"
    keys = (
        f"stress_{question.key}",
        f"stress_{question.key}_ceiling",
        f"stress_{question.key}_share",
    )
    raw_way = "none" if question.key == "negation" else question.direction
    ways = (raw_way, "none", question.direction)
    values = [Value(k, None, way, 0, reason=reason) for k, way in zip(keys, ways, strict=True)]
    if question.key == "side":
        values.append(Value("stress_side_mirrored", None, "lower", 0, reason=reason))
    return values


def triple_taus(stress: pd.DataFrame, images: Readings) -> pd.Series:
    """Return Kendall's tau of severity in each triple, by group: -1 to 1, ties count half."""
    own = stress[stress["contrast"] == "severity"]
    scores = pd.Series(_scores(images.rows(own.index.to_numpy()), own, None), index=own.index)
    wide = own.assign(score=scores).pivot(index="group", columns="level", values="score")
    pairs = (("mild", "moderate"), ("moderate", "severe"), ("mild", "severe"))
    return sum(np.sign(wide[b] - wide[a]) for a, b in pairs) / len(pairs)  # type: ignore[return-value]


def _tau_values(
    stress: pd.DataFrame, images: Readings, told: set[str], bootstrap: int, seed: int
) -> list[Value]:
    """Return tau by finding and, as `all`, over the findings `told` that have a share, if any."""
    key = "stress_severity_tau"
    own = stress[stress["contrast"] == "severity"]
    if own.empty:
        reason = "no prompt of the contrast `severity` was drawn"
        return [Value(key, None, "higher", 0, reason=reason)]
    taus = triple_taus(stress, images)
    finding_of = own.drop_duplicates("group").set_index("group")["finding"]
    values = []
    asked = told or set(own["finding"])
    for name in ["all", *dict.fromkeys(own["finding"])]:
        chosen = taus[finding_of[taus.index].isin(asked if name == "all" else {name})]
        drawn = _mean_of_groups(chosen.to_numpy(), bootstrap, [seed, 50])
        groups = None if name == "all" else len(chosen)
        values.append(drawn.as_value(key, "higher", 3 * len(chosen), name, _kind(groups)))
    return values


def _mean_of_groups(values: np.ndarray, bootstrap: int, seed: Sequence[int]) -> Drawn:
    times = _group_draws(np.arange(len(values)), bootstrap, seed)
    return Drawn(float(values.mean()), times @ values / len(values))


def _pair_distances(
    stress: pd.DataFrame, images: Readings, contrast: str, levels: tuple[str, str]
) -> np.ndarray:
    """Return the distance of the features of two images of each group, (groups,)."""
    own = stress[(stress["contrast"] == contrast) & stress["level"].isin(levels)]
    wide = own.assign(row=own.index).pivot(index="group", columns="level", values="row")
    if wide.empty:
        return np.empty(0)
    first, second = (images.features[wide[level].to_numpy()] for level in levels)
    return np.asarray(np.linalg.norm(first - second, axis=1))


_PAIRS: Final[Mapping[str, tuple[str, str]]] = {
    "wording": ("wording0", "wording1"),
    "view": ("portable", "upright"),
}


def _distance_value(
    contrast: str, stress: pd.DataFrame, images: Readings, bootstrap: int, seed: Sequence[int]
) -> Value:
    key = f"stress_{contrast}"
    direction = next(metric.direction for metric in METRICS if metric.key == key)
    own = _pair_distances(stress, images, contrast, _PAIRS[contrast])
    contents = _pair_distances(stress, images, "presence", ("present", "unmentioned"))
    n = 2 * len(own)
    if not len(own) or not len(contents):
        missing = contrast if not len(own) else "presence"
        reason = f"no prompt of the contrast `{missing}` was drawn"
        return Value(key, None, direction, n, reason=reason)
    if not contents.mean() > 0:
        reason = "images of one seed are the same whatever is asked: there is no scale"
        return Value(key, None, direction, n, reason=reason)
    one = _mean_of_groups(own, bootstrap, [*seed, 0])
    other = _mean_of_groups(contents, bootstrap, [*seed, 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = Drawn(one.value / other.value, one.draws / other.draws)
    return drawn.as_value(key, direction, n, kind=_BY_GROUP)
