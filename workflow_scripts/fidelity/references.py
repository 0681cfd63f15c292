"""Which radiographs the generated images are compared with.

A model answers prompts, so what it is compared with is what was asked for: each answered prompt's
own radiograph. Captions need not be missing at random (one source of images has reports, another
has none): then the whole test set is another population than the prompts ask for, an exact copy of
what was asked for stands far from it, and an image between the two populations wins. How much the
choice matters is seen beside it.
"""

from typing import Final

import numpy as np
import pandas as pd

from workflow_scripts.features.cache import Features
from workflow_scripts.fidelity.inputs import rows_of

OTHER_REFERENCES: Final = {
    "studies": "all films of the studies of the prompts",
    "test_set": "the whole test set",
}
"""What a comparison is set against beside the prompts' own radiographs, and what it is."""


def answered(prompts: pd.DataFrame, generated: Features) -> pd.DataFrame:
    """Return the prompts that have an image, in their order.

    Args:
        prompts: `prompt_id`, at least.
        generated: of the images of some of them.
    """
    return prompts[prompts["prompt_id"].isin(generated.ids)]


def reference_rows(
    real: pd.DataFrame, prompts: pd.DataFrame, where: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the rows of the prompts' own radiographs, and those of the other references.

    Each radiograph counts once, however many prompts describe it.

    Args:
        real: the test set: `image_id`, `patient_id` and `study_id`, at least.
        prompts: whose radiographs are the reference: `image_id`, at least.
        where: the folder of the real images' features, for errors.

    Returns:
        (n,) row numbers of `real` in the order of the prompts, and by the keys of
        `OTHER_REFERENCES` row numbers in the order of `real`.

    Raises:
        InputError: a prompt's radiograph is not in the test set.
    """
    wanted = list(dict.fromkeys(prompts["image_id"]))
    own = rows_of(real["image_id"], wanted, where, "features of real images")
    # A study's name need not be unique beyond its patient.
    studies = pd.MultiIndex.from_frame(real[["patient_id", "study_id"]])
    of_studies = np.flatnonzero(studies.isin(studies[own]))
    return own, {"studies": of_studies, "test_set": np.arange(len(real))}
