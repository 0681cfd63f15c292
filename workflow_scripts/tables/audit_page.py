"""The report's page on the audit of the paper, from the audit.json of `paper_audit`."""

import json
from pathlib import Path
from typing import Any

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError

_KEYS = {"sentence", "words", "verdicts", "items"}
_ITEM_KEYS = {"key", "where", "claim", "basis", "found", "verdict", "note"}
_REMEDY = "run `make audit`"


def read_audit(path: str | Path) -> dict[str, Any]:
    """Read audit.json: `sentence`, `words`, the `verdicts` from best to worst, and the `items`.

    Raises:
        InputError: the file is missing, or lacks something that the page shows.
    """
    try:
        page: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        whole = set(page) >= _KEYS and all(
            set(item) >= _ITEM_KEYS and item["verdict"] in page["verdicts"]
            for item in page["items"]
        )
    except OSError as error:
        raise unreadable("cannot read the audit", error, path, _REMEDY) from None
    except (ValueError, TypeError) as error:
        raise InputError(
            f"the audit is no JSON of the paper's claims: {error}", path, _REMEDY
        ) from None
    if not whole:
        raise InputError("the audit lacks what its page shows", path, _REMEDY)
    return page
