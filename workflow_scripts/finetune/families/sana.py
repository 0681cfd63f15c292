"""Sana: a linear diffusion transformer over the deep-compression autoencoder, with Gemma 2 text.

Xie et al., 2025 (arXiv 2410.10629). Flow matching with logit-normal noise levels, shifted by the
scheduler's `flow_shift`. The autoencoder is deterministic and shrinks the side by 32. It encodes in
float32, and the linear attention's scores are float32, as in Sana's own trainer.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import MASKED, Takes
from workflow_scripts.finetune.families.flow import (
    logit_normal_sigma,
    noised,
    shifted,
    squared_error,
    velocity,
)
from workflow_scripts.finetune.families.latent_pipeline import CAPTION_MASK, REMEDY, LatentPipeline
from workflow_scripts.finetune.families.options import Option
from workflow_scripts.finetune.families.parts import (
    require_fit,
    text_tokens,
    with_negative,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder
from workflow_scripts.finetune.layout import Base

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws

TEXT_TOKENS: Final = 300
"""Text tokens in Sana's published configuration (`model_max_length`) and its pipeline's default."""

SIDE: Final = 32
"""The pipeline takes multiples of it, with any autoencoder."""


class Sana(LatentPipeline):
    """See the module.

    The option `instruction`, of sampling and of training, puts the pipeline's instruction for
    language models before the caption ("complex human instruction"). Sana's published configuration
    has it; the benchmark's authors trained without it, so that is the default of both. Another
    option of training is `caption_mask_when_dropped` (see `with_caption_mask`).
    """

    name = "sana"
    trained = "transformer"
    takes = Takes(
        compile=("blocks", "network"),
        attention=MASKED,
        why="its attention to captions masks padding",
    )
    lora_positions = MappingProxyType({"attention": ("to_q", "to_k", "to_v")})
    options = MappingProxyType({"instruction": False})
    training_options = MappingProxyType({"instruction": False, CAPTION_MASK: False})
    encodes_in_float32 = True
    pipelines = ("SanaPipeline",)
    networks = MappingProxyType(
        {
            "transformer": "SanaTransformer2DModel",
            "vae": "AutoencoderDC",
            "text_encoder": "Gemma2Model",
        }
    )
    tokenizers = MappingProxyType({"tokenizer": "AutoTokenizer"})

    def check_fit(self, base: Base, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """See `LatentPipeline.check_fit`."""
        network, where = configs["transformer"], base.path("transformer") / "config.json"
        _require_shifted_flow(
            configs["scheduler"], base.path("scheduler") / "scheduler_config.json"
        )
        require_fit(
            configs["text_encoder"].get("hidden_size"),
            network.get("caption_channels"),
            "values per token of the text encoder, taken by the transformer",
            where,
        )
        self.require_latent_channels(base, configs)
        require_fit(
            network.get("in_channels"),
            network.get("out_channels") or network.get("in_channels"),
            "latent channels that the transformer takes and that it predicts",
            where,
        )
        if network.get("guidance_embeds"):
            raise InputError(
                "a distilled transformer, which takes the guidance scale as input (Sana-Sprint)",
                where,
                REMEDY,
            )

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """See `Family.load`. Its attention is the one of this module."""
        pipeline = super().load(base, dtype, network_dtype, vae_dtype)
        for block in pipeline.transformer.transformer_blocks:
            block.attn1.set_processor(LinearAttention())
        return pipeline

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        return [TextEncoder("Gemma", base.path("tokenizer"), TEXT_TOKENS)]

    def check_size(self, pipeline: Any, size: int) -> None:
        """See `Family.check_size`."""
        patch = pipeline.vae_scale_factor * pipeline.transformer.config.patch_size
        self.require_multiple(size, math.lcm(SIDE, patch))

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: the latent itself.

        Raises:
            InputError: a size that the pipeline does not sample.
        """
        self.check_size(pipeline, size)
        side = size // pipeline.vae_scale_factor
        return (pipeline.vae.config.latent_channels, side, side)

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`."""
        vae = pipeline.vae
        return vae.encode(pixels.to(vae.device, vae.dtype)).latent.float()

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_captions`: padded and cut, with the mask of the padding.

        The empty caption is encoded as the pipeline's negative prompt: without an instruction.
        """
        instructed = bool(self.training_option("instruction"))
        dropped = [not caption for caption in captions]
        text, mask, *negative = pipeline.encode_prompt(
            list(captions),
            do_classifier_free_guidance=instructed and any(dropped),
            clean_caption=False,
            max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS),
            complex_human_instruction=_instruction(pipeline) if instructed else None,
        )
        return with_negative(dropped, (text, mask), negative)

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

    def sample_arguments(self, pipeline: Any, options: Mapping[str, Option]) -> dict[str, Any]:
        """See `LatentPipeline.sample_arguments`.

        Without binning: by default, 512 pixels are sampled and enlarged to 1024.
        """
        return {
            "max_sequence_length": text_tokens(pipeline.tokenizer, TEXT_TOKENS),
            "use_resolution_binning": False,
            "clean_caption": False,
            "complex_human_instruction": _instruction(pipeline) if options["instruction"] else None,
        }


class LinearAttention:
    """Sana's attention without softmax: relu(q) (relu(k)^T v), over its sum, token by token.

    As diffusers' processor, but its two products are float32 under autocast, too, as in Sana's own
    trainer: there, they lose what they sum over all tokens.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend; `hidden_states` (n, tokens, width). There is no mask: all tokens are seen."""
        import torch
        from torch.nn.functional import pad, relu

        seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(seen), attn.to_v(seen)
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        with torch.autocast(hidden_states.device.type, enabled=False):
            query, key, value = (
                part.float().transpose(1, 2).unflatten(1, (attn.heads, -1))
                for part in (query, key, value)
            )
            # A row of ones beside the values sums the weights.
            sums = pad(value, (0, 0, 0, 1), value=1.0) @ relu(key).transpose(2, 3)
            products = sums @ relu(query)
            attended = products[:, :, :-1] / (products[:, :, -1:] + 1e-15)
        attended = attended.flatten(1, 2).transpose(1, 2).to(hidden_states.dtype)
        attended = attn.to_out[1](attn.to_out[0](attended))
        largest = torch.finfo(torch.float16).max
        return attended.clip(-largest, largest) if attended.dtype == torch.float16 else attended


def noise_levels(pipeline: Any, draws: Draws) -> Tensor:
    """Draw noise levels, float32 (n,): logit-normal, shifted as the scheduler samples."""
    return shifted(logit_normal_sigma(draws), pipeline.scheduler.config.flow_shift)


def _instruction(pipeline: Any) -> list[str]:
    """Return the lines that the pipeline puts before a caption by default."""
    return inspect.signature(pipeline.__call__).parameters["complex_human_instruction"].default


def _require_shifted_flow(config: Mapping[str, Any], schedule: Path) -> None:
    prediction, shift = config.get("prediction_type"), config.get("flow_shift")
    if prediction != "flow_prediction" or not config.get("use_flow_sigmas"):
        kind = config.get("_class_name")
        raise InputError(
            f"the scheduler {kind} (prediction {prediction!r}) is not one for flow matching",
            schedule,
            REMEDY,
        )
    if not isinstance(shift, (int, float)) or shift <= 0:
        raise InputError(
            "the scheduler has no `flow_shift`, by which noise levels are drawn", schedule, REMEDY
        )
