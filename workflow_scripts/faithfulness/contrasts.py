"""The values of the stress set: does an image change where its prompt does, and nowhere else?

For each contrast, a judge gives every image one score. The value says whether the score separates
the images of one prompt from those of the other. It is the area under the ROC curve over all groups
of a finding: the probability that an image of the first kind scores above one of the second, 0.5 by
chance.

| value | first kind of prompt | second kind | score |
| --- | --- | --- | --- |
| presence | finding present | not mentioned | probability of the finding |
| negation | finding denied | not mentioned | the same; here 0.5 is right |
| side | left | right | evidence in the left lung minus evidence in the right lung |
| severity | severe | mild | probability of the finding |
| zone | upper | lower | evidence in the upper zones minus evidence in the lower zones |
| device | a device in place | not mentioned | probability of support devices |

**Correction for the judge's errors.** The AUROC of the same score on radiographs is the ceiling. It
separates radiographs with the finding's label from all others, or radiographs whose captions name
one side, zone or severity from those that name the other (`caption_attributes`). Suppose that a
share e of the captions was read wrongly and names neither. The measured AUROC is then
0.5 + (1 - e)(ceiling - 0.5) if the scores overlap much, and somewhat more if they overlap little.
The ceiling is corrected by the inverse of the formula, and is at most 1.

The share of the ceiling above chance (`against_ceiling`) is 0 at chance, and 1 if the contrast is
as clear as on radiographs. It is not a share of images: if every image clearly shows one of two
sides, a share s means that (1 + s) / 2 of them show the side that was asked for. There is no share
if captions do not name the attribute, or if the judge does not recognise it on radiographs. The
value is then uncorrected, and the record has the reason. The radiographs that decide whether a
finding has a share are those of its ceiling.

Three further values are Kendall's tau of severity within triples that share a seed; the value of
side on mirrored images; and the distance in the judge's features between two wordings of one
content, relative to the distance between two contents (a finding present or not mentioned) with the
same seed.

The unit is the group, whose prompts share a seed. Intervals are percentiles over draws of groups
and, for the ceiling, over draws of patients, expanded for few of them.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    together,
    why_not_asked,
)
from workflow_scripts.faithfulness.caption_attributes import ERRORS, read_caption
from workflow_scripts.faithfulness.evidence import Readings
from workflow_scripts.faithfulness.stress_measures import DISTANCES, METRICS, QUESTIONS, Question

CHANCE: Final = 0.5

FEWEST_GROUPS: Final = 10
"""Least number of groups of a finding for an interval from draws of groups."""

_BY_GROUP: Final = f"bootstrap {LEVEL:.0%} over groups of prompts"
_BY_BOTH: Final = f"bootstrap {LEVEL:.0%} over groups of prompts and test patients"


@dataclass(frozen=True)
class Radiographs:
    """Test radiographs with the judge's readings, their labels and captions.

    Attributes:
        readings: the readings of n radiographs.
        patients: (n,), their patients.
        labels: bool (n, 14), their findings.
        captions: (n,), None if a radiograph has none.
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

    `all` is the mean over the findings that have a share. If none has a share, it is the
    uncorrected mean over all findings that were asked for.

    Args:
        stress: n prompts with their attributes, see `stress_prompts.STRESS_SCHEMA`.
        images: the readings of the n images.
        mirrored: the readings of the same images, mirrored.
        radiographs: the radiographs for the ceilings.
        bootstrap: number of drawn sets of groups, and of patients.
        seed: seed of the draws.
    """
    stress = stress.reset_index(drop=True)
    ceilings = _Ceilings(radiographs, bootstrap, seed)
    values: list[Value] = []
    for number, question in enumerate(QUESTIONS):
        rows = _rows(stress, question)
        if rows.size == 0:
            values += _no_question(question)
            continue
        asked = stress.loc[rows]
        draws = _group_draws(asked["group"].to_numpy(), bootstrap, [seed, number])
        scores = _scores(images.rows(rows), asked, question.regions)
        values += _answers(question, asked, scores, draws, ceilings)
        if question.key == "side":
            scores = _scores(mirrored.rows(rows), asked, question.regions)
            values += _mirrored(question, asked, scores, draws, ceilings)
    values += _tau_values(stress, images, _with_share("severity", values), bootstrap, seed)
    for number, contrast in enumerate(DISTANCES):
        values.append(_distance_value(contrast, stress, images, bootstrap, [seed, 100 + number]))
    return values


def image_scores(stress: pd.DataFrame, images: Readings, values: Sequence[Value]) -> pd.DataFrame:
    """Return each image's score in its contrast, and whether its group came out as asked.

    Args:
        stress: n prompts.
        images: the readings of the n images.
        values: the values of `stress_values`.

    Returns:
        SCORE_COLUMNS, in the prompts' order. `score` is a probability; for side and zone a
        difference of evidence; for wording and view the distance to the other image, relative to
        the mean distance between two contents. `as_asked` holds for the whole group. In the
        contrast `presence` it asks that `present` scores above `unmentioned`, and `denied` closer
        to `unmentioned` than to `present`. `told` is true if the finding has a share.
    """
    stress = stress.reset_index(drop=True)
    regions = {question.contrast: question.regions for question in QUESTIONS}
    between = _pair_distances(stress, images, "presence", ("present", "unmentioned"))
    unit = float(np.mean(between)) if len(between) else float("nan")
    parts = []
    for contrast, prompts in stress.groupby("contrast", sort=False):
        rows = prompts.index.to_numpy()
        if contrast in regions:
            score = _scores(images.rows(rows), prompts, regions[str(contrast)])
        else:
            score = np.empty(len(prompts))
            for where in prompts.groupby("group").indices.values():
                one, other = rows[where[:2]]
                gap = float(np.linalg.norm(images.features[one] - images.features[other]))
                score[where] = gap / unit if unit > 0 else np.nan
        frame = prompts[["prompt_id", "contrast", "group", "level", "finding", "caption"]].copy()
        frame["score"] = score
        frame["as_asked"] = _as_asked(frame, str(contrast))
        key = next((q.key for q in QUESTIONS if q.contrast == contrast), "presence")
        frame["told"] = frame["finding"].isin(_with_share(key, values))
        parts.append(frame)
    return pd.concat(parts).loc[stress.index].reset_index(drop=True)


def _with_share(key: str, values: Sequence[Value]) -> set[str]:
    """Return the findings for which the question `key` has a share."""
    metric = f"stress_{key}_share"
    return {v.subset for v in values if v.metric == metric and v.value is not None} - {"all"}


def _as_asked(frame: pd.DataFrame, contrast: str) -> np.ndarray:
    """Return whether each row's group came out as asked, bool (n,)."""
    as_asked = np.zeros(len(frame), bool)
    for where in frame.groupby("group").indices.values():
        group = frame.iloc[where]
        score = dict(zip(group["level"], group["score"], strict=True))
        if contrast == "presence":
            middle = (score["present"] + score["unmentioned"]) / 2
            right = score["present"] > score["unmentioned"] and score["denied"] < middle
        elif contrast == "severity":
            right = score["mild"] < score["moderate"] < score["severe"]
        elif contrast in DISTANCES:
            right = bool(group["score"].iloc[0] < 1)
        else:
            high, low = next(q.levels for q in QUESTIONS if q.contrast == contrast)
            right = score[high] > score[low]
        as_asked[where] = right
    return as_asked


