"""The dataset card of a curated set: `README.md` with a YAML header, for the Hugging Face Hub.

The header has the keys of `huggingface_hub.DatasetCardData` and of the hub's gates.
"""

from typing import Any, Final

import pyarrow as pa
import yaml

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.curate.described import IMAGE, Described, number, with_interval
from workflow_scripts.curate.terms import ACCESS_WORDS
from workflow_scripts.curate.worth_text import card_lines

_SIZES: Final = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (10**6, "100K<n<1M"),
)
_SCORES: Final = {
    "score_latent": "RAD-DINO distance to the closest training radiograph; low is a risk",
    "score_reid": "highest re-identification score of any training radiograph; high is a risk",
    "score_pixel": "highest correlation of gray values with a training radiograph; high is a risk",
    "score_mixture": "the same with any two training radiographs mixed; high is a risk",
    "score_density": "how many neighbourhoods of radiographs hold the image; low is unlike any",
}
"""The meaning of each column of scores (`write_set.SCORES`)."""

_VERDICTS: Final = {
    "release": "Release",
    "credentialed": "Credentialed access only",
    "do_not_release": "Do not release",
}


_END: Final = """
Labels say what was asked for, not what a radiologist sees.

## Use

```python
import datasets

files = "data/train-*.parquet"
images = datasets.load_dataset("parquet", data_files=files, split="train")
```

For research on methods. Not for diagnosis, and not as the only test data of a device.

## More

- [terms.md](terms.md): licence and access
- [scorecard.md](scorecard.md): the seven criteria of Zamzmi et al., with every gap
- [datasheet.md](datasheet.md): the questions of Gebru et al.
- `croissant.json`: the same for machines (Croissant 1.1)

Made by CheXGenBench {version}.
"""


def card(described: Described) -> str:
    """Return the card."""
    head = yaml.safe_dump(head_of(described), sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{head}---\n\n{_body(described)}"


def head_of(described: Described) -> dict[str, Any]:
    """Return the card's header."""
    terms, n = described.terms, described.images
    head: dict[str, Any] = {
        "pretty_name": f"Synthetic chest radiographs of {described.model}",
        "license": terms.hub_licence,
    }
    if terms.hub_licence == "other":
        head |= {"license_name": _slug(terms.licence), "license_link": terms.link or "terms.md"}
    head |= {
        "language": ["en"],
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "size_categories": [next((name for limit, name in _SIZES if n < limit), "1M<n<10M")],
        "task_categories": ["image-classification"],
        "tags": ["medical", "chest-x-ray", "synthetic", "croissant", "chexgenbench"],
    }
    if described.shards:
        head["dataset_info"] = {
            "features": [{"name": f.name, "dtype": _dtype(f)} for f in described.schema]
        }
        files = [{"split": "train", "path": "data/train-*.parquet"}]
        head["configs"] = [{"config_name": "default", "data_files": files}]
    if terms.access != "release":
        # The hub's gate shows the text, and asks for both confirmations before a download.
        head["extra_gated_prompt"] = (
            f"This set {ACCESS_WORDS[terms.access]}: {terms.licence}. " + " ".join(terms.conditions)
        )
        head["extra_gated_fields"] = {
            "I hold the access that these terms ask for": "checkbox",
            "I will not try to identify anybody": "checkbox",
        }
    return head


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() or c == "." else " " for c in name.lower()).split())


def _dtype(column: pa.Field) -> str:
    if column.name == IMAGE:
        return "image"
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return "string"
    return {"double": "float64", "float": "float32"}.get(str(column.type), str(column.type))


def decision_lines(described: Described) -> list[str]:
    """Return the verdict with its reasons, as lines of Markdown."""
    decision, terms = described.decision, described.terms
    lines = [f"**{_VERDICTS[terms.access]}.** " + _plain(decision["reasons"])]
    if terms.access != terms.decided:
        lines += [
            "",
            f"By its tests alone the set {ACCESS_WORDS[terms.decided]}; the terms of its sources "
            "are stricter ([terms.md](terms.md)).",
        ]
    return lines


