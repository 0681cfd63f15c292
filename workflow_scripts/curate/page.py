"""The decision as one page for a data steward to sign: what was tested, found, and not tested.

The reader need not know statistics. Shares are percentages, and each measurement answers a question
that a steward might ask. `decision.json` has the same numbers with all digits.
"""

import html
from collections.abc import Iterable, Mapping
from typing import Any, Final

_HEADLINES: Final = {
    "release": "This set may be released.",
    "credentialed": "This set may go to credentialed users only.",
    "do_not_release": "Do not release this set.",
}
_MEANINGS: Final = {
    "release": "Anybody may have it, under the licence in terms.md.",
    "credentialed": "Only people who have been granted access to such data may have it: terms.md "
    "says by whom, and under which licence. It must not be put where anybody can download it.",
    "do_not_release": "Nobody outside may have the images. The files are kept for those who have "
    "to understand why.",
}

_QUESTIONS: Final = {
    "flagged": "How many of the model's images look like the picture of a patient it learned from?",
    "sensitivity": "How many of the hidden pictures did the filter find, for the kind that it "
    "found least often?",
    "remaining_leaks": "At most how many images of the set may still repeat a patient's picture?",
    "false_rejections": "How many pictures of other patients, which cannot be repeats, does the "
    "filter take for repeats?",
    "sparse": "How many of the model's images are unlike any radiograph?",
    "implausible": "In how many are heart, lungs or collarbones missing, or of an unusual size or "
    "place?",
    "unseen": "In how many does a computer that reads radiographs fail to see a finding that was "
    "asked for?",
    "poor_radiographs": "How many radiographs of other patients would these three checks refuse?",
    "reid_share": "For how many prompts does a computer recognise, in the image, the patient whose "
    "report was the prompt?",
    "closest_reid_share": "In how many images does a computer name some patient that the model "
    "learned from, rightly or wrongly?",
    "extracted_share": "How many of the patients' radiographs that were asked for come back in the "
    "images?",
    "member_loss_calibrated_tpr": "How many of the patients that it learned from can somebody who "
    "has the model pick out, if 1 in 100 others may be picked wrongly?",
    "fid": "How far are the model's images from radiographs, as a whole? (FID; 0 is best, and it "
    "is no share)",
}
"""The question that each row answers, by its key; for a record's value, by its metric."""

_NO_SHARE: Final = ("fid",)

_RULES: Final = {
    "privacy_false_alarms": "Largest share of other patients' pictures that each of the four tests "
    "may take for repeats",
    "quality_false_alarms": "Largest share of radiographs that each check of quality may refuse",
    "most_flagged": "Largest share of the model's images that may look like a patient's picture",
    "least_sensitivity": "Least share of the hidden pictures that the filter must find, for each "
    "kind",
    "most_remaining": "Largest share of the set that may repeat a patient's picture",
    "most_false_rejections": "Largest share of other patients' pictures that all four tests "
    "together may take for repeats",
    "images": "Number of images of the set",
}
_BY_LENS: Final = {
    "latent": "The test of what the picture shows as a whole may take at most so many pictures of "
    "other patients for repeats",
    "reid": "The test that recognises patients may take at most so many pictures of other patients "
    "for repeats",
    "pixel": "The test of gray values may take at most so many pictures of other patients for "
    "repeats",
    "mixture": "The test for two patients mixed may take at most so many pictures of other "
    "patients for repeats",
}
"""Where a test has a limit of its own."""

_COUNTS: Final = ("images", "quota/")
"""Prefixes of the keys of rules whose limit is a number of images."""

_LEAST: Final = ("sensitivity", "least_sensitivity")
"""Rows whose limit is a lower one; all other limits are upper ones."""

_STYLE: Final = (
    "body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em;color:#222}"
    "h1{padding:.4em .6em;border-left:.4em solid}h2{margin-top:1.8em}"
    "table{border-collapse:collapse;width:100%;margin:.8em 0}"
    "td,th{border-bottom:1px solid #ccc;padding:.35em .6em;text-align:left;vertical-align:top}"
    "th{background:#f3f3f3}td:not(:first-child),th:not(:first-child){width:8em}"
    ".release{border-color:#2a7}.credentialed{border-color:#c90}.do_not_release{border-color:#c33}"
    ".no{color:#b00;font-weight:bold}.small{color:#555;font-size:.9em}"
    ".sign td{height:2.6em;width:auto}.sign td:first-child{width:14em}"
    "@media print{body{margin:0;max-width:none;font-size:11pt}tr,h2{break-inside:avoid}"
    "h2{break-after:avoid}}"
)
_SIGNATURE: Final = "\n".join(
    [
        "<h2>Signature</h2>",
        "<p>I have read what was tested, what was found, and what was not tested.</p>",
        "<table class='sign'>"
        "<tr><td>I agree / I do not agree</td><td></td></tr>"
        "<tr><td>Name, office</td><td></td></tr>"
        "<tr><td>Place, date</td><td></td></tr>"
        "<tr><td>Signature</td><td></td></tr>"
        "</table>",
    ]
)


