"""Text as LaTeX, Markdown and HTML write it: names as they are, prose with `code` in it."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

from markupsafe import Markup, escape

_SPECIAL: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "δ": r"$\delta$",
    "ε": r"$\varepsilon$",
    "ρ": r"$\rho$",
    "τ": r"$\tau$",
    "Σ": r"$\Sigma$",
    "σ": r"$\sigma$",
    "√": r"$\surd$",
    "α": r"$\alpha$",
    "μ": r"$\mu$",
    "…": r"\ldots{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
}

_ACCENTS: Final = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u030c": "v",
    "\u0327": "c",
}
"""Combining marks and the accent commands for them."""


def latex(text: str) -> str:
    """Escape LaTeX's special characters; accents and symbols become commands.

    What pdfLaTeX's standard fonts may not have loses its accent, or becomes `?`.
    """
    return "".join(_SPECIAL.get(letter) or _ascii(letter) for letter in " ".join(text.split()))


def latex_prose(text: str) -> str:
    """Escape a sentence; what stands between backticks is set as code."""
    parts = (
        rf"\texttt{{{latex(part)}}}" if is_code else _kept(part, latex)
        for part, is_code in code_in(text)
    )
    return "".join(parts)


def markdown_prose(text: str) -> str:
    """Escape a sentence; what stands between backticks stays code."""
    parts = (f"`{part}`" if is_code else _kept(part, markdown) for part, is_code in code_in(text))
    return "".join(parts)


def html_prose(text: str) -> Markup:
    """Escape a sentence; what stands between backticks becomes a `code` element."""
    parts = (
        Markup("<code>{}</code>").format(part) if is_code else escape(part)
        for part, is_code in code_in(text)
    )
    return Markup("").join(parts)


def plain(text: str) -> str:
    """Return a sentence without backticks, where no code can be set, as in a tooltip."""
    return "".join(part for part, _ in code_in(text))


def code_in(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a sentence, and whether each is code.

    A backtick without a partner is a letter like others.
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:
        yield text, False
        return
    for i, part in enumerate(parts):
        if part:
            yield part, i % 2 == 1


def _kept(part: str, escape_of: Callable[[str], str]) -> str:
    """Escape a part of a sentence, and keep the blanks at its ends."""
    before = " " if part[:1].isspace() else ""
    after = " " if part[-1:].isspace() and part.strip() else ""
    return before + escape_of(part) + after


def _ascii(letter: str) -> str:
    decomposed = unicodedata.normalize("NFKD", letter)
    base, marks = decomposed[0], decomposed[1:]
    if not base.isascii():
        return "?"
    if marks in _ACCENTS:
        return f"\\{_ACCENTS[marks]}{{{base}}}"
    return base


def markdown(text: str) -> str:
    """Escape what Markdown or a table in it would take for markup."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))
