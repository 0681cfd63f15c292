"""Stable Diffusion 3 and 3.5: a multimodal diffusion transformer with two CLIPs and T5-XXL.

Esser et al., 2024 (arXiv 2403.03206). Flow matching; noise levels are uniform, as in the authors'
fine-tuning of SD 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import ATTENTIONS, Takes
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.flow import (
    noised,
    squared_error,
    uniform_sigma,
    velocity,
)
from workflow_scripts.finetune.families.options import Option
from workflow_scripts.finetune.families.parts import (
    draw_latents,
    encode_moments,
    load_component,
    load_scheduler,
    load_tokenizer,
    moments_shape,
    require_fit,
    text_tokens,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder, clip
from workflow_scripts.finetune.layout import (
    Base,
    check_pipeline_index,
    component_files,
    read_json,
    tokenizer_files,
)

if TYPE_CHECKING:
    from typing import Self

    import torch
    from PIL import Image
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws

TEXT_TOKENS: Final = 512
"""Of T5, as the benchmark's authors sampled; CLIP takes its 77. The pipeline's default is 256, as
is that of the authors' training tool: see the training option `text_tokens`."""

_ATTENTION = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn2.to_q",
    "attn2.to_k",
    "attn2.to_v",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
)
_MLP = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")


class StableDiffusion3(Family):
    """See the module. The LoRA positions are those of the paper's Table 14.

    The option of training is `text_tokens`: the number of T5 tokens to which captions are padded
    and cut.
    """

    name = "stable_diffusion_3"
    trained = "transformer"
    takes = Takes(compile=("blocks", "network"), attention=ATTENTIONS)
    lora_positions = MappingProxyType(
        {
            "attention": _ATTENTION,
            "attention_mlp": (*_ATTENTION, *_MLP),
            "attention_mlp_position": (*_ATTENTION, *_MLP, "pos_embed.proj"),
        }
    )
    training_options = MappingProxyType({"text_tokens": float(TEXT_TOKENS)})

    def trained_with(self, options: Mapping[str, Option]) -> Self:
        """See `Family.trained_with`.

        Raises:
            InputError: also if the number of tokens is out of range.
        """
        chosen = super().trained_with(options)
        most = chosen.training_option("text_tokens")
        if most not in range(1, TEXT_TOKENS + 1):
            raise InputError(
                f"text_tokens {most}", "finetune.options", f"use a whole number up to {TEXT_TOKENS}"
            )
        return chosen

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
        tokenizers = ("tokenizer", "tokenizer_2", "tokenizer_3")
        components = ("transformer", "vae", *encoders, *tokenizers, "scheduler")
        files = check_pipeline_index(base, ("StableDiffusion3Pipeline",), components)
        network, network_files = component_files(base, "transformer", "diffusion_pytorch_model")
        vae, vae_files = component_files(base, "vae", "diffusion_pytorch_model")
        texts = [component_files(base, name, "model") for name in encoders]
        for name in tokenizers:
            files += tokenizer_files(base.path(name))[0]
        schedule = base.path("scheduler") / "scheduler_config.json"
        read_json(schedule)
        where = base.path("transformer") / "config.json"
        require_fit(
            texts[2][0].get("d_model"),
            network.get("joint_attention_dim"),
            "values per token of text_encoder_3, taken by the transformer",
            where,
        )
        require_fit(
            sum(config.get("projection_dim", 0) for config, _ in texts[:2]),
            network.get("pooled_projection_dim"),
            "pooled values of both CLIP text encoders, taken by the transformer",
            where,
        )
        require_fit(
            vae.get("latent_channels"),
            network.get("in_channels"),
            "latent channels of the VAE, taken by the transformer",
            where,
        )
        files += [file for _, found in texts for file in found]
        return [*files, *network_files, *vae_files, schedule]

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        t5 = TextEncoder("T5", base.path("tokenizer_3"), TEXT_TOKENS)
        return [clip(base.path("tokenizer")), clip(base.path("tokenizer_2")), t5]

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """See `Family.load`."""
        self.check(base)
        from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
        from transformers import (
            AutoTokenizer,
            CLIPTextModelWithProjection,
            CLIPTokenizer,
            T5EncoderModel,
        )

        kinds = {
            "text_encoder": CLIPTextModelWithProjection,
            "text_encoder_2": CLIPTextModelWithProjection,
            "text_encoder_3": T5EncoderModel,
        }
        tokenizers: dict[str, Any] = {
            "tokenizer": CLIPTokenizer,
            "tokenizer_2": CLIPTokenizer,
            "tokenizer_3": AutoTokenizer,
        }
        network = base.path("transformer")
        return StableDiffusion3Pipeline(
            transformer=load_component(SD3Transformer2DModel, network, network_dtype or dtype),
            vae=load_component(AutoencoderKL, base.path("vae"), vae_dtype or dtype),
            scheduler=load_scheduler(base.path("scheduler")),
            **{name: load_component(kind, base.path(name), dtype) for name, kind in kinds.items()},
            **{name: load_tokenizer(kind, base.path(name)) for name, kind in tokenizers.items()},
        )

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: mean and log-variance of the latents."""
        return moments_shape(pipeline.vae, size)

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`."""
        return encode_moments(pipeline.vae, pixels)

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_captions`: the tokens of all three encoders, and CLIP's pooled."""
        most = int(self.training_option("text_tokens"))
        text, _, pooled, _ = pipeline.encode_prompt(
            list(captions),
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=text_tokens(pipeline.tokenizer_3, most),
        )
        return {"text": text, "pooled": pooled}

    def loss(
        self,
        pipeline: Any,
        network: nn.Module,
        encoded: Tensor,
        conditions: dict[str, Tensor],
        draws: Draws,
    ) -> Tensor:
        """See `Family.loss`: mean squared error to the velocity."""
        latents = draw_latents(pipeline.vae, encoded, draws)
        noise = draws.normal(latents.shape[1:])
        sigma = noise_levels(pipeline, draws)
        dtype = pipeline.transformer.dtype
        predicted = network(
            hidden_states=noised(latents, noise, sigma).to(dtype),
            timestep=1000 * sigma,
            encoder_hidden_states=conditions["text"].to(dtype),
            pooled_projections=conditions["pooled"].to(dtype),
            return_dict=False,
        )[0]
        return squared_error(predicted, velocity(latents, noise))

    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """See `Family.sample`."""
        import torch

        return pipeline(
            list(captions),
            height=settings.size,
            width=settings.size,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            max_sequence_length=text_tokens(pipeline.tokenizer_3, TEXT_TOKENS),
        ).images


def noise_levels(pipeline: Any, draws: Draws) -> Tensor:
    """Draw noise levels uniformly, float32 (n,), whatever shift the scheduler samples with."""
    return uniform_sigma(draws)