def _rows(stress: pd.DataFrame, question: Question) -> np.ndarray:
    asked = (stress["contrast"] == question.contrast) & stress["level"].isin(question.levels)
    return np.flatnonzero(asked.to_numpy())


def _scores(images: Readings, prompts: pd.DataFrame, regions: tuple[str, str] | None) -> np.ndarray:
    """Return the score of each image for the finding of its prompt, (n,)."""
    columns = np.array([FINDINGS.index(name) for name in prompts["finding"]])
    rows = np.arange(len(prompts))
    if regions is None:
        return images.probabilities[rows, columns]
    first, second = (images.evidence[name][rows, columns] for name in regions)
    return np.asarray(first - second)


def _group_draws(groups: np.ndarray, draws: int, seed: Sequence[int]) -> np.ndarray:
    """Return how often each row counts, (draws, n), in sets of groups drawn with replacement."""
    names, group_of = np.unique(groups, return_inverse=True)
    times = np.random.default_rng(list(seed)).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=draws
    )
    return np.asarray(times[:, group_of], dtype=np.float64)


def _auroc(
    high: np.ndarray, scores: np.ndarray, draws: np.ndarray, units: int | None = None
) -> Drawn:
    weights = np.concatenate([np.ones((1, len(scores))), draws])
    aurocs = weighted_auroc(high, scores, weights)
    return Drawn(float(aurocs[0]), aurocs[1:], units)


