"""RadGraph, GREEN and RaTEScore: the real scripts in their own environment, on tiny networks.

`make reports` installs the packages into `.venv/reports`, which only the subprocesses see.
"""

import io
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch

from tests.downstream.report_generation.reports_by_hand import write_reports
from workflow_scripts.common.errors import InputError
from workflow_scripts.downstream.report_generation.metrics import (
    chexbert,
    chexbert_classes,
    score_green,
    score_radgraph,
    score_ratescore,
)
from workflow_scripts.downstream.report_generation.metrics.reports import read_scores

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
INSTALLED = ROOT / ".venv" / "reports"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        not (INSTALLED / "installed").exists(),
        reason="the packages of the report scorers are not installed: make reports",
    ),
]

REFERENCES = [
    "the heart is clear . no effusion .",
    "lungs are clear",
    "mild cardiomegaly . there is effusion",
]
GENERATED = ["no effusion . the heart is clear", "", "mild cardiomegaly . there is effusion"]


def python(*words: str) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "PYTHONPATH": str(INSTALLED),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, cwd=ROOT
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """Tiny networks, the reports of a run, and the packages' own scores of them."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "reports.json").write_text(json.dumps([REFERENCES, GENERATED]))
    done = python(str(HERE / "tiny_scorers.py"), str(folder))
    assert done.returncode == 0, done.stderr
    write_reports(folder / "repeat-0.parquet", REFERENCES, GENERATED)
    return folder


def score(tiny: Path, name: str, *flags: str) -> tuple[list[float], str]:
    output = tiny / f"{name}-0.parquet"
    words = ["-m", f"workflow_scripts.downstream.report_generation.metrics.score_{name}"]
    words += ["--outcomes", str(tiny / "repeat-0.parquet"), "--output", str(output)]
    done = python(*words, "--progress", str(tiny / f".{name}-0"), *flags)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert not (tiny / f".{name}-0").exists()
    scores = read_scores(output)
    assert scores.run["metric"] == name
    assert scores.run["versions"]["transformers"].startswith("4.")
    return scores.rows["score"].tolist(), done.stderr


def test_radgraph_scores_are_the_packages_own(tiny: Path):
    flags = ["--weights", str(tiny / "radgraph"), "--bert", str(tiny / "bert")]
    scores, _ = score(tiny, "radgraph", *flags)
    assert scores == json.loads((tiny / "expected.json").read_text())["radgraph"]
    assert scores[2] == 1  # the reference itself
    assert 0 < scores[0] < 1
    assert scores[1] == 0  # an empty report


def test_ratescore_is_the_packages_own_and_an_empty_report_moves_no_other(tiny: Path):
    flags = ["--weights", str(tiny / "rate_ner"), "--encoder", str(tiny / "biolord")]
    scores, log = score(tiny, "ratescore", *flags)
    assert scores == json.loads((tiny / "expected.json").read_text())["ratescore"]
    assert scores[2] == pytest.approx(1)
    assert scores[1] == 0.5
    assert scores[0] not in (0.5, 1)
    assert "cardiomegaly" not in log  # its sentence splitter logs every word otherwise


def test_green_is_the_packages_own(tiny: Path):
    scores, log = score(tiny, "green", "--weights", str(tiny / "green"))
    assert scores == json.loads((tiny / "expected.json").read_text())["green"]
    assert "nltk" not in log  # its package asks for a download when it is imported


def test_green_runs_no_code_of_its_folder(tiny: Path, tmp_path: Path):
    """The published folder may hold a tokenizer's code; the package would run it."""
    folder, ran = shutil.copytree(tiny / "green", tmp_path / "green"), tmp_path / "ran"
    (folder / "tokenization_own.py").write_text(
        f"open({str(ran)!r}, 'w').close()\n"
        "from transformers import PreTrainedTokenizerFast as OwnTokenizer\n"
    )
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["auto_map"] = {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}
    path.write_text(json.dumps({**settings, "tokenizer_class": "PreTrainedTokenizerFast"}))
    scores, _ = score(tiny, "green", "--weights", str(folder))
    assert scores == json.loads((tiny / "expected.json").read_text())["green"]
    assert not ran.exists()


