"""The size of a network and the memory that a training step saves, without weights or a GPU.

Tensors are fake: they have shapes and types but no memory. The count includes what autograd saves
for the backward pass, each storage once. For attention it includes what a GPU's fused kernel saves,
not the matrix of all pairs. A device needs more: temporary memory of operations, gradients of
activations, and the allocator's overhead.
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
        size: bytes of each storage.
        largest: bytes of the largest block that is recomputed in the backward pass.
    """

    weights: frozenset[int]
    size: dict[int, int] = field(default_factory=dict)
    largest: int = 0
    _alive: list[Any] = field(default_factory=list)  # kept alive, so that no address is reused

    @property
    def bytes(self) -> int:
        """Bytes of all storages, and of the largest block while it is recomputed."""
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
        network: the network on the meta device; its tensors are replaced by fake ones.
        step: makes inputs and returns the loss.
        checkpointing: sets the function with which the network calls blocks that are recomputed.
            Their inputs are kept, and in the backward pass the tensors of one block at a time.
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
    """Replace meta tensors by fake ones on the CPU, where autocast works."""
    for name, given in module._parameters.items():
        if given is not None:
            fake = torch.empty(given.shape, dtype=given.dtype)
            module._parameters[name] = nn.Parameter(fake, requires_grad=given.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


class _Fused(torch.autograd.Function):
    """A stand-in for an attention kernel that saves its inputs and its output."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return a tensor of the output's shape."""
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
    """Call a block; save its inputs, and of its other tensors only the size."""
    for value in args:
        if isinstance(value, Tensor):
            saved.add(value)
    in_block = Saved(saved.weights)
    with _counting(in_block):
        out = block(*args)
    saved.largest = max(saved.largest, in_block.bytes)
    return out


@contextmanager
def _counting(saved: Saved) -> Iterator[None]:
    def pack(tensor: Tensor) -> Tensor:
        saved.add(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def widest_bytes(network: nn.Module, step: Callable[[nn.Module], Any]) -> int:
    """Return the largest size of one module's inputs and outputs together, in bytes.

    It estimates what inference needs besides the weights, since no tensors are saved.

    Args:
        network: the network on the meta device.
        step: makes inputs and calls the network.
    """
    widest = 0

    def look(module: nn.Module, inputs: Any, outputs: Any) -> None:
        nonlocal widest
        storages = {
            tensor.untyped_storage()._cdata: tensor for tensor in _tensors([inputs, outputs])
        }
        widest = max(widest, sum(tensor.untyped_storage().nbytes() for tensor in storages.values()))

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
