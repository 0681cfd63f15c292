"""Preflight: check that every file of a run exists, is whole and has the right shape.

It runs before the first job, so that a missing text encoder is found before GPUs are requested, not
hours later. The existence of files is not enough, so preflight loads them by the same functions as
the jobs. It reads tables, makes tokenizers and schedulers, and builds networks from their configs
on torch's meta device. There it compares every key and shape with the headers of the weight files,
without reading weights. If jobs go to SLURM, it also checks that SLURM can grant their requests.
"""

import argparse
import json
import logging
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.cohort.stand_ins import stand_in
from workflow_scripts.common.access import unreadable
from workflow_scripts.common.checkpoints import headers_only
from workflow_scripts.common.config import caption_source_of, prompt_sets_of, validate_config
from workflow_scripts.common.config_text import read_config_file
from workflow_scripts.common.encoder_names import ALWAYS
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import COHORT_PROMPT_SETS, FINDINGS, STRESS
from workflow_scripts.common.settings import settings_of_block
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.settings import LoraSettings
from workflow_scripts.preflight.disk import Sizes, check_disk, planned_writes
from workflow_scripts.preflight.gpu_memory import (
    GB,
    Parts,
    Phase,
    activations_of,
    check_fits,
    parts_of,
    sampling_phase,
    training_phases,
)
from workflow_scripts.preflight.profiles import Profile, read_profile
from workflow_scripts.preflight.site import Request, check_request, read_nodes

if TYPE_CHECKING:
    from workflow_scripts.finetune.families.base import Family

log = logging.getLogger(__name__)


SOME_FILMS: Final = 200
"""Films, evenly spread over the cohort, that must be there before a run; its job checks all."""


@dataclass(frozen=True)
class Check:
    """One line of the preflight table.

    Attributes:
        what: the config key that names the files, or the rule that requests resources.
        path: the expected path, or the requested resources.
        fault: the fault, or None.
    """

    what: str
    path: str
    fault: InputError | None = None


def preflight(
    config: dict[str, Any],
    stages: set[str],
    models: set[str],
    devices: int | None = None,
    gpu_memory: Mapping[str, float] | None = None,
    prompts: Collection[str] | None = None,
) -> list[Check]:
    """Check the files of a config that the planned stages and models need.

    Args:
        config: the validated config.
        stages: names of the stages with jobs to run.
        models: keys of the models with jobs to run.
        devices: number of devices over which fine-tuning divides its batches; None skips this
            check.
        gpu_memory: GB of the GPUs that a stage's jobs request; other stages are not checked.
        prompts: the prompt sets to draw, see `check_cohort`; None draws those of the models.
    """
    sizes: dict[str, Sizes] = {}
    if prompts is None:
        prompts = prompts_of(config, models)
    subjects = _subjects(config, stages, models, devices, sizes, prompts)
    checks = [_checked(what, path, check) for what, path, check in subjects]
    checks += check_gpus(config, sizes, gpu_memory or {}, devices)
    if sizes:
        writes = planned_writes(config, stages, models & set(config["run_models"]), sizes)
        checks.append(_checked("disk", str(writes), lambda _: check_disk(writes)))
    return checks


def check_gpus(
    config: dict[str, Any],
    sizes: Mapping[str, Sizes],
    gpu_memory: Mapping[str, float],
    devices: int | None,
) -> list[Check]:
    """Check that models fit on their GPUs; warn of those that may not.

    Args:
        config: the validated config.
        sizes: the sizes of models that could be built.
        gpu_memory: GB of a GPU by stage, `finetune` and `generate`.
        devices: see `preflight`.
    """
    checks = []
    for key, model_sizes in sizes.items():
        block = config["models"][key]
        if model_sizes.parts is None:
            continue
        for stage, gigabytes in gpu_memory.items():
            # The number of trained parameters is known only if fine-tuning is planned.
            if block.get(stage) and (stage != "finetune" or model_sizes.parts.trained):
                phases = _phases(block, key, stage, model_sizes.parts, devices or 1)
                checks.append(_memory_check(f"models.{key}.{stage}", phases, gigabytes))
    return checks


def _memory_check(where: str, phases: list[Phase], gigabytes: float) -> Check:
    def check(_: Path) -> None:
        for doubt in check_fits(phases, gigabytes, where):
            log.warning("%s", doubt)

    most = max(phase.total for phase in phases) / GB
    requirement = f"at least {most:.1f} GB, of {gigabytes:g} GB"
    return _checked(f"{where}, a GPU's memory", requirement, check)


