"""Make tiny random RadGraph, GREEN and RaTEScore in their published layouts, and their scores.

    PYTHONPATH=.venv/reports python tests/downstream/report_generation/tiny_scorers.py FOLDER

writes FOLDER/{bert,radgraph,green,rate_ner,biolord}/ and, for the pairs in FOLDER/reports.json,
FOLDER/expected.json: the packages' own scores, each called as in its documentation.
"""

import json
import sys
from pathlib import Path

import torch

WORDS = (
    "no the heart lungs are clear effusion pneumothorax mild cardiomegaly is there of left right"
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), *".,[]:()"]
VOCABULARY += [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.5,
}
TYPES = ("ABNORMALITY", "NON-ABNORMALITY", "DISEASE", "NON-DISEASE", "ANATOMY")

ANSWER = """[Explanation]:
The candidate misses the effusion.

[Clinically Significant Errors]:
(b) Missing a finding present in the reference: 1. effusion
(d) Misassessment of the severity of a finding: 1. cardiomegaly

[Clinically Insignificant Errors]:
(e) Mentioning a comparison that isn't in the reference: 1. stable

[Matched Findings]:
3. heart; lungs; bones
"""


def write_berts(root: Path) -> None:
    from transformers import BertConfig, BertForTokenClassification, BertModel

    labels = ["O", *(f"{place}-{kind}" for kind in TYPES for place in "BI")]
    entities = BertConfig(**SIZES, id2label=dict(enumerate(labels)), num_labels=len(labels))
    torch.manual_seed(0)
    tagger = BertForTokenClassification(entities)
    inside = [label.startswith("I-") for label in labels]
    # An entity of one piece begins and goes on nowhere: random labels would rarely make any.
    tagger.classifier.bias.data[torch.tensor(inside)] = -100
    for name, network in (
        ("bert", BertModel(BertConfig(**SIZES))),
        ("rate_ner", tagger),
        ("biolord", BertModel(BertConfig(**SIZES))),
    ):
        network.save_pretrained(root / name)
        (root / name / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
        settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer"}
        (root / name / "tokenizer_config.json").write_text(json.dumps(settings))


def write_green(root: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.model = models.BPE(
        vocab={token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *letters])},
        merges=[],
        unk_token="<unk>",
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(root / "green")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(config).save_pretrained(root / "green")


def write_radgraph(root: Path) -> None:
    """Write the files of the unpacked archive; its settings name the BERT by its hub name."""
    folder = root / "radgraph"
    (folder / "vocabulary").mkdir(parents=True)
    bert = {"type": "pretrained_transformer_mismatched", "max_length": 512, "model_name": "hub/x"}
    settings = {
        "dataset_reader": {
            "type": "dygie",
            "max_span_width": 3,
            "token_indexers": {"bert": dict(bert)},
        },
        "model": {
            "type": "dygie",
            "embedder": {"token_embedders": {"bert": dict(bert)}},
            "initializer": {},
            "module_initializer": {},
            "feature_size": 4,
            "max_span_width": 3,
            "target_task": "relation",
            "feedforward_params": {"num_layers": 1, "hidden_dims": 8, "dropout": 0.4},
            "loss_weights": {"ner": 0.2, "relation": 1.0, "coref": 0.0, "events": 0.0},
            "modules": {
                "coref": {"spans_per_word": 0.3, "max_antecedents": 10, "coref_prop": 0},
                "ner": {},
                "relation": {"spans_per_word": 0.5},
                "events": {
                    "trigger_spans_per_word": 0.3,
                    "argument_spans_per_word": 0.8,
                    "loss_weights": {"trigger": 0.2, "arguments": 1.0},
                },
            },
        },
    }
    (folder / "config.json").write_text(json.dumps(settings))
    for name, labels in (
        ("radgraph__ner_labels", ["", "ANAT-DP", "OBS-DP", "OBS-U", "OBS-DA"]),
        ("radgraph__relation_labels", ["", "located_at", "suggestive_of", "modify"]),
        ("non_padded_namespaces", ["*labels", "*tags"]),
    ):
        (folder / "vocabulary" / f"{name}.txt").write_text("\n".join(labels) + "\n")
    import radgraph.radgraph as package

    # The package builds the network, which keeps its random weights; they are saved from there.
    (folder / "weights.th").touch()
    load, fill = package.torch.load, package.dygie.DyGIE.load_state_dict
    package.torch.load = lambda *_, **__: {}
    package.dygie.DyGIE.load_state_dict = lambda *_, **__: None
    network = _radgraph(root, package.RadGraph).model
    package.torch.load, package.dygie.DyGIE.load_state_dict = load, fill
    torch.save(network.state_dict(), folder / "weights.th")


def _radgraph(root: Path, kind, **settings):
    """Build a class of the package on files whose settings name the local BERT."""
    cache = root / "cache" / "radgraph"
    if not cache.exists():
        cache.mkdir(parents=True)
        text = (root / "radgraph" / "config.json").read_text()
        (cache / "config.json").write_text(text.replace("hub/x", str(root / "bert")))
        for name in ("vocabulary", "weights.th"):
            (cache / name).symlink_to(root / "radgraph" / name)
    return kind(model_type="radgraph", model_cache_dir=str(cache.parent), cuda=-1, **settings)


def expected(root: Path) -> dict[str, list[float]]:
    references, generated = json.loads((root / "reports.json").read_text())
    import nltk

    nltk.download = lambda *_, **__: False
    from radeval.metrics.green_score.green import GREEN
    from radgraph import F1RadGraph
    from RaTEScore import RaTEScore

    scores_of = {}
    with torch.inference_mode():
        scorer = _radgraph(root, F1RadGraph, reward_level="partial")
        scores_of["radgraph"] = scorer(refs=references, hyps=generated)[1]
    judge = GREEN(model_name=str(root / "green"), cpu=True, num_gpus=1)
    scores_of["green"] = judge(references, generated)[2]
    scores_of["answer"] = [judge.compute_green(ANSWER)]
    spoken = [k for k, text in enumerate(generated) if text]
    rate = RaTEScore(str(root / "rate_ner"), str(root / "biolord"), use_gpu=False)
    scores = rate.compute_score([generated[k] for k in spoken], [references[k] for k in spoken])
    scores_of["ratescore"] = [0.5] * len(generated)
    for k, score in zip(spoken, scores, strict=True):
        scores_of["ratescore"][k] = score
    return {name: [float(score) for score in scores] for name, scores in scores_of.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1]).resolve()
    write_berts(where)
    write_green(where)
    write_radgraph(where)
    (where / "expected.json").write_text(json.dumps(expected(where)))
