"""Leave what a job of the workflow loaded, for tests: on PYTHONPATH, Python imports this first.

Each process of a script, those of its pools too, writes one JSON file to the folder
`CHEXGENBENCH_TRACE`: its scripts, the project's modules and data files that it loaded, and the
libraries. Of a script in a warm Python,
which had libraries before it began, these are not known.
"""

import atexit
import json
import os
import sys
from pathlib import Path

PACKAGE = "workflow_scripts"
opened = set()
warm = "numpy" in sys.modules


def note_opened(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and f"/{PACKAGE}/" in arguments[0]:
        opened.add(arguments[0])


def scripts_of(arguments):
    """The scripts of a process, below the package; more than one where they run in turn."""
    main = sys.modules["__main__"].__spec__
    if main is None or not main.name.startswith(f"{PACKAGE}."):
        return []
    name = main.name.removeprefix(f"{PACKAGE}.")
    if name != "common.in_turn":
        return [name]
    starts = [0, *(i + 1 for i, word in enumerate(arguments) if word == "--then")]
    return [arguments[i] for i in starts]


def leave(folder):
    scripts = scripts_of(sys.argv[1:])
    if not scripts:
        return
    ours = [name for name in sys.modules if name.partition(".")[0] == PACKAGE]
    data = [name for name in opened if not name.endswith(".py") and "__pycache__" not in name]
    said = {
        "scripts": scripts,
        "modules": sorted(ours),
        "data": sorted(name[name.index(f"{PACKAGE}/") :] for name in data),
        "libraries": None if warm else sorted({name.partition(".")[0] for name in sys.modules}),
    }
    Path(folder, f"{scripts[0]}-{os.getpid()}.json").write_text(json.dumps(said))


def leave_from_pool():
    """Have a forked process of a pool leave its file: it ends without exit functions."""
    if util := sys.modules.get("multiprocessing.util"):
        util.register_after_fork(
            leave, lambda _: util.Finalize(None, leave, (folder,), exitpriority=0)
        )


if folder := os.environ.get("CHEXGENBENCH_TRACE"):
    sys.addaudithook(note_opened)
    atexit.register(leave, folder)
    os.register_at_fork(after_in_child=leave_from_pool)
