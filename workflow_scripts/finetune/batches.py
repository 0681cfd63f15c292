"""How the batch of a step is divided among devices. Needs no torch: planning asks, too."""

from workflow_scripts.common.errors import InputError


def divide_batch(batch_size: int, devices: int, most: int) -> tuple[int, int]:
    """Return how a step's whole batch is divided: images of a device at once, and how many times.

    Where the devices' shares are smaller than what one device may take, it takes its share: more
    devices than usual change nothing else.

    Args:
        batch_size: images of an optimiser step, in total.
        devices: that share the step.
        most: images that one device may take at a time.

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
