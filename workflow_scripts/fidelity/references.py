"""The radiographs that the generated images are compared with.

A model's images are compared with what the prompts describe: the radiograph of each answered
prompt. Captions need not be missing at random: one source of images may have reports, and another
none. Then the whole test set is another population than the prompts' radiographs. An exact copy of
the latter is far from it, and images between the two populations score best. The records also hold
comparisons with other references, which show how much the choice matters.
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
"""The references used besides the prompts' own radiographs, each with its description."""


def answered(prompts: pd.DataFrame, generated: Features) -> pd.DataFrame:
    """Return the prompts that have an image, in their order.

    Args:
        prompts: `prompt_id`, at least.
        generated: features of the images of some of them.
    """
    return prompts[prompts["prompt_id"].isin(generated.ids)]


def reference_rows(
    real: pd.DataFrame, prompts: pd.DataFrame, where: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the rows of the prompts' own radiographs, and those of the other references.

    A radiograph counts once, however many prompts describe it.

    Args:
        real: the test set: `image_id`, `patient_id` and `study_id`, at least.
        prompts: the prompts whose radiographs are the reference: `image_id`, at least.
        where: the folder of the real images' features, for errors.

    Returns:
        Row numbers of `real`, (n,) in the order of the prompts; and for each key of
        `OTHER_REFERENCES` the row numbers in the order of `real`.

    Raises:
        InputError: a prompt's radiograph is not in the test set.
    """
    described = list(dict.fromkeys(prompts["image_id"]))
    of_prompts = rows_of(real["image_id"], described, where, "features of real images")
    # A study's id need not be unique across patients.
    studies = pd.MultiIndex.from_frame(real[["patient_id", "study_id"]])
    of_studies = np.flatnonzero(studies.isin(studies[of_prompts]))
    return of_prompts, {"studies": of_studies, "test_set": np.arange(len(real))}
