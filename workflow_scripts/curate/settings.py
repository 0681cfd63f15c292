"""The policy of a curated set: its limits, its quotas, its size, and what is planted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.settings import LARGEST_SEED, Key

VERDICTS: Final = ("release", "credentialed", "do_not_release")
"""The possible decisions, from the widest access to none."""


def read_quota(word: str) -> tuple[str, int]:
    """Read `FINDING=COUNT` from the command line.

    Raises:
        ValueError: the word has another form.
    """
    name, _, count = word.rpartition("=")
    if name not in FINDINGS or not count.isdigit():
        raise ValueError(f"{word!r} is not FINDING=COUNT, of one of the 14 findings")
    return name, int(count)


@dataclass(frozen=True)
class CurateSettings:
    """What is planted, what the filter removes, and when a set is not released."""

    pool: Annotated[
        Literal["test", "privacy", "augment", "stress", "drawn"],
        Key("The prompt set whose images are the pool; `drawn` needs prompt_sets.drawn."),
    ]
    images: Annotated[int, Key("Number of images of the curated set.", minimum=1)]
    quotas: Annotated[
        Mapping[str, Any],
        Key(
            "Least number of images with a finding, by finding; 0 for none.",
            parse=read_quota,
            schema={
                "type": "object",
                "propertyNames": {"enum": list(FINDINGS)},
                "additionalProperties": {"type": "integer", "minimum": 0},
            },
        ),
    ]
    access: Annotated[
        Literal["release", "credentialed"],
        Key("The widest access that the data's terms allow; `credentialed` for MIMIC-CXR."),
    ]
    published_prompts: Annotated[
        Literal["withheld", "templates", "captions"],
        Key(
            "Prompts that are published with the images: none, those from templates, or captions. "
            "Captions allow credentialed access at most."
        ),
    ]
    privacy_false_alarms: Annotated[
        float,
        Key(
            "Share of radiographs of unseen patients that each privacy lens may take for a leak. "
            "It sets the lens's limit.",
            above=0,
            below=1,
        ),
    ]
    quality_false_alarms: Annotated[
        float,
        Key(
            "Share of radiographs of unseen patients that each quality check may refuse. It sets "
            "the check's limit.",
            above=0,
            below=1,
        ),
    ]
    planted: Annotated[
        int, Key("Number of planted leaks of each kind, each of another patient.", minimum=1)
    ]
    held_out: Annotated[
        int,
        Key(
            "Largest number of radiographs of unseen patients, on which limits are set and tested.",
            minimum=2,
        ),
    ]
    references: Annotated[
        int,
        Key(
            "Largest number of training radiographs among which density takes neighbours.",
            minimum=2,
        ),
    ]
    most_flagged: Annotated[
        float,
        Key(
            "Largest share of the pool that may look like leaks. A model with a larger share "
            "memorises.",
            above=0,
            maximum=1,
        ),
    ]
    most_remaining: Annotated[
        float,
        Key(
            "Largest upper bound on remaining leaks of the planted kinds, as a share of the set.",
            above=0,
            maximum=1,
        ),
    ]
    least_sensitivity: Annotated[
        float,
        Key("Least share of caught leaks, for each planted kind.", minimum=0, maximum=1),
    ]
    most_false_rejections: Annotated[
        float,
        Key(
            "Largest share of radiographs of unseen patients that all privacy lenses together may "
            "refuse.",
            above=0,
            maximum=1,
        ),
    ]
    overfitted: Annotated[
        str | None,
        Key(
            "Folder of images of a model that was overfitted on a few training patients, to plant "
            "as well. Its `metadata.csv` has `file_name`, and `image_id`, the training radiograph "
            "whose caption was the image's prompt.",
            optional=True,
        ),
    ] = None
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)] = 42


@dataclass(frozen=True)
class WorthSettings:
    """Whether classifiers are trained on the set, too."""

    worth: Annotated[
        bool,
        Key(
            "Whether classifiers are trained on the curated set and on as many unfiltered images "
            "of its pool, and the set's documents say what they learn.",
            optional=True,
        ),
    ] = False
