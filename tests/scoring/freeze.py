"""Compute, commit and compare the records of the committed inputs.

    python -m tests.scoring.freeze           # write what the scoring scripts give now
    python -m tests.scoring.freeze --check   # list the differences from the committed records

They are written anew only where a change is meant to change the numbers. Review the difference
before you commit it.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.scoring.compare import differences
from tests.scoring.paths import RECORDS
from tests.scoring.scripts import run_all


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contents = run_all(Path(folder), args.threads)
    if args.check:
        unlike = differences(committed(), contents)
        print("\n".join(unlike))
        sys.exit(bool(unlike))
    shutil.rmtree(RECORDS, ignore_errors=True)
    for name, content in contents.items():
        path = RECORDS / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_text(content), encoding="utf-8")


def committed() -> dict[str, Any]:
    """Return the committed contents by output file, see `scripts.content`."""
    return {
        str(path.relative_to(RECORDS)).removesuffix(".json"): json.loads(path.read_text())
        for path in RECORDS.rglob("*.json")
    }


def as_text(content: dict[str, Any]) -> str:
    """Return a content as JSON with a line per value, detail and column, for readable diffs."""
    parts = []
    for key, value in sorted(content.items()):
        if key == "values":
            text = "[\n" + ",\n".join(f"  {_line(entry)}" for entry in value) + "\n ]"
        elif isinstance(value, dict):
            lines = (f"  {_line(name)}: {_line(inner)}" for name, inner in sorted(value.items()))
            text = "{\n" + ",\n".join(lines) + "\n }"
        else:
            text = _line(value)
        parts.append(f" {_line(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


if __name__ == "__main__":
    main()
