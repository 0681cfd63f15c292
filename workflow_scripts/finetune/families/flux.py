"""FLUX.1: a rectified-flow transformer over packed VAE latents, conditioned on CLIP and T5-XXL.

Black Forest Labs, 2024. Latents are packed 2 x 2 into tokens. Captions enter as CLIP's pooled
vector (77 tokens) and T5's sequence. FLUX.1-dev is distilled from guided samples: the guidance
scale is an input of the network, and there is no second pass without a caption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import ATTENTIONS, Takes
from workflow_scripts.finetune.families.flow import (
    logit_normal_sigma,
    noised,
    squared_error,
    velocity,
)
from workflow_scripts.finetune.families.latent_pipeline import REMEDY, LatentPipeline
from workflow_scripts.finetune.families.options import Option
from workflow_scripts.finetune.families.parts import (
    draw_latents,
    require_fit,
    text_tokens,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder, clip
from workflow_scripts.finetune.layout import Base

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws

TEXT_TOKENS: Final = 512
"""T5 tokens of a caption: the published pipeline's default (`max_sequence_length`)."""

TRAINING_GUIDANCE: Final = 1.0
"""The guidance scale that the network is given in training, where images are not guided. As in
ai-toolkit, with which the paper's authors fine-tuned."""

PACKED: Final = 2
"""Latents along each side of a token."""

_ATTENTION: Final = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
)
# `proj_out` of the single blocks, which mixes attention and MLP; the network's last layer has the
# same name and is adapted with them.
_MLP: Final = (
    "ff.net.0.proj",
    "ff.net.2",
    "ff_context.net.0.proj",
    "ff_context.net.2",
    "proj_mlp",
    "proj_out",
)


class Flux(LatentPipeline):
    """See the module."""

    name = "flux"
    trained = "transformer"
    takes = Takes(compile=("blocks", "network"), attention=ATTENTIONS)
    lora_positions = MappingProxyType(
        {"attention": _ATTENTION, "attention_mlp": (*_ATTENTION, *_MLP)}
    )
    pipelines = ("FluxPipeline",)
    networks = MappingProxyType(
        {
            "transformer": "FluxTransformer2DModel",
            "vae": "AutoencoderKL",
            "text_encoder": "CLIPTextModel",
            "text_encoder_2": "T5EncoderModel",
        }
    )
    tokenizers = MappingProxyType({"tokenizer": "CLIPTokenizer", "tokenizer_2": "AutoTokenizer"})

    def check_fit(self, base: Base, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """See `LatentPipeline.check_fit`. A token of the transformer is a square of latents."""
        network = configs["transformer"]
        require_fit(
            configs["text_encoder_2"].get("d_model"),
            network.get("joint_attention_dim"),
            "values per token of T5, taken by the transformer",
            base.path("text_encoder_2") / "config.json",
        )
        require_fit(
            configs["text_encoder"].get("hidden_size"),
            network.get("pooled_projection_dim"),
            "values of CLIP's pooled vector, taken by the transformer",
            base.path("text_encoder") / "config.json",
        )
        require_fit(
            configs["vae"].get("latent_channels", 0) * PACKED**2,
            network.get("in_channels"),
            "channels of the VAE's packed latents, taken by the transformer (a fill or depth "
            "model?)",
            base.path("transformer") / "config.json",
        )
        kind = configs["scheduler"].get("_class_name")
        if not str(kind).startswith("FlowMatch"):
            raise InputError(
                f"the scheduler {kind} is not one for flow matching",
                base.path("scheduler") / "scheduler_config.json",
                REMEDY,
            )

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        t5 = TextEncoder("T5", base.path("tokenizer_2"), TEXT_TOKENS)
        return [clip(base.path("tokenizer")), t5]

    def check_size(self, pipeline: Any, size: int) -> None:
        """See `Family.check_size`: latents are packed."""
        self.require_multiple(size, pipeline.vae_scale_factor * PACKED)

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_captions`; padded and cut, the padding attended, as at sampling.

        Returns:
            `text` (n, tokens, T5's width) and `pooled` (n, CLIP's width).
        """
        # Not by `encode_prompt`: it logs the captions that it cuts.
        clip, t5 = pipeline.text_encoder, pipeline.text_encoder_2
        clip_tokens = _padded(pipeline.tokenizer, captions, pipeline.tokenizer_max_length)
        t5_tokens = _padded(
            pipeline.tokenizer_2, captions, text_tokens(pipeline.tokenizer_2, TEXT_TOKENS)
        )
        return {
            "text": t5(t5_tokens.to(t5.device))[0],
            "pooled": clip(clip_tokens.to(clip.device)).pooler_output,
        }

    def loss(
        self,
        pipeline: Any,
        network: nn.Module,
        encoded: Tensor,
        conditions: dict[str, Tensor],
        draws: Draws,
    ) -> Tensor:
        """See `Family.loss`: flow matching on packed latents; sigma is an input."""
        import torch

        clean = draw_latents(pipeline.vae, encoded, draws)
        noise = draws.normal(clean.shape[1:])
        sigma = noise_levels(draws)
        n, channels, height, width = clean.shape
        clean, noise = (
            pipeline._pack_latents(latents, n, channels, height, width)
            for latents in (clean, noise)
        )
        device, text = clean.device, conditions["text"].float()
        guided = pipeline.transformer.config.guidance_embeds
        predicted = network(
            hidden_states=noised(clean, noise, sigma),
            timestep=sigma,
            guidance=torch.full((n,), TRAINING_GUIDANCE, device=device) if guided else None,
            encoder_hidden_states=text,
            pooled_projections=conditions["pooled"].float(),
            txt_ids=torch.zeros(text.shape[1], 3, device=device),
            img_ids=pipeline._prepare_latent_image_ids(
                n, height // PACKED, width // PACKED, device, torch.float32
            ),
            return_dict=False,
        )[0]
        return squared_error(predicted, velocity(clean, noise))

    def sample_arguments(self, pipeline: Any, options: Mapping[str, Option]) -> dict[str, Any]:
        """See `LatentPipeline.sample_arguments`: as many text tokens as in training."""
        return {"max_sequence_length": text_tokens(pipeline.tokenizer_2, TEXT_TOKENS)}


def noise_levels(draws: Draws) -> Tensor:
    """Draw noise levels in (0, 1), float32 (n,): logit-normal, not shifted.

    As `timestep_type: sigmoid`, ai-toolkit's default, with which the paper's authors trained; the
    scheduler's shift by the image's size is for sampling.
    """
    return logit_normal_sigma(draws)


def _padded(tokenizer: Any, captions: Sequence[str], length: int) -> Tensor:
    """Return token ids, int64 (n, length)."""
    return tokenizer(
        list(captions),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
