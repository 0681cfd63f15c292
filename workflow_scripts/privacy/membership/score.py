"""Attack a fine-tuned model: do its losses tell which radiographs it was trained on?

    python -m workflow_scripts.privacy.membership.score --model sd_v1_4 --protocol sound \\
        --family stable_diffusion --base weights/sd_v1_4 \\
        --checkpoint results/finetune/sd_v1_4/checkpoint --method full --size 512 \\
        --manifest results/cohort/manifest.parquet \\
        --copies results/cohort/identical_images.csv results/cohort/similar_images.csv \\
        --progress DIR \\
        --scores results/privacy/membership/sd_v1_4_scores.parquet \\
        --output results/privacy/membership/sd_v1_4.json --gpus 1

candidates.py draws members and non-members. values.py describes the attacks, and when a number is
withheld. Losses are measured under the base checkpoint and under the fine-tuned one. Every measured
batch is kept in the progress folder; a killed job continues after the last one. The table of
patients' scores is for its owner only.

Without --checkpoint the base itself is attacked, as a model that came trained. Who its members are
is unknown, so the train split is taken for them, and the record says so. Whoever has fine-tuned
such a model gives the model as it came as --base, and as --checkpoint a folder laid out as that is
(of LLM-CXR an llmcxr*/ and the vqgan*/ that stayed the same).
"""

import argparse
import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of, whole_file
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, provenance
from workflow_scripts.common.resuming import read_unless_damaged
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.privacy.membership.candidates import (
    COPIES_HELP,
    draw_candidates,
    shown_in_training,
)
from workflow_scripts.privacy.membership.settings import MembershipSettings
from workflow_scripts.privacy.membership.values import (
    ATTACKS,
    PRESUMED,
    SCORES,
    attack_scores,
    membership_values,
    presumed_values,
)
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.scripts import write_scored
from workflow_scripts.privacy.settings import Settings
from workflow_scripts.privacy.tuned_model import TunedModel, tuned_arguments, tuned_model_of

_SCORED: Final = (*ATTACKS, *(f"base_{score}" for score in SCORES))

SCHEMA: Final = pa.schema(
    [
        ("image_id", pa.string()),
        ("patient_id", pa.string()),
        ("pair", pa.int32()),
        ("member", pa.bool_()),
        ("marked", pa.bool_()),
        ("words", pa.int32()),
        *[(name, pa.float64()) for name in _SCORED],
    ]
)
"""The table of scores: each is higher for "member"; `base_{score}` is the base checkpoint's."""


