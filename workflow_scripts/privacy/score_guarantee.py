"""Compare the guarantee that a fine-tuning states with what an attack on its canaries shows.

    python -m workflow_scripts.privacy.score_guarantee --model my_private --protocol sound \\
        --family stable_diffusion --base weights/sd-v1-5 --method lora \\
        --checkpoint results/finetune/my_private/checkpoint \\
        --canaries results/finetune/my_private/canaries --size 512 --mixed-precision bf16 \\
        --output results/privacy/guarantee/my_private.json

A canary's score is the base checkpoint's loss on it less the fine-tuned one's, with its caption, at
the same noise for all canaries. The script writes one record: the epsilon that the checkpoint
states, the lower bound that the attack shows, and the largest bound that so many canaries could
show.
"""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, Value, provenance
from workflow_scripts.finetune.canaries import REPEATS, read_canaries
from workflow_scripts.finetune.lora import load_lora
from workflow_scripts.finetune.settings import CANARIES
from workflow_scripts.privacy.audit import (
    CONFIDENCE,
    area,
    epsilon_shown,
    exposure_by_chance,
    exposures,
    guess,
)
from workflow_scripts.privacy.scripts import write_scored
from workflow_scripts.privacy.tuned_model import TunedModel, tuned_arguments, tuned_model_of

DRAWS: Final = 16
"""Draws of noise level and noise that a canary's loss is the mean over."""
_SEED: Final = 77
_TOGETHER: Final = 16
"""Draws computed at once."""


def canary_losses(
    model: TunedModel,
    pipeline: Any,
    canaries: pd.DataFrame,
    device: Any,
    progress: Progress,
    draws: int = DRAWS,
) -> NDArray[np.float64]:
    """Return each canary's mean loss with its caption over the same draws for all, (n,).

    Args:
        model: see `TunedModel`.
        pipeline: one of its checkpoints, loaded; it is placed on the device.
        canaries: see `read_canaries`.
        device: the device that computes.
        progress: counts the canaries.
        draws: number of draws of noise level and noise.
    """
    import torch

    from workflow_scripts.finetune.data import load_pixels
    from workflow_scripts.finetune.draws import Draws
    from workflow_scripts.privacy.membership.losses import computing

    family = model.family
    family.place(pipeline, device)
    network: Any = family.network(pipeline)
    network.eval()
    means = []
    with torch.no_grad(), computing(torch.device(device), model.dtype):
        for path, caption in zip(canaries["path"], canaries["caption"], strict=True):
            pixels = torch.from_numpy(load_pixels(path, model.size).copy()).permute(2, 0, 1)[None]
            encoded = family.encode_images(pipeline, (pixels.float() / 127.5 - 1).to(device))
            total = 0.0
            for first in range(0, draws, _TOGETHER):
                torch.manual_seed(_SEED)  # for what the network itself draws
                numbers = list(range(first, min(draws, first + _TOGETHER)))
                conditions = family.encode_captions(pipeline, [caption] * len(numbers))
                losses = family.loss(
                    pipeline,
                    network,
                    encoded.float().expand(len(numbers), *encoded.shape[1:]),
                    conditions,
                    Draws(_SEED, 0, numbers, device),
                )
                total += float(losses.double().sum())
            means.append(total / draws)
            progress.update()
    return np.array(means)


def canary_scores(model: TunedModel, canaries: pd.DataFrame, gpus: int) -> NDArray[np.float64]:
    """Return the base checkpoint's loss on each canary less the fine-tuned one's, (n,).

    Raises:
        InputError: a checkpoint is missing or damaged.
    """
    device = pick_device(gpus)
    progress = Progress("losses of canaries", 2 * len(canaries), "canaries")
    pipeline = model.load("base")
    before = canary_losses(model, pipeline, canaries, device, progress)
    if model.checkpoint and model.method == "lora":
        load_lora(model.family, pipeline, model.checkpoint)
    else:
        del pipeline  # or two lie on the device
        pipeline = model.load("tuned")
    scores = before - canary_losses(model, pipeline, canaries, device, progress)
    require_finite(scores, model.key)
    return scores


def require_finite(scores: NDArray[np.float64], model: str) -> None:
    """Refuse scores that are not finite: guesses from them would look like those by chance.

    Raises:
        InputError: a canary's score is not finite.
    """
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise InputError(
            f"the losses of {bad} of {len(scores)} canaries are not finite",
            model,
            "look at the checkpoint (a training that diverged), or train in bf16",
        )


def stated(checkpoint: Path) -> dict[str, Any] | None:
    """Return the guarantee that lies beside a checkpoint's weights; None if there is none.

    Raises:
        InputError: it cannot be read.
    """
    path = checkpoint / "guarantee.json"
    if not path.exists():
        return None
    try:
        guarantee = json.loads(path.read_text(encoding="utf-8"))
        epsilon, delta = float(guarantee["epsilon"]), float(guarantee["delta"])
        return {**guarantee, "epsilon": epsilon, "delta": delta}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(
            "no statement of a guarantee", error, path, "fine-tune again: it is written there"
        ) from None


