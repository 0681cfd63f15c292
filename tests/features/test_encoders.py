"""The encoders against independent constructions, and faulty weights."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.checkpoints import safetensors_shapes
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.features.encoders import (
    biovil_t_image,
    biovil_t_text,
    check_encoder,
    encoder_module,
    load_encoder,
    rad_dino,
    reid,
    weights_sha256,
)
from workflow_scripts.features.pair_scores import pair_scores

TINY = ("rad_dino", "biovil_t_image", "biovil_t_text", "reid")
"""The encoders for which the world has tiny weights."""

CPU = torch.device("cpu")

CAPTIONS = (
    "Mild cardiomegaly.",
    "No acute cardiopulmonary process!",
    "Small left pleural effusion, no pneumothorax",
)


def picture(seed: int, width: int = 45, height: int = 38) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 7), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def loaded(weights: SimpleNamespace, name: str, protocol: str = "sound", purpose: str = "fidelity"):
    return load_encoder(name, getattr(weights, name), CPU, deviations(protocol), purpose)


def sources(encoder) -> list:
    if encoder.reads == "caption":
        return list(CAPTIONS) * 3
    return [picture(i).convert("RGB") for i in range(9)]


# Published layouts


def test_image_layout_has_the_372_published_keys():
    with torch.device("meta"):
        state = biovil_t_image.ImageModel(ResNet()).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert len(shapes) == 372
    expected = {
        "encoder.missing_previous_emb": (1, 256, 1, 1),
        "encoder.encoder.conv1.weight": (64, 3, 7, 7),
        "encoder.encoder.fc.weight": (1000, 2048),
        "encoder.encoder.layer4.2.conv3.weight": (2048, 512, 1, 1),
        "encoder.backbone_to_vit.weight": (256, 2048, 1, 1),
        "encoder.vit_pooler.type_embed": (2, 1, 256),
        "encoder.vit_pooler.blocks.2.attn.proj_q.weight": (256, 256),
        "encoder.vit_pooler.blocks.2.attn.proj.bias": (256,),
        "encoder.vit_pooler.blocks.0.mlp.fc1.weight": (256, 256),
        "encoder.vit_pooler.norm_post.weight": (256,),
        "projector.model.0.weight": (128, 512, 1, 1),
        "projector.model.1.running_mean": (128,),
        "projector.model.3.weight": (128, 128, 1, 1),
        "projector.model.3.bias": (128,),
    }
    assert {key: shapes.get(key) for key in expected} == expected
    assert "encoder.vit_pooler.blocks.0.attn.proj_q.bias" not in shapes
    assert "projector.model.0.bias" not in shapes


def test_reid_layout_has_the_322_published_keys():
    with torch.device("meta"):
        state = reid.SiameseNetwork(ResNet(outputs=128)).state_dict()
    assert len(state) == 322
    assert state["model.fc.weight"].shape == (128, 2048)
    assert state["fc_end.weight"].shape == (1, 128)
    assert {key.split(".")[0] for key in state} == {"model", "fc_end"}


def test_rad_dino_layout_is_what_transformers_writes(weights: SimpleNamespace):
    config = json.loads((weights.rad_dino / "config.json").read_text())
    on_disk = safetensors_shapes(weights.rad_dino / "model.safetensors")
    assert rad_dino.expected_shapes(config, Path()) == on_disk
    full = {"hidden_size": 768, "image_size": 518, "patch_size": 14, "num_hidden_layers": 12}
    shapes = rad_dino.expected_shapes(full, Path())
    assert len(shapes) == 223
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == pytest.approx(86.58e6, rel=1e-3)


def test_text_layout_is_what_transformers_writes(weights: SimpleNamespace, tmp_path: Path):
    from transformers import BertConfig, BertForMaskedLM

    config = json.loads((weights.biovil_t_text / "config.json").read_text())
    known = {k: v for k, v in config.items() if k not in ("auto_map", "model_type")}
    BertForMaskedLM(BertConfig(**known)).save_pretrained(tmp_path)
    on_disk = safetensors_shapes(tmp_path / "model.safetensors")
    ours = biovil_t_text.expected_shapes(config, Path())
    heads = {key for key in ours if key.startswith("cls_projection_head.")}
    assert len(heads) == 6
    assert {
        k: v for k, v in ours.items() if k not in heads | set(biovil_t_text.OPTIONAL)
    } == on_disk


# Equality with independent constructions


def test_rad_dino_is_the_class_token_of_transformers(weights: SimpleNamespace):
    from transformers import BitImageProcessorPil, Dinov2Model

    encoder = loaded(weights, "rad_dino")
    images = sources(encoder)
    model = Dinov2Model.from_pretrained(weights.rad_dino, local_files_only=True).eval()
    processor = BitImageProcessorPil.from_pretrained(weights.rad_dino, local_files_only=True)
    with torch.no_grad():
        output = model(**processor(images=images, return_tensors="pt"))
    got = encoder.encode([encoder.prepare(image) for image in images])
    assert got.dtype == np.float32
    assert got.shape == (9, encoder.dimension) == (9, 16)
    assert np.allclose(got, output.last_hidden_state[:, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("protocol", ["sound", "as_published"])
@pytest.mark.parametrize("name", [name for name in TINY if name != "biovil_t_text"])
def test_a_gray_image_is_the_same_with_one_channel_and_with_three(
    weights: SimpleNamespace, name: str, protocol: str
):
    encoder = loaded(weights, name, protocol)
    rng = np.random.default_rng(1)
    grays = [
        Image.fromarray(rng.integers(low, high, (h, w), np.uint8))
        for low, high, h, w in (
            (0, 256, 61, 47),
            (3, 200, 30, 90),
            (0, 256, 64, 64),
            (9, 10, 50, 50),
        )
    ]
    one = [encoder.prepare(gray) for gray in grays]
    three = [encoder.prepare(gray.convert("RGB")) for gray in grays]
    for left, right in zip(one, three, strict=True):
        assert torch.equal(left, right)
    assert np.array_equal(encoder.encode(one), encoder.encode(three))


@pytest.mark.parametrize("name", TINY)
def test_features_do_not_depend_on_the_batch(weights: SimpleNamespace, name: str):
    encoder = loaded(weights, name)
    inputs = [encoder.prepare(source) for source in sources(encoder)]
    whole = encoder.encode(inputs)
    apart = np.concatenate([encoder.encode([row]) for row in inputs])
    assert np.abs(whole - apart).max() < 1e-5
    assert whole.std(axis=0).max() > 1e-4  # they do depend on the input


def test_image_embedding_by_hand(weights: SimpleNamespace):
    """Embed a single image by functional calls on the raw tensors."""
    encoder = loaded(weights, "biovil_t_image")
    state = torch.load(weights.biovil_t_image, weights_only=True)
    backbone = ResNet((1, 1, 1, 1), 2, 5).eval()
    prefix = "encoder.encoder."
    backbone.load_state_dict(
        {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    )
    x = torch.stack([encoder.prepare(source) for source in sources(encoder)])
    with torch.no_grad():
        patches = functional.conv2d(backbone.features(x), state["encoder.backbone_to_vit.weight"])
        n, _, h, w = patches.shape
        missing = state["encoder.missing_previous_emb"].repeat(n, 1, h, w)
        y = functional.conv2d(torch.cat([patches, missing], 1), state["projector.model.0.weight"])
        names = ("running_mean", "running_var", "weight", "bias")
        y = functional.batch_norm(y, *(state[f"projector.model.1.{name}"] for name in names))
        y = functional.conv2d(
            functional.relu(y), state["projector.model.3.weight"], state["projector.model.3.bias"]
        )
        y = y.mean((2, 3))
        want = y / y.norm(dim=1, keepdim=True)
    got = encoder.encode(list(x))
    assert np.allclose(got, want.numpy(), atol=1e-5)
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)


def test_text_embedding_is_berts_class_token_and_the_head(weights: SimpleNamespace):
    from safetensors.torch import load_file
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    config = json.loads((weights.biovil_t_text / "config.json").read_text())
    known = {k: v for k, v in config.items() if k not in ("auto_map", "model_type")}
    state = load_file(weights.biovil_t_text / "model.safetensors")
    bert = BertForMaskedLM(BertConfig(**known)).eval()
    result = bert.load_state_dict(state, strict=False)
    assert set(result.missing_keys) <= set(biovil_t_text.OPTIONAL)
    words = (weights.biovil_t_text / "vocab.txt").read_text().split()
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    batch = tokenizer(
        [caption.rstrip("!?.") for caption in CAPTIONS], padding="longest", return_tensors="pt"
    )
    head = {k.split(".", 1)[1]: v for k, v in state.items() if k.startswith("cls_projection_head")}
    with torch.no_grad():
        x = bert(**batch, output_hidden_states=True).hidden_states[-1][:, 0]
        x = functional.gelu(
            functional.linear(x, head["dense_to_hidden.weight"], head["dense_to_hidden.bias"])
        )
        x = functional.layer_norm(x, (7,), head["LayerNorm.weight"], head["LayerNorm.bias"], 1e-12)
        x = functional.linear(x, head["dense_to_output.weight"], head["dense_to_output.bias"])
        want = functional.normalize(x, dim=1)
    encoder = loaded(weights, "biovil_t_text")
    got = encoder.encode([encoder.prepare(caption) for caption in CAPTIONS])
    assert np.allclose(got, want.numpy(), atol=1e-6)


def test_text_loses_its_final_marks_and_only_those(weights: SimpleNamespace):
    encoder = loaded(weights, "biovil_t_text")
    plain = encoder.prepare("Mild cardiomegaly")
    assert torch.equal(encoder.prepare("mild cardiomegaly?!."), plain)
    assert not torch.equal(encoder.prepare("mild . cardiomegaly"), plain)


def test_text_weights_may_be_a_torch_file_with_tied_weights(
    weights: SimpleNamespace, tmp_path: Path
):
    from safetensors.torch import load_file

    folder = tmp_path / "old"
    shutil.copytree(weights.biovil_t_text, folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    state["bert.embeddings.position_ids"] = torch.arange(16)[None]
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    torch.save(state, folder / "pytorch_model.bin")
    check_encoder("biovil_t_text", folder)
    encoder = load_encoder("biovil_t_text", folder, CPU, deviations("sound"), "fidelity")
    tokens = [encoder.prepare(caption) for caption in CAPTIONS]
    assert np.array_equal(encoder.encode(tokens), loaded(weights, "biovil_t_text").encode(tokens))


def test_a_caption_with_a_special_token_is_refused(weights: SimpleNamespace):
    with pytest.raises(InputError, match="special token"):
        loaded(weights, "biovil_t_text").prepare("mild [SEP] effusion")


def test_a_caption_that_is_too_long_is_cut_with_a_warning(
    weights: SimpleNamespace, caplog: pytest.LogCaptureFixture
):
    encoder = loaded(weights, "biovil_t_text")
    short = encoder.prepare("mild " * (encoder.longest - 2))
    assert not caplog.records
    long = encoder.prepare("mild " * 30)
    assert torch.equal(long, short)
    assert len(long) == encoder.longest
    assert "a caption of 32 tokens is cut to the 16" in caplog.text


def test_pair_scores_are_the_network_s(weights: SimpleNamespace):
    encoder = loaded(weights, "reid")
    x = torch.stack([encoder.prepare(source) for source in sources(encoder)])
    features = encoder.encode(list(x))
    assert ((features > 0) & (features < 1)).all()
    with torch.no_grad():
        want = torch.sigmoid(encoder.network(x[:4], x[4:8])).numpy()
    weight, bias = encoder.extras["fc_end_weight"], encoder.extras["fc_end_bias"]
    got = pair_scores(features[:4], features[4:8], weight, bias)
    assert np.allclose(got, want, atol=1e-6)
    swapped = pair_scores(features[4:8], features[:4], weight, bias)
    assert np.array_equal(got, swapped)
    itself = pair_scores(features[0], features[0], weight, bias)
    assert itself == pytest.approx(1 / (1 + np.exp(-float(bias[0]))))
    assert np.isfinite(pair_scores([1e4], [0], [1.0], 0)).all()


# Protocols


def test_reid_as_published_sees_seven_eighths_and_no_normalisation(weights: SimpleNamespace):
    sound = loaded(weights, "reid", "sound", "privacy")
    published = loaded(weights, "reid", "as_published", "privacy")
    image = picture(3, 60, 40).convert("RGB")
    assert sound.prepare(image).shape == (3, 32, 32)
    got = published.prepare(image)
    want = image.resize((512, 512), Image.Resampling.BICUBIC).resize(
        (28, 28), Image.Resampling.BILINEAR
    )
    assert np.allclose(got.numpy().transpose(1, 2, 0) * 255, np.asarray(want), atol=1e-4)
    assert sound.preprocessing != published.preprocessing
    # At the published size the same rule gives the official 224.
    assert reid.PUBLISHED.size == (256, 256)
    assert 256 * 7 // 8 == 224


@pytest.mark.parametrize(("purpose", "side"), [("fidelity", 299), ("privacy", 512)])
def test_rad_dino_as_published_squashes_first(weights: SimpleNamespace, purpose: str, side: int):
    sound = loaded(weights, "rad_dino", "sound", purpose)
    published = loaded(weights, "rad_dino", "as_published", purpose)
    assert f"{side}x{side}" in published.preprocessing
    assert sound.preprocessing != published.preprocessing
    image = picture(3, 60, 40).convert("RGB")
    assert not torch.equal(sound.prepare(image), published.prepare(image))
    square = image.resize(
        (side, side), Image.Resampling.BILINEAR if side == 299 else Image.Resampling.BICUBIC
    )
    assert torch.equal(sound.prepare(square), published.prepare(image))


def test_alignment_is_not_squashed(weights: SimpleNamespace):
    """The official release scores alignment on the original files."""
    for name in ("biovil_t_image", "biovil_t_text"):
        words = {loaded(weights, name, p).preprocessing for p in ("sound", "as_published")}
        assert len(words) == 1


# Faults


def damaged(weights: SimpleNamespace, name: str, folder: Path, change) -> Path:
    """Write a copy of a checkpoint, with `change` applied to its state dict."""
    source = getattr(weights, name)
    root = source if source.is_dir() else source.parent
    shutil.copytree(root, folder)
    if source.is_dir():
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")
        return folder
    state = torch.load(folder / source.name, weights_only=True)
    change(state)
    torch.save(state, folder / source.name)
    return folder / source.name


KEYS = {
    "rad_dino": "encoder.layer.1.mlp.fc2.weight",
    "biovil_t_image": "encoder.vit_pooler.blocks.0.attn.proj_k.weight",
    "biovil_t_text": "cls_projection_head.dense_to_output.weight",
    "reid": "model.layer2.0.bn1.running_var",
}


@pytest.mark.parametrize("name", TINY)
def test_whole_weights_pass(weights: SimpleNamespace, name: str):
    check_encoder(name, getattr(weights, name))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("fault", ["missing", "unexpected", "another shape"])
def test_faulty_keys_are_named(weights: SimpleNamespace, tmp_path: Path, name: str, fault: str):
    key = KEYS[name]

    def change(state: dict) -> None:
        if fault == "missing":
            del state[key]
        elif fault == "unexpected":
            state["stray.weight"] = torch.zeros(1)
        else:
            state[key] = torch.zeros(3, 3)

    path = damaged(weights, name, tmp_path / "damaged", change)
    named = "stray.weight" if fault == "unexpected" else key
    for use in (
        lambda: check_encoder(name, path),
        lambda: load_encoder(name, path, CPU, deviations("sound"), "fidelity"),
    ):
        with pytest.raises(InputError) as caught:
            use()
        assert named in caught.value.what
        assert fault in caught.value.what


@pytest.mark.parametrize("key", ["conv1.weight", "fc.weight", "layer3.0.conv3.weight"])
@pytest.mark.parametrize(
    ("name", "prefix"), [("reid", "model."), ("biovil_t_image", "encoder.encoder.")]
)
def test_a_missing_key_that_tells_a_width_is_named(
    weights: SimpleNamespace, tmp_path: Path, name: str, prefix: str, key: str
):
    path = damaged(weights, name, tmp_path / "damaged", lambda state: state.pop(prefix + key))
    with pytest.raises(InputError) as caught:
        check_encoder(name, path)
    assert prefix + key in caught.value.what


@pytest.mark.parametrize("name", TINY)
def test_truncated_weights_are_refused(weights: SimpleNamespace, tmp_path: Path, name: str):
    path = damaged(weights, name, tmp_path / "cut", lambda state: None)
    file = path / "model.safetensors" if path.is_dir() else path
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(InputError):
        check_encoder(name, path)


@pytest.mark.parametrize("name", TINY)
def test_absent_weights_are_refused(tmp_path: Path, name: str):
    with pytest.raises(InputError):
        check_encoder(name, tmp_path / "nothing")


def test_a_vocabulary_of_another_length_is_refused(weights: SimpleNamespace, tmp_path: Path):
    folder = tmp_path / "text"
    shutil.copytree(weights.biovil_t_text, folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(InputError, match="5 words"):
        check_encoder("biovil_t_text", folder)


def test_an_unknown_encoder_is_refused_with_a_hint():
    with pytest.raises(InputError) as caught:
        encoder_module("rad-dino")
    assert "rad_dino" in str(caught.value.remedy)


def test_the_digest_covers_what_features_depend_on(weights: SimpleNamespace, tmp_path: Path):
    folder = tmp_path / "text"
    shutil.copytree(weights.biovil_t_text, folder)
    before = weights_sha256("biovil_t_text", folder)
    (folder / "README.md").write_text("not weights")
    assert weights_sha256("biovil_t_text", folder) == before
    vocabulary = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_text(vocabulary.replace("mild", "mildly"))
    assert weights_sha256("biovil_t_text", folder) != before
