"""LLM-CXR's sampler: a language model's answers token by token, and the decoding of their codes.

The language model has its published size. Its autoencoder's configuration is not public: it stands
in as taming's VQGAN of 1,024 codes at 256 pixels, whose codes (16 x 16) and number of tensors are
LLM-CXR's; it decodes once an image, after 256 passes of the language model.
"""

import functools
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from tests.gpu.building import CAPTION, config_of, family_of
from tests.gpu.lines import Writer
from tests.gpu.measure import peak_gib, seconds_of
from tests.gpu.training import membership_settings
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.llm_cxr import IMAGE, LlmCxrPipeline, prompt_text
from workflow_scripts.finetune.families.taming import VqganConfig, build_vqmodel
from workflow_scripts.preflight.cost_model import sampling_settings
from workflow_scripts.privacy.membership.losses import Measuring, image_losses

WORDS, CODES = 50_281, 1024
LANGUAGE_MODEL: Final = {
    "vocab_size": WORDS + CODES,
    "hidden_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 10240,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
"""dolly-v2-3b with image tokens; tests/finetune/test_real_sizes.py counts it."""


def time_llm_cxr(
    device: torch.device, tiny: bool, say: Writer, precision: str | None = None
) -> None:
    """Measure LLM-CXR's sampler: images a second and memory; and how likely images are to it.

    A random language model answers with no image, so it is held to image tokens at once: an answer
    of 256 codes, as a trained one gives at its first attempt.
    """
    block = config_of("llm_cxr")["generate"]
    images = 2 if tiny else block["batch_size"]
    family = family_of("llm_cxr")
    pipeline = _pipeline(device, tiny)
    if precision:  # of the language model; the autoencoder decodes in float32, as in all families
        pipeline.llm.to({"fp16": torch.float16, "bf16": torch.bfloat16}[precision])
        block = {**block, "precision": precision}
    settings = SampleSettings(0, 0.0, pipeline.vqgan_config.resolution, {"attempts": 0})

    def sample() -> None:
        shown = family.sample(pipeline, [CAPTION] * images, list(range(images)), settings)
        assert len(shown) == images

    note = sampling_settings(block, settings.size, images)
    say("images per second", images / seconds_of(sample, device, 1), "1/s", f"{note}, one answer")
    say("peak memory", peak_gib(sample, device), "GiB", note)
    if precision is None:
        attack = membership_settings(tiny)
        note = sampling_settings(block, settings.size, attack.batch_size)
        taken = _seconds_of_likelihoods(family, pipeline, attack.batch_size, device)
        # Of each image one with its caption and one without: there are no noise levels.
        say("losses per second", 2 * attack.batch_size / taken, "1/s", note)


def _seconds_of_likelihoods(
    family: Family, pipeline: LlmCxrPipeline, images: int, device: torch.device
) -> float:
    """Return the seconds in which an attack on membership measures a batch of images, of noise."""
    size = pipeline.vqgan_config.resolution
    how = Measuring(size, 1, 1, pipeline.llm.dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.png"
        noise = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        paths, captions = [str(path)] * images, [CAPTION] * images
        measure = functools.partial(image_losses, family, pipeline, paths, captions, how)
        return seconds_of(measure, device, 1)


def _pipeline(device: torch.device, tiny: bool) -> LlmCxrPipeline:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from workflow_scripts.world.tiny_llm_cxr import _tokenizer

    torch.manual_seed(0)
    tokenizer: Any = _tokenizer([prompt_text(CAPTION), IMAGE])
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    small = {**sizes, "intermediate_size": 64, "vocab_size": len(tokenizer) + CODES}
    with torch.device(device):
        llm = GPTNeoXForCausalLM(GPTNeoXConfig(**LANGUAGE_MODEL | (small if tiny else {}))).eval()
    config = VqganConfig(
        embed_dim=256,
        n_embed=CODES,
        z_channels=256,
        resolution=256,
        in_channels=3,
        out_ch=3,
        ch=128,
        ch_mult=(1, 1, 2, 2, 4),
        num_res_blocks=2,
        attn_resolutions=(16,),
    )
    if tiny:
        config = VqganConfig(8, CODES, 8, 32, 3, 3, 32, (1, 1, 1), 1, ())
    return LlmCxrPipeline(llm, tokenizer, build_vqmodel(config).eval(), config).to(device)
