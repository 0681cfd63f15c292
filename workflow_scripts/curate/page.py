"""The decision as one page that a data steward can sign: tested, found, not tested."""

import html
from collections.abc import Iterable
from typing import Any, Final

_HEADLINES: Final = {
    "release": "This set may be released.",
    "credentialed": "This set may go to credentialed users only.",
    "do_not_release": "Do not release this set.",
}

_STYLE: Final = (
    "body{font:16px/1.45 sans-serif;max-width:48em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;"
    "padding:.3em .6em;text-align:left;vertical-align:top}h1{padding:.5em;border-left:.5em solid}"
    ".release{border-color:#2a7}.credentialed{border-color:#c90}.do_not_release{border-color:#c33}"
    ".sign{margin-top:3em}.sign span{display:inline-block;width:20em;border-top:1px solid;"
    "margin-right:2em}"
)


def page(decision: dict[str, Any]) -> str:
    """Return the page, HTML without scripts and without anything from elsewhere."""
    verdict = decision["verdict"]
    model, cohort = decision["model"], decision["cohort"]["name"]
    pool, kept = decision["pool"], decision["kept"]
    left = decision["remaining_leaks_upper"]
    planted = sum(row["planted"] for row in decision["planted"])
    caught = sum(row["caught"] for row in decision["planted"])
    parts = [
        f"<h1 class='{verdict}'>{_HEADLINES[verdict]}</h1>",
        f"<p>{_t(kept)} computer-made chest radiographs, chosen from {_t(pool['images'])} that the "
        f"model <b>{_t(model)}</b> made. The model learned from {_t(cohort)}.</p>",
        "<h2>Why</h2>",
        _list(decision["reasons"]),
        "<h2>What was tested</h2>",
        f"<p>A model can repeat a real patient's picture instead of making a new one. To find out "
        f"whether our filter notices, {_t(planted)} repeated pictures of real patients were hidden "
        f"among the images. The filter found {_t(caught)} of them. All of them, found or not, were "
        f"then taken out again.</p>",
        _table(
            ["What was hidden", "how many", "how many were found"],
            [[row["words"], row["planted"], row["caught"]] for row in decision["planted"]],
        ),
        "<h2>What was found</h2>",
        f"<p>Of the {_t(kept)} images, at most {_t(left)} may still be such repeated pictures. If "
        f"the whole test were done a hundred times, this number would be too low in "
        f"{round(100 * (1 - decision['confidence']))} of them at most.</p>",
        _table(
            ["What was measured", "found", "limit", "met?"],
            [
                [row["words"], _number(row), _value(row["limit"]), _met(row["passed"])]
                for row in decision["measured"]
            ],
        ),
        "<h2>What was not tested</h2>",
        _list(decision["not_tested"]),
        "<h2>The rules that were set beforehand</h2>",
        _table(
            ["Rule", "limit"], [[row["words"], _value(row["limit"])] for row in decision["policy"]]
        ),
        "<p class='sign'><span>Name</span><span>Date</span></p>",
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<title>Decision: {_t(model)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _t(value: Any) -> str:
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _number(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return f"not known: {row['reason']}"
    if row["low"] is None:
        return _value(row["value"])
    return f"{_value(row['value'])} (between {_value(row['low'])} and {_value(row['high'])})"


def _met(passed: bool | None) -> str:
    return {None: "no limit", True: "yes", False: "NO"}[passed]


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_t(item)}</li>" for item in items) + "</ul>"


def _table(head: list[str], rows: Iterable[list[Any]]) -> str:
    top = "".join(f"<th>{_t(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_t(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"
