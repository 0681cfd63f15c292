"""Pages that are made at build time, from what the project says of itself.

The reference of the config comes from the config's schema, the one of command lines from the
scripts' own `--help`, and the changelog from `CHANGELOG.md`: none of them can be out of date.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from command_reference import command_reference  # noqa: E402
from config_reference import config_reference  # noqa: E402
from mkdocs.structure.files import File  # noqa: E402

from workflow_scripts.common.config import schema  # noqa: E402

# Names of keys and files are not broken at any letter, and a table of seven columns fits beside the
# contents in a window of 1,280 pixels.
STYLE = """\
.md-typeset table code { word-break: normal; overflow-wrap: break-word; }
.md-typeset table:not([class]) :is(th, td) { min-width: 0; padding: 0.6em 0.6em; }
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site's files."""
    pages = {
        "reference/config.md": config_reference(schema(), ROOT / "config.yaml"),
        "reference/commands.md": command_reference(ROOT),
        "assets/site.css": STYLE,
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files
