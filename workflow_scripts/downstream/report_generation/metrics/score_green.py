"""Score each report of a training run by GREEN: a language model judges findings and errors.

PYTHONPATH=.venv/reports python -m
    workflow_scripts.downstream.report_generation.metrics.score_green
    --weights weights/green-radllama2-7b
    --outcomes results/downstream/report_generation/augmented/sd_v1_4/repeat-0.parquet
    --progress results/downstream/report_generation/augmented/sd_v1_4/.green-0
    --output results/downstream/report_generation/augmented/sd_v1_4/green-0.parquet

The score is the number of matched findings over the sum of matched findings and significant errors
(Ostmeier et al., 2024). The package `radeval` provides GREEN's prompt, its generation and the
parser of its answers. It runs in the environment of the report scorers (envs/reports.txt). The
model is a Llama.

The package loads model and tokenizer with `trust_remote_code`, and the published folder may hold
code. So the package is given another folder, with links to weights, configuration and vocabulary,
and a tokenizer_config.json that names Llama's plain tokenizer.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.checkpoints import check_weight_file, refuse_remote_code
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.downstream.report_generation.metrics.reports import scorer_arguments
from workflow_scripts.downstream.report_generation.metrics.run_scorer import (
    Score,
    Scorer,
    run_scorer,
)

_REMEDY: Final = "download all files of StanfordAIMI/GREEN-RadLlama2-7b"
_TOKENIZERS: Final = ("LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast")
"""transformers' classes that read a Llama's vocabulary; the first replaces any other class."""
_LINKED: Final = (
    *("config.json", "generation_config.json", "*.safetensors", "pytorch_model*.bin"),
    *("*.safetensors.index.json", "pytorch_model.bin.index.json"),
    *("tokenizer.model", "tokenizer.json", "special_tokens_map.json", "added_tokens.json"),
)

SCORER: Final = Scorer(
    metric="green",
    label="GREEN",
    module="downstream.report_generation.metrics.score_green",
    packages=("radeval", "transformers", "torch"),
    batch_size=8,  # the package's default
)


def check(weights: Path) -> None:
    """Check a folder with a Llama and its tokenizer; no tensor is read.

    Raises:
        InputError: a file is missing or damaged, or the model is not a Llama or asks for remote
            code.
    """
    path = weights / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable("cannot read GREEN's configuration", error, path, _REMEDY) from None
    if config.get("model_type") != "llama" or "auto_map" in config:
        raise InputError("not a Llama, or one that asks for remote code", path, _REMEDY)
    files = sorted([*weights.glob("*.safetensors"), *weights.glob("pytorch_model*.bin")])
    if not files:
        raise InputError("there are no weights", weights, _REMEDY)
    for file in files:
        check_weight_file(file)
    if not any((weights / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise InputError("the tokenizer is missing", weights, _REMEDY)
    with tempfile.TemporaryDirectory() as folder:
        write_plain_folder(weights, Path(folder))
    model = weights / "tokenizer.model"
    if model.is_file():
        import sentencepiece

        try:
            sentencepiece.SentencePieceProcessor(str(model))
        except (OSError, RuntimeError) as error:
            raise unreadable("not a SentencePiece model", error, model, _REMEDY) from None


def write_plain_folder(weights: Path, folder: Path) -> None:
    """Write the folder that the package loads: links to data files, and a plain tokenizer's config.

    Args:
        weights: the published folder.
        folder: an empty folder.

    Raises:
        InputError: a JSON file cannot be read or asks for code.
    """
    for pattern in _LINKED:
        for file in weights.glob(pattern):
            (folder / file.name).symlink_to(file.resolve())
    path = weights / "tokenizer_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable("cannot read the tokenizer's settings", error, path, _REMEDY) from None
    settings.pop("auto_map", None)
    if settings.get("tokenizer_class") not in _TOKENIZERS:
        settings["tokenizer_class"] = _TOKENIZERS[0]
    (folder / path.name).write_text(json.dumps(settings), encoding="utf-8")
    refuse_remote_code(folder, _REMEDY)


def load(weights: Path, gpu: bool) -> Any:
    """Return the package's GREEN over the local folder, on one GPU or the CPU.

    Raises:
        InputError: see `check`.
    """
    check(weights)
    import nltk

    # On import the package would download a sentence splitter, which GREEN does not use.
    nltk.download = lambda *_, **__: False
    from radeval.metrics.green_score.green import GREEN

    with tempfile.TemporaryDirectory() as folder:
        plain, output = Path(folder) / "green", Path(folder) / "output"
        plain.mkdir()
        write_plain_folder(weights, plain)
        # Without a summary GREEN writes nothing to its output folder.
        return GREEN(model_name=str(plain), output_dir=str(output), cpu=not gpu, num_gpus=1)


def score_of(judge: Any) -> Score:
    """Return a function that scores pairs of reports by the package's GREEN."""
    import torch
    from radeval.metrics.green_score.utils import make_prompt

    @torch.inference_mode()
    def score(references: list[str], generated: list[str]) -> list[float]:
        prompts = list(map(make_prompt, references, generated))
        return [judge.compute_green(answer) for answer in judge.get_response({"prompt": prompts})]

    return score


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    parser = scorer_arguments(__doc__, resumes=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder of the model")
    args = parser.parse_args(argv)
    run_scorer(SCORER, args, args.weights, lambda gpu: score_of(load(args.weights, gpu)))


if __name__ == "__main__":
    run_script(main)
