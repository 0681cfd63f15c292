"""The search for captions, indications and ids of a cohort in files to be published.

A text is read in several ways, so that neither markup nor an encoding hides its content: as it is;
without tags, with entities, escapes and percent signs resolved; and decoded from base64 or
hexadecimal digits. Each result is read in these ways again, as long as something new comes out.
Texts are compared in one form: Unicode's compatibility form (NFKC), folded case, no accents, one
kind of dash.
"""

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import unquote

import numpy as np

from workflow_scripts.common.progress import Progress

SHINGLE: Final = 6
"""Words in a row that a passage (a caption or an indication) and the bundle must not share."""

SHORTEST_PASSAGE: Final = 4
"""Fewest words of a passage; a shorter one ("clear lungs", "chest pain") identifies nobody."""

SHORTEST_ID: Final = 5
"""Fewest characters of an id; a shorter one looks like any number in a table."""

UNMISTAKABLE: Final = 12
"""An id with at least this many letters and digits is found even if signs separate them."""

_DEPTH: Final = 3
"""Number of nested encodings that are resolved."""

_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Scripts without spaces between words (Thai, Lao, Burmese, Khmer, Japanese, Chinese)."""

_WORD: Final = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_TAG: Final = re.compile(r"<[^<>]*>")
_WITHIN: Final = re.compile(
    r"</?(?:a|b|code|em|font|i|mark|s|small|span|strong|sub|sup|tspan|u)\b[^<>]*>", re.IGNORECASE
)
"""Tags that may occur within a word."""

_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_NAMED: Final = {"n": "\n", "r": "\r", "t": "\t", "f": " ", "b": " ", "v": " ", "0": " "}
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{7,}={0,2}")
_MIXED: Final = re.compile(r"\d.*[A-Za-z]|[A-Za-z].*\d|[a-z].*[A-Z]|[A-Z].+[A-Z].*[a-z]")
_HEX: Final = re.compile(r"(?<![0-9a-zA-Z])(?:[0-9a-fA-F]{2}){5,}(?![0-9a-zA-Z])")
_DIGEST: Final = re.compile(r"(?<![0-9a-z])(?:[0-9a-f]{8}){2,8}(?![0-9a-z])")
_BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]")
_BASE: Final = np.uint64(0x9E3779B97F4A7C15)
"""An odd number, which has an inverse modulo 2^64."""

_SPREAD: Final = np.uint64(0xD6E8FEB86659FD93)


def readings(text: str) -> Iterator[str]:
    """Yield a text in each of its readings (see the module), first as it is."""
    known, waiting = {text}, [(text, 0)]
    while waiting:
        read, depth = waiting.pop()
        yield read
        for decode in _DECODERS if depth < _DEPTH else ():
            decoded = decode(read)
            if decoded.strip() and decoded not in known:
                known.add(decoded)
                waiting.append((decoded, depth + 1))


def fold(text: str) -> str:
    """Return a text in the normalised form in which texts are compared."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).casefold()
        text = _BEYOND_ASCII.sub(_plain, unicodedata.normalize("NFKD", text))
    return " ".join(text.lower().split())


def _plain(match: re.Match[str]) -> str:
    kind = unicodedata.category(match[0])
    if kind == "Pd" or match[0] == "\u2212":
        return "-"
    # This drops accents, soft hyphens and joiners.
    return "" if kind in ("Mn", "Cf") else match[0]


