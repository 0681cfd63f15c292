"""The policy of a curated set: its limits, its quotas, its size, and what is planted."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.settings import LARGEST_SEED, Key
from workflow_scripts.downstream.segmentation.settings import DrawSettings, LabellerSettings

VERDICTS: Final = ("release", "credentialed", "do_not_release")
"""The possible decisions, from the widest access to none."""


LENS_NAMES: Final = ("latent", "reid", "pixel", "mixture")
"""The privacy lenses, see `lenses.py`."""

ATTACKS: Final[Mapping[str, str]] = {
    "reid_share": "Prompts of training patients whose images re-identify them",
    "closest_reid_share": "Images that re-identify a training patient",
    "extracted_share": "Training radiographs that the images show, of those asked for",
    "member_loss_calibrated_tpr": "Training patients whom an attack on membership finds, at 1% "
    "false alarms",
}
"""What privacy's attacks measure of the model, in words, by the metric of their records."""


def read_share(word: str) -> tuple[str, float]:
    """Read `NAME=SHARE` of the command line.

    Raises:
        ValueError: not of that form, or no share.
    """
    name, _, text = word.rpartition("=")
    if name not in (*LENS_NAMES, *ATTACKS) or not 0 <= (share := float(text)) <= 1:
        raise ValueError(f"{word!r} is not NAME=SHARE, of a lens or an attack")
    return name, share


def _shares(names: Collection[str], **bounds: float) -> dict[str, Any]:
    return {
        "type": "object",
        "propertyNames": {"enum": list(names)},
        "additionalProperties": {"type": "number", **bounds},
    }


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
    lens_false_alarms: Annotated[
        Mapping[str, Any],
        Key(
            "The same as privacy_false_alarms for single lenses, by lens; it holds for the others.",
            optional=True,
            parse=read_share,
            schema=_shares(LENS_NAMES, exclusiveMinimum=0, exclusiveMaximum=1),
        ),
    ] = field(default_factory=dict)
    most_by_attacks: Annotated[
        Mapping[str, Any],
        Key(
            "Largest value that privacy's attacks may reach on the model, by metric. Each is a "
            "share at its own false alarm rate. What was not measured is not released. No attack "
            "has a limit by default.",
            optional=True,
            parse=read_share,
            schema=_shares(ATTACKS, minimum=0, maximum=1),
        ),
    ] = field(default_factory=dict)
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)] = 42

    def false_alarms(self, lens: str) -> float:
        """Return the share of unseen radiographs that a lens may take for a leak."""
        return float(self.lens_false_alarms.get(lens, self.privacy_false_alarms))


@dataclass(frozen=True)
class MadeSettings:
    """Which sets every run makes."""

    models: Annotated[
        tuple[str, ...],
        Key(
            "Models of run_models of which every run curates a set, which the tables show (Tables "
            "25, 25b and 25c). None by default: then a set is made by `make curate` alone, and no "
            "table shows it.",
            optional=True,
            unique=True,
        ),
    ] = ()


@dataclass(frozen=True)
class WorthSettings:
    """Whether networks are trained on the set, too, and for which tasks."""

    worth: Annotated[
        bool,
        Key(
            "Whether classifiers are trained on the curated set and on as many unfiltered images "
            "of its pool. The set's documents say what they learn, and Table 25b where `models` "
            "names the set's.",
            optional=True,
        ),
    ] = False
    worth_also: Annotated[
        tuple[Literal["segmentation"], ...],
        Key(
            "Tasks beside classification by which `worth` is measured: U-Nets are trained on real "
            "images and the curated set, and on real images and as many unfiltered ones. Table 25c "
            "shows it where `models` names the set's. None by default.",
            optional=True,
            unique=True,
        ),
    ] = ()


@dataclass(frozen=True)
class SegmentedSettings:
    """How the masks of a set's images are drawn, as downstream draws those of a model's images."""

    labeller: Annotated[LabellerSettings | None, Key("The network that draws the masks.")] = None
    masked: Annotated[DrawSettings | None, Key("The draw of images that get masks.")] = None
