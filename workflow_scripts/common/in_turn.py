"""Run several of the project's scripts one after another in one process.

    python -m workflow_scripts.common.in_turn \\
        privacy.score --model sd_v1_4 ... --then privacy.score_closest --model sd_v1_4 ...

Each part between `--then` names a module below `workflow_scripts` and its usual flags. The scripts
share one process, so torch is imported once. The first script that fails ends the process; the
outputs of those before it stay.
"""

import importlib
import sys
from collections.abc import Sequence

from workflow_scripts.common.code import PACKAGE
from workflow_scripts.common.errors import InputError, run_script

THEN = "--then"


def scripts_in(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the module and the flags of each script of a command line.

    Raises:
        InputError: a part without a module.
    """
    parts: list[list[str]] = [[]]
    for word in argv:
        if word == THEN:
            parts.append([])
        else:
            parts[-1].append(word)
    for part in parts:
        if not part or part[0].startswith("-"):
            raise InputError(
                f"no script before {' '.join(part) or 'the end'}",
                "the command line",
                f"name a module below {PACKAGE} first, and after each {THEN}",
            )
    return [(part[0], part[1:]) for part in parts]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the scripts.

    Raises:
        InputError: see `scripts_in`; or there is no such script.
    """
    for name, flags in scripts_in(sys.argv[1:] if argv is None else argv):
        try:
            script = importlib.import_module(f"{PACKAGE}.{name}")
        except ModuleNotFoundError as error:
            if error.name is None or not f"{PACKAGE}.{name}".startswith(error.name):
                raise
            raise InputError(f"there is no script {name}", "the command line") from None
        script.main(flags)


if __name__ == "__main__":
    run_script(main)
