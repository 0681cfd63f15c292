"""FLUX.1: a rectified-flow transformer over packed VAE latents, conditioned on CLIP and T5-XXL.

Black Forest Labs, 2024. Latents are packed 2 x 2 into tokens. Captions enter as CLIP's pooled
vector (77 tokens) and T5's sequence. FLUX.1-dev is distilled from guided samples: the guidance
scale is an input of the network, and there is no second pass without a caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import ATTENTIONS, Takes
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.flow import (
    logit_normal_sigma,
    noised,
    squared_error,
    velocity,
)
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
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws

TEXT_TOKENS: Final = 512
"""T5 tokens of a caption: the published pipeline's default (`max_sequence_length`)."""

TRAINING_GUIDANCE: Final = 1.0
"""The guidance scale that the network is told in training: images as they are, not guided. As in
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
_REMEDY: Final = "use the published checkpoint, all of its components from one repository"


class Flux(Family):
    """See the module."""

    name = "flux"
    trained = "transformer"
    takes = Takes(compile=("blocks", "network"), attention=ATTENTIONS)
    lora_positions = MappingProxyType(
        {"attention": _ATTENTION, "attention_mlp": (*_ATTENTION, *_MLP)}
    )

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        components = (
            "transformer",
            "vae",
            "text_encoder",
            "tokenizer",
            "text_encoder_2",
            "tokenizer_2",
            "scheduler",
        )
        files = check_pipeline_index(base, ("FluxPipeline",), components)
        network, network_files = component_files(base, "transformer", "diffusion_pytorch_model")
        vae, vae_files = component_files(base, "vae", "diffusion_pytorch_model")
        clip, clip_files = component_files(base, "text_encoder", "model")
        t5, t5_files = component_files(base, "text_encoder_2", "model")
        clip_tokens, vocabulary = tokenizer_files(base.path("tokenizer"))
        t5_tokens, _ = tokenizer_files(base.path("tokenizer_2"))
        require_fit(
            t5.get("d_model"),
            network.get("joint_attention_dim"),
            "values per token of T5, taken by the transformer",
            base.path("text_encoder_2") / "config.json",
        )
        require_fit(
            clip.get("hidden_size"),
            network.get("pooled_projection_dim"),
            "values of CLIP's pooled vector, taken by the transformer",
            base.path("text_encoder") / "config.json",
        )
        require_fit(
            vae.get("latent_channels", 0) * PACKED**2,
            network.get("in_channels"),
            "channels of the VAE's packed latents, taken by the transformer (a fill or depth "
            "model?)",
            base.path("transformer") / "config.json",
        )
        if vocabulary is not None and vocabulary > clip.get("vocab_size", 0):
            raise InputError(
                f"the tokenizer knows {vocabulary} tokens, CLIP {clip.get('vocab_size')}",
                base.path("tokenizer") / "vocab.json",
                _REMEDY,
            )
        schedule = base.path("scheduler") / "scheduler_config.json"
        kind = read_json(schedule).get("_class_name")
        if not str(kind).startswith("FlowMatch"):
            raise InputError(f"the scheduler {kind} does not match flows", schedule, _REMEDY)
        tokens = [*clip_tokens, *t5_tokens]
        return [*files, *network_files, *vae_files, *clip_files, *t5_files, *tokens, schedule]

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        t5 = TextEncoder("T5", base.path("tokenizer_2"), TEXT_TOKENS)
        return [clip(base.path("tokenizer")), t5]

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """See `Family.load`."""
        self.check(base)
        from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
        from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, T5EncoderModel

        network = base.path("transformer")
        return FluxPipeline(
            transformer=load_component(FluxTransformer2DModel, network, network_dtype or dtype),
            vae=load_component(AutoencoderKL, base.path("vae"), vae_dtype or dtype),
            text_encoder=load_component(CLIPTextModel, base.path("text_encoder"), dtype),
            tokenizer=load_tokenizer(CLIPTokenizer, base.path("tokenizer")),
            text_encoder_2=load_component(T5EncoderModel, base.path("text_encoder_2"), dtype),
            tokenizer_2=load_tokenizer(AutoTokenizer, base.path("tokenizer_2")),
            scheduler=load_scheduler(base.path("scheduler")),
        )

    def check_size(self, pipeline: Any, size: int) -> None:
        """See `Family.check_size`: latents are packed."""
        self.require_multiple(size, pipeline.vae_scale_factor * PACKED)

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: mean and log-variance of the latents.

        Raises:
            InputError: a size whose latents cannot be packed.
        """
        self.check_size(pipeline, size)
        return moments_shape(pipeline.vae, size)

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`."""
        return encode_moments(pipeline.vae, pixels)

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
        """See `Family.loss`: flow matching on packed latents; the network is told sigma."""
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

    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """See `Family.sample`. Guidance is the network's input; as many text tokens as in training.

        Raises:
            InputError: a size whose latents cannot be packed; the pipeline would shrink it.
        """
        import torch

        self.check_size(pipeline, settings.size)
        return pipeline(
            list(captions),
            height=settings.size,
            width=settings.size,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            max_sequence_length=text_tokens(pipeline.tokenizer_2, TEXT_TOKENS),
        ).images


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
