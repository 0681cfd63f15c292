"""Attack a model by its images alone: is one of them near a radiograph that it was trained on?

    python -m workflow_scripts.privacy.membership.score_samples --model mine --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/privacy.parquet \\
        --real results/features/real/train --held-out results/features/real/held_out \\
        --generated results/features/mine/privacy --output results/privacy/membership/mine.json

This is for images that were made elsewhere, by a model that cannot be asked for a loss. A
radiograph's score is its distance (RAD-DINO) to the closest image. The images of its own patient's
prompts are left out: they are near because they follow the caption, and no non-member has any. What
is left is a weak attack: whether a member's radiograph shows in another patient's images.

With `--unknown REASON` nothing is read. This is for a model that came trained: who its members are
is unknown, and the record says so.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.records import Record, provenance
from workflow_scripts.common.settings import add_flags
from workflow_scripts.fidelity.inputs import origin, patients_of_prompts, rows_of
from workflow_scripts.privacy.membership.candidates import (
    COPIES_HELP,
    draw_candidates,
    shown_in_training,
)
from workflow_scripts.privacy.membership.settings import MembershipSettings
from workflow_scripts.privacy.membership.values import samples_values, unknown_values
from workflow_scripts.privacy.scripts import read_with_held_out, write_scored
from workflow_scripts.privacy.settings import Settings

_BLOCK: Final = 256
"""Radiographs compared with all images at a time."""


def closest_of_others(
    radiographs: np.ndarray, patients: np.ndarray, images: np.ndarray, prompt_patients: np.ndarray
) -> np.ndarray:
    """Return each radiograph's distance to the closest image of another patient's prompt, (n,).

    Args:
        radiographs: (n, d) features.
        patients: (n,) the patient of each radiograph.
        images: (m, d) features.
        prompt_patients: (m,) the patient of each image's prompt.
    """
    points = images.astype(np.float64)
    lengths = (points**2).sum(axis=1)
    distances = []
    for start in range(0, len(radiographs), _BLOCK):
        block = radiographs[start : start + _BLOCK].astype(np.float64)
        squares = (block**2).sum(axis=1)[:, None] + lengths - 2 * block @ points.T
        squares[patients[start : start + _BLOCK, None] == prompt_patients[None, :]] = np.inf
        distances.append(np.sqrt(np.maximum(squares.min(axis=1), 0)))
    return np.concatenate(distances)


def score(args: argparse.Namespace) -> Record:
    """Read features and return the record of a model's images.

    Raises:
        InputError: features are missing, damaged, not comparable or of other prompts.
    """
    real, held_out, generated = read_with_held_out(
        args.model, args.protocol, args.real, args.held_out, args.generated
    )
    manifest = read_manifest(args.manifest)
    copied = shown_in_training(args.copies)
    candidates = draw_candidates(manifest, args.images, args.seed, copied)
    sides = []
    for features, folder, member in ((real, args.real, True), (held_out, args.held_out, False)):
        names = list(candidates.loc[candidates["member"] == member, "image_id"])
        rows = rows_of(features.ids, names, folder, "features of radiographs")
        sides.append(features.features[rows])
    distances = closest_of_others(
        np.concatenate(sides),
        candidates["patient_id"].to_numpy(str),
        generated.features,
        patients_of_prompts(generated, read_prompts(args.prompts), manifest, args.generated),
    )
    values, checked = samples_values(candidates, -distances)
    return _record(
        args,
        values,
        {
            "members": "the train split",
            "pairs": len(candidates) // 2,
            "copied_patients": len(copied),
            **checked,
        },
        [origin(file) for file in (real, held_out, generated)],
    )


def _record(
    args: argparse.Namespace, values: list[Any], details: dict[str, Any], inputs: Any = ()
) -> Record:
    settings = {**asdict(MembershipSettings(images=args.images)), "seed": args.seed}
    return Record(
        stage="privacy",
        model=args.model,
        family="membership",
        protocol=args.protocol,
        values=values,
        details=details,
        provenance=provenance({"protocol": args.protocol, **settings}, inputs=inputs),
    )


def main(argv: list[str] | None = None) -> None:
    """Attack one model's images from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="the model's key in the config")
    parser.add_argument("--protocol", required=True, choices=PROTOCOLS)
    parser.add_argument("--unknown", help="why nobody knows the members: nothing is read")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--copies", nargs="*", default=[], type=Path, help=COPIES_HELP)
    parser.add_argument("--prompts", type=Path, help="the prompt set `privacy`")
    parser.add_argument("--real", type=Path, help="folder of the training radiographs' features")
    parser.add_argument("--held-out", type=Path, help="the same of held-out radiographs")
    parser.add_argument("--generated", type=Path, help="folder of the model's features")
    add_flags(parser, MembershipSettings, only=("images",))
    add_flags(parser, Settings, only=("seed",))
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args(argv)
    needed = ("manifest", "prompts", "real", "held_out", "generated")
    lacking = [f"--{name.replace('_', '-')}" for name in needed if getattr(args, name) is None]
    if args.unknown:
        record = _record(args, unknown_values(args.unknown), {"members": "unknown"})
    elif lacking:
        parser.error(f"without --unknown, {', '.join(lacking)} are needed")
    else:
        record = score(args)
    write_scored(record, args.output)


if __name__ == "__main__":
    run_script(main)
