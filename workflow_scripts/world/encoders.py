"""The embedded world's encoders: tiny networks in the published layouts, trained for seconds.

They have the files, keys and loading code of the published checkpoints, but small widths, depths
and image sizes (given in the `preprocessor_config.json` beside the weights). They learn just enough
that every metric behaves as it should. RAD-DINO's stand-in recognises findings, blur and noise.
BioViL-T's aligns radiographs and captions by their findings. The re-identification network
distinguishes patients. The classifier's initial weights were trained on radiographs without labels.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.common.resnet import ResNet
from workflow_scripts.features.encoders import biovil_t_image, biovil_t_text, rad_dino, reid
from workflow_scripts.features.encoders.transform import (
    SIDECAR,
    ImageTransform,
    read_transform,
)
from workflow_scripts.world.training import jitter, rarity, reproducible, training

log = logging.getLogger(__name__)

RAD_DINO: Final = "rad-dino"
BIOVIL_T: Final = "biovil-t"
BIOVIL_T_IMAGE: Final = "biovil-t/biovil_t_image_model_proj_size_128.pt"
REID: Final = "reid/ResNet-50_epoch11_data_handling_RPN.pth"
RESNET: Final = "resnet50.a1_in1k/model.safetensors"
"""Paths of the checkpoints below the folder of weights."""

_SIDE: Final = 64
_WIDTH: Final = 8
_DEPTHS: Final = (1, 1, 1, 1)
_TEXT_WIDTH: Final = 48


def write_encoder_checkpoints(
    images: NDArray[np.uint8],
    captions: list[str],
    findings: NDArray[np.int8],
    patients: list[str],
    out_dir: Path,
    seed: int,
    effort: float = 1.0,
) -> None:
    """Train and write all encoders; deterministic for a seed.

    Args:
        images: radiographs, uint8 (n, side, side).
        captions: one per image.
        findings: (n, 14); 1 is positive, all other values are not.
        patients: one id per image; some patients must have several images.
        out_dir: folder for `rad-dino/`, `biovil-t/`, `reid/` and `resnet50.a1_in1k/`.
        seed: seed of initialisation and training.
        effort: factor of the training steps.
    """
    positive = torch.from_numpy((np.asarray(findings) == 1).astype(np.float32))
    parts: dict[str, Callable[[], None]] = {
        RAD_DINO: lambda: _write_rad_dino(images, positive, out_dir, effort),
        BIOVIL_T: lambda: _write_biovil_t(images, captions, positive, out_dir, effort),
        REID: lambda: _write_reid(images, patients, out_dir, effort),
        RESNET: lambda: _write_resnet(images, out_dir, effort),
    }
    with reproducible():
        for i, (name, write) in enumerate(parts.items()):
            start = time.monotonic()
            torch.manual_seed(seed * len(parts) + i)
            write()
            log.info("%s: %.0f s", out_dir / name, time.monotonic() - start)


# RAD-DINO


def _write_rad_dino(
    images: NDArray[np.uint8], positive: Tensor, out_dir: Path, effort: float
) -> None:
    """Train a small Dinov2 to recognise findings, shapes, and the degradation of an image."""
    from transformers import Dinov2Config, Dinov2Model

    folder = out_dir / RAD_DINO
    folder.mkdir(parents=True, exist_ok=True)
    transform = _write_sidecar(
        folder,
        rad_dino.PUBLISHED,
        {"size": {"shortest_edge": _SIDE}, "crop_size": {"height": _SIDE, "width": _SIDE}},
    )
    inputs = _inputs(images, transform)
    network = Dinov2Model(
        Dinov2Config(
            hidden_size=_TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=3,
            mlp_ratio=2,
            image_size=_SIDE,
            patch_size=8,
        )
    )
    head = nn.Linear(_TEXT_WIDTH, positive.shape[1] + 2 + 64)
    coarse = functional.adaptive_avg_pool2d(inputs[:, :1], 8).flatten(1)
    coarse = (coarse - coarse.mean(0)) / coarse.std(0)
    weight = rarity(positive)
    for batch in training([network, head], 180, effort, len(inputs), 4e-3):
        degraded, degree = _degrade(inputs[batch])
        output = head(network(pixel_values=degraded).pooler_output)
        how, what, shape = output[:, :2], output[:, 2:-64], output[:, -64:]
        is_clean = (degree == 0).all(1, keepdim=True).float()
        loss = functional.binary_cross_entropy_with_logits(
            what, positive[batch], weight=is_clean, pos_weight=weight
        )
        loss = loss + 4 * functional.mse_loss(how, degree)
        (loss + functional.mse_loss(shape, coarse[batch])).backward()
    network.eval().save_pretrained(folder)


# BioViL-T


def _write_biovil_t(
    images: NDArray[np.uint8], captions: list[str], positive: Tensor, out_dir: Path, effort: float
) -> None:
    """Train both towers such that images and captions with the same findings are close."""
    from safetensors.torch import save_file

    folder = out_dir / BIOVIL_T
    folder.mkdir(parents=True, exist_ok=True)
    config = _write_text_files(folder, captions)
    tokenizer = biovil_t_text.load_tokenizer(folder)
    text = biovil_t_text.TextModel(config)
    text_encoder = biovil_t_text.BioVilTText(text, tokenizer, torch.device("cpu"))
    tokens = [text_encoder.prepare(caption) for caption in captions]

    crop = {"height": _SIDE, "width": _SIDE}
    transform = _write_sidecar(
        folder,
        biovil_t_image.PUBLISHED,
        {"size": {"shortest_edge": _SIDE * 8 // 7}, "crop_size": crop},
    )
    inputs = _inputs(images, transform)[:, :1]
    image = biovil_t_image.ImageModel(ResNet(_DEPTHS, _WIDTH, 1000), width=32, blocks=3)

    # One linear layer predicts the findings from either embedding, which aligns the two spaces.
    findings = nn.Linear(128, positive.shape[1])
    temperature = 0.1
    weight = rarity(positive)
    for batch in training([text, image, findings], 180, effort, len(inputs), 3e-3):
        seen = jitter(inputs[batch], 0.0, 1.0).expand(-1, 3, -1, -1)
        a = image(seen)
        b = text(*_padded([tokens[int(i)] for i in batch], tokenizer.pad_token_id))
        labels = positive[batch]
        shared = labels @ labels.T
        union = labels.sum(1)[:, None] + labels.sum(1)[None] - shared
        alike = torch.where(union > 0, shared / union.clamp(min=1), torch.ones(()))
        target = torch.softmax(alike / 0.15, dim=1)
        logits = a @ b.T / temperature
        loss = functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
        for embedding in (a, b):
            loss = loss + functional.binary_cross_entropy_with_logits(
                findings(embedding / temperature), labels, pos_weight=weight
            )
        loss.backward()
    torch.save(_state(image), out_dir / BIOVIL_T_IMAGE)
    save_file(_text_state(text, config), folder / "model.safetensors", {"format": "pt"})


def _write_text_files(folder: Path, captions: Sequence[str]) -> dict[str, Any]:
    """Write vocab.txt, tokenizer_config.json and config.json in CXR-BERT's layout."""
    words = {word for caption in captions for word in _words(caption.lower())}
    letters = sorted({letter for word in words for letter in word} | set("0123456789.,:;-/()"))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    vocabulary += [f"##{letter}" for letter in letters if letter.isalnum()]
    vocabulary += sorted(word for word in words if len(word) > 1)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = {
        "architectures": ["CXRBertModel"],
        "attention_probs_dropout_prob": 0.1,
        "auto_map": {
            "AutoConfig": "configuration_cxrbert.CXRBertConfig",
            "AutoModel": "modeling_cxrbert.CXRBertModel",
        },
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": _TEXT_WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": 2 * _TEXT_WIDTH,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "cxr-bert",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "projection_size": 128,
        "type_vocab_size": 2,
        "vocab_size": len(vocabulary),
    }
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "tokenizer_config.json",
        {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"},
    )
    return config


