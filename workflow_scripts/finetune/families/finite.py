"""Checks that sampled latents and pixels are finite, at the place where latents are decoded.

An image of NaN would be cast to a black one without a warning, so latents and pixels are checked
while they are floating-point numbers. All families decode a batch by one component of their
pipeline (`Family.decoder`), so one place sees all images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class NotFiniteError(Exception):
    """Some images of a batch hold NaN or infinite values.

    Args:
        what: the kind of the values: `latents`, `pixels` or `logits`.
        rows: positions of the images in the batch, from 0.
    """

    def __init__(self, what: str, rows: Sequence[int]):
        self.what, self.rows = what, list(rows)
        super().__init__(f"{what} of rows {self.rows} are not finite")


def rows_not_finite(values: Tensor) -> list[int]:
    """Return the positions (n, ...) of the rows that hold a NaN or an infinite value."""
    import torch

    bad = ~torch.isfinite(values).reshape(len(values), -1).all(dim=1)
    return bad.nonzero().flatten().tolist()


@contextlib.contextmanager
def finite_decoding(decoder: Any) -> Iterator[None]:
    """Check the inputs and outputs of a component's `decode` within this context.

    Args:
        decoder: an autoencoder, whose `decode(latents, ...)` returns a tuple or an output of
            diffusers, the images first. Several calls decode the images of a batch in order. With
            None nothing is checked.

    Raises:
        NotFiniteError: latents (n, ...) or pixels (n, ...) are not finite.
    """
    if decoder is None:
        yield
        return
    decode, decoded = decoder.decode, 0

    def looked_at(*args: Any, **named: Any) -> Any:
        nonlocal decoded
        _require_finite("latents", args[0] if args else next(iter(named.values())), decoded)
        output = decode(*args, **named)
        _require_finite("pixels", output[0], decoded)
        decoded += len(output[0])
        return output

    decoder.decode = looked_at
    try:
        yield
    finally:
        del decoder.decode  # the class's own again


@contextlib.contextmanager
def rows_named(rows: Sequence[int]) -> Iterator[None]:
    """Let an error name rows of the whole batch when only these rows of it are computed."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(error.what, [rows[row] for row in error.rows]) from None


def _require_finite(what: str, values: Tensor, first: int) -> None:
    if rows := rows_not_finite(values):
        raise NotFiniteError(what, [first + row for row in rows])
