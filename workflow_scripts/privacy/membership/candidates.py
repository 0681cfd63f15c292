"""Members and non-members of an attack: one captioned radiograph of each patient, in pairs.

Members are patients of the train split. Non-members are patients of other splits: no training saw
them. Each non-member gets the member that is most like it in what a caption and a view say, so that
an attack cannot tell the two apart by what they show.

A patient of another split is left out if the train split shows a copy of one of the patient's
radiographs. The two may be one person under two ids, whom the model was trained on.
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
"""The fewest members, and the fewest non-members, that a value is computed from."""

COPIES_HELP: Final = "the cohort's identical_images.csv and similar_images.csv"

_VIEW_WEIGHT: Final = 100.0
_LENGTH_WEIGHT: Final = 2.0
"""Weights of a differing view, and of the difference of two captions' log lengths. A differing
finding, mark or source weighs 1."""


def shown_in_training(copies: Sequence[Path]) -> set[str]:
    """Return the patients of other splits of whom the train split shows a copy of a radiograph.

    Args:
        copies: the cohort's tables of identical images, whose groups may be of all splits, and of
            similar ones, which has test and validation images with the most similar image of
            another split.

    Raises:
        InputError: a table cannot be read, or is neither.
    """
    patients: set[str] = set()
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
        patients |= {plain_cell(patient) for patient in table.loc[copied, "patient_id"]}
    return patients


def draw_candidates(
    manifest: pd.DataFrame, most: int, seed: int, copied: Collection[str] = ()
) -> pd.DataFrame:
    """Draw members and non-members, matched in pairs.

    The two of a pair agree in view if possible, then in as many findings as possible, in
    de-identification marks, in the captions' source and in their length in words.

    Args:
        manifest: the cohort's manifest, with captions.
        most: the most members, and the most non-members, to draw.
        seed: seed of the draw.
        copied: patients who are left out of the non-members, see `shown_in_training`.

    Returns:
        `image_id, patient_id, path, caption, view, pair, member, marked, words, source` and the
        findings (bool), first all members, then all non-members, in the same order of pairs.

    Raises:
        InputError: there are fewer than `FEWEST` patients on either side.
    """
    rng = np.random.default_rng(seed)
    rows = manifest[manifest["caption"].notna()].reset_index(drop=True)
    positive = rows[[*FINDINGS]].fillna(0).astype(int).to_numpy() == 1
    rows = rows.assign(
        **{name: positive[:, k] for k, name in enumerate(FINDINGS)},
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
    pairs = pd.concat([inside.iloc[_matches(inside, outside, rng)], outside])
    pairs["pair"] = [*range(count)] * 2
    columns = ["image_id", "patient_id", "path", "caption", "view", "pair", "member"]
    return pairs[[*columns, "marked", "words", "source", *FINDINGS]].reset_index(drop=True)


def _matches(inside: pd.DataFrame, outside: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Return a row of `inside` for each row of `outside`, each of another patient."""
    columns = [*FINDINGS, "marked"]
    flags, flags_outside = inside[columns].to_numpy(bool), outside[columns].to_numpy(bool)
    view, view_outside = inside["view"].to_numpy(str), outside["view"].to_numpy(str)
    source, source_outside = inside["source"].to_numpy(str), outside["source"].to_numpy(str)
    length, length_outside = (np.log1p(side["words"].to_numpy(float)) for side in (inside, outside))
    patients = inside["patient_id"].to_numpy()
    free = np.ones(len(inside), bool)
    tie_breaks = rng.random(len(inside)) * 1e-6
    matches = np.empty(len(outside), int)
    # The radiographs with most findings are the hardest to match, so they choose first.
    for row in np.argsort(-flags_outside.sum(axis=1), kind="stable"):
        cost = (flags != flags_outside[row]).sum(axis=1) + (source != source_outside[row])
        cost = cost + _VIEW_WEIGHT * (view != view_outside[row])
        cost = cost + _LENGTH_WEIGHT * abs(length - length_outside[row]) + tie_breaks
        matches[row] = int(np.argmin(np.where(free, cost, np.inf)))
        free &= patients != patients[matches[row]]
    return matches
