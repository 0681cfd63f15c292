"""Score one model's fidelity: every metric, over all images and for each of the 14 findings.

    python -m workflow_scripts.fidelity.score --model sd_v1_4 --encoder rad_dino --protocol sound \\
        --manifest results/cohort/manifest.parquet --prompts results/cohort/prompts/test.parquet \\
        --real results/features/real/test --generated results/features/sd_v1_4/test \\
        --output results/fidelity/rad_dino/sd_v1_4.json

It reads the encoder's features of the real and the generated images, and biovil_t_image.h5 and
biovil_t_text.h5 of the generated ones. It writes one record.

The reference holds the radiograph of each answered prompt, once. Two further references are all
films of these studies and the whole test set, see `references.py`. Under `as_published` the
reference holds the radiograph of every prompt, answered or not.

An image has a finding if its label is 1 (not -1, not missing). A generated image has the labels of
its prompt, a control those of the radiograph that it shows.
"""

import argparse
import hashlib
import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.encoder_names import distance_encoders
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import (
    FINDINGS,
    read_manifest,
    read_prompts,
    scored_prompts,
)
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.features.cache import Features
from workflow_scripts.fidelity.alignment import cosine_alignment
from workflow_scripts.fidelity.arrays import CPU
from workflow_scripts.fidelity.comparison import SUBSETS, Comparison, Results, Side
from workflow_scripts.fidelity.inputs import (
    ScoredModel,
    digest_of,
    model_arguments,
    model_of,
    of_prompts,
    origin,
    patients_of_prompts,
    read_comparable,
    read_encoder,
    rows_in_order_of,
    rows_of,
)
from workflow_scripts.fidelity.metrics import fid, kid, manifolds, metric_modules
from workflow_scripts.fidelity.references import OTHER_REFERENCES, answered, reference_rows
from workflow_scripts.fidelity.settings import Settings

log = logging.getLogger(__name__)


def distribution_values(
    real: Side,
    generated: Side,
    settings: Settings,
    device: torch.device = CPU,
    *,
    kid_within_patients: bool = False,
    cosines: np.ndarray | None = None,
) -> Results:
    """Compare two sets of images by every metric, for every subset.

    A subset with too few images on a side has values of None with the reason.

    Args:
        real: the reference.
        generated: the generated images.
        settings: see `Settings`.
        device: where to compute.
        kid_within_patients: see `Deviations.kid_pairs_within_patients`.
        cosines: (n,) the cosine of each generated image with its caption; None leaves alignment
            out.
    """
    results, modules = Results(), metric_modules()
    progress = Progress("fidelity", len(SUBSETS), "subsets")
    for column in range(len(SUBSETS)):
        comparison = Comparison(
            real, generated, column, settings, device, kid_within_patients, cosines
        )
        for module in modules:
            module.measure(comparison, results)
        progress.update()
    return results


def other_reference_values(
    name: str,
    real: Side,
    generated: Side,
    settings: Settings,
    device: torch.device = CPU,
    *,
    kid_within_patients: bool = False,
) -> list[Value]:
    """Compare the generated images with another reference than the prompts' own radiographs.

    FID and KID are computed for every subset; precision, recall, density, coverage and the interval
    of KID over all images only. The reference's name is appended to the metric's: `fid_studies`.

    Args:
        name: the reference, a key of `OTHER_REFERENCES`.
        real: the reference's images.
        generated: the generated images.
        settings: see `Settings`.
        device: where to compute.
        kid_within_patients: see `Deviations.kid_pairs_within_patients`.
    """
    results = Results()
    for column, subset in enumerate(SUBSETS):
        subset_settings = settings if subset == "all" else replace(settings, kid_bootstrap=0)
        comparison = Comparison(
            real, generated, column, subset_settings, device, kid_within_patients
        )
        for module in (manifolds, fid, kid) if subset == "all" else (fid, kid):
            module.measure(comparison, results)
    return [replace(value, metric=f"{value.metric}_{name}") for value in results.values]


