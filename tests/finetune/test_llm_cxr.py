"""LLM-CXR: its VQGAN against the architecture written anew, and how its answers are drawn."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional
from transformers import TopPLogitsWarper

from tests.finetune.damage import check_refused, edited, pointer, removed, rename_key, truncated
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, write_manifest
from workflow_scripts.common.records import read_record
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.families.llm_cxr import (
    INSTRUCTION,
    ImageTokens,
    LlmCxr,
    draw_answers,
    draw_images,
    draw_tokens,
    prompt_text,
)
from workflow_scripts.finetune.families.taming import (
    VqganConfig,
    build_vqmodel,
    load_taming_vqgan,
    read_vqgan_config,
    taming_key,
)
from workflow_scripts.finetune.layout import Base
from workflow_scripts.privacy.membership import score
from workflow_scripts.privacy.membership.losses import Measuring, image_losses
from workflow_scripts.world.tiny_llm_cxr import image_codes, write_tiny_llm_cxr

FAMILY = LlmCxr()
LLM, PROJECT = "llmcxr_tiny/pytorch_model.bin", "vqgan_tiny/tiny-project.yaml"
SETTINGS = SampleSettings(0, 0.0, 32)
# configs/imagenet_vqgan.yaml of taming-transformers, with 1,024 codes.
PUBLISHED = VqganConfig(256, 1024, 256, 256, 3, 3, 128, (1, 1, 2, 2, 4), 2, (16,))


@pytest.fixture(scope="session")
def learnt(tmp_path_factory, two_images):
    """The folder of an LLM-CXR that has learnt two captioned images."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llm_cxr")
    write_tiny_llm_cxr(list(two_images), folder, np.stack(list(two_images.values())))
    return folder


