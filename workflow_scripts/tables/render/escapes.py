"""Text as LaTeX and Markdown write it, without markup."""

import re
import unicodedata
from typing import Final

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
