"""The organs of a radiograph, as CXAS draws them: masks by name.

Heart, lungs, clavicles and ribs are classes of the network. The zones are thirds of a lung's height
in its own mask, the radiologist's upper, middle and lower zone: so they are the same with any
network that draws lungs, and together they are the lung.
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
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from workflow_scripts.common.images import ImageItem
from workflow_scripts.common.pixels import normalise
from workflow_scripts.downstream.segmentation.cxas import Cxas, check_classes, load_cxas, prepare

CLASSES: Final = {
    "heart": 121,
    "right_lung": 135,
    "left_lung": 136,
    "right_clavicle": 32,
    "left_clavicle": 31,
}
"""CXAS's number of each organ; right and left are the patient's."""

RIBS: Final = tuple(range(69, 105))
"""CXAS's numbers of ribs, posterior and anterior, right and left."""

ZONES: Final = ("upper", "mid", "lower")
"""Of a lung, from above: `{side}_{zone}_zone`."""

ORGANS: Final = (
    *CLASSES,
    *(f"{side}_{zone}_zone" for side in ("right", "left") for zone in ZONES),
)
"""Every name that `organ_masks` knows."""

LEAST_SHARE: Final = 0.0005
"""Of an image; what is smaller is speckle, and the structure counts as absent."""

_BATCHES_AHEAD: Final = 2  # decoded while one is computed


@dataclass(frozen=True)
class Labeller:
    """The network that draws organs.

    Attributes:
        network: on `device`, in evaluation mode.
        size: side of its input and of its masks, pixels.
        batch_size: images at a time.
        device: where it is.
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
        InputError: see `load_cxas`; or a network without these classes.
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
    """Yield the ids of some images and their organs, batch by batch, in the images' order.

    Args:
        items: for instance `common.images.find_in_shards(shards, wanted)`.
        labeller: see `load_labeller`.
        names: of ORGANS.
        threads: decode this many images at a time.

    Yields:
        Ids, and of each name bool (n, size, size): the image as a square, its aspect lost. Columns
        run from the patient's right to the left.

    Raises:
        KeyError: a name that is not of ORGANS.
        InputError: an image that cannot be decoded.
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


def draw_organs(
    labeller: Labeller, prepared: Tensor, names: Sequence[str] = ORGANS
) -> dict[str, np.ndarray]:
    """Return organs by name, each bool (n, size, size).

    A pixel belongs to an organ whose probability is above a half.

    Args:
        labeller: see `load_labeller`.
        prepared: uint8 (n, 3, size, size), see `cxas.prepare`.
        names: of ORGANS.
    """
    return draw_and_count(labeller, prepared, names)[0]


@torch.no_grad()
def draw_and_count(
    labeller: Labeller, prepared: Tensor, names: Sequence[str] = ORGANS
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return organs as `draw_organs` does, and how many of the RIBS there are, int (n,).

    A rib is there where it has more than LEAST_SHARE of the pixels of the network's finest map: a
    count needs no border to the pixel, and 36 more maps of full size would cost more than all else.
    """
    sources = [_source(name) for name in names]
    wanted = sorted(set(sources))
    classes = [CLASSES[name] for name in wanted]
    ribs = [number for number in RIBS if number < labeller.network.classes]
    network = labeller.network
    x = normalise(prepared.to(labeller.device).float() / 255)
    fine = network.head(network.backbone(x), classes + ribs)
    counted = ((fine[:, len(classes) :] > 0).float().mean((2, 3)) > LEAST_SHARE).sum(1)
    logits = functional.interpolate(
        fine[:, : len(classes)], x.shape[2:], mode="bilinear", align_corners=False
    )
    drawn = dict(zip(wanted, (logits > 0).cpu().numpy().swapaxes(0, 1), strict=True))
    organs = {
        name: drawn[name] if name in CLASSES else _zones(drawn[source], name)
        for name, source in zip(names, sources, strict=True)
    }
    return organs, counted.cpu().numpy()


def _source(name: str) -> str:
    """Return the organ of CLASSES that a name is drawn from."""
    if name in CLASSES:
        return name
    if name not in ORGANS:
        raise KeyError(name)
    return f"{name.partition('_')[0]}_lung"


def _zones(lungs: np.ndarray, name: str) -> np.ndarray:
    """Return one zone of each lung, bool (n, h, w): the third of the rows that the lung reaches.

    The rows are those of its largest piece: a speck would draw a third out of place.
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


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected piece of a mask, bool (h, w); diagonal neighbours are apart."""
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest: np.ndarray = pieces == sizes.argmax()
    return largest