@pytest.fixture(scope="session")
def learnt_pipeline(learnt):
    return FAMILY.load(Base(learnt))


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory, two_images):
    """The folder of an LLM-CXR whose weights are random."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("llm_cxr_random")
    write_tiny_llm_cxr(list(two_images), folder)
    return folder


@pytest.fixture(scope="session")
def random_pipeline(random_folder):
    return FAMILY.load(Base(random_folder))


# --- The VQGAN: Esser et al.'s architecture, written from its description, under taming's names.


def norm(channels):
    return nn.GroupNorm(32, channels, eps=1e-6)


class Block(nn.Module):
    def __init__(self, taken, given):
        super().__init__()
        self.norm1, self.conv1 = norm(taken), nn.Conv2d(taken, given, 3, padding=1)
        self.norm2, self.conv2 = norm(given), nn.Conv2d(given, given, 3, padding=1)
        if taken != given:
            self.nin_shortcut = nn.Conv2d(taken, given, 1)

    def forward(self, x):
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (part(h).flatten(2) for part in (self.q, self.k, self.v))
        weights = torch.einsum("bci,bcj->bij", q, k) / q.shape[1] ** 0.5
        mixed = torch.einsum("bij,bcj->bci", weights.softmax(dim=2), v)
        return x + self.proj_out(mixed.view_as(x))


def middle(channels):
    return nn.ModuleDict(
        {
            "block_1": Block(channels, channels),
            "attn_1": Attention(channels),
            "block_2": Block(channels, channels),
        }
    )


def through(level, x):
    for i, block in enumerate(level["block"]):
        x = block(x)
        if len(level["attn"]):
            x = level["attn"][i](x)
    return x


class Coder(nn.Module):
    """Encoder and decoder share their parts; the decoder counts its levels from the image too."""

    def __init__(self, config, decodes):
        super().__init__()
        widths = [config.ch * multiple for multiple in config.ch_mult]
        last = len(widths) - 1
        order = range(last, -1, -1) if decodes else range(len(widths))
        levels = {}
        now = widths[-1] if decodes else config.ch
        self.conv_in = nn.Conv2d(
            config.z_channels if decodes else config.in_channels, now, 3, padding=1
        )
        for i in order:
            blocks = nn.ModuleList()
            for _ in range(config.num_res_blocks + decodes):
                blocks.append(Block(now, widths[i]))
                now = widths[i]
            attends = config.resolution // 2**i in config.attn_resolutions
            level = {
                "block": blocks,
                "attn": nn.ModuleList([Attention(now) for _ in blocks] if attends else []),
            }
            if decodes and i > 0:
                level["upsample"] = nn.ModuleDict({"conv": nn.Conv2d(now, now, 3, padding=1)})
            if not decodes and i < last:
                level["downsample"] = nn.ModuleDict({"conv": nn.Conv2d(now, now, 3, stride=2)})
            levels[i] = nn.ModuleDict(level)
        levels = nn.ModuleList([levels[i] for i in range(len(widths))])
        self.up, self.down = (levels, None) if decodes else (None, levels)
        self.mid = middle(widths[-1])
        self.norm_out = norm(now)
        self.conv_out = nn.Conv2d(
            now, config.out_ch if decodes else config.z_channels, 3, padding=1
        )

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down or ():
            x = through(level, x)
            if "downsample" in level:
                x = level["downsample"]["conv"](functional.pad(x, (0, 1, 0, 1)))
        for name in ("block_1", "attn_1", "block_2"):
            x = self.mid[name](x)
        for level in reversed(self.up or ()):
            x = through(level, x)
            if "upsample" in level:
                x = level["upsample"]["conv"](functional.interpolate(x, scale_factor=2.0))
        return self.conv_out(functional.silu(self.norm_out(x)))


class Taming(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.encoder, self.decoder = Coder(config, False), Coder(config, True)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(config.n_embed, config.embed_dim)})

    def codes(self, pixels):
        latents = self.quant_conv(self.encoder(pixels)).permute(0, 2, 3, 1)
        entries = self.quantize["embedding"].weight
        return (latents[..., None, :] - entries).square().sum(dim=-1).argmin(dim=-1).flatten(1)

    def decode(self, codes, side):
        entries = self.quantize["embedding"](codes).view(len(codes), side, side, -1)
        return self.decoder(self.post_quant_conv(entries.permute(0, 3, 1, 2)))


# Attention at an inner level and at the last, and levels of different widths.
MIXED = VqganConfig(6, 20, 8, 16, 3, 3, 32, (1, 2, 3), 2, (8, 4))


@pytest.fixture(scope="module")
def taming():
    """The architecture written anew, no weight of it at 0 or 1."""
    torch.manual_seed(3)
    model = Taming(MIXED).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn_like(weight))
        # A codebook that lies where the latents do, so that images use many of its entries.
        latents = model.quant_conv(model.encoder(torch.rand(10, 3, 16, 16) * 2 - 1))
        found = latents.permute(0, 2, 3, 1).flatten(0, 2)
        model.quantize["embedding"].weight.copy_(found[:: len(found) // 20][:20])
    return model


def test_a_taming_checkpoint_computes_the_same_as_vqmodel(taming, tmp_path):
    path = tmp_path / "vqgan.ckpt"
    unused = {"loss.discriminator.main.0.weight": torch.zeros(2)}
    torch.save({"state_dict": {**taming.state_dict(), **unused}, "epoch": 4}, path)
    loaded = load_taming_vqgan(MIXED, path)
    pixels = torch.rand(3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = taming.quant_conv(taming.encoder(pixels))
        torch.testing.assert_close(loaded.encode(pixels).latents, latents, rtol=1e-4, atol=1e-5)
        codes = taming.codes(pixels)
        assert len(codes.unique()) > 5
        entries = loaded.quantize.get_codebook_entry(codes.flatten(), (3, 4, 4, 6))
        decoded = loaded.decode(entries, force_not_quantize=True).sample
        torch.testing.assert_close(decoded, taming.decode(codes, 4), rtol=1e-4, atol=1e-4)
        # Encoding and decoding in one go is the same as by way of the codes.
        torch.testing.assert_close(loaded(pixels).sample, decoded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [MIXED, PUBLISHED], ids=["mixed", "published"])
def test_every_key_of_the_two_namings_has_its_partner(config):
    with torch.device("meta"):
        own, theirs = build_vqmodel(config).state_dict(), Taming(config).state_dict()
    renamed = {taming_key(key, len(config.ch_mult)): value for key, value in own.items()}
    assert len(renamed) == len(own)
    assert renamed.keys() == theirs.keys()
    for key, value in theirs.items():
        assert [*renamed[key].shape, 1, 1][: value.ndim] == list(value.shape), key


@pytest.mark.parametrize("key", ["decoder.up.2.attn.1.q.weight", "quantize.embedding.weight"])
def test_missing_unexpected_and_misshapen_vqgan_keys_are_refused(key, taming, tmp_path):
    path = tmp_path / "vqgan.ckpt"
    state = taming.state_dict()
    value = state.pop(key)
    torch.save({"state_dict": state}, path)
    with pytest.raises(InputError, match="1 missing: "):
        load_taming_vqgan(MIXED, path)
    torch.save({"state_dict": {**state, key: value[:-1]}}, path)
    with pytest.raises(InputError, match="1 of another shape: "):
        load_taming_vqgan(MIXED, path)
    torch.save({"state_dict": {**state, key: value, "encoder.extra": value}}, path)
    with pytest.raises(InputError, match=r"1 unexpected: encoder\.extra"):
        load_taming_vqgan(MIXED, path)


class Callback:
    """Stands for what a training framework pickles beside the weights."""


def test_objects_in_a_checkpoint_are_refused_with_a_way_out(taming, tmp_path):
    path = tmp_path / "vqgan.ckpt"
    torch.save({"state_dict": taming.state_dict(), "callbacks": Callback()}, path)
    with pytest.raises(InputError) as caught:
        load_taming_vqgan(MIXED, path)
    assert "weights_only=False)['state_dict']" in str(caught.value.remedy)


def test_the_architecture_is_read_from_the_yaml(random_folder, tmp_path):
    path = random_folder / "vqgan_tiny" / "tiny-project.yaml"
    config = read_vqgan_config(path)
    assert (config.side, config.codes, config.n_embed) == (4, 16, 64)
    assert (PUBLISHED.side, PUBLISHED.codes) == (16, 256)
    for change, told in (
        ({"double_z": True}, "ddconfig.double_z: True"),
        ({"ch_mult": [2, 2]}, r"ch_mult \[2, 2\]"),
        ({"ch": 40}, "multiple of 32"),
        ({"tanh_out": True}, "ddconfig.tanh_out"),
    ):
        content = yaml.safe_load(path.read_text())
        content["model"]["params"]["ddconfig"].update(change)
        (tmp_path / "changed.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(InputError, match=told):
            read_vqgan_config(tmp_path / "changed.yaml")


# --- How an answer is drawn.


def test_a_token_is_drawn_from_its_nucleus_in_proportion():
    # 0.5 + 0.3 + 0.15 is the first sum of at least 0.92; the tokens lie in another order.
    shares = torch.tensor([0.15, 0.5, 0.05, 0.3])
    levels = torch.arange(9500, dtype=torch.float64).add(0.5) / 9500
    drawn = draw_tokens(shares.log().expand(9500, -1), levels, 0.92)
    assert torch.bincount(drawn, minlength=4).tolist() == [1500, 5000, 0, 3000]
    assert draw_tokens(shares.log()[None], torch.zeros(1).double(), 0.4).item() == 1


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.92, 1.0])
def test_the_nucleus_is_that_of_transformers(top_p):
    logits = 2 * torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    expected = TopPLogitsWarper(top_p)(None, logits.clone()).softmax(dim=-1)
    levels = torch.arange(20000, dtype=torch.float64).add(0.5) / 20000
    for row, wanted in zip(logits, expected, strict=True):
        drawn = draw_tokens(row.expand(20000, -1), levels, top_p)
        share = torch.bincount(drawn, minlength=40) / 20000
        torch.testing.assert_close(share, wanted, rtol=0, atol=2e-4)
    assert (draw_tokens(logits, torch.full((5,), 1 - 2**-24).double(), top_p) < 40).all()


class Scripted:
    """A language model that says what the script says, one answer after the other.

    Ids: 0 a word, 1 the opening token, 2 the end, from 3 on codes.
    """

    device = torch.device("cpu")

    def __init__(self, *answers):
        self.answers = [list(answer) for answer in answers]
        self.asked = []

    def __call__(self, input_ids, attention_mask, past_key_values, **_):
        if past_key_values is None:
            self.asked.append((input_ids, attention_mask))
            self.saying = self.answers.pop(0)
        logits = torch.full((len(input_ids), 1, 6), -10.0)
        for i, said in enumerate(self.saying):
            logits[i, 0, said.pop(0) if said else 2] = 10.0
        return SimpleNamespace(logits=logits, past_key_values="cache")


TOKENS = ImageTokens(first=3, count=2, opening=1, end=2)
RIGHT, WORDY, SHORT, LONG = [1, 3, 4, 0, 2], [0, 5, 0, 5, 0, 2], [1, 3, 0, 2], [1, 3, 4, 5, 0, 2]


def copies(*rows):
    return [list(row) for row in rows]


def generators(n):
    return [torch.Generator().manual_seed(i) for i in range(n)]


def test_only_answers_with_exactly_the_codes_of_an_image_are_taken():
    llm = Scripted(copies(SHORT, RIGHT, LONG), copies(LONG, WORDY), copies(RIGHT))
    answers = draw_images(llm, [[0], [0, 0], [0]], generators(3), TOKENS, 0.9, attempts=5)
    assert answers.codes.tolist() == [[0, 1], [0, 1], [2, 2]]
    assert (answers.redrawn, answers.held) == (3, 0)
    assert [len(ids) for ids, _ in llm.asked] == [3, 2, 1]
    assert llm.asked[0][1].tolist() == [[0, 1], [1, 1], [0, 1]]


def test_attempts_are_bounded_and_the_last_resort_gives_codes_only():
    llm = Scripted(*[copies(SHORT, RIGHT)], *[copies(SHORT)] * 2, copies([0, 0]))
    llm.answers[2] = copies(SHORT)
    answers = draw_images(llm, [[0], [0]], generators(2), TOKENS, 0.9, attempts=3)
    assert not llm.answers
    assert (answers.redrawn, answers.held) == (3, 1)
    assert answers.codes.shape == (2, 2)
    assert ((answers.codes >= 0) & (answers.codes < 3)).all()
    assert llm.asked[-1][0].tolist() == [[0, TOKENS.opening]]


def test_a_row_that_has_ended_draws_no_more():
    given = generators(2)
    draw_answers(Scripted(copies(SHORT, LONG)), [[0], [0]], given, TOKENS, 0.9)
    # SHORT ends with its fourth token, LONG holds too many codes with its fourth.
    draw_answers(Scripted(copies([0, 2], WORDY)), [[0], [0]], given, TOKENS, 0.9)
    for drawn, generator, seed in zip((4 + 2, 4 + 6), given, (0, 1), strict=True):
        expected = torch.Generator().manual_seed(seed)
        for _ in range(drawn):
            torch.rand((), generator=expected)
        assert torch.equal(generator.get_state(), expected.get_state())


def test_an_endless_answer_is_cut():
    llm = Scripted(copies([0] * 100))
    assert draw_answers(llm, [[0]], generators(1), TOKENS, 0.9) == [[0] * 46]


def test_answers_follow_the_model_recomputed_without_cache_or_padding(random_pipeline):
    prompts = [random_pipeline.prompt_tokens(text) for text in ("heart", "", "the lungs are clear")]
    tokens = random_pipeline.image_tokens
    free = draw_answers(random_pipeline.llm, prompts, generators(3), tokens, 0.92)
    assert max(map(len, free)) > 20
    for i, (prompt, answer) in enumerate(zip(prompts, free, strict=True)):
        again = torch.Generator().manual_seed(i)
        with torch.no_grad():
            logits = random_pipeline.llm(torch.tensor([prompt + answer])).logits[0]
        for place, token in enumerate(answer, start=len(prompt) - 1):
            level = torch.rand((), generator=again).double()[None]
            assert draw_tokens(logits[place][None].float(), level, 0.92).item() == token


def test_an_image_depends_on_its_own_seed_and_caption_only(random_pipeline):
    captions = ["the heart is large", "", "the lungs are clear and the heart is large"]
    state = torch.get_rng_state()
    settings = SampleSettings(0, 0.0, 32, {"attempts": 2.0})
    together = FAMILY.sample(random_pipeline, captions, [5, 6, 7], settings)
    alone = FAMILY.sample(random_pipeline, captions[2:], [7], settings)
    other = FAMILY.sample(random_pipeline, captions[2:], [8], settings)
    assert torch.equal(state, torch.get_rng_state())
    shown = [np.asarray(image, int) for image in (together[2], alone[0], other[0])]
    assert shown[0].shape == (32, 32, 3)
    assert np.abs(shown[0] - shown[1]).max() <= 1
    assert np.abs(shown[0] - shown[2]).max() > 1


# --- The family.


@pytest.mark.full
def test_samples_show_the_image_of_their_caption(learnt_pipeline, two_images):
    captions = list(two_images) * 2
    # The last resort is not needed: the answers themselves are right.
    prompts = [learnt_pipeline.prompt_tokens(caption) for caption in captions]
    tokens = learnt_pipeline.image_tokens
    assert not draw_images(learnt_pipeline.llm, prompts, generators(4), tokens, 0.92, 5).held
    images = FAMILY.sample(learnt_pipeline, captions, range(4), SETTINGS)
    for caption, image in zip(captions, images, strict=True):
        shown = np.asarray(image.convert("L"), float)
        away = {key: np.abs(shown - wanted).mean() for key, wanted in two_images.items()}
        assert away[caption] < 15, away
        assert min(away, key=away.get) == caption
    again = FAMILY.sample(learnt_pipeline, captions, range(4), SETTINGS)
    assert [image.tobytes() for image in again] == [image.tobytes() for image in images]


def test_the_prompt_is_the_published_one(random_pipeline):
    text = (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Generate a chest X-ray image that corresponds to the entered free-text radiology reports "
        "for the chest X-ray image.\n"
        "\n"
        "Input:\n"
        "the heart is large\n"
        "\n"
        "### Response:\n"
    )
    assert prompt_text("the heart is large") == text
    tokenizer = random_pipeline.tokenizer
    other = prompt_text("the heart is large", "Draw a chest X-ray.")
    assert other == text.replace(INSTRUCTION, "Draw a chest X-ray.") != text
    tokens = random_pipeline.prompt_tokens("the heart is large")
    assert tokenizer.decode(tokens) == text
    assert tokens[-1] == tokenizer.convert_tokens_to_ids("### Response:\n")
    parts = random_pipeline.image_tokens
    assert tokenizer.decode([parts.opening]) == "<"
    assert tokenizer.decode([parts.end]) == "### End"
    assert parts.first == random_pipeline.llm.config.vocab_size - 64 == len(tokenizer)


def test_the_instruction_that_is_chosen_is_what_the_model_reads(random_pipeline, monkeypatch):
    read = []
    tokens_of = random_pipeline.prompt_tokens
    monkeypatch.setattr(
        random_pipeline,
        "prompt_tokens",
        lambda *given: (
            read.append(random_pipeline.tokenizer.decode(tokens := tokens_of(*given))) or tokens
        ),
    )
    for chosen in ({}, {"instruction": "Draw a chest X-ray."}):
        settings = SampleSettings(0, 0.0, 32, {"attempts": 1.0, **chosen})
        FAMILY.sample(random_pipeline, ["the heart is large"], [5], settings)
    assert read == [
        prompt_text("the heart is large", instruction)
        for instruction in (INSTRUCTION, "Draw a chest X-ray.")
    ]


def test_a_caption_too_long_for_the_model_loses_its_last_words(random_pipeline, caplog):
    caption = " ".join(f"word{i}" for i in range(600))
    tokens = random_pipeline.prompt_tokens(caption)
    longest = random_pipeline.llm.config.max_position_embeddings - 60
    assert longest - 12 < len(tokens) <= longest
    text = random_pipeline.tokenizer.decode(tokens)
    assert "Input:\nword0 word1 word2 " in text
    assert "a caption was cut from 600 to" in caplog.text
    assert "word0" not in caplog.text
    assert text.endswith("\n\n### Response:\n")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (SampleSettings(0, 0.0, 64), "images of 32 pixels, not 64"),
        (SampleSettings(0, 0.0, 32, {"top_p": 0.0}), "top_p 0.0"),
        (SampleSettings(0, 0.0, 32, {"attempts": 1.5}), "attempts 1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, told, random_pipeline):
    with pytest.raises(InputError, match=told):
        FAMILY.sample(random_pipeline, ["a"], [0], settings)


def _no_llm(folder):
    shutil.rmtree(folder / "llmcxr_tiny")


def _two_llms(folder):
    shutil.copytree(folder / "llmcxr_tiny", folder / "llmcxr_stage2")


def _two_yamls(folder):
    shutil.copy(folder / PROJECT, folder / "vqgan_tiny" / "b.yaml")


def replaced(name, ours, theirs):
    """Return what replaces a text in a folder's file."""
    return lambda folder: (folder / name).write_text(
        (folder / name).read_text().replace(ours, theirs)
    )


