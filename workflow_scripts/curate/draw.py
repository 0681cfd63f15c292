"""The draw of a curated set: first the quotas, then any images, in an order set by the seed."""

import hashlib
from collections.abc import Mapping

import numpy as np

from workflow_scripts.common.manifest import FINDINGS


def drawn(
    ids: list[str], labels: np.ndarray, quotas: Mapping[str, int], images: int, seed: int
) -> tuple[list[int], dict[str, int]]:
    """Draw images so that quotas are met; return their rows, and the number of missing images.

    An image's place in the draw is the digest of the seed and its id. So the draw depends neither
    on the order of the pool nor on its shards.

    Args:
        ids: the ids of the images that may be drawn.
        labels: (n, 14), 1 where the prompt asks for the finding.
        quotas: least number of images with a finding, by finding.
        images: number of images to draw.
        seed: seed of the draw.

    Returns:
        Row numbers in the order of the draw, at most `images`; and the number of missing images, by
        finding, and under `images` the total. The latter is empty if quotas and size are met.
    """
    place = [hashlib.sha256(f"{seed}/{name}".encode()).hexdigest() for name in ids]
    order = sorted(range(len(ids)), key=place.__getitem__)
    chosen: dict[int, None] = {}
    # The rarest finding comes first, because its images also count for the other quotas.
    columns = sorted(
        ((FINDINGS.index(name), count) for name, count in quotas.items()),
        key=lambda pair: (int((labels[:, pair[0]] == 1).sum()), pair[0]),
    )
    for column, count in columns:
        positive = sum(labels[row, column] == 1 for row in chosen)
        for row in order:
            if positive >= count or len(chosen) >= images:
                break
            if labels[row, column] == 1 and row not in chosen:
                chosen[row] = None
                positive += 1
    for row in order:
        if len(chosen) >= images:
            break
        chosen.setdefault(row, None)
    rows = sorted(chosen, key=place.__getitem__)
    missing = {
        FINDINGS[column]: count - int((labels[rows, column] == 1).sum())
        for column, count in sorted(columns)
        if (labels[rows, column] == 1).sum() < count
    }
    if len(rows) < images:
        missing["images"] = images - len(rows)
    return rows, missing
