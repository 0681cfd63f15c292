"""RaTEScore of each report of a training run: medical entities compared by type and meaning.

PYTHONPATH=.venv/reports python -m
    workflow_scripts.downstream.report_generation.metrics.score_ratescore
    --weights weights/rate-ner-deberta --encoder weights/biolord-2023-c
    --outcomes results/downstream/report_generation/augmented/sd_v1_4/repeat-0.parquet
    --progress results/downstream/report_generation/augmented/sd_v1_4/.ratescore-0
    --output results/downstream/report_generation/augmented/sd_v1_4/ratescore-0.parquet

The package `RaTEScore` computes it (Zhao et al., 2024), with its default weights of the types. It
splits sentences with medspacy, whose spaCy the core environment does not have: it runs in the
environment of the report scorers (envs/reports.txt). A report in which it finds no entity scores
0.5, by the package's own rule; so does an empty one, which the package cannot take.
"""

from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.checkpoints import check_weight_file, refuse_remote_code
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.records import slurm_job
from workflow_scripts.downstream.report_generation.metrics.reports import (
    SCORE,
    package_versions,
    read_reports,
    score_in_batches,
    scorer_arguments,
    write_scores,
)

NO_ENTITY: Final = 0.5
"""What the package scores where either report has no entity."""

_MODULE: Final = "downstream.report_generation.metrics.score_ratescore"
_BATCH: Final = 16  # reports between two entries of the progress; each is read by itself


def check(weights: Path, encoder: Path) -> None:
    """Check the folders of both networks; no tensor is read.

    Raises:
        InputError: missing, damaged, or one that asks for remote code.
    """
    for folder in (weights, encoder):
        path = folder / "config.json"
        remedy = "download the whole folder (README, section on weights)"
        if not path.is_file():
            raise InputError("a configuration is missing", path, remedy)
        refuse_remote_code(folder, remedy)
        files = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
        check_weight_file(next((file for file in files if file.is_file()), files[0]))


def load(weights: Path, encoder: Path, gpu: bool) -> Any:
    """Return the package's RaTEScore over local folders.

    Raises:
        InputError: see `check`.
    """
    check(weights, encoder)
    from loguru import logger

    logger.remove()  # the sentence splitter logs every word of every report
    from RaTEScore import RaTEScore

    return RaTEScore(
        bert_model=str(weights.resolve()), eval_model=str(encoder.resolve()), use_gpu=gpu
    )


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    parser = scorer_arguments(__doc__, resumes=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder of RaTE-NER")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of BioLORD")
    args = parser.parse_args(argv)
    versions = package_versions(["RaTEScore", "medspacy", "spacy", "transformers", "torch"])
    import torch

    from workflow_scripts.common.devices import device_name, pick_device

    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    reports = read_reports(args.outcomes)
    made = {
        "weights_sha256": {
            "entities": sha256_of(args.weights),
            "encoder": sha256_of(args.encoder),
        },
        "versions": versions,
        "device": device_name(device),
    }
    scorer = load(args.weights, args.encoder, args.gpus > 0)
    from RaTEScore.utils import sentence_split

    def score(references: list[str], generated: list[str]) -> list[float]:
        found = []
        for one, other in zip(references, generated, strict=True):
            # Pair by pair: the package gives a report without a sentence no place in its list,
            # and every report after it would be compared with another one's reference.
            if not all(sentence_split([text])[0] for text in (one, other)):
                found.append(NO_ENTITY)
                continue
            found += scorer.compute_score([other], [one])
        return found

    attempt = Attempt(args.progress)
    scores = score_in_batches(
        reports,
        score,
        batch_size=_BATCH,
        attempt=attempt,
        key=made,
        module=_MODULE,
        label="RaTEScore",
    )
    write_scores(args.output, reports, "ratescore", {SCORE: scores}, {**made, **slurm_job()})
    attempt.end()


if __name__ == "__main__":
    run_script(main)
