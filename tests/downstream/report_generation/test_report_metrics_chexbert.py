"""CheXbert: its layout, its labels of reports, and micro-F1 compared with values by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from transformers import BertConfig, BertModel

from tests.downstream.report_generation.reports_by_hand import write_reports
from workflow_scripts.common.errors import InputError
from workflow_scripts.downstream.report_generation.metrics import (
    chexbert,
    chexbert_classes,
    label_chexbert,
)
from workflow_scripts.downstream.report_generation.metrics.reports import read_scores

WORDS = ["no", "the", "heart", "lungs", "are", "is", "clear", "effusion", "mild"]
WORDS += ["cardiomegaly", ".", ","]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "card", "##io"]
CONFIG = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
    "initializer_range": 0.6,
    "model_type": "bert",
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Random weights in the published layout, and the folder of the BERT."""
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text(json.dumps(CONFIG))
    (bert / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    torch.manual_seed(0)
    state = {f"module.bert.{k}": v for k, v in BertModel(BertConfig(**CONFIG)).state_dict().items()}
    for k in range(14):
        classes = 2 if k == 13 else 4
        state[f"module.linear_heads.{k}.weight"] = torch.randn(classes, 12)
        state[f"module.linear_heads.{k}.bias"] = torch.randn(classes)
    state["module.bert.embeddings.position_ids"] = torch.arange(16)[None]  # of old versions
    torch.save({"epoch": 7, "model_state_dict": state}, tmp_path / "chexbert.pth")
    return tmp_path / "chexbert.pth", bert


def by_hand(state: dict[str, torch.Tensor], ids: list[int]) -> list[int]:
    """Compute BERT and the heads by einsum and softmax, for one report without padding."""
    weights = {key.removeprefix("module."): value for key, value in state.items()}

    def get(name: str) -> torch.Tensor:
        return weights[f"bert.{name}"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * get(f"{name}.weight") + get(f"{name}.bias")

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ get(f"{name}.weight").T + get(f"{name}.bias")

    table = "embeddings"
    x = get(f"{table}.word_embeddings.weight")[ids]
    x = x + get(f"{table}.position_embeddings.weight")[: len(ids)]
    x = norm(x + get(f"{table}.token_type_embeddings.weight")[0], f"{table}.LayerNorm")
    for layer in range(3):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            linear(x, f"{at}.attention.self.{part}").reshape(len(ids), 3, 4)
            for part in ("query", "key", "value")
        )
        seen = (torch.einsum("ihd,jhd->hij", query, key) / 2).softmax(-1)
        mixed = torch.einsum("hij,jhd->ihd", seen, value).reshape(len(ids), 12)
        x = norm(
            x + linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm"
        )
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return [
        int(
            (
                weights[f"linear_heads.{k}.weight"] @ x[0] + weights[f"linear_heads.{k}.bias"]
            ).argmax()
        )
        for k in range(14)
    ]


REPORTS = [
    "The heart  is\nclear.",
    "no effusion",
    "",
    "cardio mild cardiomegaly, lungs are clear .",
]


def test_labels_agree_with_the_network_written_out(files: tuple[Path, Path]):
    labeller = chexbert.load(*files, torch.device("cpu"))
    state = torch.load(files[0], weights_only=True)["model_state_dict"]
    labels = labeller.label(REPORTS, 3, "reports")
    expected = [by_hand(state, labeller.tokens(report)) for report in REPORTS]
    assert labels.tolist() == expected
    assert len({tuple(row) for row in expected}) > 1
    assert labels.tolist() == labeller.label(REPORTS, 1, "reports").tolist()  # padding is masked


def test_a_report_is_read_as_one_line_and_cut_to_the_positions(files: tuple[Path, Path]):
    labeller = chexbert.load(*files, torch.device("cpu"))
    assert labeller.tokens(" no\n\n effusion ") == labeller.tokens("no effusion")
    word = {name: k for k, name in enumerate(VOCABULARY)}
    assert labeller.tokens("Cardio") == [word[t] for t in ("[CLS]", "card", "##io", "[SEP]")]
    assert labeller.tokens("") == [word["[CLS]"], word["[SEP]"]]
    long = labeller.tokens("effusion " * 40)
    assert len(long) == 16
    assert long[-1] == word["[SEP]"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s: s.pop("module.linear_heads.3.bias"), "missing: linear_heads.3.bias"),
        (lambda s: s.update({"module.extra": torch.zeros(1)}), "unexpected: extra"),
        (
            lambda s: s.update({"module.linear_heads.13.weight": torch.zeros(4, 12)}),
            r"linear_heads.13.weight \(4, 12\), not \(2, 12\)",
        ),
    ],
)
def test_keys_that_are_missing_unexpected_or_misshapen_are_named(files, change, fault):
    content = torch.load(files[0], weights_only=True)
    change(content["model_state_dict"])
    torch.save(content, files[0])
    with pytest.raises(InputError, match=fault):
        chexbert.load(*files, torch.device("cpu"))


