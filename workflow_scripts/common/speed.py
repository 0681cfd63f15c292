"""Switches that make a network faster and leave its numbers as they are, up to rounding.

What each of them changes:

- `compile`: torch.compile of the network's repeated blocks, or of the whole network, for static
  shapes. Another batch size or side is compiled again.
- `channels_last`: the memory layout of convolutions' weights and outputs.
- `attention`: the kernel of torch that computes attention: `math`, `efficient`, `flash` or `cudnn`;
  `auto` leaves the choice to torch.
- `optimiser`: AdamW by parameter lists (`foreach`) or in one kernel (`fused`); `auto` leaves it to
  torch.
- `captions_ahead`: captions of many steps are encoded at once, and the text encoders are in the
  host's memory during the steps (finetune/captions.py).

All are off by default. None belongs to a protocol: a switch reruns neither a finished model nor its
images, and a continued run may change its switches. So rules do not name them, because Snakemake
reruns jobs whose command or parameters change. The environment variable `SWITCHES` passes the
config's switches to the scripts, as JSON, and the flag `--speed` overrides it. A network that does
not support a switch refuses it by name.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.errors import InputError

if TYPE_CHECKING:
    import argparse
    from contextlib import AbstractContextManager

    import torch
    from torch import nn

COMPILED: Final = ("none", "blocks", "network")
ATTENTIONS: Final = ("math", "efficient", "flash", "cudnn")
MASKED: Final = ("math", "efficient")
"""Attention kernels that support a mask of padding."""

OPTIMISERS: Final = ("auto", "foreach", "fused")
_ON_CPU: Final = ("math", "flash")
"""Attention kernels that torch has for CPUs."""

BACKEND: Final = "inductor"
_SHAPES: Final = 64
"""Shapes that one block may be compiled for; torch's own limit of 8 is that of a U-Net's levels."""


@dataclass(frozen=True)
class Speed:
    """The switches of one job; see the module."""

    compile: str = "none"
    channels_last: bool = False
    attention: str = "auto"
    optimiser: str = "auto"
    captions_ahead: bool = False

    @property
    def chosen(self) -> dict[str, str | bool]:
        """The switches that are on, by name."""
        off = Speed()
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value != getattr(off, name)}


@dataclass(frozen=True)
class Takes:
    """The switches that a network supports.

    Attributes:
        compile: the supported values of `COMPILED`, besides `none`.
        channels_last: whether it has convolutions over pixels.
        attention: the supported values of `ATTENTIONS`.
        why: the reason for unsupported switches, for the error.
    """

    compile: tuple[str, ...] = ()
    channels_last: bool = False
    attention: tuple[str, ...] = ()
    why: str = "nobody has said that it can"


def speed_of(switches: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> Speed:
    """Return the switches of a job.

    Args:
        switches: the values by name, as in the config or the flags.
        allowed: names of the switches that this kind of job has.
        where: the place to name in an error.

    Raises:
        InputError: an unknown switch or value.
    """
    if unknown := sorted(switches.keys() - set(allowed)):
        raise InputError(
            f"no switch {', '.join(unknown)} here", where, f"known: {', '.join(allowed)}"
        )
    values = {
        "compile": COMPILED,
        "channels_last": (True, False),
        "attention": ("auto", *ATTENTIONS),
        "optimiser": OPTIMISERS,
        "captions_ahead": (True, False),
    }
    for name, value in switches.items():
        if not any(type(value) is type(known) and value == known for known in values[name]):
            usable = ", ".join(str(known).lower() for known in values[name])
            raise InputError(f"the switch {name} is {value!r}", where, f"use one of {usable}")
    return Speed(**switches)


SWITCHES: Final = "CHEXGENBENCH_SPEED"
"""The environment variable with the switches of a run's models and encoders."""


def switches_of_config(config: Mapping[str, Any]) -> str:
    """Return the value of `SWITCHES` for a valid config: JSON by kind and key, or "" for none."""
    found = {
        kind: {key: block["speed"] for key, block in config[kind].items() if block.get("speed")}
        for kind in ("models", "encoders")
    }
    return json.dumps(found, sort_keys=True) if any(found.values()) else ""


def switches_said(kind: str, key: str) -> dict[str, Any]:
    """Return the switches in the environment for a model (by stage) or an encoder.

    Args:
        kind: `models` or `encoders`.
        key: the model's or encoder's key in the config.
    """
    said = os.environ.get(SWITCHES, "")
    return dict(json.loads(said).get(kind, {}).get(key, {})) if said else {}


TRAINING: Final = tuple(field.name for field in fields(Speed))
COMPUTING: Final = ("compile", "channels_last", "attention")
"""Switches of sampling and of encoders."""


