"""The report's page "Does it show what was asked?": pairs of images that differ in one thing.

The page shows some groups of each contrast of the stress set, with the judge's verdict on each
image. They are the first groups of the set, one for each finding. Findings that the judge
recognises on radiographs come first. The choice does not depend on the results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import find_in_shards
from workflow_scripts.faithfulness.stress_measures import DISTANCES, SCORE_COLUMNS
from workflow_scripts.tables.examples import thumbnail
from workflow_scripts.tables.models import ModelEntry

SHOWN: Final = 3
"""The most groups of a contrast; two if there are more than FEW models."""

FEW: Final = 4


@dataclass(frozen=True)
class Contrast:
    """A contrast as readers see it.

    Attributes:
        key: in the stress set.
        question: the question that it answers.
        words: how the prompts differ, and what a faithful image shows.
        levels: the images of a group, in the order in which they are shown.
        chance: share of groups that are as asked by chance, in words; empty if it is not known.
    """

    key: str
    question: str
    words: str
    levels: tuple[str, ...]
    chance: str = ""


CONTRASTS: Final = (
    Contrast(
        "presence",
        "Is it there, and absent when denied?",
        "Three prompts describe the same patient: one with a finding, one that does not mention "
        "it, and one that denies it. Only the first image should show it: a model that reads “no "
        "effusion” and draws an effusion has read a word, not a sentence.",
        ("present", "unmentioned", "denied"),
    ),
    Contrast(
        "side",
        "Is it on the side that was asked for?",
        "Left and right are the patient's, so left is on the right of the picture. The signs of "
        "the finding should lie more in the lung that was named.",
        ("left", "right"),
        "1 in 2",
    ),
    Contrast(
        "severity",
        "Does more look like more?",
        "Mild (or small), moderate and severe (or large): the judge's probability should rise from "
        "image to image.",
        ("mild", "moderate", "severe"),
        "1 in 6",
    ),
    Contrast(
        "zone",
        "Is it at the height that was asked for?",
        "The signs should lie more in the upper zones of the lungs in the first image, and more in "
        "the lower zones in the second.",
        ("upper", "lower"),
        "1 in 2",
    ),
    Contrast(
        "device",
        "Is the device there?",
        "A tube, a line or a pacemaker is asked for in the first image and not mentioned in the "
        "second.",
        ("present", "unmentioned"),
        "1 in 2",
    ),
    Contrast(
        "wording",
        "Do other words change the picture?",
        "Both prompts say the same. The images should hardly differ: the change is given relative "
        "to the change between asking for a finding and not mentioning it.",
        ("wording0", "wording1"),
    ),
    Contrast(
        "view",
        "What does the view change?",
        "The same content, once portable and supine, once upright. Some change is right; a change "
        "as large as that of another content is not.",
        ("portable", "upright"),
    ),
)

_LEVEL_WORDS: Final = {
    "present": "asked for",
    "unmentioned": "not mentioned",
    "denied": "denied",
    "wording0": "in some words",
    "wording1": "in others",
}


@dataclass(frozen=True)
class ShownImage:
    """An image with its prompt and the judge's verdict; without `uri` if it may not be shown."""

    asked: str
    caption: str
    says: str
    uri: str | None


@dataclass(frozen=True)
class ShownGroup:
    """The images of one group by one model.

    Attributes:
        finding: the finding, in lower case.
        told: whether the judge recognises the contrast on radiographs with this finding.
        model: the model's name.
        images: the images in the order of the contrast's levels.
        as_asked: whether the images differ as the prompts ask.
        verdict: the verdict in words.
    """

    finding: str
    told: bool
    model: str
    images: tuple[ShownImage, ...]
    as_asked: bool
    verdict: str


@dataclass(frozen=True)
class ShownContrast:
    """A contrast with some of its groups, and how many groups are as asked, by model.

    Only groups whose finding the judge recognises on radiographs are counted.
    """

    contrast: Contrast
    counts: tuple[tuple[str, int, int], ...]
    groups: tuple[tuple[ShownGroup, ...], ...]


def shown_contrasts(
    scores: Mapping[str, Path],
    shards: Mapping[str, Sequence[Path]],
    models: Sequence[ModelEntry],
) -> list[ShownContrast]:
    """Return the contrasts whose prompts were sampled.

    Args:
        scores: for each model, the score of each image (`faithfulness.score_stress`).
        shards: for each model, its images of the stress set.
        models: the models of the run, in order.

    Raises:
        InputError: scores without images or of an unknown model, or scores that cannot be read.
    """
    names = {model.key: model.name for model in models}
    if unknown := sorted(set(scores) ^ set(shards) | set(scores) - set(names)):
        raise InputError(
            f"scores without images, images without scores, or an unknown model: "
            f"{', '.join(unknown)}",
            "--stress-scores",
        )
    frames = {m.key: read_scores(scores[m.key]) for m in models if m.key in scores}
    if not frames:
        return []
    first = next(iter(frames.values()))
    most = SHOWN if len(frames) <= FEW else 2
    chosen, prompts = [], set()
    for contrast in CONTRASTS:
        groups = chosen_groups(first, contrast.key, most)
        if groups:
            chosen.append((contrast, groups))
            rows = first[(first["contrast"] == contrast.key) & first["group"].isin(groups)]
            prompts |= set(rows["prompt_id"])
    uris = {
        key: {item.id: thumbnail(item.open()) for item in find_in_shards(shards[key], prompts)}
        for key in frames
    }
    return [_shown(contrast, groups, frames, names, uris) for contrast, groups in chosen]