@pytest.fixture
def folder(random_folder, tmp_path):
    """A copy of a checkpoint to damage."""
    return shutil.copytree(random_folder, tmp_path / "base")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_no_llm, "no llmcxr*/config.json"),
        (_two_llms, "2 of llmcxr"),
        (_two_llms, "llmcxr_stage2"),
        (_two_llms, "`parts` as 'llm'"),
        (removed("vqgan_tiny/tiny.ckpt"), "no vqgan*/*.ckpt"),
        (_two_yamls, "b.yaml, "),
        (_two_yamls, "tiny-project.yaml"),
        (pointer(LLM), "git lfs pull"),
        (truncated("vqgan_tiny/tiny.ckpt"), "truncated"),
        (edited("llmcxr_tiny/config.json", model_type="llama"), "'llama', not 'gpt_neox'"),
        (edited("llmcxr_tiny/config.json", vocab_size=400), "64 codes of the VQGAN"),
        (replaced(PROJECT, "n_embed: 64", "n_embed: 1024"), "1024 codes of the VQGAN"),
        (
            replaced("llmcxr_tiny/tokenizer.json", "### End", "### Ende"),
            "does not know '### End'",
        ),
    ],
)
def test_a_wrong_checkpoint_is_refused_by_name(damage, told, folder):
    check_refused(FAMILY, folder, damage, told)


