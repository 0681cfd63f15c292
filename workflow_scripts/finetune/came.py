"""CAME, the memory-efficient optimiser of Luo et al., 2023 (arXiv 2307.02047, algorithm 2).

The paper defines it for matrices. PixArt's trainer (the package came-pytorch) and Sana's trainer
(its own class) treat convolutions differently. Both ways are here, since no library has Sana's:
came-pytorch and pytorch-optimizer have PixArt's alone.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor

LAYOUTS: Final = ("stacks", "matrices")


class Came(torch.optim.Optimizer):
    """Confidence-guided adaptive memory-efficient optimisation.

    Adam keeps a second moment for each weight. CAME keeps, for a matrix, the running means of its
    rows and columns. It then divides the step by the distance of the updates from their momentum
    (the instability), which it keeps in the same way. As in the paper, the running means start at
    zero and are not corrected for it. So the first steps are some ten times the learning rate, and
    a warm-up is needed.

    A weight that is not factored moves by its momentum, without regard to its instability. The
    layout decides which weights are factored:

    - `stacks`, as came-pytorch: a weight of more than two dimensions (a convolution's) is a stack
      of matrices over its last two; one of fewer is not factored.
    - `matrices`, as Sana's trainer: a convolution of one pixel is the matrix (outputs, inputs);
      any other weight that is not a matrix is not factored.

    Args:
        params: weights or groups of weights, float32 or float64.
        lr: learning rate.
        layout: `stacks` or `matrices`, see above.
        betas: decay of the momentum, of the squared gradient, and of the instability.
        eps: added to the squared gradient and to the instability.
        clip_threshold: root mean square that no weight's update exceeds before it enters the
            momentum.
        weight_decay: decoupled: a step first takes lr x weight_decay of the weight away.

    Raises:
        ValueError: an argument out of range, or weights in half precision.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        layout: str = "stacks",
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
    ):
        if lr < 0 or weight_decay < 0 or min(eps) < 0 or clip_threshold <= 0:
            raise ValueError("lr, eps and weight_decay must be at least 0, clip_threshold above 0")
        if layout not in LAYOUTS:
            raise ValueError(f"layout {layout!r} is not one of {LAYOUTS}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"the betas must be in [0, 1), not {betas}")
        defaults = {
            "lr": lr,
            "layout": layout,
            "betas": betas,
            "eps": eps,
            "clip_threshold": clip_threshold,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.dtype not in (torch.float32, torch.float64):
                    raise ValueError(
                        f"CAME takes weights in float32 or float64, not {weight.dtype}"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step on every weight that has a gradient; return the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    _update(weight, weight.grad, self.state[weight], group)
        return loss


def _update(weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Any) -> None:
    beta1, beta2, beta3 = group["betas"]
    shape = _factored_shape(gradient.shape, group["layout"])
    if not state:
        state["momentum"] = torch.zeros_like(gradient, memory_format=torch.contiguous_format)
        if shape is not None:
            for name in ("square", "instability"):
                state[f"{name}_rows"] = gradient.new_zeros(shape[:-1])
                state[f"{name}_columns"] = gradient.new_zeros(*shape[:-2], shape[-1])
        else:
            state["square"] = torch.zeros_like(gradient)

    momentum = state["momentum"]
    if shape is not None:
        gradient, momentum = gradient.reshape(shape), momentum.view(shape)
    square = gradient.square() + group["eps"][0]
    if shape is not None:
        update = gradient * _factored_rsqrt(state, "square", square, beta2)
    else:
        update = gradient * state["square"].lerp_(square, 1 - beta2).rsqrt()
    root_mean_square = update.square().mean().sqrt()
    update /= (root_mean_square / group["clip_threshold"]).clamp(min=1.0)

    momentum.lerp_(update, 1 - beta1)
    if shape is not None:
        instability = (update - momentum).square() + group["eps"][1]
        step = momentum * _factored_rsqrt(state, "instability", instability, beta3)
    else:
        step = momentum
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    weight.add_(step.reshape(weight.shape), alpha=-group["lr"])


def _factored_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...] | None:
    """Return the shape whose last two dimensions are factored; None if the weight is not."""
    if layout == "stacks":
        return shape if len(shape) >= 2 else None
    if len(shape) == 4 and shape[2:] == (1, 1):
        return shape[:2]
    return shape if len(shape) == 2 else None


def _factored_rsqrt(state: dict[str, Tensor], name: str, value: Tensor, beta: float) -> Tensor:
    """Update the running means of rows and columns by `value`; return 1 / sqrt of their product.

    The product is scaled as in Adafactor: rows x columns / mean of the rows.
    """
    rows = state[f"{name}_rows"].lerp_(value.mean(dim=-1), 1 - beta)
    columns = state[f"{name}_columns"].lerp_(value.mean(dim=-2), 1 - beta)
    # Each root is taken first: the product of two tiny means would underflow.
    scaled = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt()
    return scaled[..., :, None] * columns.rsqrt()[..., None, :]
