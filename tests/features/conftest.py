"""Tiny encoders with random weights in the published layouts, and small collections of images."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from workflow_scripts.common.images import ImageItem, write_shard
from workflow_scripts.common.manifest import FINDINGS, write_manifest, write_prompts
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.features.encoders.biovil_t_image import ImageModel
from workflow_scripts.features.encoders.biovil_t_text import OPTIONAL, expected_shapes
from workflow_scripts.features.encoders.reid import SiameseNetwork

torch.set_num_threads(1)

CAPTIONS = (
    "Mild cardiomegaly.",
    "No acute cardiopulmonary process!",
    "Small left pleural effusion, no pneumothorax",
)
WORDS = "mild cardiomegaly no acute cardiopulmonary process small left pleural effusion , . !"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Paths of one tiny checkpoint per encoder."""
    root = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    return SimpleNamespace(
        rad_dino=write_rad_dino(root / "rad-dino"),
        biovil_t_image=write_biovil_t_image(root / "image"),
        biovil_t_text=write_biovil_t_text(root / "text"),
        reid=write_reid(root / "reid"),
    )


def write_rad_dino(folder: Path) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=28,
        patch_size=14,
    )
    Dinov2Model(config).save_pretrained(folder)
    sidecar = {
        "size": {"shortest_edge": 28},
        "crop_size": {"height": 28, "width": 28},
        "resample": 3,
        "image_mean": [0.5307] * 3,
        "image_std": [0.2583] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(sidecar))
    return folder


def write_biovil_t_image(folder: Path) -> Path:
    folder.mkdir()
    network = ImageModel(ResNet((1, 1, 1, 1), 2, 5), width=8, blocks=2, hidden=6, outputs=7)
    torch.nn.init.normal_(network.encoder.missing_previous_emb)
    sidecar = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(sidecar))
    path = folder / "biovil_t_image_model_proj_size_128.pt"
    torch.save(network.state_dict(), path)
    return path


def write_biovil_t_text(folder: Path) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    config = {
        "auto_map": {"AutoModel": "modeling_cxrbert.CXRBertModel"},
        "attention_probs_dropout_prob": 0.25,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.25,
        "hidden_size": 12,
        "intermediate_size": 20,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 16,
        "model_type": "cxr-bert",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "projection_size": 7,
        "type_vocab_size": 2,
        "vocab_size": len(vocabulary),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    state = {
        key: torch.randn(shape) / 3
        for key, shape in expected_shapes(config, folder).items()
        if key not in OPTIONAL
    }
    save_file(state, folder / "model.safetensors")
    return folder


def write_reid(folder: Path) -> Path:
    folder.mkdir()
    network = SiameseNetwork(ResNet((1, 1, 1, 1), 2, 9))
    size = {"size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(size))
    path = folder / "ResNet-50_epoch11_data_handling_RPN.pth"
    torch.save(network.state_dict(), path)
    return path


def picture(seed: int, width: int = 45, height: int = 38) -> Image.Image:
    """Draw a smooth gray image from the seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 7), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Two shards of six and five images."""
    paths = [tmp_path / f"part-0000{i}-of-00002.parquet" for i in range(2)]
    items = [
        ImageItem(
            f"test-{i:03d}",
            f"{i}.png",
            png(picture(i)),
            CAPTIONS[i % 3],
            None if i % 2 else f"radiograph{i}",
        )
        for i in range(11)
    ]
    write_shard(items[:6], paths[0])
    write_shard(items[6:], paths[1])
    return paths


@pytest.fixture
def cohort(tmp_path: Path) -> SimpleNamespace:
    """A manifest of nine images, five of them in the test split, and two prompts."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows = []
    for i in range(9):
        path = folder / f"{i}.png"
        path.write_bytes(png(picture(100 + i, 40 + i, 50)))
        captioned = i % 3 != 1
        rows.append(
            {
                "image_id": f"image{i}",
                "patient_id": f"p{i}",
                "study_id": f"s{i}",
                "path": str(path),
                "view": "PA",
                "site": None,
                "split": "test" if i < 5 else "train",
                "caption": CAPTIONS[i % 3] if captioned else None,
                "caption_source": "impression" if captioned else None,
                "indication": None,
                "report": None,
            }
        )
    frame = pd.DataFrame(rows)
    for name in FINDINGS:
        frame[name] = pd.array([None] * len(frame), dtype="Int8")
    write_manifest(frame, tmp_path / "manifest.parquet")
    chosen = [5, 8, 5]
    prompts = frame.iloc[chosen][["image_id", "caption", *FINDINGS]].copy()
    prompts["caption"] = [CAPTIONS[2]] * 3
    prompts["prompt_id"] = [f"privacy-{i}" for i in range(3)]
    prompts["replicate"], prompts["seed"] = [0, 0, 1], [639, 639, 25]
    prompts["caption_source"], prompts["second_wording"] = "llava_rad", False
    write_prompts(prompts, tmp_path / "privacy.parquet")
    return SimpleNamespace(
        manifest=tmp_path / "manifest.parquet", prompts=tmp_path / "privacy.parquet", images=folder
    )
