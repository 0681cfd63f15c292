"""PixArt-Sigma: a diffusion transformer over the SDXL VAE's latents, conditioned on T5-XXL.

Chen et al., 2024 (arXiv 2403.04692). It predicts the noise and, in as many channels again, a
variance that its samplers do not use; fine-tuning trains the noise, and leaves out the term of the
variance that PixArt's own trainer adds (in the mean 0.0017 beside 0.089). The transformer and the
other components were published in two repositories, so parts may lie elsewhere than the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.speed import MASKED, Takes
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.flow import squared_error
from workflow_scripts.finetune.families.parts import (
    draw_latents,
    encode_moments,
    load_component,
    load_scheduler,
    load_tokenizer,
    moments_shape,
    require_fit,
    text_tokens,
    with_caption_mask,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder
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
"""Of PixArt-Sigma's published configuration (`model_max_length`) and its pipeline's default."""


class PixArtSigma(Family):
    """See the module. Its pipeline cannot save LoRA weights.

    The option of training is `caption_mask_when_dropped` (see `with_caption_mask`). Images are
    decoded in float32: in float16, the SDXL VAE may overflow.
    """

    name = "pixart_sigma"
    trained = "transformer"
    takes = Takes(
        compile=("blocks", "network"),
        attention=MASKED,
        why="its attention to captions masks padding",
    )
    training_options = MappingProxyType({"caption_mask_when_dropped": False})
    decodes_in_float32 = True

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        components = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
        files = check_pipeline_index(base, ("PixArtSigmaPipeline",), components)
        network, network_files = component_files(base, "transformer", "diffusion_pytorch_model")
        vae, vae_files = component_files(base, "vae", "diffusion_pytorch_model")
        text, text_files = component_files(base, "text_encoder", "model")
        tokens, _ = tokenizer_files(base.path("tokenizer"))
        where = base.path("transformer") / "config.json"
        require_fit(
            text.get("d_model"),
            network.get("caption_channels"),
            "values per token of the text encoder, taken by the transformer",
            where,
        )
        require_fit(
            vae.get("latent_channels"),
            network.get("in_channels"),
            "latent channels of the VAE, taken by the transformer",
            where,
        )
        schedule = base.path("scheduler") / "scheduler_config.json"
        if schedule.is_file():
            read_json(schedule)
            files.append(schedule)
        return [*files, *network_files, *vae_files, *text_files, *tokens]

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        return [TextEncoder("T5", base.path("tokenizer"), TEXT_TOKENS)]

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """See `Family.load`. Without a scheduler's folder, the published pipeline's own."""
        self.check(base)
        from diffusers import (
            AutoencoderKL,
            DPMSolverMultistepScheduler,
            PixArtSigmaPipeline,
            PixArtTransformer2DModel,
        )
        from transformers import AutoTokenizer, T5EncoderModel

        network = base.path("transformer")
        return PixArtSigmaPipeline(
            transformer=load_component(PixArtTransformer2DModel, network, network_dtype or dtype),
            vae=load_component(AutoencoderKL, base.path("vae"), vae_dtype or dtype),
            text_encoder=load_component(T5EncoderModel, base.path("text_encoder"), dtype),
            tokenizer=load_tokenizer(AutoTokenizer, base.path("tokenizer")),
            scheduler=load_scheduler(base.path("scheduler"))
            if base.path("scheduler").is_dir()
            else DPMSolverMultistepScheduler(),
        )

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: mean and log-variance of the latents."""
        return moments_shape(pipeline.vae, size)

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`."""
        return encode_moments(pipeline.vae, pixels)

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_captions`: uncleaned, padded and cut, with the mask of the padding."""
        text, mask, *_ = pipeline.encode_prompt(
            list(captions),
            do_classifier_free_guidance=False,
            clean_caption=False,
            max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS),
        )
        return {"text": text, "mask": mask}

    def encode_shown(
        self, pipeline: Any, captions: Sequence[str], dropped: Sequence[bool]
    ) -> dict[str, Tensor]:
        """See `Family.encode_shown`."""
        conditions = super().encode_shown(pipeline, captions, dropped)
        if self.training_option("caption_mask_when_dropped") and any(dropped):
            return with_caption_mask(conditions, self.encode_captions(pipeline, captions))
        return conditions

    def loss(
        self,
        pipeline: Any,
        network: nn.Module,
        encoded: Tensor,
        conditions: dict[str, Tensor],
        draws: Draws,
    ) -> Tensor:
        """See `Family.loss`: mean squared error to the noise, at uniform noise levels."""
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        latents = draw_latents(pipeline.vae, encoded, draws)
        noise = draws.normal(latents.shape[1:])
        timesteps = draws.integers(scheduler.config.num_train_timesteps)
        predicted = network(
            scheduler.add_noise(latents, noise, timesteps).to(pipeline.transformer.dtype),
            encoder_hidden_states=conditions["text"].to(pipeline.transformer.dtype),
            encoder_attention_mask=conditions["mask"],
            timestep=timesteps,
            # Only the 1024-pixel network is told the picture's size.
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return squared_error(predicted[:, : latents.shape[1]], noise)

    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """See `Family.sample`. No binning: it would sample another size and resize."""
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
        ).images
