"""Export image shards as a folder of PNG files with a `metadata.csv`, for people.

python -m workflow_scripts.generate.export_images --shards-in FILE ... --out DIR
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import whole_folder
from workflow_scripts.common.images import count_shards, png_bytes, read_shards
from workflow_scripts.common.progress import Progress

_PNG_MARK = b"\x89PNG\r\n\x1a\n"


def export_images(shards_in: Sequence[Path], out: Path) -> int:
    """Write every image as `{prompt_id}.png`, and `metadata.csv`; return the number of images.

    PNG images are copied byte for byte, others are converted.

    Raises:
        InputError: a shard or an image in it cannot be read.
    """
    progress = Progress("exporting", count_shards(shards_in), "images")
    with (
        whole_folder(out) as folder,
        (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream,
    ):
        table = csv.writer(stream)
        table.writerow(["file_name", "prompt_id", "caption"])
        for item in read_shards(shards_in):
            data = item.data or b""
            if not data.startswith(_PNG_MARK):
                data = png_bytes(item.open())
            name = f"{item.id}.png"
            (folder / name).write_bytes(data)
            table.writerow([name, item.id, item.caption])
            progress.update()
    return progress.done


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and export."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards-in", required=True, type=Path, nargs="+")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    export_images(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_script(main)
