"""Put one part of the embedded world in its place, in a separate process.

    python -m workflow_scripts.world.build_part TASK

A task is a file that `workflow_scripts.world.build` has written for this process.
"""

import argparse
import pickle
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common.errors import run_script


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("task", type=Path, help="a part, its folder and its key, pickled")
    part, folder, key = pickle.loads(parser.parse_args(argv).task.read_bytes())
    part.put(folder, key)


if __name__ == "__main__":
    run_script(main)
