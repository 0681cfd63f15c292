"""What the scores of one model share: their flags, the features that they read, their record.

A score that compares a model's images with radiographs takes a `ScoredModel`.
"""

import argparse
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.common.settings import add_flags
from workflow_scripts.features.cache import Features
from workflow_scripts.fidelity.inputs import (
    REAL,
    origin,
    read_comparable,
    read_encoder,
    require_comparable,
    require_same_images,
)
from workflow_scripts.privacy.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredModel:
    """A model, and the files that its scores read.

    Attributes:
        key: the model's key in the config.
        protocol: `sound` or `as_published`.
        manifest: the cohort's manifest.
        prompts: the prompt set `privacy`.
        real: the folder of the training radiographs' features.
        generated: the folder of the features of the model's images.
        settings: see `Settings`.
    """

    key: str
    protocol: str
    manifest: Path
    prompts: Path
    real: Path
    generated: Path
    settings: Settings

    def record(
        self,
        family: str,
        values: list[Value],
        details: Mapping[str, Any],
        features: Iterable[Features],
        device: str = "cpu",
    ) -> Record:
        """Return the model's record of one score.

        Args:
            family: the score's name.
            values: the values.
            details: what else a reader of the record needs.
            features: the feature files that were read.
            device: the device that computed, see `provenance`.
        """
        settings = {"protocol": self.protocol, **asdict(self.settings)}
        files = [origin(file) for file in features]
        return Record(
            stage="privacy",
            model=self.key,
            family=family,
            protocol=self.protocol,
            values=values,
            details=dict(details),
            provenance=provenance(settings, device, files),
        )


def model_arguments(description: str, *, pairs: bool = False, gpus: bool = False) -> Any:
    """Return a parser with the arguments that the scores of one model share.

    Args:
        description: what the script does.
        pairs: whether it writes a table of pairs.
        gpus: whether it computes on a GPU where there is one.
    """
    parser = argparse.ArgumentParser(description=description)
    add: Callable[..., Any] = parser.add_argument
    add("--model", required=True, help="the model's key in the config")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="the prompt set `privacy`")
    add("--real", required=True, type=Path, help="folder of the training radiographs' features")
    add("--generated", required=True, type=Path, help="folder of the model's features")
    add_flags(parser, Settings)
    add("--threads", type=int, default=1)
    add("--output", required=True, type=Path)
    if pairs:
        add("--pairs", required=True, type=Path, help="the table of pairs, for its owner only")
    if gpus:
        add("--gpus", type=int, default=0)
    return parser


def model_of(args: argparse.Namespace) -> ScoredModel:
    """Return the model that the arguments of `model_arguments` name."""
    return ScoredModel(
        args.model,
        args.protocol,
        args.manifest,
        args.prompts,
        args.real,
        args.generated,
        Settings(args.threshold, args.bootstrap, args.seed),
    )


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

    Args:
        model: the model's key.
        protocol: the protocol of the features.
        real: the folder of the training radiographs.
        held_out: the folder of radiographs that no model was trained on.
        generated: the folder of the model's images.

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
