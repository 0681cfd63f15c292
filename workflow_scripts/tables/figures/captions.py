"""Caption lengths: a panel for each text encoder, with the length at which it cuts captions."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from workflow_scripts.tables.caption_lengths import WORDS, CaptionSet, Lengths
from workflow_scripts.tables.figures.style import (
    COLOURS,
    DASHES,
    INK,
    RULE,
    SMALL,
    Drawing,
    grid,
)

_TITLE: Final = "Caption lengths, and how much of them text encoders read"
_ACROSS: Final = 3


def draw_caption_lengths(
    counted: Sequence[Lengths],
    sets: Sequence[CaptionSet],
    names: Mapping[str, str],
    sources: Mapping[str, str],
    not_counted: Mapping[str, str],
) -> Drawing | None:
    """Draw the share of captions up to each length; colours are sources, dashes are prompt sets.

    Args:
        counted: the lengths, see `lengths_of`.
        sets: the captions that were counted.
        names: names of the models, by key.
        sources: names of the caption sources, by key.
        not_counted: for each model without a panel for some text encoder, the reason.

    Returns:
        The figure, or None if there are no captions.
    """
    if not sets:
        return None
    across = min(_ACROSS, len(counted))
    down = -(-len(counted) // across)
    under = [_wrapped(lengths, names, across) for lengths in counted]
    lines = max(len(text.splitlines()) for text in under)
    figure, panels = grid(0.45 + down * (1.75 + 0.135 * lines), down, across)
    look = _look(sets, sources)
    handles: list[Any] = []
    for i, axes in enumerate(panels.flat):
        if i >= len(counted):
            axes.set_axis_off()
            continue
        drawn = _draw_shares(axes, counted[i], look)
        handles = handles or drawn
        unit = "Words" if counted[i].unit == WORDS else "Tokens"
        axes.set_xlabel(f"{unit}\n{under[i]}", fontsize=SMALL, linespacing=1.3)
    for row in panels:
        row[0].set_ylabel("Share of captions")
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False)
    missing = {names[model]: reason for model, reason in not_counted.items()}
    return Drawing(figure, "caption-lengths", _TITLE, _caption(counted, missing))


def _look(sets: Sequence[CaptionSet], sources: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return colour, dashes and name of each set of captions."""
    of_source = list(dict.fromkeys(caption_set.source for caption_set in sets))
    of_set = list(dict.fromkeys(caption_set.prompt_set for caption_set in sets))
    return [
        {
            "color": COLOURS[of_source.index(caption_set.source) % len(COLOURS)],
            "linestyle": DASHES[of_set.index(caption_set.prompt_set) % len(DASHES)],
            "label": (
                f"{sources.get(caption_set.source, caption_set.source)}, {caption_set.prompt_set}"
            ),
        }
        for caption_set in sets
    ]


def _draw_shares(axes: Any, lengths: Lengths, look: Sequence[dict[str, Any]]) -> list[Any]:
    """Draw the share of captions up to each length, a line for each set, and return the lines."""
    lines = []
    for counts, style in zip(lengths.counts, look, strict=True):
        values, captions = np.unique(counts, return_counts=True)
        share = np.cumsum(captions) / captions.sum()
        lines += axes.plot(
            np.concatenate([values[:1], values]),
            np.concatenate([[0.0], share]),
            drawstyle="steps-post",
            linewidth=1.3,
            **style | {"label": f"{style['label']} (n = {len(counts):,})"},
        )
    right = max(int(counts.max()) for counts in lengths.counts)
    if lengths.limit is not None:
        axes.axvline(lengths.limit, color=INK, linewidth=1.0, zorder=1)
        right = max(right, lengths.limit)
    axes.set_xlim(0, right * 1.08)
    axes.set_ylim(0, 1.02)
    axes.grid(color=RULE, linewidth=0.6, zorder=0)
    axes.set_title(_headed(lengths), loc="left", fontsize=SMALL, linespacing=1.3)
    return lines


def _caption(counted: Sequence[Lengths], missing: Mapping[str, str]) -> str:
    text = (
        f"{_TITLE}: the share of captions up to each length, by caption source and prompt set. "
        "The caption of a radiograph counts once."
    )
    if counted[0].unit == WORDS:
        return text + (
            " No model's tokenizer is on the disk, so words are counted. The limits of text "
            "encoders are in tokens and cannot be compared with them."
        )
    return text + (
        " Tokens are counted with the tokenizers of the models' own checkpoints. They include "
        "special tokens and the words that a model puts around the caption. The line is the limit "
        "of the encoder: it does not read the end of longer captions." + _words_of_missing(missing)
    )


def _words_of_missing(missing: Mapping[str, str]) -> str:
    """Return a sentence that names the models that are not shown; empty if there are none."""
    named = "; ".join(f"{name} ({reason})" for name, reason in missing.items())
    return f" Not counted: {named}." if named else ""


def _headed(lengths: Lengths) -> str:
    """Return a panel's title: the encoder, its limit and the share of captions that it cuts."""
    if lengths.unit == WORDS:
        return "Words of a caption\n(no tokenizer is on the disk)"
    if lengths.limit is None:
        return f"{lengths.encoder}\nno limit known"
    return f"{lengths.encoder}\nlimit {lengths.limit:,}: {_share(lengths.cut() or [])} cut"


def _share(shares: Sequence[float]) -> str:
    """Return shares as one percentage or a range; a share above zero is not shown as 0%."""
    texts = [f"{_percent(share)}" for share in (min(shares), max(shares))]
    return f"{texts[0]}%" if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}%"


def _percent(share: float) -> str:
    percent = 100 * share
    if 0 < percent < 0.1:
        return "<0.1"
    if 99.9 < percent < 100:
        return ">99.9"
    return f"{percent:.1f}".removesuffix(".0")


def _wrapped(lengths: Lengths, names: Mapping[str, str], across: int) -> str:
    if lengths.unit == WORDS:
        return ""
    # A name is not broken at its spaces.
    listed = ", ".join(names[key].replace(" ", "\N{NO-BREAK SPACE}") for key in lengths.models)
    return textwrap.fill(listed, width=int(112 / across))
