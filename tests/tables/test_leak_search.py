"""The last net before publication: planted leaks are found, however they are written or wrapped."""

import base64
import html
import json
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.leak_search import fold, folded_readings, ids_in, passages_in
from workflow_scripts.tables.release import check, without_site

PASSAGES = [
    "The lungs are clear. No pleural effusion or pneumothorax is seen.",
    "Fall from a ladder, rule out fracture",
    "Épanchement pleural gauche modéré, cœur de taille normale",
    "Herz nicht vergrößert; kleine Narbe über dem Zwerchfell links",
    "Лёгкие чистые, плеврального выпота и пневмоторакса нет",
    "两肺纹理清晰未见明显实变影",
    "Κεφαλή και θώρακας χωρίς παθολογικά ευρήματα σήμερα",
]
IDS = [
    "p10000032",
    "s50414267",
    "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014",
    "case 12/7#3",
    "Patient_Nord-0815",
    "image-zero",
]


def tagged(text):
    return "".join(f"<b>{word}</b>&nbsp;" for word in text.split(" "))


def in_tags(text):
    """A tag within every word."""
    return " ".join(f"{word[:1]}<i>{word[1:]}</i>" for word in text.split(" "))


WRAPPINGS = {
    "plain": str,
    "upper case": str.upper,
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "full width": lambda text: "".join(
        chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text
    ),
    "lines": lambda text: text.replace(" ", "\n   "),
    "soft hyphens": lambda text: "\u00ad".join(text),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "JSON": lambda text: json.dumps({"x": text.replace(" ", "\n")}),
    "JSON in JSON": lambda text: json.dumps(json.dumps([text])),
    "entities": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "named entities": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    "tags between words": tagged,
    "tags within words": in_tags,
    "URL": lambda text: f"https://example.org/?q={quote(text)}&x=1",
    "URL with plus": lambda text: f"?q={quote(text, safe=' ').replace(' ', '+')}",
    "base64": lambda text: f'x="{base64.b64encode(text.encode()).decode()}"',
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64, glued": lambda text: "ab" + base64.b64encode(f"  {text}  ".encode()).decode(),
    "base64 of JSON": lambda text: base64.b64encode(json.dumps([text]).encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "YAML": lambda text: "".join(
        f"\\x{ord(c):02x}" if not c.isascii() and ord(c) < 256 else c for c in text
    ),
}
OF_IDS = {
    "with other dashes": lambda text: text.replace("-", "\u2013"),
    "with a minus": lambda text: text.replace("-", "\u2212"),
    "glued to words": lambda text: f"file{text}of",
    "in a path": lambda text: f"features/p10/{text}/x.h5",
    "with an ending": lambda text: f"{text}.jpg",
}
FILES = {
    "csv": "model,value\nsana,0.947\n{}\n",
    "json": '{{"about": "so and so", "found": {}}}',
    "html": "<html><body><p>Figure 1</p><p>{}</p></body></html>",
}


def refused(text, what):
    with pytest.raises(InputError, match=what) as caught:
        check({"good.txt": b"nothing", "bad.txt": text.encode()}, set(IDS), PASSAGES)
    assert "bad.txt" in str(caught.value)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("file", FILES)
def test_planted_captions_are_found(file, wrapping):
    for passage in PASSAGES:
        refused(FILES[file].format(WRAPPINGS[wrapping](passage)), "captions or indications")


@pytest.mark.parametrize("wrapping", WRAPPINGS | OF_IDS)
@pytest.mark.parametrize("file", FILES)
def test_planted_ids_are_found(file, wrapping):
    for name in IDS:
        if wrapping == "glued to words" and not any(map(str.isdigit, name)):
            continue  # of letters alone: it may be a word's part
        refused(FILES[file].format({**WRAPPINGS, **OF_IDS}[wrapping](name)), "ids")


def test_so_many_leaks_are_planted():
    planted = len(FILES) * (len(WRAPPINGS) * len(PASSAGES) + len(WRAPPINGS | OF_IDS) * len(IDS))
    assert planted >= 300


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(WRAPPINGS)), min_size=2, max_size=2),
    st.sampled_from(PASSAGES[:2]),
)
def test_two_wrappings_within_one_another_are_undone(names, passage):
    encodings = {"JSON", "URL", "base64", "hexadecimal", "entities", "tags between words"}
    text = passage
    for name in names:
        text = WRAPPINGS[name if name in encodings else "plain"](text)
    assert passages_in(folded_readings([("a", text)]), [passage])


@pytest.mark.parametrize(
    "text",
    [
        "n = 10000032",
        "0.10000032",
        "1234.10000032",
        "110000032",
        "s504142671",
        "sha256 5f4dcc3b5aa765d61d8327deb882cf99a10000032b4f4dcc3b5aa765d61d8327",
        "images-zeros and image zero",
        "the lungs are small, clear no more; effusion",
        base64.b64encode(b"nothing of anybody is said here").decode(),
        "%zz \\u12 &bogus; <not closed",
        "",
    ],
)
def test_what_tells_nothing_passes(text):
    wanted = {*IDS, "p20000032"} - {"p10000032"} if text.startswith("n = ") else set(IDS)
    check({"a.txt": text.encode()}, wanted, PASSAGES)


def test_a_letters_only_id_is_found_as_a_word_and_not_within_one():
    found = ids_in([("a", "seen imaging zero"), ("b", "the imagezeros"), ("c", "(wolfram)")],
                   {"wolfram", "image"})  # fmt: skip
    assert found == [("c", "wolfram")]


@given(st.text(max_size=60))
def test_folding_twice_changes_nothing(text):
    assert fold(fold(text)) == fold(text)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=30), st.integers(0, 24))
def test_runs_are_those_that_slices_of_words_give(codes, start):
    words = ["heart", "lung", "clear", "small"]
    text, passage = [words[c] for c in codes], [words[c] for c in codes[start : start + 6]]
    other = ["heart", "heart", "lung", "lung", "clear", "small"]
    for asked in (passage, other):
        length = min(6, len(asked))
        runs = {tuple(text[i : i + length]) for i in range(len(text) - length + 1)}
        expected = length >= 4 and tuple(asked) in runs
        assert bool(passages_in([("a", " ".join(text))], [" ".join(asked)])) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/someone/mimic", ".../mimic"),
        ("/data/my films/2024", ".../2024"),
        ("/home/someone", "..."),
        ("../../home/someone/data", ".../data"),
        ("~someone", "..."),
        ("~/data", ".../data"),
        ("file:///home/someone/data", ".../data"),
        ("C:\\Users\\someone\\data", ".../data"),
        ("C:\\Users\\someone", "..."),
        ("\\\\server\\share\\data", ".../data"),
        ("${SCRATCH}/data", ".../data"),
        ("--cache=/home/someone/data --fast", "--cache=.../data --fast"),
        *((text, text) for text in ("weights/x", "./x", "https://a.org/b/c", "and/or", "a~b")),
    ],
)
def test_the_published_config_names_no_home(text, expected):
    assert without_site({"models": [text]}) == {"models": [expected]}
