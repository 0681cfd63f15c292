"""Score each report of a training run by F1-RadGraph: entities and relations in both reports.

PYTHONPATH=.venv/reports python -m
    workflow_scripts.downstream.report_generation.metrics.score_radgraph
    --weights weights/radgraph --bert weights/biomednlp-pubmedbert
    --outcomes results/downstream/report_generation/augmented/sd_v1_4/repeat-0.parquet
    --progress results/downstream/report_generation/augmented/sd_v1_4/.radgraph-0
    --output results/downstream/report_generation/augmented/sd_v1_4/radgraph-0.parquet

The package `radgraph` computes it (Jain et al., 2021; Delbrouck et al., 2022), with the weights of
2021 and the reward `partial`, as in LLaVA-Rad's evaluation. It needs transformers before 5, so it
runs in an environment of its own (envs/reports.txt).
"""

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.checkpoints import check_weight_file, load_state, refuse_remote_code
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.downstream.report_generation.metrics.reports import scorer_arguments
from workflow_scripts.downstream.report_generation.metrics.run_scorer import (
    Score,
    Scorer,
    run_scorer,
)

REWARD: Final = "partial"
_MODEL: Final = "radgraph"  # the package's name of the weights of 2021

SCORER: Final = Scorer(
    metric="radgraph",
    label="RadGraph",
    module="downstream.report_generation.metrics.score_radgraph",
    packages=("radgraph", "transformers", "torch"),
    batch_size=16,  # only how often progress is saved: each report is scored by itself
    settings={"reward": REWARD},
)


def check(weights: Path, bert: Path) -> None:
    """Check the unpacked archive and the folder of its BERT; no tensor is read.

    Raises:
        InputError: a file is missing or damaged, or the BERT's folder asks for code.
    """
    check_weight_file(weights / "weights.th")
    _model_names(_read_config(weights), weights)
    remedy = "unpack the whole archive radgraph.tar.gz (docs/how-to/mimic-and-weights.md)"
    if not any((weights / "vocabulary").glob("*ner_labels.txt")):
        raise InputError("the vocabulary of entities is missing", weights / "vocabulary", remedy)
    for name in ("config.json", "vocab.txt"):
        if not (bert / name).is_file():
            raise InputError("a file of RadGraph's BERT is missing", bert / name, "download it")
    refuse_remote_code(bert, "take configuration and vocabulary of the BERT alone")


def load(weights: Path, bert: Path, gpu: bool) -> Any:
    """Return the package's F1RadGraph over local files.

    Its config.json names the BERT by its name on the hub; a copy names the local folder instead.
    Only the BERT's configuration and vocabulary are read.

    Raises:
        InputError: see `check`.
    """
    check(weights, bert)
    from radgraph import F1RadGraph

    config = _read_config(weights)
    for part in _model_names(config, weights):
        part["model_name"] = str(bert.resolve())
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / _MODEL
        local.mkdir()
        (local / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (local / "vocabulary").symlink_to((weights / "vocabulary").resolve())
        _write_weights(weights / "weights.th", local / "weights.th")
        try:
            return F1RadGraph(
                reward_level=REWARD,
                model_type=_MODEL,
                model_cache_dir=folder,
                cuda=0 if gpu else -1,
            )
        except RuntimeError as error:  # keys that are missing, unexpected or misshapen, named
            raise InputError(
                f"the weights do not fit: {error}", weights, "use the published radgraph.tar.gz"
            ) from None


def _write_weights(source: Path, target: Path) -> None:
    """Write the weights without the buffer of positions that old versions of transformers saved."""
    state = load_state(source)
    buffers = [key for key in state if key.endswith("embeddings.position_ids")]
    if not buffers:
        target.symlink_to(source.resolve())
        return
    import torch

    for key in buffers:
        del state[key]
    torch.save(state, target)


def _read_config(weights: Path) -> dict[str, Any]:
    path = weights / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(
            "cannot read RadGraph's settings", error, path, "unpack radgraph.tar.gz"
        ) from None


def _model_names(config: dict[str, Any], weights: Path) -> list[dict[str, Any]]:
    """Return the two parts of the settings that name the BERT."""
    try:
        return [
            config["dataset_reader"]["token_indexers"]["bert"],
            config["model"]["embedder"]["token_embedders"]["bert"],
        ]
    except (KeyError, TypeError):
        raise InputError(
            "not the settings of RadGraph", weights / "config.json", "unpack radgraph.tar.gz"
        ) from None


def score_of(scorer: Any) -> Score:
    """Return a function that scores pairs of reports by the package's F1RadGraph."""
    import torch

    @torch.inference_mode()
    def score(references: list[str], generated: list[str]) -> list[float]:
        return scorer(refs=references, hyps=generated)[1]

    return score


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    parser = scorer_arguments(__doc__, resumes=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder of the archive")
    parser.add_argument("--bert", type=Path, required=True, help="folder of the BERT it names")
    args = parser.parse_args(argv)
    run_scorer(SCORER, args, args.weights, lambda gpu: score_of(load(args.weights, args.bert, gpu)))


if __name__ == "__main__":
    run_script(main)
