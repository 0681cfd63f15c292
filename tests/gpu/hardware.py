"""What the GPU itself reaches: the ceilings that the other parts' rates stand beside."""

import torch

from tests.gpu.lines import Writer
from tests.gpu.measure import seconds_of


def measure_ceilings(device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure a product of matrices in bf16 and float32, a copy, and what the GPU's memory is."""
    side = 256 if tiny else 8192
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "float32")):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in "ab")
        taken = seconds_of(lambda a=a, b=b: a @ b, device, 5, warm_up=2)
        note = f"a product of two matrices of {side} x {side}"
        say(f"product, {name}", 2 * side**3 / taken / 1e12, "TFLOP/s", note)
    x = torch.randn(side, side, device=device)
    y = torch.empty_like(x)
    taken = seconds_of(lambda: y.copy_(x), device, 5, warm_up=2)
    say("copy", 2 * x.nbytes / taken / 1e9, "GB/s", "read and written, on the device")
    if device.type == "cuda":
        say("memory", torch.cuda.get_device_properties(0).total_memory / 2**30, "GiB")
