"""Masks of a radiograph's organs, segmented by CXAS.

Heart, lungs, clavicles and ribs are classes of the network. The upper, middle and lower zones of a
lung are thirds of the height of its mask. So they do not depend on the network that segments the
lung, and together they cover it.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workflow_scripts.common.images import ImageItem
from workflow_scripts.common.pixels import normalise
from workflow_scripts.downstream.segmentation.cxas import Cxas, check_classes, load_cxas, prepare
from workflow_scripts.faithfulness.classes import CLASSES
from workflow_scripts.faithfulness.presence import largest_piece, present

ZONES: Final = ("upper", "mid", "lower")
"""The zones of a lung from top to bottom; a mask is named `{side}_{zone}_zone`."""

ORGANS: Final = (
    *CLASSES,
    *(f"{side}_{zone}_zone" for side in ("right", "left") for zone in ZONES),
)
"""The names of all masks."""

LEAST_SHARE: Final = 0.0005
"""Share of an image's pixels up to which a structure counts as a speck, and so as absent."""

_BATCHES_AHEAD: Final = 2  # decoded while the network computes one


@dataclass(frozen=True)
class Labeller:
    """The network that segments organs.

    Attributes:
        network: the network, on `device` and in evaluation mode.
        size: side of its input and of its masks, pixels.
        batch_size: number of images at a time.
        device: the device that computes.
    """

    network: Cxas
    size: int
    batch_size: int
    device: torch.device


def load_labeller(
    weights: str | Path, size: int, batch_size: int, device: torch.device
) -> Labeller:
    """Load CXAS's network.

    Raises:
        InputError: see `load_cxas`; or the network lacks a class.
    """
    network = load_cxas(weights)
    check_classes(network, list(CLASSES.values()), weights)
    return Labeller(network.to(device), size, batch_size, device)


def organ_masks(
    items: Iterable[ImageItem],
    labeller: Labeller,
    names: Sequence[str] = ORGANS,
    threads: int = 1,
) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
    """Yield the ids and the masks of images, batch by batch, in the images' order.

    Args:
        items: the images, for instance from `common.images.find_in_shards`.
        labeller: see `load_labeller`.
        names: names from ORGANS.
        threads: number of images decoded at the same time.

    Yields:
        The ids, and for each name the masks, bool (n, size, size). The image is squashed to a
        square. The first column is on the patient's right.

    Raises:
        KeyError: a name is not in ORGANS.
        InputError: an image cannot be decoded.
    """

    def decode(item: ImageItem) -> Tensor:
        return prepare(item.open(), labeller.size)

    stream = iter(items)
    waiting: deque[list[tuple[str, Future[Tensor]]]] = deque()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        while True:
            while len(waiting) <= _BATCHES_AHEAD:
                batch = list(itertools.islice(stream, labeller.batch_size))
                if not batch:
                    break
                waiting.append([(item.id, pool.submit(decode, item)) for item in batch])
            if not waiting:
                return
            done = waiting.popleft()
            prepared = torch.stack([future.result() for _, future in done])
            yield [name for name, _ in done], draw_organs(labeller, prepared, names)


@torch.no_grad()
def draw_organs(
    labeller: Labeller, prepared: Tensor, names: Sequence[str] = ORGANS
) -> dict[str, np.ndarray]:
    """Return the masks of organs by name, each bool (n, size, size).

    A pixel belongs to an organ if the organ's probability is above a half.

    Args:
        labeller: see `load_labeller`.
        prepared: uint8 (n, 3, size, size), see `cxas.prepare`.
        names: names from ORGANS.
    """
    wanted = sorted({_source(name) for name in names})
    fine = _finest(labeller, prepared, [CLASSES[name] for name in wanted])
    return _masks(fine, wanted, names, prepared.shape[2:])


@torch.no_grad()
def draw_and_find(
    labeller: Labeller, prepared: Tensor, names: Sequence[str] = ORGANS
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return masks as `draw_organs` does, and which classes are present, bool (n, classes).

    A class is present if the largest connected piece of its mask covers more than LEAST_SHARE of
    the image, see `presence`.
    """
    wanted = sorted({_source(name) for name in names})
    fine = _finest(labeller, prepared, None)
    scale = prepared.shape[2] // fine.shape[2]
    found = present(fine, scale, LEAST_SHARE)
    organs = fine[:, [CLASSES[name] for name in wanted]]
    return _masks(organs, wanted, names, prepared.shape[2:]), found


def _finest(labeller: Labeller, prepared: Tensor, classes: Sequence[int] | None) -> Tensor:
    """Return the logits of some classes, or of all, on the network's finest map."""
    network = labeller.network
    x = normalise(prepared.to(labeller.device).float() / 255)
    fine: Tensor = network.head(network.backbone(x), classes)
    return fine


def _masks(
    fine: Tensor, wanted: Sequence[str], names: Sequence[str], size: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return the masks at full size that `names` name, from the logits of the `wanted` CLASSES."""
    logits = functional.interpolate(fine, tuple(size), mode="bilinear", align_corners=False)
    drawn = dict(zip(wanted, (logits > 0).cpu().numpy().swapaxes(0, 1), strict=True))
    return {
        name: drawn[name] if name in CLASSES else _zones(drawn[_source(name)], name)
        for name in names
    }


def _source(name: str) -> str:
    """Return the name in CLASSES from whose mask a mask is derived."""
    if name in CLASSES:
        return name
    if name not in ORGANS:
        raise KeyError(name)
    return f"{name.partition('_')[0]}_lung"


def _zones(lungs: np.ndarray, name: str) -> np.ndarray:
    """Return one zone of each lung, bool (n, h, w): a third of the rows that the lung reaches.

    The largest piece of the lung sets the rows, because a speck would shift the thirds.
    """
    third = ZONES.index(name.split("_")[1])
    zones = np.zeros_like(lungs)
    for lung, zone in zip(lungs, zones, strict=True):
        rows = np.flatnonzero(largest_piece(lung).any(axis=1))
        if len(rows):
            first, height = rows[0], rows[-1] + 1 - rows[0]
            top, bottom = (first + height * k // 3 for k in (third, third + 1))
            zone[top:bottom] = lung[top:bottom]
    return zones