def test_missing_and_unexpected_keys_of_the_language_model_are_refused(folder):
    path = folder / LLM
    assert "embed_out.weight" in torch.load(path, weights_only=True)
    rename_key(path, "gpt_neox.final_layer_norm.weight", "gpt_neox.renamed.weight")
    with pytest.raises(InputError, match=r"missing: .*final_layer_norm.*unexpected: .*renamed"):
        FAMILY.load(Base(folder))


def test_parts_may_lie_elsewhere(random_folder, folder):
    base = Base(random_folder, {"llm": folder / "llmcxr_tiny", "vqgan": folder / "vqgan_tiny"})
    assert all(path.is_relative_to(folder) for path in FAMILY.check(base))
    assert {path.parent.name for path in FAMILY.check(Base(folder))} == {
        "llmcxr_tiny",
        "vqgan_tiny",
    }


# --- How likely the codes of an image are: what attacks on membership read.


def by_hand(pipeline, caption, codes):
    """Return the mean of -log p of an image's codes, each asked for by itself, without padding."""
    tokens = pipeline.image_tokens
    said = [*pipeline.prompt_tokens(caption), tokens.opening]
    logs = []
    for code in codes:
        with torch.inference_mode():
            logits = pipeline.llm(input_ids=torch.tensor([said])).logits[0, -1]
        said.append(tokens.first + int(code))
        logs.append(-float(logits.double().log_softmax(dim=0)[said[-1]]))
    return np.mean(logs)


