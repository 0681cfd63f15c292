"""Members and non-members of an attack: one captioned radiograph of each patient, in pairs.

Members are patients of the train split. Non-members are patients of other splits: no training saw
them. Each non-member gets the member that is most like it in what a caption and a view say, so that
an attack cannot tell the two apart by what they show.

A patient of another split is no non-member where the train split shows a copy of one of his
radiographs: it may be one person under two ids, and the model was trained on it.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.csv_cells import plain_cell
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS

MARK: Final = "___"
"""What de-identification leaves in place of a name, date or age."""

FEWEST: Final = 10
"""Fewest members, and non-members, of any number that is reported."""

COPIES_HELP: Final = "the cohort's identical_images.csv and similar_images.csv"

_VIEW_WEIGHT: Final = 100.0
_LENGTH_WEIGHT: Final = 2.0
"""Of the difference of two captions' log lengths, against 1 for a finding, mark or source."""


def shown_in_training(copies: Sequence[Path]) -> set[str]:
    """Return the patients of other splits of whom the train split shows a radiograph as well.

    Args:
        copies: the cohort's tables of identical images, whose groups may be of all splits, and of
            similar ones, which has test and validation images with the most similar image of
            another split.

    Raises:
        InputError: a table cannot be read, or is neither.
    """
    found: set[str] = set()
    for path in copies:
        remedy = "delete it and rerun the cohort stage"
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise unreadable("cannot read copies", error, path, remedy) from None
        if {"patient_id", "split", "other_split"} <= {*table}:
            copied = table["other_split"] == "train"
        elif {"patient_id", "split", "group"} <= {*table}:
            groups = table.loc[table["split"] == "train", "group"]
            copied = (table["split"] != "train") & table["group"].isin(groups)
        else:
            raise InputError("no table of identical or of similar images", path, remedy)
        found |= {plain_cell(patient) for patient in table.loc[copied, "patient_id"]}
    return found


def draw_candidates(
    manifest: pd.DataFrame, most: int, seed: int, copied: Collection[str] = ()
) -> pd.DataFrame:
    """Draw members and non-members, matched in pairs.

    A pair is alike in view first, then in findings, de-identification marks, the captions' source
    and their length in words.

    Args:
        manifest: the cohort's, with captions.
        most: members, and non-members, at most.
        seed: of the draw.
        copied: patients who are no non-members, see `shown_in_training`.

    Returns:
        `image_id, patient_id, path, caption, view, pair, member, marked, words, source` and the
        findings (bool), first all members, then all non-members, in the same order of pairs.

    Raises:
        InputError: there are fewer than `FEWEST` patients on either side.
    """
    rng = np.random.default_rng(seed)
    rows = manifest[manifest["caption"].notna()].reset_index(drop=True)
    shown = rows[[*FINDINGS]].fillna(0).astype(int).to_numpy() == 1
    rows = rows.assign(
        **{name: shown[:, k] for k, name in enumerate(FINDINGS)},
        marked=rows["caption"].str.contains(MARK, regex=False).astype(bool),
        words=[len(caption.split()) for caption in rows["caption"]],
        source=rows["caption_source"].fillna("").astype(str),
        member=rows["split"] == "train",
    )
    trained_on = {*manifest.loc[manifest["split"] == "train", "patient_id"], *copied}
    inside = rows[rows["member"]]
    outside = rows[~rows["member"] & ~rows["patient_id"].isin(trained_on)]
    outside = outside.iloc[rng.permutation(len(outside))].drop_duplicates("patient_id")
    count = min(most, len(outside), inside["patient_id"].nunique())
    if count < FEWEST:
        raise InputError(
            f"{inside['patient_id'].nunique()} members and {len(outside)} non-members with "
            f"captions: an attack needs {FEWEST} of each",
            "privacy.membership",
            "hold patients out of training (held_out_patients), or use a larger cohort",
        )
    outside = outside.iloc[:count]
    taken = _matches(inside, outside, rng)
    pairs = pd.concat([inside.iloc[taken], outside])
    pairs["pair"] = [*range(count)] * 2
    kept = ["image_id", "patient_id", "path", "caption", "view", "pair", "member"]
    return pairs[[*kept, "marked", "words", "source", *FINDINGS]].reset_index(drop=True)


def _matches(inside: pd.DataFrame, outside: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Return a row of `inside` for each row of `outside`, each of another patient."""
    columns = [*FINDINGS, "marked"]
    own, other = inside[columns].to_numpy(bool), outside[columns].to_numpy(bool)
    view, views = inside["view"].to_numpy(str), outside["view"].to_numpy(str)
    source, sources = inside["source"].to_numpy(str), outside["source"].to_numpy(str)
    length, lengths = (np.log1p(side["words"].to_numpy(float)) for side in (inside, outside))
    patients = inside["patient_id"].to_numpy()
    free = np.ones(len(inside), bool)
    luck = rng.random(len(inside)) * 1e-6  # decides between those that are equally alike
    taken = np.empty(len(outside), int)
    # Those that are hardest to match choose first: with most findings.
    for row in np.argsort(-other.sum(axis=1), kind="stable"):
        cost = (own != other[row]).sum(axis=1) + (source != sources[row])
        cost = cost + _VIEW_WEIGHT * (view != views[row])
        cost = cost + _LENGTH_WEIGHT * abs(length - lengths[row]) + luck
        taken[row] = int(np.argmin(np.where(free, cost, np.inf)))
        free &= patients != patients[taken[row]]
    return taken