def check_speed(speed: Speed, takes: Takes, name: str, device: str, precision: str) -> None:
    """Refuse switches that a network does not support, before anything is loaded.

    Args:
        speed: the switches.
        takes: the switches that the network supports.
        name: the family or encoder, for the error.
        device: `cpu` or `cuda`.
        precision: `float32`, `bfloat16` or `float16`, the precision of its products.

    Raises:
        InputError: a switch is not supported; the message names it, the network and the reason.
    """
    faults = []
    if speed.compile != "none" and speed.compile not in takes.compile:
        faults.append((f"compile {speed.compile}", takes.why, takes.compile))
    if speed.channels_last and not takes.channels_last:
        faults.append(("channels_last", "it has no convolutions over pixels, or unknown ones", ()))
    if speed.attention != "auto":
        if speed.attention not in takes.attention:
            faults.append((f"attention {speed.attention}", takes.why, takes.attention))
        elif device == "cpu" and speed.attention not in _ON_CPU:
            faults.append((f"attention {speed.attention}", "a CPU has no such kernel", _ON_CPU))
        elif device != "cpu" and precision == "float32" and speed.attention in ("flash", "cudnn"):
            why = "on a GPU this kernel computes in bfloat16 and float16 alone"
            faults.append((f"attention {speed.attention}", why, MASKED))
    if faults:
        switch, why, others = faults[0]
        usable = f"use {' or '.join(others)}, or leave it out" if others else "leave it out"
        raise InputError(f"{name} does not take the switch {switch}: {why}", "speed", usable)


def check_kernel(speed: Speed, optimiser: str) -> None:
    """Refuse to choose a kernel of an optimiser that has only one.

    Raises:
        InputError: the optimiser is not `adamw`.
    """
    if speed.optimiser != "auto" and optimiser != "adamw":
        raise InputError(
            f"the optimiser {optimiser} does not take the switch optimiser {speed.optimiser}: only "
            "AdamW has several kernels",
            "speed",
            "leave it out",
        )


def apply_speed(network: Any, speed: Speed, backend: str | None = None) -> None:
    """Apply the switches of layout and compilation to a network on its device.

    Args:
        network: its parameters keep their names and values.
        speed: the switches.
        backend: the backend of torch.compile; `BACKEND` by default.
    """
    import torch

    if speed.channels_last:
        network.to(memory_format=torch.channels_last)
    if speed.compile == "none":
        return
    parts = [network] if speed.compile == "network" else repeated_blocks(network)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SHAPES)
    for part in parts:
        part.compile(dynamic=False, backend=backend or BACKEND)


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the blocks that a network repeats: those named by its class, or its longest lists.

    Compiled one by one, equal blocks share their compiled code, which takes seconds instead of
    minutes.

    Raises:
        InputError: the network repeats no blocks.
    """
    from torch import nn

    named = getattr(network, "_repeated_blocks", None)
    if named:
        found = [part for part in network.modules() if type(part).__name__ in named]
    else:
        lists = [part for part in network.modules() if isinstance(part, nn.ModuleList)]
        own = [part for part in lists if len({type(block) for block in part}) == 1]
        most = max((len(part) for part in own), default=0)
        found = [block for part in own if len(part) == most for block in part]
    if not found:
        raise InputError(
            f"{type(network).__name__} repeats no block", "speed", "use compile: network, or none"
        )
    return found


def attending(speed: Speed) -> AbstractContextManager[Any]:
    """Return a context in which only the chosen kernel computes attention."""
    if speed.attention == "auto":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernels = {
        "math": SDPBackend.MATH,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "flash": SDPBackend.FLASH_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
    }
    return sdpa_kernel([kernels[speed.attention]])


def attend_with(network: Any, speed: Speed) -> None:
    """Use the chosen attention kernel in the forward pass of this network alone.

    This is for inference: a backward pass that recomputes blocks would run outside of it.
    """
    if speed.attention == "auto":
        return
    plain = network.forward

    @functools.wraps(plain)
    def forward(*args: Any, **named: Any) -> Any:
        with attending(speed):
            return plain(*args, **named)

    network.forward = forward


@contextmanager
def plain_layout(network: Any, speed: Speed) -> Iterator[None]:
    """Restore the default layout of weights within this context, so that files hold no other."""
    import torch

    if speed.channels_last:
        network.to(memory_format=torch.contiguous_format)
    yield
    if speed.channels_last:
        network.to(memory_format=torch.channels_last)


def adamw_flags(speed: Speed) -> dict[str, bool]:
    """Return AdamW's arguments for the chosen kernel."""
    return {} if speed.optimiser == "auto" else {speed.optimiser: True}


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's state that may have been made with other switches.

    The kernel and the layout of the averages are this run's.
    """
    import torch

    own = optimiser.state_dict()["param_groups"]
    kernels = ("foreach", "fused")
    groups = [
        group | {name: mine[name] for name in kernels if name in mine}
        for group, mine in zip(state["param_groups"], own, strict=True)
    ]
    optimiser.load_state_dict({**state, "param_groups": groups})
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            alike = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if alike and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter).copy_(value)


def add_speed_flag(parser: argparse.ArgumentParser, allowed: tuple[str, ...]) -> None:
    """Add the flag `--speed NAME=VALUE`, which may be repeated; `speed_of` reads its values."""
    parser.add_argument(
        "--speed",
        action="append",
        default=[],
        type=_parse_switch,
        metavar="NAME=VALUE",
        help=f"a switch that changes rounding alone: {', '.join(allowed)}",
    )


def _parse_switch(text: str) -> tuple[str, str | bool]:
    name, _, value = text.partition("=")
    return name, value == "true" if value in ("true", "false") else value