def page(decision: dict[str, Any]) -> str:
    """Return the page, HTML without scripts and without external resources."""
    verdict, model = decision["verdict"], _t(decision["model"])
    judged = [row for row in decision["measured"] if row["limit"] is not None]
    others = [row for row in decision["measured"] if row["limit"] is None]
    parts = [
        f"<h1 class='{verdict}'>{_HEADLINES[verdict]}</h1>",
        f"<p>{_MEANINGS[verdict]}</p>",
        f"<p>The set has {_t(decision['kept'])} chest radiographs that a computer model, "
        f"<b>{model}</b>, made up. They were chosen from {_t(decision['pool']['images'])} of its "
        f"images. The model learned from the radiographs and reports of "
        f"{_t(decision['cohort']['name'])}.</p>",
        "<h2>Why</h2>",
        _list(decision["reasons"]),
        "<h2>What was tested</h2>",
        *_tested(decision["planted"]),
        "<h2>What was found</h2>",
        _left(decision),
        _table(
            ["Question", "answer", "allowed", "met?"],
            [[_question(row), _number(row), _allowed(row), _met(row["passed"])] for row in judged],
        ),
        "<p>The following was measured, too. No limit was set for it.</p>",
        _table(["Question", "answer"], [[_question(row), _number(row)] for row in others]),
        "<p class='small'>In brackets: the range in which the true value lies in 95 of 100 such "
        "measurements. It is wide where few images or patients were looked at.</p>",
        "<h2>What was not tested</h2>",
        _list(decision["not_tested"]),
        "<h2>The rules that were set beforehand</h2>",
        _table(["Rule", "limit"], [[_rule(row), _limit(row)] for row in decision["policy"]]),
        _SIGNATURE,
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>Decision: {model}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _tested(planted: list[dict[str, Any]]) -> list[str]:
    """Return how the filter was tested: a paragraph, and a table of the planted leaks."""
    total = sum(row["planted"] for row in planted)
    caught = sum(row["caught"] for row in planted)
    rows = [
        [row["words"], row["planted"], row["caught"]]
        if row["planted"]
        else [row["words"], "none", row.get("reason") or "not tried"]
        for row in planted
    ]
    return [
        "<p>A model can repeat the picture of a patient that it learned from, instead of making up "
        "a new one. A filter looks for such repeats and takes them out. To see how good the filter "
        f"is, {_t(total)} repeated pictures of real patients were hidden among the images. It "
        f"found {_t(caught)} of them. All of them, found or not, were then taken out again: none "
        "is in the set.</p>",
        _table(["What was hidden", "how many", "how many were found"], rows),
    ]


def _left(decision: Mapping[str, Any]) -> str:
    """Return the paragraph on repeats that the filter may have missed."""
    kept, left = decision["kept"], decision["remaining_leaks_upper"]
    if not kept:
        return "<p>No image is left in the set.</p>"
    doubt = round(100 * (1 - decision["confidence"]))
    return (
        f"<p>Of the {_t(kept)} images, <b>at most {_t(left)}</b> may still be such repeats. This "
        "is a cautious upper limit and no estimate: the fewer pictures were hidden, the higher it "
        f"is. If the whole test were done a hundred times, it would be too low in {doubt} of them "
        "at most. It holds for the kinds of repeats in the table above, and for no others.</p>"
    )


def _t(value: Any) -> str:
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))


def _question(row: Mapping[str, Any]) -> str:
    key = str(row["key"])
    return _QUESTIONS.get(key.rpartition("/")[2], str(row["words"]))


def _rule(row: Mapping[str, Any]) -> str:
    key = str(row["key"])
    if key.startswith("lens/"):
        return _BY_LENS[key.removeprefix("lens/")]
    return _RULES.get(key, str(row["words"]))


def _share(value: float) -> str:
    """Return a share as a percentage with two digits; 0% and 100% stand for exact values only."""
    percent = 100 * value
    if 0 < percent < 0.01:
        return "less than 0.01%"
    if 99.5 <= percent < 100:
        return "more than 99%"
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"


def _number(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return f"not known: {row['reason']}"
    share = row["key"].rpartition("/")[2] not in _NO_SHARE
    text = _share if share else (lambda value: f"{value:.3g}")
    if row["low"] is None:
        return text(row["value"])
    return f"{text(row['value'])} ({text(row['low'])} to {text(row['high'])})"


def _allowed(row: Mapping[str, Any]) -> str:
    return f"at {'least' if row['key'] in _LEAST else 'most'} {100 * row['limit']:.4g}%"


def _limit(row: Mapping[str, Any]) -> str:
    return _t(row["limit"]) if row["key"].startswith(_COUNTS) else f"{100 * row['limit']:.4g}%"


def _met(passed: bool | None) -> str:
    return {None: "not known", True: "yes", False: "NO"}[passed]


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_t(_sentence(item))}</li>" for item in items) + "</ul>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def _table(head: list[str], rows: Iterable[list[Any]]) -> str:
    top = "".join(f"<th>{_t(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _cell(content: Any) -> str:
    return f"<td{' class=no' if content == 'NO' else ''}>{_t(content)}</td>"