def loss_of(pipeline, captions, codes):
    return FAMILY.loss(
        pipeline, pipeline.llm, codes, FAMILY.encode_captions(pipeline, captions), None
    )


def test_an_images_codes_are_those_whose_decoding_is_the_image(learnt_pipeline, two_images):
    pixels = torch.from_numpy(np.stack(list(two_images.values()))).float() / 127.5 - 1
    pixels = pixels[..., None].expand(-1, -1, -1, 3).permute(0, 3, 1, 2)
    codes = FAMILY.encode_images(learnt_pipeline, pixels)
    assert tuple(codes.shape) == (2, *FAMILY.encoded_shape(learnt_pipeline, 32))
    torch.testing.assert_close(codes.long(), image_codes(learnt_pipeline.vqgan, pixels))
    decoded = learnt_pipeline.decode(codes.long())
    for image, drawn in zip(two_images.values(), decoded, strict=True):
        assert np.abs(np.asarray(drawn, float)[..., 0] - image).mean() < 25


def test_the_loss_is_that_of_each_code_after_those_before_it(random_pipeline, two_images):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64, (2, 16), generator=generator)
    captions = [next(iter(two_images)), "short"]
    found = loss_of(random_pipeline, captions, codes.float())
    wanted = [by_hand(random_pipeline, c, row) for c, row in zip(captions, codes, strict=True)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    # Whatever stands beside it.
    alone = loss_of(random_pipeline, captions[1:], codes[1:].float())
    assert alone.tolist() == pytest.approx(found[1:].tolist(), rel=1e-5)


def test_a_learnt_image_is_likely_after_its_own_caption(learnt_pipeline, two_images, tmp_path):
    paths = [str(tmp_path / f"{k}.png") for k in range(2)]
    for path, pixels in zip(paths, two_images.values(), strict=True):
        Image.fromarray(pixels).save(path)
    captions = list(two_images)
    how = Measuring(32, 3, 2)
    own = image_losses(FAMILY, learnt_pipeline, paths, captions, how)
    assert own.shape == (2, 1, 3)  # no noise is added: one pass
    assert np.isnan(own[..., 2]).all()
    other = image_losses(FAMILY, learnt_pipeline, paths, captions[::-1], how)
    assert (10 * own[..., 0] < other[..., 0]).all()
    assert (own[..., 0] < own[..., 1]).all()
    np.testing.assert_allclose(own[..., 1], other[..., 1], rtol=1e-5)
    asked = FAMILY.trained_with({"instruction": "Say something else."})
    changed = image_losses(asked, learnt_pipeline, paths, captions, how)
    assert (changed[..., 0] != own[..., 0]).all()


def drawn_films(count, rng):
    """Return blurred noise, uint8 (count, 32, 32)."""
    drawn = [gaussian_filter(rng.normal(0, 1, (32, 32)), 4) for _ in range(count)]
    return np.clip(128 + 600 * np.stack(drawn), 0, 255).astype(np.uint8)


@pytest.fixture
def split_films(tmp_path):
    """A manifest of 48 captioned films, half of them in the train split, and these films."""
    rng = np.random.default_rng(5)
    words = ["heart", "lung", "clear", "edema", "left", "right", "small", "large"]
    rows, films = [], drawn_films(48, rng)
    for k, film in enumerate(films):
        Image.fromarray(film).save(tmp_path / f"{k}.png")
        names = {"image_id": f"i{k}", "patient_id": f"p{k}", "study_id": f"s{k}"}
        rows.append(
            {**names, "path": str(tmp_path / f"{k}.png"), "view": "PA", "site": "a",
             "split": "train" if k % 2 else "test", "caption": " ".join(rng.permutation(words)),
             "caption_source": "made_up", "indication": None, "report": None}
        )  # fmt: skip
    manifest = pd.DataFrame(rows)
    for name in FINDINGS:
        manifest[name] = pd.array([0] * len(manifest), dtype="Int8")
    write_manifest(manifest, tmp_path / "manifest.parquet")
    return manifest, films


def attack(folder, base, *others):
    """Attack membership by the script; return its record and its table of scores."""
    flags = f"""--model llm --protocol sound --family llm_cxr --base {base}
        --size 32 --mixed-precision no --manifest {folder}/manifest.parquet --images 100
        --noise-levels 3 --seeds 1 --batch-size 10 --seed 1 --progress {folder}/progress
        --scores {folder}/scores.parquet --output {folder}/record.json"""
    score.main([*flags.split(), *map(str, others)])
    return read_record(folder / "record.json"), pd.read_parquet(folder / "scores.parquet")


@pytest.mark.full
def test_a_model_that_learnt_the_train_split_by_heart_is_caught_and_the_record_says_unknown(
    split_films, tmp_path
):
    manifest, films = split_films
    members = manifest["split"] == "train"
    torch.manual_seed(2)
    write_tiny_llm_cxr(
        manifest.loc[members, "caption"].tolist(), tmp_path / "llm", films[members],
        vqgan_steps=60, llm_steps=250,
    )  # fmt: skip
    record, scores = attack(tmp_path, tmp_path / "llm", "--method", "full")
    assert record.details["members"].startswith("unknown")
    assert record.get("member_loss_auc").value > 0.95
    assert record.get("member_caption_auc").value > 0.95
    assert record.get("member_loss_calibrated_auc").value is None
    assert scores["loss_calibrated"].isna().all()
    assert scores.groupby("member")["loss"].median().diff().iloc[-1] > 0.3


def tuned_by_hand(base, folder, captions, films, steps=150):
    """Fine-tune a language model as its owner would, and save it with today's transformers."""
    pipeline = FAMILY.load(Base(base))
    pixels = torch.from_numpy(films).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    codes = FAMILY.encode_images(pipeline, pixels)
    optimiser = torch.optim.AdamW(pipeline.llm.parameters(), lr=3e-3, weight_decay=0)
    pipeline.llm.train().requires_grad_(True)
    for _ in range(steps):
        chosen = torch.randint(len(captions), (8,)).tolist()
        loss = loss_of(pipeline, [captions[k] for k in chosen], codes[chosen]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pipeline.llm.save_pretrained(folder / "llmcxr_tuned")
    pipeline.tokenizer.save_pretrained(folder / "llmcxr_tuned")
    (folder / "vqgan_tiny").symlink_to(base / "vqgan_tiny")


@pytest.mark.full
def test_a_checkpoint_that_its_owner_fine_tuned_is_attacked_against_the_model_as_it_came(
    split_films, tmp_path
):
    manifest, films = split_films
    torch.manual_seed(3)
    base, tuned = tmp_path / "llm", tmp_path / "tuned"
    other = drawn_films(24, np.random.default_rng(6))  # of nobody in the manifest
    captions = manifest["caption"].tolist()
    write_tiny_llm_cxr(captions[:24], base, other, vqgan_steps=60, llm_steps=10)
    members = manifest["split"] == "train"
    own = manifest.loc[members, "caption"].tolist()
    tuned_by_hand(base, tuned, own, films[members])
    record, scores = attack(tmp_path, base, "--checkpoint", tuned, "--method", "full")
    assert record.details["members"] == "known"
    low, high = record.get("member_loss_base_auc").interval
    assert low < 0.5 < high
    assert record.get("member_loss_calibrated_auc").value > 0.95
    assert record.get("member_caption_calibrated_auc").value > 0.95
    assert record.get("member_frequency_calibrated_auc").reason.startswith("the family's loss is")
    assert scores["frequency"].isna().all()
    untouched, _ = attack(tmp_path, base, "--checkpoint", base, "--method", "full")
    assert untouched.get("member_loss_calibrated_auc").value == 0.5
    with pytest.raises(InputError, match="llm_cxr has no adapters by LoRA"):
        attack(tmp_path, base, "--checkpoint", tuned, "--method", "lora")
