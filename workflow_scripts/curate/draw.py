"""The draw of a curated set: quotas first, then whatever comes, seeded, whatever the shards."""

import hashlib
from collections.abc import Mapping

import numpy as np

from workflow_scripts.common.manifest import FINDINGS


def drawn(
    ids: list[str], labels: np.ndarray, quotas: Mapping[str, int], images: int, seed: int
) -> tuple[list[int], dict[str, int]]:
    """Draw images so that quotas are met; return their rows, and how many are missing.

    An image's place in the draw is the digest of its id and the seed: neither the order of the pool
    nor its shards change what is drawn.

    Args:
        ids: of the images that may be drawn.
        labels: (n, 14), 1 where a finding was asked for.
        quotas: images that a finding has at least.
        images: how many to draw.
        seed: of the draw.

    Returns:
        Row numbers in the order of the draw, at most `images`; and what is missing, by finding and
        as `images` in all. It is empty where quotas and size are met.
    """
    place = [hashlib.sha256(f"{seed}/{name}".encode()).hexdigest() for name in ids]
    order = sorted(range(len(ids)), key=place.__getitem__)
    chosen: dict[int, None] = {}
    # The rarest finding first, so that its images count for the others' quotas, too.
    columns = sorted(
        ((FINDINGS.index(name), count) for name, count in quotas.items()),
        key=lambda pair: (int((labels[:, pair[0]] == 1).sum()), pair[0]),
    )
    for column, count in columns:
        have = sum(labels[row, column] == 1 for row in chosen)
        for row in order:
            if have >= count or len(chosen) >= images:
                break
            if labels[row, column] == 1 and row not in chosen:
                chosen[row] = None
                have += 1
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