def stated_values(guarantee: dict[str, Any] | None) -> list[Value]:
    """Return epsilon and delta as the checkpoint states them, see `stated`."""
    if guarantee is None:
        reason = "the model was fine-tuned without a guarantee"
        return [
            Value(f"guarantee_{name}", None, "lower", 0, reason=reason)
            for name in ("epsilon", "delta")
        ]
    return [
        Value(f"guarantee_{name}", guarantee[name], "lower", int(guarantee["patients"]))
        for name in ("epsilon", "delta")
    ]


def attack_values(
    canaries: pd.DataFrame | None, scores: NDArray[np.float64], delta: float
) -> list[Value]:
    """Return the audit's values: bounds on epsilon, the share of right guesses, exposures.

    Args:
        canaries: see `read_canaries`; None where none was planted.
        scores: (n,), higher where the model knows a canary better.
        delta: the delta at which epsilon is bounded.
    """
    names = ["audit_epsilon", "audit_epsilon_largest", "audit_correct"]
    names += [f"canary_exposure_{repeats}" for repeats in (0, *REPEATS)]
    directions = dict.fromkeys(names, "lower") | {"audit_epsilon_largest": "none"}
    if canaries is None:
        reason = "the fine-tuning planted no canaries"
        return [Value(name, None, directions[name], 0, reason=reason) for name in names]
    planted = canaries["planted"].to_numpy(bool)
    repeats = canaries["repeats"].to_numpy(int)
    count, unplanted = len(canaries), int((~planted).sum())
    correct = int((guess(scores, repeats) == planted).sum())
    values = [
        Value("audit_epsilon", epsilon_shown(correct, count, delta), "lower", count),
        Value("audit_epsilon_largest", epsilon_shown(count, count, delta), "none", count),
        Value("audit_correct", correct / count, "lower", count),
    ]
    if unplanted < 2:
        reason = "fewer than two canaries were left out"
        missing = [Value(name, None, "lower", count, reason=reason) for name in names[3:]]
        return values + missing
    bits = exposures(scores, planted)
    for times in (0, *REPEATS):
        repeated = ~planted if times == 0 else planted & (repeats == times)
        name, n = f"canary_exposure_{times}", int(repeated.sum())
        if n:
            mean = float(bits[repeated].mean())
            values.append(Value(name, mean, "lower", n, n_reference=unplanted))
        else:
            values.append(Value(name, None, "lower", 0, reason="the coin planted none of them"))
    return values


def score(model: TunedModel, protocol: str, canaries_folder: Path | None, gpus: int) -> Record:
    """Attack a checkpoint by its canaries and return the record.

    Args:
        model: see `TunedModel`; it has a checkpoint.
        protocol: `sound` or `as_published`.
        canaries_folder: the folder of the fine-tuning's canaries; None where it planted none.
        gpus: 0 for the CPU.

    Raises:
        InputError: a checkpoint or a canary is missing or damaged.
    """
    assert model.checkpoint is not None
    guarantee = stated(model.checkpoint)
    delta = guarantee["delta"] if guarantee else 0.0
    canaries = read_canaries(canaries_folder / CANARIES) if canaries_folder else None
    if canaries is None and guarantee is None:
        raise InputError("neither a guarantee nor canaries", model.checkpoint, "name --canaries")
    scores = np.empty(0)
    details: dict[str, Any] = {"guarantee": guarantee, "confidence": CONFIDENCE, "delta": delta}
    if canaries is not None:
        scores = canary_scores(model, canaries, gpus)
        planted = canaries["planted"].to_numpy(bool)
        details |= {"draws": DRAWS, "canaries": len(canaries), "planted": int(planted.sum())}
        if 0 < planted.sum() < len(planted):
            details["area"] = area(scores, planted)
        details["exposure_by_chance"] = exposure_by_chance(int((~planted).sum()))
    return Record(
        stage="privacy",
        model=model.key,
        family="guarantee",
        protocol=protocol,
        values=stated_values(guarantee) + attack_values(canaries, scores, delta),
        details=details,
        provenance=provenance(
            {"protocol": protocol, "size": model.size, "draws": DRAWS, "seed": _SEED},
            device_name(pick_device(gpus)) if canaries is not None else "cpu",
        ),
    )


def main(argv: list[str] | None = None) -> None:
    """Audit a checkpoint from the command line."""
    parser = tuned_arguments((__doc__ or "").split("\n")[0], "fine-tuned", required=True)
    parser.add_argument("--canaries", type=Path, help="folder of canaries; none by default")
    flags = parser.parse_args(argv)
    if flags.canaries:
        import torch

        torch.set_num_threads(flags.threads)
    record = score(tuned_model_of(flags), flags.protocol, flags.canaries, flags.gpus)
    write_scored(record, flags.output)


if __name__ == "__main__":
    run_script(main)