def positive_subsets(findings: pd.DataFrame) -> np.ndarray:
    """Return (n, 15) bool: a column of True, then for each finding whether its label is 1."""
    positive = findings[list(FINDINGS)].fillna(0).eq(1).to_numpy(bool)
    return np.column_stack([np.ones(len(positive), dtype=bool), positive])


def generated_findings(
    features: Features, prompts: pd.DataFrame, manifest: pd.DataFrame, where: Path
) -> pd.DataFrame:
    """Return the findings of generated images, in the order of the features.

    An image has the findings of its prompt; a control has those of the radiograph that it shows.

    Args:
        features: features of a generated collection.
        prompts: the prompt set.
        manifest: `image_id` and the findings, at least.
        where: the folder of the features, for errors.

    Raises:
        InputError: an image belongs to no prompt, or shows a radiograph that the manifest lacks.
    """
    names = list(FINDINGS)
    rows = rows_of(prompts["prompt_id"], features.ids, where, "prompt set")
    findings = prompts[names].iloc[rows].reset_index(drop=True)
    sources = np.array(features.source_ids or [""] * len(features.ids), dtype=object)
    is_control = np.array([bool(source) for source in sources], dtype=bool)
    if is_control.any():
        rows = rows_of(manifest["image_id"], list(sources[is_control]), where, "manifest")
        findings.loc[is_control] = manifest[names].iloc[rows].set_axis(np.flatnonzero(is_control))
    return findings


def require_captions(
    texts: Features, prompts: pd.DataFrame, manifest: pd.DataFrame, where: Path
) -> None:
    """Refuse text features that were not computed from the captions of the images.

    An image has the caption of its prompt; a control has that of the radiograph that it shows.

    Args:
        texts: caption features of a generated collection.
        prompts: the prompt set.
        manifest: `image_id` and `caption`, at least.
        where: the folder of the features, for errors.

    Raises:
        InputError: the features' `captions_sha256` differs or is missing.
    """
    of_prompt = dict(zip(prompts["prompt_id"], prompts["caption"], strict=True))
    of_radiograph = dict(zip(manifest["image_id"], manifest["caption"], strict=True))
    sources = texts.source_ids or [""] * len(texts.ids)
    digest = hashlib.sha256()
    for name, source in zip(texts.ids, sources, strict=True):
        caption = of_radiograph.get(source) if source else of_prompt.get(name)
        digest.update(hashlib.sha256((caption or "").encode()).digest())
    actual, expected = texts.attrs.get("captions_sha256"), digest.hexdigest()
    if actual != expected:
        raise InputError(
            f"features of other captions: captions_sha256 {actual!r}, {expected!r} expected",
            where / f"{texts.attrs['encoder']}.h5",
            "rerun the features stage for this collection",
        )


def alignment_of(generated: Features, images: Features, texts: Features, where: Path) -> np.ndarray:
    """Return the cosine of each generated image with its caption, (n,), in BioViL-T's features.

    Args:
        generated: features of a generated collection, which give the order.
        images: its images' features of BioViL-T.
        texts: its captions' features of BioViL-T.
        where: the folder of the features, for errors.

    Raises:
        InputError: the three are not of the same images.
    """
    rows = [rows_in_order_of(generated, features, where) for features in (images, texts)]
    if not len(generated.ids):
        return np.zeros(0)
    return cosine_alignment(images.features[rows[0]], texts.features[rows[1]])


