"""How the batch of a step is divided among devices. Planning imports it, so it needs no torch."""

from workflow_scripts.common.errors import InputError


def divide_batch(batch_size: int, devices: int, most: int) -> tuple[int, int]:
    """Return the images that a device takes at once, and the number of passes in a step.

    If a device's share of the batch is smaller than `most`, it takes its whole share in one pass.

    Args:
        batch_size: images of an optimiser step, over all devices.
        devices: number of devices that share the step.
        most: the most images that one device takes at a time.

    Raises:
        InputError: the devices do not divide the total, or `most` does not divide a device's share.
    """
    share, rest = divmod(batch_size, devices)
    images = min(most, share)
    if rest or share % images:
        fitting = [n for n in range(1, images + 1) if not rest and share % n == 0]
        raise InputError(
            f"{devices} device(s) x {most} images do not divide the total batch of {batch_size}",
            "batch_size, per_device_batch_size, the resource `gpu`",
            f"use a per-device batch of {fitting[-1]}"
            if fitting
            else f"use a number of devices that divides {batch_size}",
        )
    return images, share // images