def folded_readings(texts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (file, text) of each reading of the texts, in the form in which texts are compared.

    Args:
        texts: pairs of a file and its text.
    """
    return list(dict.fromkeys((place, fold(r)) for place, text in texts for r in readings(text)))


def ids_in(texts: Iterable[tuple[str, str]], ids: set[str]) -> list[tuple[str, str]]:
    """Return (file, id) of every id that a text holds.

    An id may be joined to other text. But an id that begins or ends with a digit does not count
    next to a further digit or after a decimal point, since it would be part of a number. An id of
    letters alone has to be a word. An id of at least `UNMISTAKABLE` letters and digits is found
    even if signs separate them.

    Args:
        texts: see `folded_readings`.
        ids: the ids to search for; ids shorter than `SHORTEST_ID` are ignored.
    """
    by_form: dict[str, str] = {}
    squeezed: dict[str, str] = {}
    for name in ids:
        if len(name) < SHORTEST_ID:
            continue
        folded = fold(name).strip()
        by_form[folded] = name
        # The id of a patient or a study may lack its letter: p10000032, 10000032.
        if re.fullmatch(r"[a-z]\d{7,}", folded):
            by_form.setdefault(folded[1:], name)
        letters = _squeeze(folded)
        if len(letters) >= UNMISTAKABLE and not letters.isdigit():
            squeezed[letters] = name
    seek, seek_squeezed = _finder(by_form), _finder(squeezed)
    leaks: dict[tuple[str, str], None] = {}
    for place, text in texts:
        hits = {by_form[hit] for hit in seek(_DIGEST.sub(_keep_id(by_form), text), True)}
        hits |= {squeezed[hit] for hit in seek_squeezed(_squeeze(text), False)}
        leaks |= dict.fromkeys((place, name) for name in sorted(hits))
    return list(leaks)


def passages_in(texts: Iterable[tuple[str, str]], passages: Sequence[str]) -> list[tuple[str, str]]:
    """Return (file, words) of every run of `SHINGLE` words that a text shares with a passage.

    A passage with fewer words is searched for as a whole, if it has at least `SHORTEST_PASSAGE`.

    Args:
        texts: see `folded_readings`.
        passages: the passages that texts must not share words with.
    """
    lengths = range(SHORTEST_PASSAGE, SHINGLE + 1)
    codes: dict[str, int] = {}
    places: list[str] = []
    runs: dict[int, list[np.ndarray]] = {length: [] for length in lengths}
    for place, text in texts:
        numbers = [codes.setdefault(word, len(codes) + 1) for word in _WORD.findall(text)]
        for length in lengths:
            runs[length].append(_runs(numbers, length))
        places.append(place)
    known = {
        length: np.sort(np.concatenate(of_texts or [_runs([], length)]))
        for length, of_texts in runs.items()
    }
    leaks: dict[tuple[str, str], None] = {}
    progress = Progress("captions and indications", len(passages), "passages")
    for passage in passages:
        words = _WORD.findall(fold(passage))
        length = min(SHINGLE, len(words))
        if length >= SHORTEST_PASSAGE:
            numbers = [codes.get(word, 0) for word in words]
            asked = _runs(numbers, length)
            at = np.searchsorted(known[length], asked)
            hits = at < len(known[length])
            hits[hits] = known[length][at[hits]] == asked[hits]
            for start in np.flatnonzero(hits).tolist():
                if 0 not in numbers[start : start + length]:  # a word that no text has
                    where = next(
                        place
                        for place, held in zip(places, runs[length], strict=True)
                        if asked[start] in held
                    )
                    leaks[where, " ".join(words[start : start + length])] = None
        progress.update()
    return list(leaks)


def _runs(codes: Sequence[int], length: int) -> np.ndarray:
    """Return a hash of each run of `length` words, uint64 (n - length + 1,)."""
    numbers = np.array(codes, np.uint64)
    count = max(0, len(numbers) - length + 1)
    total = np.zeros(count, np.uint64)
    for place in range(length):
        total = total * _BASE + numbers[place : place + count] * _SPREAD
    return total


def _without_tags(text: str) -> str:
    return html.unescape(_TAG.sub(" ", text)) if "<" in text or "&" in text else ""


def _joined_over_tags(text: str) -> str:
    return html.unescape(_TAG.sub(" ", _WITHIN.sub("", text))) if "<" in text else ""


def _unescaped(text: str) -> str:
    def letter(match: re.Match[str]) -> str:
        number = match[1] or match[2]
        return chr(int(number, 16)) if number else _NAMED.get(match[3], match[3])

    return _ESCAPE.sub(letter, text) if "\\" in text else ""


def _unquoted(text: str) -> str:
    return unquote(text.replace("+", " "), errors="replace") if "%" in text else ""


def _out_of_base64(text: str) -> str:
    parts = []
    for match in _BASE64.finditer(text):
        if not _MIXED.search(match[0]):  # a word
            continue
        letters = match[0].rstrip("=").replace("-", "+").replace("_", "/")
        # It may be joined to other text, so it begins at one of four places.
        for start in range(4):
            part = letters[start:]
            part = part[: len(part) - (len(part) % 4 == 1)]
            parts.append(_readable(base64.b64decode, part + "=" * (-len(part) % 4)))
    return "\n".join(filter(None, parts))


def _out_of_hexadecimals(text: str) -> str:
    parts = (_readable(binascii.unhexlify, match[0]) for match in _HEX.finditer(text))
    return "\n".join(filter(None, parts))


def _readable(decode: Callable[[str], bytes], text: str) -> str:
    """Return the decoded bytes as far as they are text; empty if they are not."""
    try:
        decoded = decode(text)
    except (ValueError, binascii.Error):
        return ""
    result = decoded.decode("utf-8", errors="replace")
    letters, enough = len(result) - result.count("\ufffd"), 0.9 * len(result)
    if letters < enough or result.isprintable():  # nearly all input is decided here
        return result if letters >= enough else ""
    strange = sum(not (letter.isprintable() or letter.isspace()) for letter in result)
    return result if letters - strange >= enough else ""


_DECODERS: Final[tuple[Callable[[str], str], ...]] = (
    _without_tags,
    _joined_over_tags,
    _unescaped,
    _unquoted,
    _out_of_base64,
    _out_of_hexadecimals,
)


def _squeeze(text: str) -> str:
    """Return letters and digits alone."""
    return re.sub(r"[\W_]+", "", text)


def _keep_id(ids: dict[str, str]) -> Callable[[re.Match[str]], str]:
    """Remove digests of files, which have eight digits in a row by chance, but keep ids."""
    return lambda match: match[0] if match[0] in ids else " "


def _finder(wanted: Iterable[str]) -> Callable[[str, bool], set[str]]:
    """Return a function that finds which of many texts occur in a given one.

    It uses a rolling hash of all places of a length at once. Texts are compared where the first
    bits of the hashes agree.
    """
    by_length: dict[int, set[str]] = {}
    for text in wanted:
        by_length.setdefault(len(text), set()).add(text)
    tables = {}
    for length, texts in by_length.items():
        tables[length] = np.zeros(1 << _BITS, np.bool_)
        tables[length][[_hash(text) >> (64 - _BITS) for text in texts]] = True

    def seek(text: str, apart: bool) -> set[str]:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        powers = np.ones(len(codes) + 1, np.uint64)
        np.cumprod(np.full(len(codes), _BASE), out=powers[1:])
        inverse = np.ones(len(codes) + 1, np.uint64)
        np.cumprod(np.full(len(codes), _INVERSE), out=inverse[1:])
        sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(codes.astype(np.uint64) * inverse[:-1], out=sums[1:])
        hits: set[str] = set()
        for length, table in tables.items():
            if length > len(codes):
                continue
            windows = (sums[length:] - sums[:-length]) * powers[: len(codes) - length + 1]
            for start in np.flatnonzero(table[windows >> np.uint64(64 - _BITS)]).tolist():
                candidate = text[start : start + length]
                if candidate in by_length[length] and not (
                    apart and _is_part(text, start, start + length)
                ):
                    hits.add(candidate)
        return hits

    return seek


_INVERSE: Final = np.uint64(pow(int(_BASE), -1, 2**64))
_BITS: Final = 22
"""The bits of a hash that are compared first."""


def _hash(text: str) -> int:
    """Return the sum of each code times `_INVERSE` to the power of its position, modulo 2^64."""
    total, factor = 0, 1
    for letter in text:
        total += ord(letter) * factor
        factor = factor * int(_INVERSE) % 2**64
    return total % 2**64


def _is_part(text: str, start: int, end: int) -> bool:
    """Return whether a match is part of a longer number or, for letters alone, of a longer word."""
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    part = text[start:end]
    if not any(letter.isdigit() for letter in part):
        return before.isalnum() or after.isalnum()
    behind_point = before == "." and text[max(0, start - 2) : start - 1].isdigit()
    if part[0].isdigit() and (before.isdigit() or behind_point):
        return True
    return part[-1].isdigit() and after.isdigit()