def _text_state(text: biovil_t_text.TextModel, config: dict[str, Any]) -> dict[str, Tensor]:
    """Return the text tower's weights and, untrained, those of masked-language modelling."""
    state = _state(text)
    for key, shape in biovil_t_text.expected_shapes(config, Path("config.json")).items():
        if key not in state and key not in biovil_t_text.OPTIONAL:
            state[key] = torch.zeros(shape) if key.endswith("bias") else 0.02 * torch.randn(shape)
    return state


def _padded(rows: Sequence[Tensor], padding: int) -> tuple[Tensor, Tensor]:
    ids = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=padding)
    return ids, (ids != padding).long()


def _words(text: str) -> list[str]:
    spaced = "".join(letter if letter.isalnum() else f" {letter} " for letter in text)
    return spaced.split()


# Re-identification


def _write_reid(
    images: NDArray[np.uint8], patients: Sequence[str], out_dir: Path, effort: float
) -> None:
    """Train a Siamese network on all pairs of each batch, half of a batch from shared patients."""
    path = out_dir / REID
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"size": {"height": _SIDE, "width": _SIDE}}
    inputs = _inputs(images, _write_sidecar(path.parent, reid.PUBLISHED, size))[:, 1:2]
    # The images are gray, so the three normalised channels are linear functions of one another.
    mean, std = (np.array(v, np.float32) for v in (reid.PUBLISHED.mean, reid.PUBLISHED.std))
    slope = torch.from_numpy(std[1] / std)[None, :, None, None]
    offset = torch.from_numpy((mean[1] - mean) / std)[None, :, None, None]

    network = reid.SiameseNetwork(ResNet(_DEPTHS, _WIDTH, 128))
    nn.init.constant_(network.fc_end.bias, 5.0)
    nn.init.constant_(network.fc_end.weight, -0.5)
    by_patient: dict[str, list[int]] = {}
    for i, patient in enumerate(patients):
        by_patient.setdefault(patient, []).append(i)
    groups = list(by_patient.values())
    for chosen in training([network], 300, effort, len(groups), 3e-3, 32):
        pairs = [groups[int(g)] for g in chosen]
        first, second = [], []
        for group in pairs:
            order = torch.randperm(len(group)).tolist()
            first.append(group[order[0]])
            second.append(group[order[-1]])
        x = jitter(inputs[first + second], 0.15, 2.0) * slope + offset
        features = network.branch(x)
        logits = network.fc_end((features[:, None] - features[None]).abs())[..., 0]
        owner = torch.cat([chosen, chosen])
        same = (owner[:, None] == owner[None]).float()
        losses = functional.binary_cross_entropy_with_logits(logits, same, reduction="none")
        # Negatives count double, because mistaking two patients for one is the worse error.
        loss = (losses * same).sum() / same.sum()
        loss = loss + 2 * (losses * (1 - same)).sum() / (1 - same).sum()
        loss.backward()
    torch.save(_state(network), path)


