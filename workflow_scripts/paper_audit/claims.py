"""The audit: all claims of the paper that follow from its printed tables."""

from pathlib import Path

from workflow_scripts.common.errors import InputError
from workflow_scripts.paper_audit.encoders import encoder_items
from workflow_scripts.paper_audit.fidelity import fidelity_items
from workflow_scripts.paper_audit.items import Item
from workflow_scripts.paper_audit.pathologies import pathology_items
from workflow_scripts.paper_audit.prevalence import prevalence_items
from workflow_scripts.paper_audit.printed import Paper
from workflow_scripts.paper_audit.privacy import privacy_items
from workflow_scripts.paper_audit.ranks import rank_items
from workflow_scripts.paper_audit.reports import report_items
from workflow_scripts.paper_audit.settings import setting_items
from workflow_scripts.paper_audit.utility import utility_items


def audit_items(folder: Path | None = None) -> list[Item]:
    """Return every claim of the paper that follows from its printed tables, with its verdict.

    Args:
        folder: folder of the printed tables; None: the package's own.

    Raises:
        InputError: a printed table lacks a number that a claim follows from.
    """
    paper = Paper(folder)
    items = [
        *fidelity_items(paper),
        *encoder_items(paper),
        *pathology_items(paper),
        *prevalence_items(paper),
        *rank_items(paper),
        *privacy_items(paper),
        *utility_items(paper),
        *report_items(paper),
        *setting_items(paper),
    ]
    keys = [item.key for item in items]
    if len(set(keys)) < len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise InputError(f"items stand twice: {', '.join(twice)}", "workflow_scripts/paper_audit")
    return items
