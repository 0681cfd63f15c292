"""Caption lengths, a panel for each text encoder with the length at which it cuts."""

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
    WIDTH,
    Drawing,
    pyplot,
)

_TITLE: Final = "Caption lengths and what text encoders read of them"
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
        counted: see `lengths_of`.
        sets: the captions that were counted.
        names: of the models, by key.
        sources: of captions, by key, for readers.
        not_counted: why there are models, by key, whose text encoders are not all shown.

    Returns:
        The figure, or None where there are no captions.
    """
    if not sets:
        return None
    plt = pyplot()
    across = min(_ACROSS, len(counted))
    down = -(-len(counted) // across)
    under = [_wrapped(lengths, names, across) for lengths in counted]
    lines = max(len(text.splitlines()) for text in under)
    figure, panels = plt.subplots(
        down,
        across,
        figsize=(WIDTH, 0.45 + down * (1.75 + 0.135 * lines)),
        squeeze=False,
        layout="constrained",
    )
    of_source = {source: i for i, source in enumerate(dict.fromkeys(s.source for s in sets))}
    of_set = {name: i for i, name in enumerate(dict.fromkeys(s.prompt_set for s in sets))}
    handles: list[Any] = []
    for i, axes in enumerate(panels.flat):
        if i >= len(counted):
            axes.set_axis_off()
            continue
        lengths = counted[i]
        drawn = []
        for caption_set, counts in zip(sets, lengths.counts, strict=True):
            values, captions = np.unique(counts, return_counts=True)
            share = np.cumsum(captions) / captions.sum()
            source = sources.get(caption_set.source, caption_set.source)
            drawn += axes.plot(
                np.concatenate([values[:1], values]),
                np.concatenate([[0.0], share]),
                drawstyle="steps-post",
                color=COLOURS[of_source[caption_set.source] % len(COLOURS)],
                linestyle=DASHES[of_set[caption_set.prompt_set] % len(DASHES)],
                linewidth=1.3,
                label=f"{source}, {caption_set.prompt_set} (n = {len(counts):,})",
            )
        handles = handles or drawn
        right = max(int(counts.max()) for counts in lengths.counts)
        if lengths.limit is not None:
            axes.axvline(lengths.limit, color=INK, linewidth=1.0, zorder=1)
            right = max(right, lengths.limit)
        axes.set_xlim(0, right * 1.08)
        axes.set_ylim(0, 1.02)
        axes.grid(color=RULE, linewidth=0.6, zorder=0)
        axes.set_title(_headed(lengths), loc="left", fontsize=SMALL, linespacing=1.3)
        unit = "Words" if lengths.unit == WORDS else "Tokens"
        axes.set_xlabel(f"{unit}\n{under[i]}", fontsize=SMALL, linespacing=1.3)
    for row in panels:
        row[0].set_ylabel("Share of captions")
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False)
    missing = {names[model]: reason for model, reason in not_counted.items()}
    return Drawing(figure, "caption-lengths", _TITLE, _caption(counted, missing))


def _caption(counted: Sequence[Lengths], missing: Mapping[str, str]) -> str:
    text = (
        f"{_TITLE}: the share of captions up to each length, each radiograph's caption once, by "
        "caption source and prompt set."
    )
    if counted[0].unit == WORDS:
        return text + (
            " No model's tokenizer is on the disk, so that words are counted; a text encoder's "
            "limit is in tokens and cannot be compared with them."
        )
    return text + (
        " Counted with the tokenizers of the models' own checkpoints, special tokens and what a "
        "model puts around the caption included. The line is where the encoder cuts; what lies "
        "right of it is not read to the end." + _words_of_missing(missing)
    )


def _words_of_missing(missing: Mapping[str, str]) -> str:
    """Return a sentence that names the models that are not shown; empty without any."""
    named = "; ".join(f"{name} ({reason})" for name, reason in missing.items())
    return f" Not counted: {named}." if named else ""


def _headed(lengths: Lengths) -> str:
    """Return a panel's title: the encoder, its limit and what is cut."""
    if lengths.unit == WORDS:
        return "Words of a caption\n(no tokenizer is on the disk)"
    if lengths.limit is None:
        return f"{lengths.encoder}\nno limit known"
    return f"{lengths.encoder}\nlimit {lengths.limit:,}: {_share(lengths.cut() or [])} cut"


def _share(shares: Sequence[float]) -> str:
    """Return shares as one percentage or a range of them; what is not zero is not shown as 0%."""
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
