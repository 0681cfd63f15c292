"""Captions of many steps encoded at once, so that text encoders leave the GPU during the steps.

T5-XXL takes 9.5 GB, Gemma 2 takes 5 GB. All encoded captions would take 65 to 330 GB on a disk, so
the captions of one block of steps at a time are kept in the host's memory. Each pass is encoded by
itself and in the order of training. Its conditions are the same to the last bit as if they were
encoded in its step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

Conditions = dict[str, Tensor]

BLOCK_BYTES: Final = 4e9
"""Bytes of host memory that a block takes in each process; a block has at least one step."""


class CaptionsAhead:
    """The conditions of the next steps; the text encoders leave the device until the next block.

    Args:
        encoders: the networks that `encode` needs on the device and the steps do not; they are
            moved to the host's memory.
        encode: returns the conditions of each pass of a step.
        last: the number of steps of the run; a block ends there at the latest.
        device: the device of training.
        most: bytes at which a block ends.

    Attributes:
        block: number of steps in the last block.
    """

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        encode: Callable[[int], list[Conditions]],
        last: int,
        device: torch.device,
        most: float = BLOCK_BYTES,
    ):
        self._encode, self._last, self._device, self._most = encode, last, device, most
        self._waiting: dict[int, list[Conditions]] = {}
        self.block = 0
        for encoder in encoders:
            encoder.to("cpu")
        # The weights are frozen, so the copies in the host's memory stay valid.
        tensors = [t for encoder in encoders for t in (*encoder.parameters(), *encoder.buffers())]
        self._host = [(tensor, tensor.data) for tensor in tensors]

    def of(self, step: int, number: int) -> Conditions:
        """Return a pass's conditions on the device; encode a block first if they are missing."""
        if step not in self._waiting:
            self.encode_block(step)
        conditions = self._waiting[step][number]
        for passed in [other for other in self._waiting if other < step]:
            del self._waiting[passed]
        return {name: value.to(self._device) for name, value in conditions.items()}

    def encode_block(self, first: int) -> None:
        """Encode the captions of a step and of as many later steps as a block takes."""
        self._waiting.clear()
        taken, step = 0.0, first
        with self._on_device():
            while step == first or (step < self._last and taken < self._most):
                passes = self._encode(step)
                self._waiting[step] = [
                    {name: value.cpu() for name, value in shown.items()} for shown in passes
                ]
                taken += sum(value.nbytes for shown in passes for value in shown.values())
                step += 1
        self.block = step - first

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        for tensor, host in self._host:
            tensor.data = _copied(host, self._device)
        yield
        for tensor, host in self._host:
            tensor.data = host


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device)


def text_encoders(pipeline: Any, *others: nn.Module | None) -> list[nn.Module]:
    """Return a pipeline's networks without `others`: the trained one and the autoencoder."""
    components = getattr(pipeline, "components", None) or vars(pipeline)
    parts = [part for part in components.values() if isinstance(part, nn.Module)]
    return [part for part in parts if all(part is not other for other in others)]
