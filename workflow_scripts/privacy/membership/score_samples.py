"""Attack a model by its images alone: is one of them near a radiograph that it was trained on?

    python -m workflow_scripts.privacy.membership.score_samples --model mine --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/privacy.parquet \\
        --real results/features/real/train --held-out results/features/real/held_out \\
        --generated results/features/mine/privacy --output results/privacy/membership/mine.json

For images that were made elsewhere, whose model cannot be asked for a loss. A radiograph's score is
its distance (RAD-DINO) to the closest image, without the images of its own patient's prompts: these
are near because they follow the caption, and no non-member has any. What is left is whether the
model lets a member through where nobody asked for it, a weak attack.

With `--unknown REASON` nothing is read: of a model that came trained, who its members are is
unknown, and the record says so.
"""

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.records import Record, provenance, write_record
from workflow_scripts.common.settings import add_flags
from workflow_scripts.privacy.membership.candidates import (
    COPIES_HELP,
    draw_candidates,
    shown_in_training,
)
from workflow_scripts.privacy.membership.settings import MembershipSettings
from workflow_scripts.privacy.membership.values import samples_values, unknown_values
from workflow_scripts.privacy.settings import Settings

log = logging.getLogger(__name__)

ENCODER: Final = "rad_dino"
_BLOCK: Final = 256
"""Radiographs compared with all images at a time."""


def closest_of_others(
    radiographs: np.ndarray, patients: np.ndarray, images: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Return each radiograph's distance to the closest image of another patient's prompt, (n,).

    Args:
        radiographs: (n, d) features.
        patients: (n,) of the radiographs.
        images: (m, d) features.
        asked: (m,) the patients of the images' prompts.
    """
    points = images.astype(np.float64)
    lengths = (points**2).sum(axis=1)
    found = []
    for start in range(0, len(radiographs), _BLOCK):
        block = radiographs[start : start + _BLOCK].astype(np.float64)
        squares = (block**2).sum(axis=1)[:, None] + lengths - 2 * block @ points.T
        squares[patients[start : start + _BLOCK, None] == asked[None, :]] = np.inf
        found.append(np.sqrt(np.maximum(squares.min(axis=1), 0)))
    return np.concatenate(found)


def score(args: argparse.Namespace) -> Record:
    """Read features and return the record of a model's images.

    Raises:
        InputError: features are missing, damaged, not comparable or of other prompts.
    """
    from workflow_scripts.common.manifest import read_manifest, read_prompts
    from workflow_scripts.fidelity.inputs import (
        REAL,
        origin,
        read_comparable,
        read_encoder,
        require_comparable,
        rows_of,
    )

    folders, purpose = (args.real, args.generated), "privacy"
    real, generated = read_comparable(*folders, ENCODER, args.protocol, args.model, purpose)
    held_out = read_encoder(args.held_out, ENCODER, args.protocol, REAL, purpose)
    both = f"{ENCODER}.h5 of {args.held_out} and {args.generated}"
    require_comparable(held_out, generated, both)
    manifest, prompts = read_manifest(args.manifest), read_prompts(args.prompts)
    copied = shown_in_training(args.copies)
    candidates = draw_candidates(manifest, args.images, args.seed, copied)
    asked = prompts.iloc[rows_of(prompts["prompt_id"], generated.ids, args.generated, "prompt set")]
    patient_of = manifest.set_index("image_id")["patient_id"]
    sides = []
    for features, folder, member in ((real, args.real, True), (held_out, args.held_out, False)):
        names = list(candidates.loc[candidates["member"] == member, "image_id"])
        rows = rows_of(features.ids, names, folder, "features of radiographs")
        sides.append(features.features[rows])
    distances = closest_of_others(
        np.concatenate(sides),
        candidates["patient_id"].to_numpy(str),
        generated.features,
        patient_of[asked["image_id"]].to_numpy(str),
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
    write_record(record, args.output)
    for value in record.values:
        log.info("%s: %s %s (n %d)", args.model, value.metric, value.value, value.n)


if __name__ == "__main__":
    run_script(main)