class _Ceilings:
    """The ceiling of each question and finding on radiographs, computed once."""

    def __init__(self, radiographs: Radiographs, bootstrap: int, seed: int):
        self.radiographs = radiographs
        self.draws = np.concatenate(list(patient_draws(radiographs.patients, bootstrap, seed)))
        self.mentions = [read_caption(text) if text else {} for text in radiographs.captions]
        self._ceilings: dict[tuple[str, str], tuple[Drawn | None, np.ndarray, str | None]] = {}

    def of(self, question: Question, finding: str) -> tuple[Drawn | None, np.ndarray, str | None]:
        """Return the ceiling, the row numbers of its radiographs, and why there is no share."""
        key = (f"{question.told_by}/{question.regions}", finding)
        if key not in self._ceilings:
            self._ceilings[key] = self._measure(question, finding)
        return self._ceilings[key]

    def _measure(
        self, question: Question, finding: str
    ) -> tuple[Drawn | None, np.ndarray, str | None]:
        high, rows = self._sides(question, finding)
        patients = self.radiographs.patients[rows]
        fewest = min(len(set(patients[high])), len(set(patients[~high])))
        if fewest < FEWEST_PATIENTS:
            by_label = question.told_by == "label"
            rarer = "answer by labels" if by_label else f"{question.key} that captions say"
            reason = (
                f"uncorrected: the rarer {rarer} has {fewest} test patient(s) "
                f"({FEWEST_PATIENTS} needed)"
            )
            return None, rows, reason
        asked = pd.DataFrame({"finding": [finding] * len(rows)})
        scores = _scores(self.radiographs.readings.rows(rows), asked, question.regions)
        auroc = _auroc(high, scores, self.draws[:, rows], fewest)
        correct = 1 - ERRORS.get(question.told_by, 0.0)
        measured = np.array([auroc.value, *auroc.draws])
        corrected = np.minimum(CHANCE + (measured - CHANCE) / correct, 1.0)
        ceiling = Drawn(float(corrected[0]), corrected[1:], fewest)
        return ceiling, rows, why_not_asked(ceiling, CHANCE)

    def _sides(self, question: Question, finding: str) -> tuple[np.ndarray, np.ndarray]:
        """Return which radiographs should score high, bool (k,), and their row numbers, (k,)."""
        if question.told_by == "label":
            high = self.radiographs.labels[:, FINDINGS.index(finding)]
            return high, np.arange(len(self.mentions))
        side = np.array(
            [
                question.values.index(value)
                if finding in mentions
                and mentions[finding].present
                and (value := getattr(mentions[finding], question.told_by)) in question.values
                else -1
                for mentions in self.mentions
            ]
        )
        rows = np.flatnonzero(side >= 0)
        return side[rows] == 0, rows


def _answers(
    question: Question,
    prompts: pd.DataFrame,
    scores: np.ndarray,
    draws: np.ndarray,
    ceilings: _Ceilings,
) -> list[Value]:
    """Return value, ceiling and share of a question, by finding and over findings."""
    high = (prompts["level"] == question.levels[0]).to_numpy()
    findings = prompts["finding"].to_numpy()
    answers: dict[str, _Answer] = {}
    for name in dict.fromkeys(findings):
        rows = findings == name
        groups = int(prompts["group"][rows].nunique())
        score = _auroc(high[rows], scores[rows], draws[:, rows], groups)
        ceiling, radiographs, reason = ceilings.of(question, name)
        answers[name] = _Answer(score, ceiling, radiographs, reason, int(rows.sum()), groups)
    values: list[Value] = []
    for name, answer in answers.items():
        values += _values(question, name, answer)
    shared = [answer for answer in answers.values() if answer.reason is None]
    asked = shared or list(answers.values())
    n = sum(answer.n for answer in asked)
    score = _mean([answer.score for answer in asked])
    if not shared:
        name, first = next(iter(answers.items()))
        count = len(answers)
        others = f"for none of {count} findings; for {name.lower()}: " if count > 1 else ""
        none = np.empty(0, int)
        overall = _Answer(score, None, none, f"{others}{first.reason}", n, None)
        return values + _values(question, "all", overall)
    ceiling = _mean([answer.ceiling for answer in shared if answer.ceiling is not None])
    radiographs = functools.reduce(np.union1d, [answer.radiographs for answer in shared])
    overall = _Answer(score, ceiling, radiographs, None, n, None)
    return values + _values(question, "all", overall)


@dataclass(frozen=True)
class _Answer:
    """The answer to a question for one finding, or over findings.

    Attributes:
        score: the score of the images.
        ceiling: the score of the radiographs; None if there are too few.
        radiographs: row numbers of the radiographs of the ceiling.
        reason: why there is no share.
        n: number of images.
        groups: number of groups behind the score; None over findings, where there are enough.
    """

    score: Drawn
    ceiling: Drawn | None
    radiographs: np.ndarray
    reason: str | None
    n: int
    groups: int | None


