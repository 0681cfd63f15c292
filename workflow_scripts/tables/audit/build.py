"""Audit the paper: recompute from its printed tables what follows from them.

python -m workflow_scripts.tables.audit.build --out results/tables

Writes audit.csv, audit.md and audit.tex.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import write_text
from workflow_scripts.tables.audit.audit import audit_items
from workflow_scripts.tables.audit.items import summary
from workflow_scripts.tables.audit.render import to_csv, to_latex, to_markdown

log = logging.getLogger(__name__)

FORMATS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--published", type=Path, help="folder of the printed tables; default: ours"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write the audit to")
    args = parser.parse_args(argv)
    items = audit_items(args.published)
    for suffix, render in FORMATS.items():
        write_text(args.out / f"audit.{suffix}", render(items))
    log.info("%s", summary(items))


if __name__ == "__main__":
    run_script(main)