# The classifier's initialisation


def _write_resnet(images: NDArray[np.uint8], out_dir: Path, effort: float) -> None:
    """Train to predict an image's rotation, one of four (Gidaris et al., 2018), without labels."""
    from safetensors.torch import save_file

    path = out_dir / RESNET
    path.parent.mkdir(parents=True, exist_ok=True)
    inputs = _inputs(images, replace(reid.PUBLISHED, size=(_SIDE, _SIDE)))
    network = ResNet(_DEPTHS, _WIDTH, 1000)
    for batch in training([network], 60, effort, len(inputs), 2e-3):
        turn = torch.randint(4, (len(batch),))
        turned = torch.stack(
            [torch.rot90(inputs[int(i)], int(k), (1, 2)) for i, k in zip(batch, turn, strict=True)]
        )
        functional.cross_entropy(network(turned), turn).backward()
    save_file(_state(network), path)


# Shared


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in module.state_dict().items()}


def _degrade(x: Tensor) -> tuple[Tensor, Tensor]:
    """Change the contrast of all images a little; blur a third, add noise to another third.

    Returns:
        The images, and the strength of blur and noise of each, (n, 2), in [0, 1]. Contrast does
        not count as degradation, because real exposures differ in it.
    """
    n = len(x)
    kind, amount = torch.randint(3, (n,)), torch.rand(n)
    degree = torch.zeros(n, 2)
    x = x * (1 + 0.15 * (2 * torch.rand(n, 1, 1, 1) - 1)) + 0.15 * torch.randn(n, 1, 1, 1)
    for i in range(n):
        share = float(amount[i])
        if kind[i] == 0:
            x[i] = blurred(x[i : i + 1], 0.4 + 3 * share)[0]
            degree[i, 0] = 0.3 + 0.7 * share
        elif kind[i] == 1:
            x[i] = (1 - share) * x[i] + (0.1 + 1.2 * share) * torch.randn_like(x[i, :1])
            degree[i, 1] = 0.3 + 0.7 * share
    return x, degree


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Blur images (n, c, h, w) by a Gaussian of `sigma` pixels."""
    reach = max(1, math.ceil(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    line = line / line.sum()
    n, c, h, w = x.shape
    flat = functional.pad(x.reshape(n * c, 1, h, w), [reach] * 4, mode="replicate")
    flat = functional.conv2d(
        functional.conv2d(flat, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1)
    )
    return flat.view(n, c, h, w)


def _inputs(images: NDArray[np.uint8], transform: ImageTransform) -> Tensor:
    """Preprocess gray images like the encoder, float32 (n, 3, h, w)."""
    return torch.stack([transform(Image.fromarray(image).convert("RGB")) for image in images])


def _write_sidecar(
    folder: Path, published: ImageTransform, sizes: dict[str, Any]
) -> ImageTransform:
    """Write the preprocessor_config.json of a smaller network; return its transform."""
    config: dict[str, Any] = {
        "do_center_crop": published.crop is not None,
        "do_convert_rgb": True,
        "do_normalize": any(published.mean),
        "do_rescale": True,
        "do_resize": True,
        "image_processor_type": "BitImageProcessor",
        "resample": int(published.resample),
        "rescale_factor": published.scale,
        **sizes,
    }
    if any(published.mean):
        config |= {"image_mean": list(published.mean), "image_std": list(published.std)}
    _write_json(folder / SIDECAR, config)
    return read_transform(folder / SIDECAR, published)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
