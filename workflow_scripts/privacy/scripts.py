"""What the privacy scripts of one model share: flags, the features that they read, their record."""

import argparse
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.common.settings import add_flags
from workflow_scripts.features.cache import Features
from workflow_scripts.fidelity.inputs import (
    REAL,
    ScoredModel,
    model_arguments,
    origin,
    read_comparable,
    read_encoder,
    require_comparable,
    require_same_images,
)
from workflow_scripts.privacy.settings import Settings

log = logging.getLogger(__name__)


def privacy_arguments(
    description: str, *, pairs: bool = False, gpus: bool = False
) -> argparse.ArgumentParser:
    """Return a parser with the arguments that the scores of one model share.

    Args:
        description: what the script does.
        pairs: whether it writes a table of pairs.
        gpus: whether it computes on a GPU where there is one.
    """
    parser = model_arguments(description, "privacy", "the training radiographs")
    add_flags(parser, Settings)
    if pairs:
        help_ = "the table of pairs, for its owner only"
        parser.add_argument("--pairs", required=True, type=Path, help=help_)
    if gpus:
        parser.add_argument("--gpus", type=int, default=0)
    return parser


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings that the arguments of `privacy_arguments` name."""
    return Settings(args.threshold, args.bootstrap, args.seed)


def privacy_record(
    model: ScoredModel,
    family: str,
    values: list[Value],
    details: dict[str, Any],
    settings: Settings,
    features: Iterable[Features],
    device: str = "cpu",
) -> Record:
    """Return a model's record of one score, `family`; `features` are the files that it read."""
    decides = {"protocol": model.protocol, **asdict(settings)}
    made = provenance(decides, device, [origin(file) for file in features])
    return Record("privacy", model.key, family, model.protocol, values, details, made)


def write_scored(record: Record, path: Path) -> None:
    """Write a record, and its values over all images to the log."""
    write_record(record, path)
    for value in record.values:
        if value.subset == "all":
            log.info("%s: %s %s (n %d)", record.model, value.metric, value.value, value.n)


@dataclass(frozen=True)
class ModelFeatures:
    """The features of the training radiographs and of a model's images, by both encoders.

    Attributes:
        latent_real: RAD-DINO's of the radiographs.
        latent: RAD-DINO's of the model's images, in whose order scores are computed.
        reid_real: the re-identification network's of the radiographs, in RAD-DINO's order or not.
        reid: the re-identification network's of the model's images, in RAD-DINO's order or not.
    """

    latent_real: Features
    latent: Features
    reid_real: Features
    reid: Features

    @property
    def files(self) -> tuple[Features, ...]:
        """All four, in the order in which records name them."""
        return self.latent_real, self.latent, self.reid_real, self.reid


def read_model_features(model: ScoredModel) -> ModelFeatures:
    """Read rad_dino.h5 and reid.h5 of the training radiographs and of a model's images.

    Raises:
        InputError: a file is missing or damaged, or the files are not comparable.
    """
    folders, collection = (model.real, model.generated), (model.protocol, model.key, "privacy")
    latent_real, latent = read_comparable(*folders, "rad_dino", *collection)
    reid_real, reid = read_comparable(*folders, "reid", *collection)
    require_same_images(latent_real, reid_real, model.real)
    return ModelFeatures(latent_real, latent, reid_real, reid)


def read_with_held_out(
    model: str, protocol: str, real: Path, held_out: Path, generated: Path
) -> tuple[Features, Features, Features]:
    """Read rad_dino.h5 of training radiographs, of held-out ones, and of a model's images.

    Raises:
        InputError: see `read_model_features`.
    """
    encoder, purpose = "rad_dino", "privacy"
    training, images = read_comparable(real, generated, encoder, protocol, model, purpose)
    unseen = read_encoder(held_out, encoder, protocol, REAL, purpose)
    require_comparable(unseen, images, f"{encoder}.h5 of {held_out} and {generated}")
    return training, unseen, images


def siamese_head(features: Features, where: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight (1, d) and the bias that turn |a - b| into the score's logit.

    Raises:
        InputError: the feature file lacks them.
    """
    try:
        return features.extras["fc_end_weight"], features.extras["fc_end_bias"]
    except KeyError as error:
        raise InputError(
            f"re-identification features without {error.args[0]!r}",
            where,
            "delete reid.h5 and rerun the features stage",
        ) from None