def _plain(reasons: list[Any]) -> str:
    texts = [str(reason).rstrip(".") for reason in reasons]
    return " ".join(f"{text[:1].upper()}{text[1:]}." for text in texts)


def remaining_words(described: Described) -> str:
    """Return what is known about remaining leaks, in one or two sentences."""
    upper = described.decision["remaining_leaks_upper"]
    if upper is None:
        return "How many leaks may remain is not known: no bound follows from what was planted."
    return (
        f"With {described.confidence:.0%} confidence at most {number(upper)} leaks of the planted "
        f"kinds remain among {described.images} images. Leaks of other kinds are not covered."
    )


def _body(described: Described) -> str:
    decision = described.decision
    pool = decision["pool"]
    lines = [
        f"# Synthetic chest radiographs of {described.model}",
        "",
        *decision_lines(described),
        "",
        "## What this is",
        "",
        f"{described.images} synthetic chest radiographs, drawn by the text-to-image model "
        f"`{described.model}`, which learned from {described.cohort}. They were chosen from "
        f"{number(pool.get('images'))} images of the prompt set `{pool['prompt_set']}` by the "
        "limits below. Whether an image resembles a patient's radiograph was tested as follows.",
        "",
        "## What was measured",
        "",
        *_measurements(decision["measured"]),
        "",
        "## What the filter misses",
        "",
        *_planted(decision["planted"]),
        "",
        remaining_words(described),
        *card_lines(described.worth, described.segmented),
        "",
        "## What was not tested",
        "",
        *([f"- {text}" for text in decision["not_tested"]] or ["Nothing is named."]),
        "",
        "## Columns",
        "",
        *_columns(described),
        _END.format(version=described.version),
    ]
    return "\n".join(lines)


def _measurements(measured: list[dict[str, Any]]) -> list[str]:
    """Return a table of what was measured, each beside its limit."""
    if not measured:
        return ["Nothing was measured against the policy's limits."]
    head = ["| what | measured | limit | met |", "|---|---|---|---|"]
    return head + [_measured(row) for row in measured]


def _measured(measured: dict[str, Any]) -> str:
    value = measured.get("value")
    text = with_interval(value, measured.get("low"), measured.get("high"))
    if value is None:
        text = str(measured.get("reason") or "not measured")
    met = {True: "yes", False: "**no**", None: "not judged"}[measured.get("passed")]
    if measured.get("limit") is None:
        met = "no limit"
    return f"| {measured['words']} | {text} | {number(measured.get('limit'))} | {met} |"


def _planted(planted: list[dict[str, Any]]) -> list[str]:
    """Return a table of the planted leaks, and how many the filter caught."""
    if not planted:
        return ["No leak was planted, so the filter's miss rate is not known."]
    lines = [
        "| kind of planted leak | planted | caught | sensitivity at least |",
        "|---|---|---|---|",
    ]
    for row in planted:
        caught = row["caught"] if row["planted"] else row.get("reason") or "-"
        cells = (row.get("words", row["kind"]), row["planted"], caught, number(row.get("low")))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, "", "Planted images were removed by their ids, caught or not."]


def _columns(described: Described) -> list[str]:
    """Return a table of the set's columns, and one of the images for each finding."""
    cells = {
        "`image`": "PNG, in `bytes`",
        "14 findings": "what the prompt asked for: 1 yes, 0 no, -1 uncertain, null not mentioned",
    }
    if described.prompts_shown:
        cells["`prompt`"] = "the text that the image was drawn from"
    cells |= {f"`{name}`": _SCORES.get(name, "a score of the image") for name in described.scores}
    lines = ["| column | what it holds |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in cells.items()]
    if described.scores:
        lines += ["", "`decision.json` has the limit of each score (`limits`)."]
    lines += ["", "| finding | images asked to show it |", "|---|---|"]
    return lines + [f"| {name} | {described.positives[name]} |" for name in FINDINGS]
