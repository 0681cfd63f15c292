"""The embedded world's CheXbert: a tiny BERT in the published layout that reads its captions.

It learns from captions that are drawn for this purpose, in which rare, uncertain and denied
findings are as frequent as the others. They do not include captions of the world's radiographs.
"""

import json
import logging
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.downstream.report_generation.metrics.chexbert import CheXbert, Labeller
from workflow_scripts.downstream.report_generation.metrics.chexbert_classes import (
    BLANK,
    HEADS,
    NEGATIVE,
    POSITIVE,
    UNCERTAIN,
)
from workflow_scripts.features.encoders.biovil_t_text import load_tokenizer
from workflow_scripts.world.captions import describe, marked
from workflow_scripts.world.findings import draw_finding
from workflow_scripts.world.training import reproducible

log = logging.getLogger(__name__)

CHEXBERT: Final = "chexbert/chexbert.pth"
BERT: Final = "chexbert/bert"
"""Paths of the checkpoint and of its BERT's folder below the folder of weights."""

_CAPTIONS: Final = 3000
_STEPS: Final = 320
_BATCH: Final = 48
_WIDTH: Final = 48
_CLASSES: Final = {1: POSITIVE, 0: NEGATIVE, -1: UNCERTAIN, None: BLANK}
_DENIABLE: Final = ("Consolidation", "Edema", "Pleural Effusion", "Pneumonia", "Pneumothorax")


def write_chexbert(out: Path, seed: int, steps: int = _STEPS) -> None:
    """Train and write the network on one thread; deterministic for a seed.

    Args:
        out: folder of weights; gets `chexbert/`.
        seed: seed of captions, initialisation and training.
        steps: number of training steps.
    """
    start = time.monotonic()
    with reproducible():
        torch.manual_seed(seed)
        captions, classes = draw_captions(_CAPTIONS, seed)
        bert = out / BERT
        bert.mkdir(parents=True)
        config = _write_bert(bert, captions)
        network = CheXbert(config)
        _train(
            Labeller(network, load_tokenizer(bert), torch.device("cpu")), captions, classes, steps
        )
        # Like the original: saved from a data-parallel module, with further contents from training.
        saved = {f"module.{key}": value for key, value in network.state_dict().items()}
        torch.save({"epoch": 1, "model_state_dict": saved}, out / CHEXBERT)
    log.info("%s: %.0f s", out / CHEXBERT, time.monotonic() - start)


def draw_captions(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Return captions and CheXbert's class of each finding in them, int64 (n, 14)."""
    rng = np.random.default_rng([seed, 60])
    captions, classes = [], np.zeros((n, len(HEADS)), dtype=np.int64)
    drawable = [name for name in FINDINGS if name != "No Finding"]
    for number, row in enumerate(classes):
        some = rng.random(len(drawable)) < rng.choice([0.02, 0.15, 0.3])
        labels: dict[str, int | None] = {}
        drawn = []
        for name in np.array(drawable)[some].tolist():
            certain = name == "Support Devices" or rng.random() < 0.7
            drawn.append(draw_finding(name, int(rng.integers(2**31)), certain))
            labels[name] = 1 if certain else -1
        absent = [n for n in _DENIABLE if n not in labels and rng.random() < 0.35]
        labels |= dict.fromkeys(absent, 0)
        if not set(labels) - {"Support Devices", *absent}:
            labels["No Finding"] = 1
        view = str(rng.choice(["AP", "PA"]))
        caption = describe(drawn, view, int(rng.integers(2**31)), absent)
        captions.append(caption if number % 3 else marked(caption, number))
        row[:] = [_CLASSES[labels.get(name)] for name in HEADS]
    return captions, classes


def _train(labeller: Labeller, captions: list[str], classes: np.ndarray, steps: int) -> None:
    network = labeller.network.train()
    rows = [torch.tensor(labeller.tokens(caption)) for caption in captions]
    targets = torch.from_numpy(classes)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(rows), (_BATCH,)).tolist()
        ids = torch.nn.utils.rnn.pad_sequence([rows[k] for k in batch], batch_first=True)
        logits = network(ids, (ids != 0).long())
        losses = [
            functional.cross_entropy(logit, targets[batch, k]) for k, logit in enumerate(logits)
        ]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    network.eval()


def _write_bert(folder: Path, captions: list[str]) -> dict[str, Any]:
    """Write config.json, vocab.txt and tokenizer_config.json as bert-base-uncased has them."""
    words = sorted({word for caption in captions for word in _words(caption.lower())})
    letters = sorted({letter for word in words for letter in word} | set("0123456789.,:;-/()"))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    vocabulary += [f"##{letter}" for letter in letters if letter.isalnum()]
    vocabulary += [word for word in words if len(word) > 1]
    config = {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": len(vocabulary),
    }
    texts = {
        "vocab.txt": "\n".join(vocabulary) + "\n",
        "config.json": json.dumps(config, indent=2, sort_keys=True) + "\n",
        "tokenizer_config.json": json.dumps({"do_lower_case": True}) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return config


def _words(text: str) -> list[str]:
    spaced = "".join(letter if letter.isalnum() else f" {letter} " for letter in text)
    return spaced.split()
