"""Check that version, citation and changelog agree, and pack what git tracks.

    python -m tests.dist --output .venv/dist

Makes chexgenbench-{version}.tar.gz of the commit that is checked out. The version is that of
`pyproject.toml`. `CITATION.cff` and the newest numbered heading of `CHANGELOG.md` must name it,
with one date.
"""

import argparse
import re
import subprocess
from pathlib import Path
from typing import Final

import yaml

from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.version import is_version, version

ROOT: Final = Path(__file__).resolve().parents[1]


def disagreements(number: str, citation: str, changelog: str) -> list[str]:
    """List where the citation or the changelog disagrees with the version.

    Args:
        number: The version.
        citation: Text of `CITATION.cff`.
        changelog: Text of `CHANGELOG.md`.

    Returns:
        One message per disagreement; empty if all agree.
    """
    faults = []
    if not is_version(number):
        faults.append(f"pyproject.toml: {number!r} is no version such as 1.0.0")
    cited = yaml.safe_load(citation)
    if str(cited.get("version")) != number:
        faults.append(f"CITATION.cff: version {cited.get('version')}, not {number}")
    headings = re.findall(r"^## \[(\d[^\]]*)\](?: - (\S+))?$", changelog, re.MULTILINE)
    newest, date = headings[0] if headings else ("none", "")
    if newest != number:
        faults.append(f"CHANGELOG.md: the newest numbered heading is {newest}, not {number}")
    elif not date or date != str(cited.get("date-released")):
        released = cited.get("date-released")
        faults.append(f"CHANGELOG.md: {number} is of {date or 'no date'}, CITATION.cff {released}")
    return faults


def main() -> None:
    """Check and pack; see the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the archive")
    folder = parser.parse_args().output
    faults = disagreements(
        version(), (ROOT / "CITATION.cff").read_text(), (ROOT / "CHANGELOG.md").read_text()
    )
    if faults:
        raise InputError("\n".join(faults), ROOT, "make them agree")
    git = ["git", "-C", str(ROOT)]
    changed = subprocess.run(
        [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
    ).stdout
    if changed:
        raise InputError(f"uncommitted changes:\n{changed}", ROOT, "commit or remove them")
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder.resolve() / f"chexgenbench-{version()}.tar.gz"
    prefix = f"--prefix=chexgenbench-{version()}/"
    subprocess.run([*git, "archive", prefix, "-o", str(archive), "HEAD"], check=True)
    print(archive)


if __name__ == "__main__":
    run_script(main)