def test_files_that_are_no_chexbert_are_refused(files: tuple[Path, Path], tmp_path: Path):
    torch.save({"weights": {}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="model_state_dict"):
        chexbert.load(tmp_path / "other.pth", files[1], torch.device("cpu"))
    (tmp_path / "cut.pth").write_bytes(files[0].read_bytes()[:500])
    with pytest.raises(InputError, match="truncated"):
        chexbert.check(tmp_path / "cut.pth", files[1])
    with pytest.raises(InputError, match="weight file is missing"):
        chexbert.check(tmp_path / "none.pth", files[1])
    (files[1] / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(InputError, match="vocabulary"):
        chexbert.check(*files)


def test_the_script_leaves_the_classes_of_both_sides(files: tuple[Path, Path], tmp_path: Path):
    outcomes = write_reports(tmp_path / "repeat-0.parquet", REPORTS[:2], ["", REPORTS[3]])
    output = tmp_path / "chexbert-0.parquet"
    flags = {"outcomes": outcomes, "output": output, "weights": files[0], "bert": files[1]}
    label_chexbert.main([w for name, path in flags.items() for w in (f"--{name}", str(path))])
    scores = read_scores(output)
    labeller = chexbert.load(*files, torch.device("cpu"))
    for side, texts in (("reference", REPORTS[:2]), ("generated", ["", REPORTS[3]])):
        columns = [f"{side}_{name}" for name in chexbert_classes.HEADS]
        assert scores.rows[columns].to_numpy().tolist() == labeller.label(texts, 2, "").tolist()
    assert len(scores.run["weights_sha256"]) == 64


def test_uncertain_is_absent_or_present_as_the_convention_says():
    classes = np.array([[0, 1, 2, 3]])
    assert chexbert_classes.is_positive(classes, False).tolist() == [[False, True, False, False]]
    assert chexbert_classes.is_positive(classes, True).tolist() == [[False, True, False, True]]


def test_micro_f1_of_two_reports_by_hand():
    reference = np.array([[1, 1, 0, 0], [0, 1, 0, 0]], bool)
    generated = np.array([[1, 0, 1, 0], [0, 1, 1, 0]], bool)
    counts = chexbert_classes.agreement(reference, generated)
    assert counts.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert chexbert_classes.micro_f1(counts.sum(axis=0)) == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert np.isnan(chexbert_classes.micro_f1(np.zeros(3)))


def test_micro_f1_agrees_with_scikit_learn_on_random_labels():
    rng = np.random.default_rng(0)
    reference, generated = rng.random((2, 40, 14)) < 0.3
    counts = chexbert_classes.agreement(reference, generated)
    expected = f1_score(reference, generated, average="micro")
    assert chexbert_classes.micro_f1(counts.sum(axis=0)) == pytest.approx(expected, abs=1e-12)


def test_the_heads_stand_in_the_order_of_the_published_weights():
    assert chexbert_classes.HEADS == (
        "Enlarged Cardiomediastinum",
        "Cardiomegaly",
        "Lung Opacity",
        "Lung Lesion",
        "Edema",
        "Consolidation",
        "Pneumonia",
        "Atelectasis",
        "Pneumothorax",
        "Pleural Effusion",
        "Pleural Other",
        "Fracture",
        "Support Devices",
        "No Finding",
    )
    five = {"Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"}
    assert set(chexbert_classes.FIVE) == five


def test_wrong_keys_are_found_before_anything_is_loaded(files, monkeypatch):
    """Preflight builds the network on the meta device; loading in a job gives the same message."""
    weights, bert = files
    chexbert.check(weights, bert)
    content = torch.load(weights, weights_only=True)
    content["model_state_dict"].pop("module.linear_heads.3.bias")
    content["model_state_dict"]["module.bert.encoder.layer.2.output.dense.bias"] = torch.zeros(3)
    torch.save(content, weights)
    messages = []
    for find in (chexbert.check, lambda *paths: chexbert.load(*paths, torch.device("cpu"))):
        with pytest.raises(InputError, match=r"1 missing: linear_heads\.3\.bias") as caught:
            find(weights, bert)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert (
        "1 of another shape: bert.encoder.layer.2.output.dense.bias (3,), not (12,)" in messages[0]
    )
    torch.save(content["model_state_dict"], weights)
    with pytest.raises(InputError, match="no `model_state_dict`"):
        chexbert.check(weights, bert)
