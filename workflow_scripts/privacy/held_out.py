"""The held-out radiographs of patients that no model was trained on."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.features.cache import Features
from workflow_scripts.fidelity.inputs import rows_of

log = logging.getLogger(__name__)


def held_out_rows(
    manifest_path: Path, held_out: Features, where: Path
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the feature rows of held-out patients, and their rows of the manifest.

    Test patients are never training patients. In a user's own split validation patients may be;
    those are left out.

    Args:
        manifest_path: the cohort's manifest.
        held_out: features of the test and validation radiographs.
        where: the features' folder, for errors.

    Returns:
        (h,) row numbers of `held_out`, and h rows of the manifest in their order.

    Raises:
        InputError: the manifest lacks a radiograph, or every held-out patient is a training
            patient.
    """
    manifest = read_manifest(manifest_path)
    trained_on = set(manifest.loc[manifest["split"] == "train", "patient_id"])
    rows = rows_of(manifest["image_id"], held_out.ids, where, "manifest")
    unseen = ~manifest["patient_id"].iloc[rows].isin(trained_on).to_numpy()
    if not unseen.all():
        log.warning("%d held-out radiographs show training patients: left out", (~unseen).sum())
    if not unseen.any():
        raise InputError("every held-out patient is a training patient", where, "check the split")
    return np.flatnonzero(unseen), manifest.iloc[rows[unseen]].reset_index(drop=True)