def read_scores(path: Path) -> pd.DataFrame:
    """Read the scores of a model's images.

    Raises:
        InputError: missing or damaged.
    """
    try:
        return pq.read_table(path, columns=list(SCORE_COLUMNS)).to_pandas()
    except (OSError, pa.ArrowException) as error:
        remedy = "delete it and rerun the rule faithfulness_stress"
        raise unreadable("cannot read scores", error, path, remedy) from None


def chosen_groups(scores: pd.DataFrame, contrast: str, most: int) -> list[int]:
    """Return the groups of a contrast that are shown: one for each finding, recognised ones first.

    Args:
        scores: the scores of a model's images.
        contrast: the contrast's key.
        most: the most groups to return.
    """
    groups = scores[scores["contrast"] == contrast].drop_duplicates("group")
    groups = groups.assign(again=groups["finding"].duplicated(), not_told=~groups["told"])
    ordered = groups.sort_values(["again", "not_told", "group"], kind="stable")
    return [int(group) for group in ordered["group"][:most]]


def _shown(
    contrast: Contrast,
    groups: Sequence[int],
    frames: Mapping[str, pd.DataFrame],
    names: Mapping[str, str],
    uris: Mapping[str, Mapping[str, str]],
) -> ShownContrast:
    counts = []
    for key, frame in frames.items():
        counted = frame[frame["contrast"] == contrast.key].drop_duplicates("group")
        if contrast.key not in DISTANCES:  # a distance needs no finding that the judge recognises
            counted = counted[counted["told"]]
        counts.append((names[key], int(counted["as_asked"].sum()), len(counted)))
    shown = tuple(
        tuple(
            _group(
                contrast,
                frame[(frame["contrast"] == contrast.key) & (frame["group"] == group)],
                names[key],
                uris[key],
            )
            for key, frame in frames.items()
        )
        for group in groups
    )
    return ShownContrast(contrast, tuple(counts), shown)


def _group(
    contrast: Contrast, rows: pd.DataFrame, name: str, uris: Mapping[str, str]
) -> ShownGroup:
    by_level = rows.set_index("level")
    finding = str(rows["finding"].iloc[0]).lower()
    images = []
    digits = _decimals(rows["score"].tolist())
    for level in contrast.levels:
        row: Any = by_level.loc[level]
        asked = _LEVEL_WORDS.get(level, level)
        says = _says(contrast.key, finding, float(row["score"]), digits)
        images.append(ShownImage(asked, row["caption"], says, uris.get(row["prompt_id"])))
    as_asked = bool(rows["as_asked"].iloc[0])
    told = bool(rows["told"].iloc[0])
    verdict = _VERDICTS[contrast.key][0 if as_asked else 1]
    return ShownGroup(finding, told, name, tuple(images), as_asked, verdict)


def _decimals(scores: Sequence[float]) -> int:
    """Return with how many decimals percentages read as unlike as they are, at most two.

    A verdict goes by their order, which 29% beside 29% would not show.
    """
    unlike = {score for score in scores if score == score}
    for digits in (0, 1):
        if len({f"{score:.{digits}%}" for score in unlike}) == len(unlike):
            return digits
    return 2


def _says(contrast: str, finding: str, score: float, digits: int) -> str:
    if contrast in ("side", "zone") and score == 0:
        return "the same on both"
    if contrast == "side":
        return f"more on the {'left' if score > 0 else 'right'}"
    if contrast == "zone":
        return f"more in the {'upper' if score > 0 else 'lower'} zones"
    if contrast in ("wording", "view"):
        return f"change {score:.{digits}%}" if score == score else "no scale"
    return f"{finding}: {score:.{digits}%}"


_VERDICTS: Final = {
    "presence": (
        "More probable where asked for, and not where denied",
        "No more probable where asked for, or as probable where denied",
    ),
    "side": (
        "Further to the patient's left than the second",
        "No further to the patient's left than the second",
    ),
    "severity": ("Probability rises from image to image", "Out of order"),
    "zone": ("Higher up in the first than in the second", "Not higher up in the first"),
    "device": ("More probable where asked for", "No more probable where asked for"),
    "wording": ("Nearly the same image", "Another image"),
    "view": ("Less change than another content makes", "As much change as another content makes"),
}
