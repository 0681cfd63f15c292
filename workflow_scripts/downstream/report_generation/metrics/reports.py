"""The files around a scorer: a generator's reports, and the scores of each report.

A scorer reads the outcomes of one training run. It writes its numbers for each report, with
`image_id` and `patient_id`, to a file of the same kind (Parquet, which only its owner may read);
the metadata say how they were made. So a scorer can have an environment of its own, and the record
can be made again without any network.
"""

import argparse
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import sha256_of, whole_file
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.resuming import read_unless_damaged
from workflow_scripts.downstream.outcomes import Outcomes, read_outcomes, write_outcomes

log = logging.getLogger(__name__)

SCORE: Final = "score"
"""The column of a scorer that gives one number per report."""


@dataclass(frozen=True)
class Reports:
    """The test reports of one training run.

    Attributes:
        outcomes: the run's outcomes.
        references: (n,) the radiologists' reports; none is empty.
        generated: (n,) the network's reports; they may be empty.
        sha256: digest of the outcomes' file.
    """

    outcomes: Outcomes
    references: list[str]
    generated: list[str]
    sha256: str

    def __len__(self) -> int:
        return len(self.references)


def read_reports(path: str | Path) -> Reports:
    """Read the reports of a training run, without surrounding white space.

    Raises:
        InputError: the file is not a file of outcomes, has no reports, or has an empty reference.
    """
    outcomes = read_outcomes(path)
    remedy = "delete it and rerun the training that writes it"
    rows = outcomes.rows
    missing = [name for name in ("reference", "generated") if name not in rows.columns]
    if missing:
        raise InputError(
            f"not a file of reports: it has no column {', '.join(missing)}", path, remedy
        )
    if rows.empty or rows[["reference", "generated"]].isna().any(axis=None):
        raise InputError("the file has no reports, or some are null", path, remedy)
    references = [str(text).strip() for text in rows["reference"]]
    empty = [name for name, text in zip(rows["image_id"], references, strict=True) if not text]
    if empty:
        raise InputError(
            f"{len(empty)} test report(s) have no words, first that of image {empty[0]!r}",
            path,
            "leave images without a report out of the test set",
        )
    generated = [str(text).strip() for text in rows["generated"]]
    return Reports(outcomes, references, generated, sha256_of(path))


def write_scores(
    path: str | Path,
    reports: Reports,
    metric: str,
    columns: Mapping[str, np.ndarray],
    made: Mapping[str, Any],
) -> None:
    """Write a scorer's numbers for each report.

    Args:
        path: the file.
        reports: the reports of one training run.
        metric: the scorer's name.
        columns: the numbers by column, (n,) each.
        made: how the scores were made, JSON types.
    """
    ids = reports.outcomes.rows[["image_id", "patient_id"]]
    write_outcomes(
        path,
        {**{str(name): ids[name].tolist() for name in ids}, **columns},
        {**made, "metric": metric, "outcomes_sha256": reports.sha256},
    )


def read_scores(path: str | Path) -> Outcomes:
    """Read a scorer's file.

    Raises:
        InputError: the file is missing, damaged, not a scorer's, or a number is not finite.
    """
    scores = read_outcomes(path)
    remedy = "delete it and rerun the scorer that writes it"
    if not {"metric", "outcomes_sha256"} <= set(scores.run):
        raise InputError("not a scorer's file", path, remedy)
    numbers = scores.rows.drop(columns=["image_id", "patient_id"])
    if not np.isfinite(numbers.to_numpy(np.float64)).all():
        raise InputError("a score is not a finite number", path, remedy)
    return scores


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of installed packages.

    Raises:
        InputError: one is not installed.
    """
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise InputError(
                f"the package {name} is not installed",
                "the environment of the report scorers (envs/reports.txt)",
                "run `make reports`, or Snakemake with `--sdm conda`",
            ) from None
    return versions


def score_in_batches(
    reports: Reports,
    score: Callable[[list[str], list[str]], Sequence[float]],
    *,
    batch_size: int,
    attempt: Attempt,
    key: Mapping[str, Any],
    module: str,
    label: str,
) -> np.ndarray:
    """Score every report; a killed run continues after the last whole batch.

    Args:
        reports: the reports of one training run.
        score: maps references and generated reports to a number for each pair.
        batch_size: pairs at a time.
        attempt: the attempt at this job, which keeps the finished batches.
        key: what the scores depend on besides the reports; with another key the run starts over.
        module: the scoring script, below `workflow_scripts`; with changed code the run starts over.
        label: names the work in the log.

    Returns:
        The scores, float64 (n,).

    Raises:
        InputError: another attempt took over.
    """
    attempt.inherit()
    made_by = {"outcomes": reports.sha256, "batch": batch_size, "code": own_digests(module)}
    text = json.dumps({**key, **made_by}, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    starts = range(0, len(reports), batch_size)
    files = [attempt.folder / f"{name}-{start:08d}.json" for start in starts]
    kept = [_kept(file) for file in files]
    done = sum(len(numbers) for numbers in kept if numbers is not None)
    meter = Progress(label, len(reports), "reports", done)
    scores: list[float] = []
    for start, file, finished in zip(starts, files, kept, strict=True):
        rows = slice(start, start + batch_size)
        if finished is not None:
            scores += finished
            continue
        references, generated = reports.references[rows], reports.generated[rows]
        numbers = [float(number) for number in score(references, generated)]
        if len(numbers) != len(references):
            raise RuntimeError(f"{len(numbers)} scores for {len(references)} reports")
        with attempt.writing(), whole_file(file, make_parents=False) as temporary:
            temporary.write_text(json.dumps(numbers), encoding="utf-8")
        scores += numbers
        meter.update(len(numbers))
    attempt.check()
    return np.array(scores, dtype=np.float64)


def scorer_arguments(description: str | None, resumes: bool = False) -> argparse.ArgumentParser:
    """Return the flags that all scorers share; `resumes` adds the folder of their progress."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--outcomes", type=Path, required=True, help="reports of one training run")
    add("--output", type=Path, required=True, help="scores, Parquet")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    if resumes:
        add("--progress", type=Path, required=True, help="folder; removed at the end")
    return parser


def _kept(file: Path) -> list[float] | None:
    """Return a finished batch's scores; None if they are missing or damaged."""
    if not file.is_file():
        return None
    return read_unless_damaged(
        file, lambda: [float(number) for number in json.loads(file.read_text(encoding="utf-8"))]
    )
