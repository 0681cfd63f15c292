"""Stable Diffusion 3 and 3.5: a multimodal diffusion transformer with two CLIPs and T5-XXL.

Esser et al., 2024 (arXiv 2403.03206). Flow matching; noise levels are uniform, as in the authors'
fine-tuning of SD 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import ATTENTIONS, Takes
from workflow_scripts.finetune.families.flow import (
    noised,
    squared_error,
    uniform_sigma,
    velocity,
)
from workflow_scripts.finetune.families.latent_pipeline import LatentPipeline
from workflow_scripts.finetune.families.options import Option
from workflow_scripts.finetune.families.parts import (
    draw_latents,
    require_fit,
    text_tokens,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder, clip
from workflow_scripts.finetune.layout import Base

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws

TEXT_TOKENS: Final = 512
"""T5 tokens, as the benchmark's authors sampled; CLIP takes its 77. The default is 256 both in the
pipeline and in the authors' training tool: see the training option `text_tokens`."""

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
_CLIPS: Final = ("text_encoder", "text_encoder_2")
_MLP = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")


class StableDiffusion3(LatentPipeline):
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
    pipelines = ("StableDiffusion3Pipeline",)
    networks = MappingProxyType(
        {
            "transformer": "SD3Transformer2DModel",
            "vae": "AutoencoderKL",
            "text_encoder": "CLIPTextModelWithProjection",
            "text_encoder_2": "CLIPTextModelWithProjection",
            "text_encoder_3": "T5EncoderModel",
        }
    )
    tokenizers = MappingProxyType(
        {
            "tokenizer": "CLIPTokenizer",
            "tokenizer_2": "CLIPTokenizer",
            "tokenizer_3": "AutoTokenizer",
        }
    )

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

    def check_fit(self, base: Base, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """See `LatentPipeline.check_fit`."""
        network, where = configs["transformer"], base.path("transformer") / "config.json"
        require_fit(
            configs["text_encoder_3"].get("d_model"),
            network.get("joint_attention_dim"),
            "values per token of text_encoder_3, taken by the transformer",
            where,
        )
        pooled = (configs[name].get("projection_dim", 0) for name in _CLIPS)
        require_fit(
            sum(pooled),
            network.get("pooled_projection_dim"),
            "pooled values of both CLIP text encoders, taken by the transformer",
            where,
        )
        self.require_latent_channels(base, configs)

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        t5 = TextEncoder("T5", base.path("tokenizer_3"), TEXT_TOKENS)
        return [clip(base.path("tokenizer")), clip(base.path("tokenizer_2")), t5]

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

    def sample_arguments(self, pipeline: Any, options: Mapping[str, Option]) -> dict[str, Any]:
        """See `LatentPipeline.sample_arguments`."""
        return {"max_sequence_length": text_tokens(pipeline.tokenizer_3, TEXT_TOKENS)}


def noise_levels(pipeline: Any, draws: Draws) -> Tensor:
    """Draw noise levels uniformly, float32 (n,), without the scheduler's shift for sampling."""
    return uniform_sigma(draws)
