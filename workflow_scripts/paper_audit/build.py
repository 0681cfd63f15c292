"""Audit the paper: recompute each claim that follows from its printed tables.

python -m workflow_scripts.paper_audit.build --out results/paper_audit

Writes audit.csv, audit.md and audit.tex for readers, and audit.json for the report's page. The
only input is the paper's printed tables. No other stage imports this code.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import write_text
from workflow_scripts.paper_audit.claims import audit_items
from workflow_scripts.paper_audit.items import summary
from workflow_scripts.paper_audit.render import to_csv, to_json, to_latex, to_markdown

log = logging.getLogger(__name__)

FORMATS = {"csv": to_csv, "md": to_markdown, "tex": to_latex, "json": to_json}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--published", type=Path, help="folder of the printed tables; default: the package's own"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write the audit to")
    args = parser.parse_args(argv)
    items = audit_items(args.published)
    for suffix, render in FORMATS.items():
        write_text(args.out / f"audit.{suffix}", render(items))
    log.info("%s", summary(items))


if __name__ == "__main__":
    run_script(main)
