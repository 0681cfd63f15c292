"""Score one model's test images: does a judge see the findings that their prompts ask for?

    python -m workflow_scripts.faithfulness.score_findings --model sd_v1_4 --protocol sound \\
        --manifest results/cohort/manifest.parquet --prompts results/cohort/prompts/test.parquet \\
        --judges results/downstream/classification/real_only/real/network-*.safetensors \\
        --outcomes results/downstream/classification/real_only/real/repeat-*.parquet \\
        --shards results/generate/sd_v1_4/test/part-*.parquet \\
        --bootstrap 1000 --seed 42 --output results/faithfulness/findings/sd_v1_4.json

The judge is the classifier that was trained on radiographs alone; of several training runs the mean
probability. Its outcomes on the test radiographs, made by the same runs, are the ceiling.
"""

import argparse
import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from workflow_scripts.common.as_published import PROTOCOLS, deviations
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.manifest import (
    FINDINGS,
    read_manifest,
    read_prompts,
    scored_prompts,
)
from workflow_scripts.common.records import Record, provenance, write_record
from workflow_scripts.downstream.classification.network import (
    TrainedClassifier,
    predict,
    read_network,
)
from workflow_scripts.downstream.data import manifest_rows, synthetic_collection
from workflow_scripts.downstream.outcomes import Outcomes, read_repeats
from workflow_scripts.faithfulness.findings import finding_values

log = logging.getLogger(__name__)

JUDGE: Final = "resnet50_real_only"


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    args = _arguments(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    judges = [read_network(path) for path in args.judges]
    outcomes = read_repeats(args.outcomes)
    check_judges(judges, outcomes, args.protocol, args.judges)
    manifest = read_manifest(args.manifest)
    every_prompt = read_prompts(args.prompts)
    settings = judges[0].run["settings"]
    wanted = scored_prompts(every_prompt, args.protocol)
    images = synthetic_collection(
        args.shards,
        every_prompt,
        manifest,
        settings["size"],
        deviations(args.protocol).classification_squash,
        args.threads,
        drawn=set(wanted["prompt_id"]),
    )
    asked = every_prompt.set_index("prompt_id").loc[images.ids]
    batch = settings["per_device_batch_size"] or settings["batch_size"]
    seen = np.mean(
        [predict(j.network.to(device), images.pixels, batch, device) for j in judges], axis=0
    )
    patients = manifest_rows(manifest, asked["image_id"].tolist(), str(args.prompts))["patient_id"]
    values = finding_values(
        images.labels,
        patients.to_numpy(str),
        seen,
        probabilities_of(outcomes, asked["image_id"].tolist(), args.outcomes[0]),
        args.bootstrap,
        args.seed,
    )
    kept = {"protocol": args.protocol, "bootstrap": args.bootstrap, "seed": args.seed}
    record = Record(
        "faithfulness",
        args.model,
        f"findings/{JUDGE}",
        args.protocol,
        values,
        {
            "judge": JUDGE,
            "judges": [
                {"seed": j.run["seed"], "sha256": sha256_of(p)}
                for j, p in zip(judges, args.judges, strict=True)
            ],
            "n_patients": int(patients.nunique()),
        },
        provenance(kept, device_name(device)),
    )
    write_record(record, args.output)
    whole = record.get("auroc")
    log.info("mean AUROC %s of %s at its ceiling", whole.value, record.get("auroc_ceiling").value)


def check_judges(
    judges: list[TrainedClassifier], outcomes: list[Outcomes], protocol: str, paths: list[Path]
) -> None:
    """Check that networks and outcomes are of the same runs, on radiographs alone.

    Raises:
        InputError: they are not, or a network was trained under another protocol.
    """
    remedy = "delete both and rerun downstream_train_judge"
    if len(judges) != len(outcomes):
        raise InputError(
            f"{len(judges)} networks and the outcomes of {len(outcomes)} runs", paths[0], remedy
        )
    for judge, own, path in zip(judges, outcomes, paths, strict=True):
        for key in ("setting", "protocol", "seed"):
            if judge.run[key] != own.run[key]:
                raise InputError(
                    f"{key} is {judge.run[key]!r}, of the outcomes {own.run[key]!r}", path, remedy
                )
        if judge.run["setting"] != "real_only":
            raise InputError(
                f"a judge that was trained on {judge.run['setting']} images", path, remedy
            )
        if judge.run["protocol"] != protocol:
            raise InputError(
                f"trained under {judge.run['protocol']}, asked under {protocol}", path, remedy
            )


def probabilities_of(outcomes: list[Outcomes], image_ids: list[str], where: Path) -> np.ndarray:
    """Return the mean probabilities of radiographs over runs, (n, 14), in the order of the ids.

    Raises:
        InputError: a radiograph that no run was tested on.
    """
    means = sum(own.rows[list(FINDINGS)].to_numpy(np.float64) for own in outcomes) / len(outcomes)
    rows = pd.Index(outcomes[0].rows["image_id"]).get_indexer(pd.Index(image_ids))
    if (rows < 0).any():
        unknown = image_ids[int((rows < 0).argmax())]
        raise InputError(
            f"{int((rows < 0).sum())} prompts' radiographs are not among those tested, first "
            f"{unknown!r}",
            where,
            "prompts and outcomes are of different cohorts: rerun the downstream stage",
        )
    return np.asarray(means)[rows]


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key in the config")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="the test prompt set")
    add("--judges", required=True, nargs="+", type=Path, help="networks of real_only, in order")
    add("--outcomes", required=True, nargs="+", type=Path, help="their outcomes, in order")
    add("--shards", required=True, nargs="+", type=Path, help="the model's test images")
    add("--bootstrap", required=True, type=int, help="draws of test patients")
    add("--seed", required=True, type=int, help="of the draws")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", required=True, type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