def measure(
    model: TunedModel,
    candidates: pd.DataFrame,
    settings: MembershipSettings,
    progress: Path,
    gpus: int = 0,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Return the losses of candidates under the base and the fine-tuned checkpoint.

    Args:
        model: see `TunedModel`.
        candidates: see `draw_candidates`.
        settings: noise levels, seeds and batches.
        progress: folder of measured batches; the caller removes it.
        gpus: 0 for the CPU.
        threads: of torch.

    Returns:
        `base` and `tuned`: float32 (n, passes, 3), see `image_losses`; `base` alone of a model
        that came trained.

    Raises:
        InputError: an unusable checkpoint or image; another attempt took over.
    """
    digest = _digest_of(model, candidates, settings, gpus > 0)
    starts = range(0, len(candidates), settings.batch_size)
    starts_of = {  # the first candidate of each batch, by the name of its file
        which: {f"{which}-{digest}-{start:06d}.npy": start for start in starts}
        for which in model.checkpoints
    }
    attempt = Attempt(progress)
    attempt.inherit()
    found = {
        which: {name: _kept(attempt.folder / name) for name in names}
        for which, names in starts_of.items()
    }
    done = sum(losses is not None for kept in found.values() for losses in kept.values())
    total = len(model.checkpoints) * len(starts)
    report = Progress(f"membership, {model.key}", total, "batches", done=done)
    for which, kept in found.items():
        missing = [name for name, losses in kept.items() if losses is None]
        if not missing:
            continue
        pipeline = _placed(model, which, gpus, threads)
        for name in missing:
            start = starts_of[which][name]
            batch = candidates.iloc[start : start + settings.batch_size]
            losses = _losses(model, pipeline, batch, settings)
            _require_finite(losses, batch, which)
            with attempt.writing() as folder:
                _write(folder / name, losses)
            kept[name] = losses
            report.update()
        del pipeline  # or two lie on the device
    attempt.check()
    return {which: np.concatenate([*kept.values()]) for which, kept in found.items()}


def _kept(path: Path) -> np.ndarray | None:
    """Return the losses of a batch that an earlier attempt measured; None if missing or damaged."""
    if not path.exists():
        return None
    return read_unless_damaged(path, lambda: np.asarray(np.load(path, allow_pickle=False)))


def _digest_of(
    model: TunedModel, candidates: pd.DataFrame, settings: MembershipSettings, gpu: bool
) -> str:
    """Check the checkpoints, and return a digest of all that the losses depend on."""
    sha256 = {
        which: {place: sha256_of(path) for place, path in model.files(which).items()}
        for which in model.checkpoints
    }
    content = {
        "family": model.family.identity,
        "base": sha256["base"],
        "tuned": sha256.get("tuned", {}),
        "images": candidates[["image_id", "caption"]].to_numpy().tolist(),
        "settings": {**asdict(settings), "size": model.size, "precision": model.precision},
        "gpu": gpu,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _placed(model: TunedModel, which: str, gpus: int, threads: int) -> Any:
    """Return a checkpoint's pipeline on its device, ready to measure."""
    import torch

    from workflow_scripts.common.devices import pick_device

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    device = pick_device(gpus)
    pipeline = model.load(which)
    model.family.check_size(pipeline, model.size)
    pipeline.to(device)
    model.family.network(pipeline).eval()
    return pipeline


def _losses(
    model: TunedModel, pipeline: Any, batch: pd.DataFrame, settings: MembershipSettings
) -> np.ndarray:
    """Return the losses of a batch of candidates, see `image_losses`."""
    from workflow_scripts.privacy.membership.losses import Measuring, image_losses

    how = Measuring(model.size, settings.noise_levels, settings.seeds, model.dtype)
    paths, captions = batch["path"].tolist(), batch["caption"].tolist()
    return image_losses(model.family, pipeline, paths, captions, how)


def _require_finite(losses: np.ndarray, batch: pd.DataFrame, which: str) -> None:
    bad = ~np.isfinite(losses[..., :2]).all(axis=(1, 2))
    if bad.any():
        raise InputError(
            f"{bad.sum()} images have a loss that is not finite under the {which} checkpoint: "
            + ", ".join(batch["image_id"][bad][:5]),
            "privacy.membership",
            "look at the checkpoint (a training that diverged), or train in bf16",
        )


def _write(path: Path, losses: np.ndarray) -> None:
    with whole_file(path, make_parents=False) as temporary, temporary.open("wb") as stream:
        np.save(stream, losses)


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, MembershipSettings]:
    """Parse the command line."""
    parser = tuned_arguments(
        (__doc__ or "").splitlines()[0],
        "what fine-tuning made; none of a model that came trained",
        required=False,
    )
    parser.add_argument("--manifest", required=True, type=Path)
    parser.add_argument("--copies", nargs="*", default=[], type=Path, help=COPIES_HELP)
    add_flags(parser, MembershipSettings)
    add_flags(parser, Settings, only=("seed",))
    parser.add_argument("--progress", required=True, type=Path, help="folder of measured batches")
    parser.add_argument("--scores", required=True, type=Path, help="for its owner only")
    flags = parser.parse_args(argv)
    return flags, settings_of_flags(MembershipSettings, flags, parser)


def main(argv: list[str] | None = None) -> None:
    """Attack one model from the command line."""
    flags, settings = parse_arguments(argv)
    copied = shown_in_training(flags.copies)
    candidates = draw_candidates(read_manifest(flags.manifest), settings.images, flags.seed, copied)
    model = tuned_model_of(flags)
    losses = measure(model, candidates, settings, flags.progress, flags.gpus, flags.threads)
    if "tuned" in losses:
        members = "known"
        scores = attack_scores(losses["base"], losses["tuned"])
        values, checked = membership_values(candidates, scores)
    else:
        members = PRESUMED
        values, checked, scores = presumed_values(candidates, losses["base"])
    from workflow_scripts.common.devices import device_name, pick_device

    record = Record(
        stage="privacy",
        model=flags.model,
        family="membership",
        protocol=flags.protocol,
        values=values,
        details={
            "members": members,
            "pairs": len(candidates) // 2,
            "copied_patients": len(copied),
            **asdict(settings),
            **checked,
        },
        provenance=provenance(
            {"seed": flags.seed, "size": flags.size, **asdict(settings)},
            device_name(pick_device(flags.gpus)),
        ),
    )
    # A model that came trained lacks some scores: their columns are empty.
    columns = {name: scores.get(name, np.nan) for name in _SCORED}
    write_private_table(candidates.assign(**columns), SCHEMA, flags.scores)
    write_scored(record, flags.output)
    Attempt(flags.progress).end()


if __name__ == "__main__":
    run_script(main)