def test_green_refuses_any_other_file_that_asks_for_code(tmp_path: Path):
    """The package loads the files linked into its folder with `trust_remote_code`."""
    folder, plain = tmp_path / "green", tmp_path / "plain"
    folder.mkdir()
    plain.mkdir()
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"auto_map": {"AutoModelForCausalLM": "own.Own"}}))
    with pytest.raises(InputError, match="asks for code"):
        score_green.write_plain_folder(folder, plain)


def test_green_reads_a_sentencepiece_model_as_llamas(tiny: Path, tmp_path: Path):
    """The folder's own tokenizer class is replaced by Llama's, which reads tokenizer.model."""
    folder, plain = shutil.copytree(tiny / "green", tmp_path / "green"), tmp_path / "plain"
    (folder / "tokenizer.json").unlink()
    write_llama_pieces(folder / "tokenizer.model")
    settings = {"tokenizer_class": "ChexAgentTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    settings["auto_map"] = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    score_green.check(folder)
    plain.mkdir()
    score_green.write_plain_folder(folder, plain)
    done = python("-c", PLAIN, str(plain), json.dumps(REFERENCES))
    assert done.returncode == 0, done.stderr
    original = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    tokenised = json.loads(done.stdout.splitlines()[-1])
    assert tokenised == [["LlamaTokenizerFast", original.encode(text)] for text in REFERENCES]
    (folder / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(InputError, match="not a SentencePiece model"):
        score_green.check(folder)


PLAIN = """
import json, sys
from transformers import AutoTokenizer
folder, texts = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=True)
ids = [tokenizer(text, add_special_tokens=False).input_ids for text in json.loads(texts)]
print(json.dumps([[type(tokenizer).__name__, found] for found in ids]))
"""


def write_llama_pieces(path: Path) -> None:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(REFERENCES * 10),
        model_writer=written,
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(written.getvalue())


def test_radgraphs_buffer_of_positions_changes_nothing(tiny: Path, tmp_path: Path):
    """Old versions of transformers saved it with the weights; the package's version refuses it."""
    folder = shutil.copytree(tiny / "radgraph", tmp_path / "radgraph")
    state = torch.load(folder / "weights.th", weights_only=True)
    word = next(key for key in state if key.endswith("embeddings.word_embeddings.weight"))
    buffer = word.replace("word_embeddings.weight", "position_ids")
    torch.save({**state, buffer: torch.arange(512)[None]}, folder / "weights.th")
    scores, _ = score(tiny, "radgraph", "--weights", str(folder), "--bert", str(tiny / "bert"))
    assert scores == json.loads((tiny / "expected.json").read_text())["radgraph"]


def test_greens_answer_is_read_as_matched_over_matched_and_significant_errors(tiny: Path):
    # 3 findings matched, 2 significant errors and an insignificant one: see tiny_scorers.ANSWER.
    assert json.loads((tiny / "expected.json").read_text())["answer"] == [pytest.approx(3 / 5)]


ORIGINAL = """
import json, sys
import nltk
nltk.download = lambda *_, **__: False
import torch
from radeval.metrics._chexbert_base import BaseBertLabeler, BaseCheXbertEvaluator
from transformers import BertConfig, BertModel, BertTokenizer
bert, weights, texts = sys.argv[1:]
state = torch.load(weights, weights_only=True)["model_state_dict"]
state = {key.removeprefix("module."): value for key, value in state.items()}
network = BertModel(BertConfig.from_pretrained(bert))
labeller = BaseBertLabeler(device="cpu", backbone=network, num_4way_heads=13, state_dict=state)
judge = BaseCheXbertEvaluator()
tokenizer = BertTokenizer(bert + "/vocab.txt")
judge.CONDITION_NAMES, judge.NO_FINDING, judge.TOP5 = [str(k) for k in range(13)], "13", []
judge._init_evaluator(model=labeller.eval(), tokenizer=tokenizer, device="cpu", batch_size=2)
modes = ("classification", "rrg")
print(json.dumps([judge.get_labels(json.loads(texts), mode) for mode in modes]))
"""


def test_chexbert_agrees_with_radevals(tiny: Path, tmp_path: Path):
    torch.manual_seed(0)
    config = json.loads((tiny / "bert" / "config.json").read_text())
    network = chexbert.CheXbert({**config, "initializer_range": 0.7})
    for head in network.linear_heads:
        torch.nn.init.normal_(head.weight)
    saved = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"model_state_dict": saved}, tmp_path / "chexbert.pth")
    texts = [*REFERENCES, *GENERATED[:1], "there is  mild\ncardiomegaly", "left right . , heart"]
    done = python(
        "-c", ORIGINAL, str(tiny / "bert"), str(tmp_path / "chexbert.pth"), json.dumps(texts)
    )
    assert done.returncode == 0, done.stderr
    classification, rrg = np.array(json.loads(done.stdout.splitlines()[-1]))
    labeller = chexbert.load(tmp_path / "chexbert.pth", tiny / "bert", torch.device("cpu"))
    classes = labeller.label(texts, 4, "reports")
    assert np.array_equal(chexbert_classes.is_positive(classes, True), rrg == 1)
    assert np.array_equal(chexbert_classes.is_positive(classes, False), classification == 1)
    assert np.array_equal(classes == chexbert_classes.UNCERTAIN, classification == -1)
    assert len(np.unique(classes)) == 4


