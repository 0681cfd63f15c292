"""The datasheet of a curated set: the questions of Gebru et al., with the workflow's answers.

Gebru, Morgenstern, Vecchione, Vaughan, Wallach, Daume and Crawford: Datasheets for Datasets,
Communications of the ACM 64(12), 86-92 (2021), arXiv:1803.09010. The questions are shortened. A
question that the workflow cannot answer is marked for whoever releases the set (`STEWARD`).
"""

from typing import Any, Final

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.curate.card import decision_lines, remaining_words
from workflow_scripts.curate.described import Described, number
from workflow_scripts.curate.terms import ACCESS_WORDS

STEWARD: Final = "_To be answered by whoever releases the set._"

_ANSWERS: Final = {
    "Motivation": {
        "For what purpose was it created?": "To share images of a text-to-image model with a "
        "measured risk to the patients that the model learned from.",
        "Who created it, and on whose behalf?": STEWARD,
        "Who funded it?": STEWARD,
    },
    "Composition": {
        "What do the instances represent?": "Synthetic frontal chest radiographs.",
        "How many are there?": "{images}.",
        "Is it a sample of a larger set?": "Yes: it was chosen from {pool_images} images of the "
        "prompt set `{prompt_set}`.",
        "What data does each instance consist of?": "An image (PNG), 14 findings{columns}.",
        "Is there a label?": "The findings that the prompt asks for. Images asked to show each "
        "finding: {positives}.",
        "Is any information missing?": "{stated} of {labels} labels are stated; the others are "
        "null. Prompts are {prompts}",
        "Are relationships between instances made explicit?": "No. Images of one prompt may "
        "resemble one another.",
        "Are there recommended splits?": "No: all images are of one split, `train`. Real "
        "radiographs are the test data.",
        "Are there errors, noise or redundancies?": "An image may not show what was asked for. "
        "The scorecard states how often.",
        "Is it self-contained?": "Yes.",
        "Does it contain confidential data?": "None is meant to be in it. {leaks}",
        "Could it offend or cause anxiety?": "It shows disease, as radiographs do.",
        "Does it identify subpopulations?": "No: sex, age and origin are not known.",
        "Can individuals be identified?": "The filter is meant to prevent it. {leaks}",
        "Is it sensitive?": "Its images are of health. {conditions}",
    },
    "Collection process": {
        "How was the data acquired?": "Sampled from the model `{model}`, which learned from "
        "{cohort}.",
        "What was the sampling strategy?": "Seeded: the same seed gives the same images and the "
        "same choice.",
        "Who was involved, and how were they paid?": "Nobody collected data by hand.",
        "Over what time?": "It was drawn once, by one training run of the model.",
        "Was there an ethical review?": STEWARD,
        "Did the individuals know, and consent?": "This concerns the radiographs that the model "
        "learned from: {cohort} ({source}).",
        "Was the impact on data subjects analysed?": "Memorisation was measured: see the "
        "scorecard, under compliance.",
    },
    "Preprocessing, cleaning, labelling": {
        "What was done?": "Images were kept by these limits.\n\n{limits}",
        "Was the raw data kept?": "The pool stays with whoever ran the workflow.",
        "Is the software available?": "CheXGenBench {version}, stage `curate` (Apache-2.0).",
    },
    "Uses": {
        "Has it been used already?": "If there is a `worth.json`, it states what a classifier "
        "gained from the set, and a `worth_segmentation.json` what a U-Net gained.",
        "Is there a list of papers that use it?": STEWARD,
        "What else could it be used for?": "Research on methods.",
        "What may affect future uses?": "Labels say what was asked for. The model repeats the "
        "biases of its training data.",
        "What should it not be used for?": "Diagnosis; the only test of a device; attempts to "
        "identify anybody.",
    },
    "Distribution": {
        "Will it be given to others?": "{decision}",
        "How, and when?": STEWARD,
        "Under which licence?": "It {access}. {data_licence}; weights: {weights_licence}. See "
        "terms.md.",
        "Do others restrict it?": "{conditions}",
        "Do export controls apply?": STEWARD,
    },
    "Maintenance": {
        "Who maintains it, and how are they reached?": STEWARD,
        "Is there an erratum?": STEWARD,
        "Will it be updated?": "Another run makes another set. This one is not changed in place.",
        "Are there limits on how long it may be kept?": STEWARD,
        "Will older versions stay available?": STEWARD,
        "Can others extend it?": "With the same workflow, policy and model, within the terms "
        "above.",
    },
}
"""The answer to each question, by section. Fields in braces are those of `_facts`."""


def datasheet(described: Described) -> str:
    """Return the datasheet as a page in Markdown."""
    lines = [
        f"# Datasheet of {described.name}",
        "",
        "The questions are those of Gebru et al., Datasheets for Datasets, Communications of the "
        "ACM 64(12), 2021, shortened.",
    ]
    facts = _facts(described)
    for section, answers in _ANSWERS.items():
        lines += ["", f"## {section}"]
        for question, answer in answers.items():
            lines += ["", f"### {question}", "", answer.format_map(facts)]
    return "\n".join(lines) + "\n"


def _facts(described: Described) -> dict[str, Any]:
    decision, terms = described.decision, described.terms
    limits = [f"- {row['words']}: {number(row.get('limit'))}" for row in decision["policy"]]
    shown = described.prompts_shown
    scores = f", and the scores {', '.join(described.scores)}" if described.scores else ""
    return {
        "model": described.model,
        "cohort": described.cohort,
        "source": terms.training_data.source,
        "version": described.version,
        "images": described.images,
        "pool_images": number(decision["pool"].get("images")),
        "prompt_set": decision["pool"]["prompt_set"],
        "columns": (", the prompt" if shown else "") + scores,
        "positives": ", ".join(f"{name} {described.positives[name]}" for name in FINDINGS),
        "stated": sum(described.stated.values()),
        "labels": 14 * described.images,
        "prompts": "given." if shown else "left out: they may be captions.",
        "leaks": remaining_words(described),
        "limits": "\n".join(limits) or "No limit was set.",
        "decision": " ".join(decision_lines(described)),
        "access": ACCESS_WORDS[terms.access],
        "data_licence": terms.training_data.licence,
        "weights_licence": terms.weights.licence,
        "conditions": " ".join(terms.conditions) or "None is known.",
    }
