"""The division of a prompt set into batches and shards."""

from workflow_scripts.common.errors import InputError


def batch_ranges(prompts: int, batch_size: int) -> list[range]:
    """Return the batches of a whole prompt set, in prompt order."""
    return [
        range(start, min(start + batch_size, prompts)) for start in range(0, prompts, batch_size)
    ]


def shard_batches(prompts: int, batch_size: int, shard: int, shards: int) -> list[range]:
    """Return the batches of one shard, which are contiguous and complete.

    The composition of a batch changes the last bits of its images. Batches do not depend on the
    number of shards, so neither do the images. With more shards than batches some shards are empty.

    Raises:
        InputError: the shard does not exist.
    """
    if not 0 <= shard < shards or batch_size < 1:
        raise InputError(
            f"shard {shard} of {shards} with a batch size of {batch_size}",
            "--shard, --shards, --batch-size",
            "shards count from 0",
        )
    batches = batch_ranges(prompts, batch_size)
    return batches[shard * len(batches) // shards : (shard + 1) * len(batches) // shards]


def shard_rows(prompts: int, shard: int, shards: int) -> range:
    """Return the contiguous rows of one shard. See `shard_batches`."""
    rows = shard_batches(prompts, 1, shard, shards)
    return range(rows[0].start, rows[-1].stop) if rows else range(0)
