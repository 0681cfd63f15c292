"""How large a network is and what a step of it keeps in memory, counted without weights or a GPU.

Tensors are fake: they have shapes and types and no memory. Counted is what autograd saves for the
way back, each storage once; of attention what a GPU's fused kernel keeps, not the matrix of all
pairs. A device needs more: what operations take for themselves, gradients of activations, and what
its allocator rounds up.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional


@dataclass
class Saved:
    """Storages that autograd saves.

    Attributes:
        weights: storages that do not count.
        size: bytes of each.
        largest: bytes of the largest block that is recomputed on the way back.
    """

    weights: frozenset[int]
    size: dict[int, int] = field(default_factory=dict)
    largest: int = 0
    _alive: list[Any] = field(default_factory=list)  # or another tensor would get the address

    @property
    def bytes(self) -> int:
        """All of them, and what the largest block saves while it is recomputed."""
        return sum(self.size.values()) + self.largest

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights:
            self.size[storage._cdata] = storage.nbytes()
            self._alive.append(tensor)


def parameters(network: nn.Module) -> int:
    """Return the number of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def saved_bytes(
    network: nn.Module,
    step: Callable[[nn.Module], Tensor],
    checkpointing: Callable[[nn.Module, Callable[..., Any]], None] | None = None,
) -> int:
    """Return the bytes that a training step saves, without the weights.

    Args:
        network: on the meta device; its tensors become fake ones.
        step: makes inputs and returns the loss.
        checkpointing: tells the network with what to call the blocks that are recomputed: their
            inputs are kept, and on the way back the tensors of one block at a time.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in network.modules():
            _fake(module)
        weights = frozenset(p.untyped_storage()._cdata for p in network.parameters())
        saved = Saved(weights)
        if checkpointing is not None:
            checkpointing(network, lambda block, *args: _recomputed(saved, block, args))
        fused = mock.patch.object(functional, "scaled_dot_product_attention", _attention)
        with fused, _counting(saved):
            step(network)
    return saved.bytes


def _fake(module: nn.Module) -> None:
    """Put fake tensors on the CPU, where autocast works, in the place of those on no device."""
    for name, given in module._parameters.items():
        if given is not None:
            fake = torch.empty(given.shape, dtype=given.dtype)
            module._parameters[name] = nn.Parameter(fake, requires_grad=given.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


class _Fused(torch.autograd.Function):
    """Stands for an attention kernel that keeps what it is given and gives."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return a tensor like the kernel's."""
        out = q.new_empty((*q.shape[:-1], v.shape[-1]))
        ctx.save_for_backward(q, k, v, out)
        return out


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    given: tuple[Tensor, ...] = (query, key, value)
    if torch.is_autocast_enabled("cpu"):
        given = tuple(part.to(torch.get_autocast_dtype("cpu")) for part in given)
    out: Tensor = _Fused.apply(*given)
    return out


def _recomputed(saved: Saved, block: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a block; keep what it is given, and of what it saves the size alone."""
    for value in args:
        if isinstance(value, Tensor):
            saved.add(value)
    own = Saved(saved.weights)
    with _counting(own):
        out = block(*args)
    saved.largest = max(saved.largest, own.bytes)
    return out


@contextmanager
def _counting(saved: Saved) -> Iterator[None]:
    def pack(tensor: Tensor) -> Tensor:
        saved.add(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def widest_bytes(network: nn.Module, step: Callable[[nn.Module], Any]) -> int:
    """Return the most bytes that one module of a network is given and gives.

    An estimate of what inference takes beside the weights: nothing is kept for the way back.

    Args:
        network: on the meta device.
        step: makes inputs and calls the network.
    """
    widest = 0

    def look(module: nn.Module, given: Any, gave: Any) -> None:
        nonlocal widest
        found = {tensor.untyped_storage()._cdata: tensor for tensor in _tensors([given, gave])}
        widest = max(widest, sum(tensor.untyped_storage().nbytes() for tensor in found.values()))

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    with torch.no_grad():
        step(network)
    for hook in hooks:
        hook.remove()
    return widest


def _tensors(nested: Any) -> Iterator[Tensor]:
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, dict):
        yield from _tensors(list(nested.values()))
    elif isinstance(nested, (list, tuple)):
        for part in nested:
            yield from _tensors(part)