def _phases(block: dict[str, Any], key: str, stage: str, parts: Parts, devices: int) -> list[Phase]:
    from workflow_scripts.finetune.families import get_family

    family = get_family(block["family"])
    if stage == "generate":
        precision = block["generate"].get("precision", "fp32")
        return [sampling_phase(parts, precision, family.decodes_in_float32)]
    tuned = block["finetune"]
    images = min(tuned["per_device_batch_size"], max(1, tuned["batch_size"] // devices))
    ahead = bool(block.get("speed", {}).get("finetune", {}).get("captions_ahead"))
    return training_phases(
        parts, tuned, family.encodes_in_float32, activations_of(block, key), images, ahead
    )


def check_writable(stages: Collection[str]) -> Check:
    """Check that the stages' folders of results, logs and benchmarks can be written to.

    A job writes its outputs at its end, hours after it began.

    Args:
        stages: the stages with jobs to run.
    """
    named = [Path("results", stage) for stage in sorted(stages)]
    named += [Path("logs", stage) for stage in sorted(stages)] + [Path("benchmarks")]

    def check(_: Path) -> None:
        folders = [next(x for x in (name, *name.parents) if x.is_dir()) for name in named]
        for folder in dict.fromkeys(folders):
            try:
                with tempfile.TemporaryFile(dir=folder) as stream:
                    stream.write(b"x")
            except OSError as error:
                raise InputError(
                    f"nothing can be written into a folder: {error.strerror}",
                    folder.absolute(),
                    "have it allowed: see to its rights, its quota, and whether its disk is full",
                ) from None

    return _checked("results", "results, logs, benchmarks", check)


def check_site(asked: dict[Request, list[str]]) -> list[Check]:
    """Check the requests of jobs against SLURM's nodes; if SLURM does not answer, only warn.

    Args:
        asked: the rules that make each request.
    """
    try:
        nodes = read_nodes()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        log.warning(
            "SLURM did not list its nodes, so the requests of jobs are not checked: %s", error
        )
        return []

    def checked(request: Request, rules: list[str]) -> Check:
        more = f" and {len(rules) - 1} more" if len(rules) > 1 else ""
        return _checked(
            f"SLURM for {rules[0]}{more}", str(request), lambda _: check_request(request, nodes)
        )

    return [checked(request, rules) for request, rules in asked.items()]


Subject = tuple[str, str, Callable[[Path], object]]


def _subjects(
    config: dict[str, Any],
    stages: set[str],
    models: set[str],
    devices: int | None,
    sizes: dict[str, Sizes],
    prompts: Collection[str],
) -> Iterator[Subject]:
    """Yield the checks; the sizes of models that could be built are added to `sizes`."""
    cohort = config["cohort"]
    source = cohort[cohort["source"]]
    if "cohort" in stages:
        prefix = f"cohort.{cohort['source']}"
        sound: list[str] = []

        def noted(check: Callable[[Path], object]) -> Callable[[Path], object]:
            def passed(path: Path) -> None:
                check(path)
                sound.append(str(path))

            return passed

        if cohort["source"] == "mimic_cxr_jpg":
            yield f"{prefix}.root", source["root"], noted(check_mimic_cxr_jpg)
            yield f"{prefix}.annotations", source["annotations"], noted(check_annotations)
        else:
            captions = {caption_source_of(config, key) for key in config["run_models"]}
            columns = [*source["columns"].values(), source["findings"]["column"]]
            columns += sorted(column for column in captions if column and column not in columns)
            yield f"{prefix}.root", source["root"], noted(check_folder)
            table = source["metadata"]
            yield f"{prefix}.metadata", table, noted(lambda path: check_table(path, columns))
        if len(sound) == 2:  # a caller asks for the next check when it has made the last one
            what = f"{cohort['dataset']}: tables, captions, prompts, {SOME_FILMS} films"
            yield "cohort", what, lambda _: check_cohort(config, prompts)
    for key in config["run_models"]:
        if key in models:
            yield from _model_subjects(key, config["models"][key], stages, devices, sizes)
    used = {*ALWAYS, *config["fidelity"]["encoders"]}
    for name, block in config["encoders"].items():
        if "features" in stages and name in used:
            check = check_reid_start if "train" in block else _encoder_check(name)
            yield f"encoders.{name}", block["weights"], check
            if chosen := block.get("speed"):
                switches = ", ".join(f"{switch} {value}" for switch, value in chosen.items())
                yield f"encoders.{name}.speed", switches, _encoder_switches(name, chosen)
    if "downstream" in stages:
        yield from _downstream_subjects(config["downstream"])
    if "faithfulness" in stages and "segmentation" in config["downstream"]["tasks"]:
        yield from _faithfulness_subjects(config, "downstream" in stages)
    if "faithfulness" in stages and "llava_rad" in config["faithfulness"]["judges"]:
        yield from _round_trip_subjects(config["downstream"], "downstream" in stages)
    if "curate" in stages:
        yield from _curate_subjects(config, stages)


def _curate_subjects(config: dict[str, Any], stages: set[str]) -> Iterator[Subject]:
    """Yield the files that only a curated set reads, except images and records."""
    tasks = config["downstream"]["tasks"]
    if "features" not in stages:
        for name in ("rad_dino", "reid"):
            block = config["encoders"][name]
            if "train" not in block:
                yield f"encoders.{name}", block["weights"], _encoder_check(name)
    if "faithfulness" not in stages or "segmentation" not in tasks:
        labeller = config["downstream"]["segmentation"]["labeller"]["weights"]
        yield "curate, organs", labeller, check_organs
        if "densenet_121" in config["faithfulness"]["judges"]:
            weights = config["encoders"]["densenet_121"]["weights"]
            yield "faithfulness.judges, densenet_121", weights, _encoder_check("densenet_121")
    if folder := config["curate"].get("overfitted"):
        yield "curate.overfitted", folder, check_overfitted
    policy = config["curate"]
    settings = f"pool {policy['pool']}, published_prompts {policy['published_prompts']}"
    yield "curate", settings, lambda _: check_policy(config)


def _downstream_subjects(settings: dict[str, Any]) -> Iterator[Subject]:
    if "classification" in settings["tasks"]:
        weights = settings["classification"]["weights"]
        yield "downstream.classification", weights, check_classifier
    if "segmentation" in settings["tasks"]:
        labeller = settings["segmentation"]["labeller"]
        yield (
            "downstream.segmentation.labeller",
            labeller["weights"],
            lambda path: check_labeller(path, labeller["classes"]),
        )
        if exact := settings["segmentation"]["exact_masks"]:
            yield "downstream.segmentation.exact_masks", exact, check_exact_masks
    if "report_generation" in settings["tasks"]:
        start = settings["report_generation"]["start"]
        for name in ("base", "released"):
            yield f"downstream.report_generation, {name}", f"{start}/{name}", check_reporter
        for name, files in settings["report_generation"]["metrics"].items():
            if files:
                check = _report_check(name, files)
                yield f"downstream.report_generation.metrics.{name}", files["weights"], check


def _faithfulness_subjects(config: dict[str, Any], labelled: bool) -> Iterator[Subject]:
    """Yield the networks that judge images.

    Args:
        config: the validated config.
        labelled: whether the downstream stage reports a missing labeller.
    """
    labeller = config["downstream"]["segmentation"]["labeller"]["weights"]
    if Path(labeller).is_file() or not labelled:
        yield "faithfulness, organs", labeller, check_organs
    if "densenet_121" in config["faithfulness"]["judges"]:
        weights = config["encoders"]["densenet_121"]["weights"]
        yield "faithfulness.judges, densenet_121", weights, _encoder_check("densenet_121")
    if exact := config["faithfulness"]["exact_organs"]:
        yield "faithfulness.exact_organs", exact, check_exact_masks


def _round_trip_subjects(settings: dict[str, Any], checked: bool) -> Iterator[Subject]:
    """Yield the networks that report on images, unless report generation's check includes them."""
    if checked and "report_generation" in settings["tasks"]:
        return
    reports = settings["report_generation"]
    released = f"{reports['start']}/released"
    yield "faithfulness.judges, llava_rad", released, check_reporter
    files = reports["metrics"]["chexbert"]
    name = "faithfulness.judges, llava_rad's reader chexbert"
    yield name, files["weights"], _report_check("chexbert", files)


def _model_subjects(
    key: str,
    block: dict[str, Any],
    stages: set[str],
    devices: int | None,
    sizes: dict[str, Sizes],
) -> Iterator[Subject]:
    family = block["family"]
    if family == "control" or not stages & {"finetune", "generate"}:
        return
    if family == "external":
        external = block["external"]
        yield f"models.{key}.external.images", external["images"], check_folder
        given = Path(external["images"])

        def check_own(path: Path) -> None:
            check_metadata(path, given)

        yield f"models.{key}.external.metadata", external["metadata"], check_own
        return
    if "generate" in stages:
        sampled = ", ".join(f"{name} {value}" for name, value in block["generate"].items())
        yield f"models.{key}.generate", sampled, lambda _: check_sampling(block)

    def check(path: Path) -> None:
        sizes[key] = check_model(path, block, stages)

    def switches_of(stage: str) -> Callable[[Path], object]:
        return lambda _: check_switches(block, stage)

    for stage in sorted(stages & block.get("speed", {}).keys()):
        chosen = ", ".join(f"{name} {value}" for name, value in block["speed"][stage].items())
        yield f"models.{key}.speed.{stage}", chosen, switches_of(stage)

    yield f"models.{key}.base", block["base"], check
    if devices and "finetune" in stages and block.get("finetune"):
        tuned = block["finetune"]
        what = f"models.{key}.finetune, {devices} device(s)"
        yield what, f"batches of {tuned['batch_size']}", lambda _: check_batch(tuned, devices)


def check_switches(block: dict[str, Any], stage: str) -> None:
    """Check the switches of speed of a model's stage, `finetune` or `generate`.

    Args:
        block: the model's block of the config.
        stage: a stage with switches.

    Raises:
        InputError: the family does not support a switch.
    """
    from workflow_scripts.common.speed import (
        COMPUTING,
        TRAINING,
        check_kernel,
        check_speed,
        speed_of,
    )
    from workflow_scripts.finetune.families import get_family

    if not block.get(stage):
        return
    family = get_family(block["family"])
    allowed = TRAINING if stage == "finetune" else COMPUTING
    speed = speed_of(block["speed"][stage], allowed, f"speed.{stage}")
    names = {"no": "float32", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    given = block[stage].get("mixed_precision" if stage == "finetune" else "precision", "fp32")
    check_speed(speed, family.takes, f"the family {family.name}", "cuda", names[given])
    if stage == "finetune":
        check_kernel(speed, block[stage].get("optimiser", "adamw"))


def check_folder(path: Path) -> None:
    """Check that a folder exists and is not empty."""
    if not path.is_dir():
        raise InputError("the folder is missing", path, "correct the path in the config")
    if not any(path.iterdir()):
        raise InputError("the folder is empty", path, "correct the path, or fill it")


def check_table(path: Path, columns: list[str]) -> None:
    """Check a CSV (or gzipped CSV) and its columns with the function that reads it later."""
    from workflow_scripts.cohort.checked_csv import read_csv

    read_csv(path, columns)


def check_metadata(path: Path, images: Path | None = None) -> None:
    """Check the table of a user's own images with the function that reads it later.

    Args:
        path: the table.
        images: the folder of the images, of which some are looked for.
    """
    from workflow_scripts.cohort.checked_csv import check_image_files
    from workflow_scripts.cohort.parts import silence
    from workflow_scripts.generate.import_external import read_metadata

    names = read_metadata(path)["file_name"].tolist()
    if images is not None and images.is_dir():  # a missing folder has a check of its own
        with silence():
            check_image_files([str(images / name) for name in _spread(names)], path)


def _spread(items: list[str]) -> list[str]:
    """Return some items, evenly spread over all of them."""
    return items[:: max(1, len(items) // SOME_FILMS)]


def check_mimic_cxr_jpg(root: Path) -> None:
    """Check the tables of MIMIC-CXR-JPG that will be read, and that `files/` exists."""
    from workflow_scripts.cohort.checked_csv import find_csv

    check_folder(root)
    columns = {
        "metadata": ["dicom_id", "subject_id", "study_id", "ViewPosition"],
        "split": ["dicom_id", "subject_id", "study_id", "split"],
        "chexpert": ["subject_id", "study_id", *FINDINGS],
    }
    for name, needed in columns.items():
        remedy = "use the files of one MIMIC-CXR-JPG release (docs/how-to/mimic-and-weights.md)"
        check_table(find_csv(root, f"mimic-cxr-2.0.0-{name}", remedy), needed)
    check_folder(root / "files")


def check_annotations(folder: Path) -> None:
    """Check LLaVA-Rad's JSON arrays, or the official release's CSVs; no JSON is parsed."""
    from workflow_scripts.cohort.annotations import check_some_there
    from workflow_scripts.cohort.checked_csv import check_no_stand_in, find_csv

    check_folder(folder)
    arrays = sorted(folder.glob("chat_*_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"))
    if not arrays:
        check_some_there(folder)
        for split in ("TRAIN", "TEST"):
            remedy = "download chat_*.json or the CSVs (docs/how-to/mimic-and-weights.md)"
            table = find_csv(folder, f"LLAVARAD_ANNOTATIONS_{split}", remedy)
            check_table(table, ["path", "annotated_prompt"])
        return
    for split in ("train", "test"):
        if not any(array.name.startswith(f"chat_{split}_") for array in arrays):
            raise InputError(
                f"chat_{split}_*.json is missing", folder, "download all of the annotations"
            )
    for array in arrays:
        check_no_stand_in(array)
        with array.open("rb") as stream:
            head = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
            stream.seek(max(0, array.stat().st_size - 64))
            tail = stream.read().rstrip()
        if not head.startswith(b"[") or not tail.endswith(b"]"):
            raise InputError("not a complete JSON array", array, "download it again")


def prompts_of(config: dict[str, Any], models: Collection[str]) -> list[str]:
    """Return the prompt sets that models have images of, see `check_cohort`."""
    from workflow_scripts.planning.run import Run

    run = Run(config)
    sets = {
        run.captions(model) + name
        for model in run.models
        if model in models
        for name in prompt_sets_of(config, model)
        if name in COHORT_PROMPT_SETS
    }
    return sorted(sets)


def check_cohort(config: dict[str, Any], prompts: Collection[str]) -> None:
    """Read the source's tables as the cohort's job will, draw prompts, and look for some films.

    Warnings of the cohort are logged here as well, before any job runs.

    Args:
        config: the validated config.
        prompts: the prompt sets to draw, each after its folder below results/cohort: `test`,
            `captions_impression/privacy`.

    Raises:
        InputError: the tables do not fit together, there are too few captions, or films are
            missing.
    """
    from workflow_scripts.cohort.attrition import Attrition
    from workflow_scripts.cohort.checked_csv import check_image_files
    from workflow_scripts.cohort.draw_prompts import draw_prompts
    from workflow_scripts.cohort.parts import manifest_of, silence
    from workflow_scripts.planning.cohort import cohort_words, folder_and_part

    drawn: dict[str, set[str]] = {"": set()}
    for place in prompts:
        folder, _, name = place.rpartition("/")
        whole, _ = folder_and_part(f"{folder}/" if folder else "")
        drawn.setdefault(whole, set()).add(name)
    warnings = set()
    for folder, names in sorted(drawn.items()):
        attrition = Attrition()
        manifest = manifest_of(cohort_words(config, folder), attrition)
        warnings |= {reason for step, *_, reason in attrition.rows if step.startswith("warning_")}
        if warning := attrition.part_of_published(config["cohort"]["dataset"]):
            warnings.add(warning)
        with silence():
            for name in sorted(names):
                settings = dict(config["prompt_sets"][name])
                settings.pop("shards")
                draw_prompts(manifest, name, settings)
    for warning in sorted(warnings):
        log.warning("%s", warning)
    cohort = config["cohort"]
    source = cohort[cohort["source"]]
    paths = manifest["path"].tolist()
    with silence():
        check_image_files(_spread(paths), source.get("metadata", source["root"]))


def check_classifier(path: Path) -> None:
    """Check the classifier's initial weights."""
    from workflow_scripts.common.resnet import check_pretrained

    check_pretrained(path)


def check_labeller(path: Path, classes: list[int]) -> None:
    """Check every tensor of the pseudo-labeller, and its classes."""
    from workflow_scripts.downstream.segmentation.cxas import check_cxas

    check_cxas(path, classes)


def check_organs(path: Path) -> None:
    """Check that the labeller draws the organs that are measured."""
    from workflow_scripts.faithfulness.classes import CLASSES

    check_labeller(path, list(CLASSES.values()))


def check_exact_masks(path: Path) -> None:
    """Check that a folder has masks."""
    check_folder(path)
    if not any(path.glob("*.png")):
        raise InputError("no {image_id}.png in the folder", path, "correct the path, or fill it")


def check_policy(config: dict[str, Any]) -> None:
    """Check that a config's policy can curate a set, of any model.

    Raises:
        InputError: no judge looks at images, or prompts that are not templates are to be
            published as templates.
    """
    policy, named = config["curate"], config["faithfulness"]["judges"]
    trained = "classification" in config["downstream"]["tasks"]
    if "densenet_121" not in named and not (trained and "classifier" in named):
        raise InputError(
            "no judge looks at images, but a set is curated by what judges see",
            "faithfulness.judges",
            "name densenet_121, or classifier with classification in downstream.tasks",
        )
    if policy["published_prompts"] == "templates" and policy["pool"] != STRESS:
        raise InputError(
            f"the prompts of the pool {policy['pool']!r} are captions, not templates",
            "curate.published_prompts",
            f"use the pool {STRESS}, or set withheld or captions",
        )


def check_overfitted(path: Path) -> None:
    """Check the folder of an overfitted model's images with the function that reads it later."""
    from workflow_scripts.curate.overfitted import read_overfitted

    read_overfitted(path)


def check_reporter(path: Path) -> None:
    """Check a LLaVA that report generation starts from, by building it and its tokenizer."""
    from workflow_scripts.downstream.report_generation.layout import check_start

    check_start(path)
    import torch

    from workflow_scripts.downstream.report_generation.network import load_llava, load_tokenizer

    with _without_weights():
        load_llava(path, torch.float32)
    load_tokenizer(path)


def check_reid_start(path: Path) -> None:
    """Check the initial weights of the re-identification network's training."""
    from workflow_scripts.features.train_reid import check

    check(path)


def check_sampling(block: dict[str, Any]) -> None:
    """Check the sampling settings of a text-to-image model."""
    from workflow_scripts.finetune.families import get_family
    from workflow_scripts.generate.sample import check_settings

    family = get_family(block["family"])
    check_settings(family, settings_of_block(SampleSettings, block["generate"]))
    if family.denoises and "guidance" not in block["generate"]:
        raise InputError(
            "no guidance scale", "generate.guidance", "set one; 1 (FLUX: 0) means no guidance"
        )


def check_model(path: Path, block: dict[str, Any], stages: Collection[str] = ()) -> Sizes:
    """Build a text-to-image model and check that it can be fine-tuned and sampled as configured.

    Args:
        path: the base's folder.
        block: the model's block of the config.
        stages: the stages with jobs to run.

    Returns:
        The model's sizes; zeros and its parts if no fine-tuning is planned.

    Raises:
        InputError: a file is missing or damaged, or a setting does not fit the model.
    """
    from workflow_scripts.finetune.checks import check_trained
    from workflow_scripts.finetune.families import get_family
    from workflow_scripts.finetune.lora import match_layers, module_endings

    family = get_family(block["family"])
    base = Base(path, {name: Path(part) for name, part in block.get("parts", {}).items()})
    files = family.check(base)
    tuned = block.get("finetune")
    if tuned:
        check_trained(family)
    targets = tuned["lora"]["targets"] if tuned and tuned["method"] == "lora" else None
    if targets:
        module_endings(family, targets)
    if tuned:
        family.trained_with(tuned.get("options", {}))
    with _without_weights():
        pipeline = family.load(base)
    _check_vocabularies(pipeline, base)
    if targets:
        match_layers(family.network(pipeline), family, targets)
    if tuned and "finetune" in stages:
        _at("finetune.size", lambda: family.check_size(pipeline, tuned["size"]))
    if "generate" in stages:
        _at("generate.size", lambda: family.check_size(pipeline, block["generate"]["size"]))
    network = family.network(pipeline) if family.trained else None
    parts = parts_of(pipeline, network, family.encode_with(pipeline))
    if not (tuned and "finetune" in stages):
        return Sizes(0, 0, ("", 0), 0, parts)
    return _sizes(family, pipeline, base, files, tuned, parts)


def _sizes(
    family: "Family",
    pipeline: Any,
    base: Base,
    files: list[Path],
    tuned: dict[str, Any],
    parts: Parts,
) -> Sizes:
    """Return the sizes of a model, built on the meta device, that is to be fine-tuned."""
    from workflow_scripts.finetune.lora import add_lora, trained_parameters

    network = family.network(pipeline)
    if tuned["method"] == "lora":
        add_lora(network, family, settings_of_block(LoraSettings, tuned["lora"]))
        trained = sum(x.numel() for x in trained_parameters(network).values())
    else:
        trained = sum(x.numel() for x in network.parameters())
    side = tuned["size"]
    others = [file for file in files if base.component_of(file).split("/")[0] != family.trained]
    return Sizes(
        trained,
        math.prod(family.encoded_shape(pipeline, side)),
        (str(base.path("vae").resolve()), side),
        sum(file.stat().st_size for file in others),
        replace(parts, trained=trained),
    )


def _check_vocabularies(pipeline: Any, base: Base) -> None:
    """Refuse a tokenizer with tokens for which its text encoder has no embeddings."""
    for number in ("", "_2", "_3"):
        tokenizer = getattr(pipeline, f"tokenizer{number}", None)
        network = getattr(pipeline, f"text_encoder{number}", None)
        known = getattr(getattr(network, "config", None), "vocab_size", None)
        if tokenizer is not None and known is not None and len(tokenizer) > known:
            raise InputError(
                f"the tokenizer knows {len(tokenizer)} tokens, but its text encoder only {known}",
                base.path(f"tokenizer{number}"),
                "use the published checkpoint, all of its components from one repository",
            )


def _at(key: str, check: Callable[[], object]) -> None:
    """Run the check of a setting, and name the setting's key in the error."""
    try:
        check()
    except InputError as error:
        raise InputError(error.what, key, error.remedy) from None


def check_batch(tuned: dict[str, Any], devices: int) -> None:
    """Check that the total batch can be divided over the devices."""
    from workflow_scripts.finetune.batches import divide_batch

    divide_batch(tuned["batch_size"], devices, tuned["per_device_batch_size"])


def _encoder_switches(name: str, chosen: dict[str, Any]) -> Callable[[Path], object]:
    def check(_: Path) -> None:
        from workflow_scripts.common.speed import COMPUTING, speed_of
        from workflow_scripts.features.encoders import check_encoder_speed

        check_encoder_speed(name, speed_of(chosen, COMPUTING, f"encoders.{name}.speed"), "cuda")

    return check


def _encoder_check(name: str) -> Callable[[Path], object]:
    def check(path: Path) -> None:
        from workflow_scripts.features.encoders import check_encoder

        check_encoder(name, path)

    return check


def _report_check(name: str, files: dict[str, str]) -> Callable[[Path], object]:
    def check(path: Path) -> None:
        from workflow_scripts.downstream.report_generation.metrics import (
            chexbert,
            score_green,
            score_radgraph,
            score_ratescore,
        )

        if name == "chexbert":
            chexbert.check(path, Path(files["bert"]))
        elif name == "radgraph":
            score_radgraph.check(path, Path(files["bert"]))
        elif name == "green":
            score_green.check(path)
            _build_llama(path)
        else:
            score_ratescore.check(path, Path(files["encoder"]))

    return check


@contextmanager
def _without_weights() -> Iterator[None]:
    """Build networks without weights inside this context, and silence the libraries' logs."""
    import diffusers
    import transformers

    logs: list[Any] = [diffusers.utils.logging, transformers.utils.logging]
    levels = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with headers_only():
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
            log.enable_progress_bar()


def _build_llama(folder: Path) -> None:
    from transformers import LlamaForCausalLM

    from workflow_scripts.finetune.families.parts import load_component

    with _without_weights():
        load_component(LlamaForCausalLM, folder)


def _checked(what: str, path: str, check: Callable[[Path], object]) -> Check:
    try:
        check(Path(path))
    except InputError as error:
        return Check(what, path, explained(error))
    except OSError as error:  # no right to a folder, a folder in place of a file, a lost server
        where, remedy = error.filename or path, "correct the path in the config"
        return Check(what, path, unreadable("cannot read it", error, where, remedy))
    return Check(what, path)


def explained(error: InputError) -> InputError:
    """Return an error that says so if a web page, a pointer or a refusal is what cannot be read.

    Readers of configurations and tokenizers only say that the file is no JSON.

    Args:
        error: its place is a file, or a folder whose files may be the fault.
    """
    place = Path(str(error.where))
    try:
        files = sorted(x for x in place.iterdir() if x.is_file()) if place.is_dir() else [place]
        heads = [(file, _head(file)) for file in files if file.is_file()]
    except OSError:
        return error
    for file, head in heads:
        found = stand_in(head)
        if found and "stands" not in error.what:
            return InputError(f"{found[0]} ({error.what})", file, found[1])
    return error


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(512)


def format_checks(checks: list[Check]) -> str:
    """Return the table of checks, followed by the faults with their places and remedies."""
    width = max([len(check.what) for check in checks] + [4])
    limit = max(40, shutil.get_terminal_size((120, 24)).columns - width - 10)
    lines = []
    for check in checks:
        path = check.path
        if "/" in path and len(path) > limit:  # the end of a path says most
            path = "..." + path[3 - limit :]
        lines.append(
            f"{'ok   ' if check.fault is None else 'FAULT'}  {check.what:<{width}}  {path}"
        )
    faults: dict[str, list[str]] = {}
    for check in checks:
        if check.fault is not None:
            faults.setdefault(str(check.fault), []).append(check.what)
    for fault, subjects in faults.items():
        lines += ["", f"{', '.join(subjects)}: {fault}"]
    return "\n".join(lines)


def read_config(paths: list[str]) -> dict[str, Any]:
    """Read and merge config files like Snakemake: later ones win, lists are replaced."""
    merged: dict[str, Any] = {}
    for path in paths:
        _merge(merged, read_config_file(path))
    return merged


def _merge(into: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def parse_memory(text: str) -> tuple[str, float]:
    """Parse `finetune=80` to the stage and GB.

    Raises:
        argparse.ArgumentTypeError: the text has another format.
    """
    stage, _, size = text.partition("=")
    try:
        gigabytes = float(size)
        if stage not in ("finetune", "generate") or not 0 < gigabytes < math.inf:
            raise ValueError
    except ValueError:
        message = f"{text!r}: write finetune=GB or generate=GB"
        raise argparse.ArgumentTypeError(message) from None
    return stage, gigabytes


def read_requests(path: Path) -> dict[Request, list[str]]:
    """Read a JSON list of [rule, request]; return the rules that make each request."""
    asked: dict[Request, list[str]] = {}
    for rule, request in json.loads(path.read_text(encoding="utf-8")):
        asked.setdefault(Request(**request), []).append(rule)
    return asked


def main(argv: list[str] | None = None) -> None:
    """Print the table of checks; any fault ends the script with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", nargs="+", help="default: the profile's, or config.yaml")
    parser.add_argument(
        "--profile", type=Path, help="check that jobs fit into the memory of its GPUs"
    )
    stages = ["cohort", "finetune", "generate", "features", "downstream", "faithfulness"]
    parser.add_argument("--stages", nargs="*", default=stages, help="stages that have jobs to run")
    parser.add_argument("--models", nargs="*", help="models that have jobs to run; default all")
    parser.add_argument(
        "--prompts",
        nargs="*",
        metavar="FOLDER/SET",
        help="prompt sets that jobs will draw, below results/cohort; default all of the models",
    )
    parser.add_argument("--devices", type=int, help="devices that share a fine-tuning batch")
    parser.add_argument(
        "--gpu-memory",
        nargs="+",
        default=[],
        type=parse_memory,
        metavar="STAGE=GB",
        help="memory of the GPUs that finetune or generate request",
    )
    parser.add_argument("--requests", type=Path, help="the jobs' requests to SLURM, JSON")
    arguments = parser.parse_args(argv)
    profile = read_profile(arguments.profile) if arguments.profile else Profile()
    config = read_config(arguments.config or list(profile.config) or ["config.yaml"])
    validate_config(config)
    models = config["run_models"] if arguments.models is None else arguments.models
    checks = preflight(
        config,
        set(arguments.stages),
        set(models),
        arguments.devices or profile.devices,
        {**profile.gpu_memory, **dict(arguments.gpu_memory)},
        arguments.prompts,
    )
    checks.append(check_writable(arguments.stages))
    if arguments.requests:
        checks += check_site(read_requests(arguments.requests))
    print(format_checks(checks))
    faults = [check for check in checks if check.fault is not None]
    if faults:
        raise InputError(
            f"{len(faults)} of {len(checks)} checks failed",
            ", ".join(check.what for check in faults),
            "see the table above; nothing has been run",
        )


if __name__ == "__main__":
    run_script(main)