def test_missing_and_foreign_files_are_named_before_anything_is_loaded(tiny: Path, tmp_path: Path):
    shutil.copytree(tiny / "green", tmp_path / "green")
    config = json.loads((tmp_path / "green" / "config.json").read_text())
    (tmp_path / "green" / "config.json").write_text(json.dumps({**config, "auto_map": {}}))
    with pytest.raises(InputError, match="remote code"):
        score_green.check(tmp_path / "green")
    (tmp_path / "green" / "config.json").write_text(json.dumps(config))
    (tmp_path / "green" / "model.safetensors").write_bytes(b"\x00" * 9)
    with pytest.raises(InputError, match="damaged"):
        score_green.check(tmp_path / "green")
    with pytest.raises(InputError, match="weight file is missing"):
        score_radgraph.check(tmp_path / "nowhere", tiny / "bert")
    shutil.copytree(tiny / "radgraph", tmp_path / "radgraph")
    with pytest.raises(InputError, match="BERT"):
        score_radgraph.check(tmp_path / "radgraph", tmp_path)
    bert = shutil.copytree(tiny / "bert", tmp_path / "bert")
    (bert / "tokenizer_config.json").write_text(json.dumps({"auto_map": {}}))
    with pytest.raises(InputError, match="auto_map"):
        score_radgraph.check(tmp_path / "radgraph", bert)
    with pytest.raises(InputError, match="auto_map"):
        score_ratescore.check(tiny / "rate_ner", bert)
    (tmp_path / "radgraph" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="not the settings"):
        score_radgraph.check(tmp_path / "radgraph", tiny / "bert")
    with pytest.raises(InputError, match="a configuration is missing"):
        score_ratescore.check(tiny / "rate_ner", tmp_path / "nowhere")
    score_ratescore.check(tiny / "rate_ner", tiny / "biolord")
    score_radgraph.check(tiny / "radgraph", tiny / "bert")
    score_green.check(tiny / "green")


def test_radgraph_weights_of_another_size_are_refused(tiny: Path, tmp_path: Path):
    shutil.copytree(tiny / "radgraph", tmp_path / "radgraph")
    path = tmp_path / "radgraph" / "config.json"
    path.write_text(path.read_text().replace('"feature_size": 4', '"feature_size": 5'))
    words = ["-m", "workflow_scripts.downstream.report_generation.metrics.score_radgraph"]
    words += ["--outcomes", str(tiny / "repeat-0.parquet"), "--output", str(tmp_path / "x.parquet")]
    words += ["--progress", str(tmp_path / "p"), "--weights", str(tmp_path / "radgraph")]
    done = python(*words, "--bert", str(tiny / "bert"))
    assert done.returncode == 2
    assert "do not fit" in done.stderr
    assert "size mismatch" in done.stderr


def test_without_the_packages_the_script_says_what_to_install(tiny: Path, tmp_path: Path):
    words = ["-m", "workflow_scripts.downstream.report_generation.metrics.score_green"]
    words += ["--outcomes", str(tiny / "repeat-0.parquet"), "--output", str(tmp_path / "x.parquet")]
    words += ["--progress", str(tmp_path / "p"), "--weights", str(tiny / "green")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert "make reports" in done.stderr
