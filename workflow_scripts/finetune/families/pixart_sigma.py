"""PixArt-Sigma: a diffusion transformer over the SDXL VAE's latents, conditioned on T5-XXL.

Chen et al., 2024 (arXiv 2403.04692). It predicts the noise and, in as many channels again, a
variance that its samplers do not use; fine-tuning trains the noise, and leaves out the term of the
variance that PixArt's own trainer adds (on average 0.0017, against 0.089). The transformer and the
other components were published in two repositories, so parts may lie elsewhere than the base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.speed import MASKED, Takes
from workflow_scripts.finetune.families.flow import squared_error
from workflow_scripts.finetune.families.latent_pipeline import CAPTION_MASK, LatentPipeline
from workflow_scripts.finetune.families.options import Option
from workflow_scripts.finetune.families.parts import (
    draw_latents,
    require_fit,
    text_tokens,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder
from workflow_scripts.finetune.layout import Base

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws

TEXT_TOKENS: Final = 300
"""Text tokens in PixArt-Sigma's published configuration (`model_max_length`) and its pipeline."""


class PixArtSigma(LatentPipeline):
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
    training_options = MappingProxyType({CAPTION_MASK: False})
    decodes_in_float32 = True
    pipelines = ("PixArtSigmaPipeline",)
    networks = MappingProxyType(
        {
            "transformer": "PixArtTransformer2DModel",
            "vae": "AutoencoderKL",
            "text_encoder": "T5EncoderModel",
        }
    )
    tokenizers = MappingProxyType({"tokenizer": "AutoTokenizer"})
    scheduler = "DPMSolverMultistepScheduler"  # as in the published pipeline

    def check_fit(self, base: Base, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """See `LatentPipeline.check_fit`."""
        require_fit(
            configs["text_encoder"].get("d_model"),
            configs["transformer"].get("caption_channels"),
            "values per token of the text encoder, taken by the transformer",
            base.path("transformer") / "config.json",
        )
        self.require_latent_channels(base, configs)

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        return [TextEncoder("T5", base.path("tokenizer"), TEXT_TOKENS)]

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_captions`: uncleaned, padded and cut, with the mask of the padding."""
        text, mask, *_ = pipeline.encode_prompt(
            list(captions),
            do_classifier_free_guidance=False,
            clean_caption=False,
            max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS),
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
            # Only the 1024-pixel network takes the picture's size.
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return squared_error(predicted[:, : latents.shape[1]], noise)

    def sample_arguments(self, pipeline: Any, options: Mapping[str, Option]) -> dict[str, Any]:
        """See `LatentPipeline.sample_arguments`. Binning would sample another size and resize."""
        return {
            "max_sequence_length": text_tokens(pipeline.tokenizer, TEXT_TOKENS),
            "use_resolution_binning": False,
            "clean_caption": False,
        }
