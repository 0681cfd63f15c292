"""Warnings of mapped texts and labels that no image has, or that every image has.

A wrong separator, a misspelt label or ids of another release leave a cohort without labels or
captions, and no other check would show it.
"""

from collections.abc import Sequence
from typing import Final

import pandas as pd

from workflow_scripts.cohort.attrition import Attrition
from workflow_scripts.common.manifest import FINDINGS

_FEWEST: Final = 10
"""Least number of images for a warning of a finding that all images have."""


def warn_of_shares(
    manifest: pd.DataFrame,
    texts: Sequence[str],
    findings: Sequence[str] | None,
    attrition: Attrition,
) -> None:
    """Warn of texts and labels that no image has, and of findings that all images have.

    Args:
        manifest: the cohort's manifest.
        texts: the text columns that the source maps.
        findings: the findings that the source maps; None if it has some of the 14.
        attrition: gets a row for each warning.
    """
    for name in texts:
        if not manifest[name].notna().any():
            attrition.warn(
                f"no_{name}",
                "captions",
                0,
                f"no image has a text for `{name}`: do the ids or file names match, and is it the "
                "right column?",
            )
    labels = manifest[list(FINDINGS)]
    expected = findings is None or len(findings) > 0
    if expected and not labels.notna().any(axis=None):
        attrition.warn(
            "no_label",
            "images",
            0,
            "no image has a label of any finding: do the ids match, and are the separator and the "
            "values those of the table?",
        )
        return
    for name in findings or ():
        positive = int((labels[name] == 1).sum())
        if positive == 0:
            attrition.warn(
                f"no_{name}",
                "images",
                0,
                f"no image has the finding {name}: are its values written as in the table?",
            )
        elif positive == len(manifest) >= _FEWEST:
            attrition.warn(
                f"only_{name}", "images", positive, f"every image has the finding {name}"
            )
