"""Sana: a linear diffusion transformer over the deep-compression autoencoder, with Gemma 2 text.

Xie et al., 2025 (arXiv 2410.10629). Flow matching with logit-normal noise levels, shifted by the
scheduler's `flow_shift`. The autoencoder is deterministic and shrinks the side by 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.flow import (
    logit_normal_sigma,
    noised,
    shifted,
    squared_error,
    velocity,
)
from workflow_scripts.finetune.families.parts import (
    load_component,
    load_scheduler,
    require_fit,
    text_tokens,
)
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

TEXT_TOKENS: Final = 300
"""Of Sana's published configuration (`model_max_length`) and its pipeline's default."""


class Sana(Family):
    """See the module.

    The pipeline's default puts an instruction for language models before the caption ("complex
    human instruction"); the benchmark's authors trained without it, so sampling has none, too.
    """

    name = "sana"
    trained = "transformer"
    lora_positions = MappingProxyType({"attention": ("to_q", "to_k", "to_v")})

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        components = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
        files = check_pipeline_index(base, ("SanaPipeline",), components)
        network, network_files = component_files(base, "transformer", "diffusion_pytorch_model")
        vae, vae_files = component_files(base, "vae", "diffusion_pytorch_model")
        text, text_files = component_files(base, "text_encoder", "model")
        tokens, _ = tokenizer_files(base.path("tokenizer"))
        schedule = base.path("scheduler") / "scheduler_config.json"
        read_json(schedule)
        where = base.path("transformer") / "config.json"
        require_fit(
            text.get("hidden_size"),
            network.get("caption_channels"),
            "values per token of the text encoder, taken by the transformer",
            where,
        )
        require_fit(
            vae.get("latent_channels"),
            network.get("in_channels"),
            "latent channels of the autoencoder, taken by the transformer",
            where,
        )
        return [*files, *network_files, *vae_files, *text_files, *tokens, schedule]

    def load(
        self, base: Base, dtype: torch.dtype | None = None, network_dtype: torch.dtype | None = None
    ) -> Any:
        """See `Family.load`."""
        self.check(base)
        from diffusers import AutoencoderDC, SanaPipeline, SanaTransformer2DModel
        from transformers import AutoTokenizer, Gemma2Model

        network = base.path("transformer")
        tokenizer: Any = AutoTokenizer.from_pretrained(
            base.path("tokenizer"), local_files_only=True
        )
        text_encoder = load_component(Gemma2Model, base.path("text_encoder"), dtype)
        return SanaPipeline(
            transformer=load_component(SanaTransformer2DModel, network, network_dtype or dtype),
            vae=load_component(AutoencoderDC, base.path("vae"), dtype),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=load_scheduler(base.path("scheduler")),
        )

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: the latent itself."""
        side = size // pipeline.vae_scale_factor
        return (pipeline.vae.config.latent_channels, side, side)

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`."""
        vae = pipeline.vae
        return vae.encode(pixels.to(vae.device, vae.dtype)).latent.float()

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_captions`: padded and cut, with the mask of the padding."""
        text, mask, *_ = pipeline.encode_prompt(
            list(captions),
            do_classifier_free_guidance=False,
            clean_caption=False,
            max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS),
            complex_human_instruction=None,
        )
        return {"text": text, "mask": mask}

    def loss(
        self,
        pipeline: Any,
        network: nn.Module,
        encoded: Tensor,
        conditions: dict[str, Tensor],
        draws: Draws,
    ) -> Tensor:
        """See `Family.loss`: mean squared error to the velocity."""
        latents = encoded * pipeline.vae.config.scaling_factor
        noise = draws.normal(latents.shape[1:])
        sigma = noise_levels(pipeline, draws)
        transformer = pipeline.transformer
        predicted = network(
            hidden_states=noised(latents, noise, sigma).to(transformer.dtype),
            encoder_hidden_states=conditions["text"].to(transformer.dtype),
            encoder_attention_mask=conditions["mask"],
            timestep=1000 * sigma * transformer.config.timestep_scale,
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
        """See `Family.sample`. No binning: it would sample 512 pixels and enlarge them."""
        import torch

        return pipeline(
            list(captions),
            height=settings.size,
            width=settings.size,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS),
            use_resolution_binning=False,
            clean_caption=False,
            complex_human_instruction=None,
        ).images


def noise_levels(pipeline: Any, draws: Draws) -> Tensor:
    """Draw noise levels, float32 (n,): logit-normal, shifted as the scheduler samples."""
    return shifted(logit_normal_sigma(draws), pipeline.scheduler.config.flow_shift)