def _values(question: Question, subset: str, answer: _Answer) -> list[Value]:
    """Return value, ceiling and share of an answer."""
    key = f"stress_{question.key}"
    n, n_real = answer.n, len(answer.radiographs)
    raw_way = "none" if question.key == "negation" else question.direction
    values = [answer.score.as_value(key, raw_way, n, subset, _kind(answer.groups))]
    why = answer.reason or "no ceiling"
    if answer.ceiling is None:
        values.append(Value(f"{key}_ceiling", None, "none", n_real, subset, reason=why))
    else:
        values.append(answer.ceiling.as_value(f"{key}_ceiling", "none", n_real, subset, BY_PATIENT))
    if answer.ceiling is None or answer.reason is not None:
        values.append(Value(f"{key}_share", None, question.direction, n, subset, reason=why))
    else:
        share = share_of_ceiling(answer.score, answer.ceiling, CHANCE)
        kind = _kind(answer.groups, _BY_BOTH)
        values.append(share.as_value(f"{key}_share", question.direction, n, subset, kind, n_real))
    return values


def _mirrored(
    question: Question,
    prompts: pd.DataFrame,
    scores: np.ndarray,
    draws: np.ndarray,
    ceilings: _Ceilings,
) -> list[Value]:
    """Return the value of side on the mirrored images, over the findings of `all`."""
    values = _answers(question, prompts, scores, draws, ceilings)
    overall = next(v for v in values if (v.metric, v.subset) == ("stress_side", "all"))
    return [replace(overall, metric="stress_side_mirrored", direction="lower")]


def _mean(parts: Sequence[Drawn]) -> Drawn:
    """Return the mean of scores; in each draw, over the scores that are defined."""
    stacked = np.stack([part.draws for part in parts])
    defined = np.isfinite(stacked)
    sums = np.where(defined, stacked, 0.0).sum(0)
    counts = defined.sum(0)
    draws = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    value = float(np.mean([part.value for part in parts]))
    return Drawn(value, draws, together([part.units for part in parts]))


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
    """Return Kendall's tau of severity in each triple, by group, from -1 to 1; ties count half."""
    triples = stress[stress["contrast"] == "severity"]
    scores = _scores(images.rows(triples.index.to_numpy()), triples, None)
    wide = triples.assign(score=scores).pivot(index="group", columns="level", values="score")
    pairs = (("mild", "moderate"), ("moderate", "severe"), ("mild", "severe"))
    return sum(np.sign(wide[b] - wide[a]) for a, b in pairs) / len(pairs)  # type: ignore[return-value]


def _tau_values(
    stress: pd.DataFrame, images: Readings, with_share: set[str], bootstrap: int, seed: int
) -> list[Value]:
    """Return tau by finding and, as `all`, over the findings that have a share, or over all."""
    key = "stress_severity_tau"
    triples = stress[stress["contrast"] == "severity"]
    if triples.empty:
        reason = "no prompt of the contrast `severity` was drawn"
        return [Value(key, None, "higher", 0, reason=reason)]
    taus = triple_taus(stress, images)
    finding_of = triples.drop_duplicates("group").set_index("group")["finding"]
    values = []
    overall = with_share or set(triples["finding"])
    for name in ["all", *dict.fromkeys(triples["finding"])]:
        chosen = taus[finding_of[taus.index].isin(overall if name == "all" else {name})]
        drawn = _mean_of_groups(chosen.to_numpy(), bootstrap, [seed, 50])
        groups = None if name == "all" else len(chosen)
        values.append(drawn.as_value(key, "higher", 3 * len(chosen), name, _kind(groups)))
    return values


def _mean_of_groups(values: np.ndarray, bootstrap: int, seed: Sequence[int]) -> Drawn:
    times = _group_draws(np.arange(len(values)), bootstrap, seed)
    return Drawn(float(values.mean()), times @ values / len(values), len(values))


def _pair_distances(
    stress: pd.DataFrame, images: Readings, contrast: str, levels: tuple[str, str]
) -> np.ndarray:
    """Return the distance between the features of two images of each group, (groups,)."""
    pairs = stress[(stress["contrast"] == contrast) & stress["level"].isin(levels)]
    wide = pairs.assign(row=pairs.index).pivot(index="group", columns="level", values="row")
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
    wordings = _pair_distances(stress, images, contrast, _PAIRS[contrast])
    contents = _pair_distances(stress, images, "presence", ("present", "unmentioned"))
    n = 2 * len(wordings)
    if not len(wordings) or not len(contents):
        missing = contrast if not len(wordings) else "presence"
        reason = f"no prompt of the contrast `{missing}` was drawn"
        return Value(key, None, direction, n, reason=reason)
    if not contents.mean() > 0:
        reason = "images of one seed are the same whatever is asked: there is no scale"
        return Value(key, None, direction, n, reason=reason)
    mean = _mean_of_groups(wordings, bootstrap, [*seed, 0])
    scale = _mean_of_groups(contents, bootstrap, [*seed, 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = mean.draws / scale.draws
    groups = min(len(wordings), len(contents))
    return Drawn(mean.value / scale.value, ratio, groups).as_value(
        key, direction, n, kind=_kind(groups)
    )
