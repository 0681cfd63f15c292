"""Score each report of a training run by RaTEScore: medical entities, by type and meaning.

PYTHONPATH=.venv/reports python -m
    workflow_scripts.downstream.report_generation.metrics.score_ratescore
    --weights weights/rate-ner-deberta --encoder weights/biolord-2023-c
    --outcomes results/downstream/report_generation/augmented/sd_v1_4/repeat-0.parquet
    --progress results/downstream/report_generation/augmented/sd_v1_4/.ratescore-0
    --output results/downstream/report_generation/augmented/sd_v1_4/ratescore-0.parquet

The package `RaTEScore` computes it (Zhao et al., 2024), with its default weights of the types. It
splits sentences with medspacy, which needs spaCy, so it runs in the environment of the report
scorers (envs/reports.txt). A report without entities scores 0.5 by the package's own rule. So does
an empty one, which the package does not accept.
"""

from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.checkpoints import check_weight_file, refuse_remote_code
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.downstream.report_generation.metrics.reports import scorer_arguments
from workflow_scripts.downstream.report_generation.metrics.run_scorer import (
    Score,
    Scorer,
    run_scorer,
)

NO_ENTITY: Final = 0.5
"""The package's score if either report has no entity."""


SCORER: Final = Scorer(
    metric="ratescore",
    label="RaTEScore",
    module="downstream.report_generation.metrics.score_ratescore",
    packages=("RaTEScore", "medspacy", "spacy", "transformers", "torch"),
    batch_size=16,  # only how often progress is saved: each report is scored by itself
)


def check(weights: Path, encoder: Path) -> None:
    """Check the folders of both networks; no tensor is read.

    Raises:
        InputError: a file is missing or damaged, or a folder asks for remote code.
    """
    for folder in (weights, encoder):
        path = folder / "config.json"
        remedy = "download the whole folder (docs/how-to/mimic-and-weights.md)"
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


def score_of(scorer: Any) -> Score:
    """Return a function that scores pairs of reports by the package's RaTEScore."""
    from RaTEScore.utils import sentence_split

    def score(references: list[str], generated: list[str]) -> list[float]:
        scores = []
        for reference, report in zip(references, generated, strict=True):
            # Pair by pair: the package skips a report without a sentence, and would then compare
            # every later report with another one's reference.
            if not all(sentence_split([text])[0] for text in (reference, report)):
                scores.append(NO_ENTITY)
                continue
            scores += scorer.compute_score([report], [reference])
        return scores

    return score


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    parser = scorer_arguments(__doc__, resumes=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder of RaTE-NER")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of BioLORD")
    args = parser.parse_args(argv)
    weights = {"entities": args.weights, "encoder": args.encoder}
    run_scorer(SCORER, args, weights, lambda gpu: score_of(load(args.weights, args.encoder, gpu)))


if __name__ == "__main__":
    run_script(main)