def score(
    model: ScoredModel, encoder: str, settings: Settings, device: torch.device = CPU
) -> Record:
    """Read a model's features and return its fidelity record in an encoder's features.

    Raises:
        InputError: features are missing, damaged, not comparable, or belong to images that the
            manifest or the prompt set lacks.
    """
    switches = deviations(model.protocol)
    columns = ["image_id", "patient_id", "study_id", "caption", *FINDINGS]
    manifest = read_manifest(model.manifest, columns)
    every_prompt = read_prompts(model.prompts)
    prompts = scored_prompts(every_prompt, model.protocol)
    files = _read_features(model, encoder, prompts, every_prompt, manifest)
    real, generated, images, texts = files
    if len(generated.ids) < len(prompts):
        log.warning(
            "%s: %d of %d prompts have an image", model.key, len(generated.ids), len(prompts)
        )

    rows = rows_of(manifest["image_id"], real.ids, model.real, "manifest")
    test_set = manifest.iloc[rows].reset_index(drop=True)
    described = prompts
    if not switches.fidelity_reference_of_all_prompts:
        described = answered(prompts, generated)
    prompts_rows, other_rows = reference_rows(test_set, described, str(model.real))
    patients = test_set["patient_id"].to_numpy(str)
    test_images = Side(real.features, positive_subsets(test_set), patients)
    findings = generated_findings(generated, prompts, manifest, model.generated)
    patients = patients_of_prompts(generated, prompts, manifest, model.generated)
    generated_images = Side(generated.features, positive_subsets(findings), patients)

    results = distribution_values(
        test_images.only(prompts_rows),
        generated_images,
        settings,
        device,
        kid_within_patients=switches.kid_pairs_within_patients,
        cosines=alignment_of(generated, images, texts, model.generated),
    )
    for name in OTHER_REFERENCES:
        results.values += other_reference_values(
            name,
            test_images.only(other_rows[name]),
            generated_images,
            settings,
            device,
            kid_within_patients=switches.kid_pairs_within_patients,
        )
    return Record(
        stage="fidelity",
        model=model.key,
        family=encoder,
        protocol=model.protocol,
        values=results.values,
        details={
            **asdict(settings),
            "prompts": len(prompts),
            "dimensions": int(real.features.shape[1]),
            "floors": results.floors,
            "images_sha256": {
                "real": digest_of(list(test_set["image_id"].iloc[prompts_rows])),
                "generated": digest_of(generated.ids),
            },
            "replicates": results.replicates,
        },
        provenance=provenance(
            {"protocol": model.protocol, **asdict(settings)},
            device_name(device),
            [origin(features) for features in files],
        ),
    )


def _read_features(
    model: ScoredModel,
    encoder: str,
    prompts: pd.DataFrame,
    every_prompt: pd.DataFrame,
    manifest: pd.DataFrame,
) -> tuple[Features, Features, Features, Features]:
    """Return an encoder's features of the real images and of the images of `prompts`.

    After them come BioViL-T's features of the generated images and of their captions.
    """
    collection = (model.protocol, model.key, "fidelity")
    real, generated = read_comparable(model.real, model.generated, encoder, *collection)
    files = [generated]
    for name in ("biovil_t_image", "biovil_t_text"):
        files.append(read_encoder(model.generated, name, *collection))
    generated, images, texts = (
        of_prompts(file, prompts, every_prompt, model.generated) for file in files
    )
    require_captions(files[-1], every_prompt, manifest, model.generated)
    return real, generated, images, texts


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, Settings]:
    """Parse the command line."""
    parser = model_arguments((__doc__ or "").splitlines()[0], "test", "the real images")
    parser.add_argument("--encoder", required=True, choices=distance_encoders())
    add_flags(parser, Settings)
    parser.add_argument("--gpus", type=int, default=0)
    args = parser.parse_args(argv)
    return args, settings_of_flags(Settings, args, parser)


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    args, settings = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    record = score(model_of(args), args.encoder, settings, pick_device(args.gpus))
    write_record(record, args.output)
    fid, kid = record.get("fid"), record.get("kid")
    log.info("%s, %s: FID %s, KID %s, n %d", args.model, args.encoder, fid.value, kid.value, fid.n)


if __name__ == "__main__":
    run_script(main)
