"""The steps that all scorers with a network share, from the flags to the file of scores."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.records import slurm_job
from workflow_scripts.downstream.report_generation.metrics.reports import (
    SCORE,
    package_versions,
    read_reports,
    score_in_batches,
    write_scores,
)

Score = Callable[[list[str], list[str]], Sequence[float]]
"""A function from references and generated reports to one number per pair."""


@dataclass(frozen=True)
class Scorer:
    """A scorer's names, and what its scores depend on.

    Attributes:
        metric: its name in the file of scores.
        label: its name for readers of the log.
        module: its script, below `workflow_scripts`.
        packages: installed packages whose versions the scores depend on.
        batch_size: reports between two saves of the progress.
        settings: other settings that the scores depend on, JSON types.
    """

    metric: str
    label: str
    module: str
    packages: Sequence[str]
    batch_size: int
    settings: Mapping[str, Any] = field(default_factory=dict)


def run_scorer(
    scorer: Scorer,
    args: argparse.Namespace,
    weights: Path | Mapping[str, Path],
    load: Callable[[bool], Score],
) -> None:
    """Score the reports of one training run; a killed run continues after the last whole batch.

    Args:
        scorer: the scorer.
        args: see `scorer_arguments`, with `resumes`.
        weights: the network's weights, or those of each of its parts by name.
        load: loads the network; its argument says whether there is a GPU.

    Raises:
        InputError: a package, the reports or the weights are missing or damaged.
    """
    versions = package_versions(scorer.packages)
    import torch

    from workflow_scripts.common.devices import device_name, pick_device

    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    reports = read_reports(args.outcomes)
    made = {
        "weights_sha256": sha256_of(weights)
        if isinstance(weights, Path)
        else {name: sha256_of(path) for name, path in weights.items()},
        **scorer.settings,
        "versions": versions,
        "device": device_name(device),
    }
    score = load(args.gpus > 0)
    attempt = Attempt(args.progress)
    scores = score_in_batches(
        reports,
        score,
        batch_size=scorer.batch_size,
        attempt=attempt,
        key=made,
        module=scorer.module,
        label=scorer.label,
    )
    write_scores(args.output, reports, scorer.metric, {SCORE: scores}, {**made, **slurm_job()})
    attempt.end()
