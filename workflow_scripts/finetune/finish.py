"""Move the result of a fine-tuning's last span to its final place.

    python -m workflow_scripts.finetune.finish --span mine/spans/2 --checkpoint mine/checkpoint \\
        --curve mine/training.csv --progress mine/.progress

The weights are linked, not copied. They take space once, and also stay in the span's folder until
it is deleted. The progress is removed only here, when Snakemake has accepted the job that
trained. Until then a repeated job would continue after the last step.
"""

import argparse
import logging
import shutil
from pathlib import Path

from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import link_or_copy, whole_file, whole_folder
from workflow_scripts.finetune.span import CHECKPOINT, CURVE, is_finished

log = logging.getLogger(__name__)


def finish(span: Path, checkpoint: Path, curve: Path, progress: Path) -> None:
    """Link a span's weights to `checkpoint`, copy its losses to `curve`, and remove the progress.

    Args:
        span: the folder of the last span, named by its number. Folders with higher numbers
            next to it are left from an earlier training and are removed.
        checkpoint: the folder to write.
        curve: the CSV to write.
        progress: the folder of the training's checkpoints.

    Raises:
        InputError: the span was not the last.
    """
    if not is_finished(span):
        raise InputError(
            "fine-tuning is not finished", span, "run Snakemake again: training continues"
        )
    with whole_folder(checkpoint) as folder:
        for source in sorted((span / CHECKPOINT).rglob("*")):
            target = folder / source.relative_to(span / CHECKPOINT)
            if source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(source, target)
    # This is a copy: a link would be as old as the span, and Snakemake would call it outdated.
    with whole_file(curve) as temporary:
        shutil.copyfile(span / CURVE, temporary)
    for other in span.parent.iterdir():
        if other.name.isdecimal() and int(other.name) > int(span.name):
            log.info("removing %s, which an earlier training left", other)
            shutil.rmtree(other)
    shutil.rmtree(progress, ignore_errors=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and finish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--span", required=True, type=Path, help="folder of the last span")
    parser.add_argument("--checkpoint", required=True, type=Path, help="folder to write")
    parser.add_argument("--curve", required=True, type=Path, help="CSV of losses to write")
    parser.add_argument("--progress", required=True, type=Path, help="folder to remove")
    flags = parser.parse_args(argv)
    finish(flags.span, flags.checkpoint, flags.curve, flags.progress)


if __name__ == "__main__":
    run_script(main)
