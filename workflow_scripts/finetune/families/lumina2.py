"""Lumina Image 2.0: a single-stream diffusion transformer with Gemma 2 text.

Qin et al., 2025 (arXiv 2503.21758). Flow matching that runs the other way: the network's time is 1
at the image, and it predicts the direction towards the image. Noise levels are uniform, as in
effect in ai-toolkit, with which the paper's authors trained: its `timestep_type: lumina2_shift`
is meant to shift them as the checkpoint's scheduler does, but its own scheduler loses the
checkpoint's `shift` of 6 and uses 1. Sampling shifts by 6. Only the transformer is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import MASKED, Takes
from workflow_scripts.finetune.families.flow import (
    noised,
    shift_by_size,
    shifted,
    squared_error,
    uniform_sigma,
)
from workflow_scripts.finetune.families.latent_pipeline import REMEDY, LatentPipeline
from workflow_scripts.finetune.families.options import Option
from workflow_scripts.finetune.families.parts import (
    draw_latents,
    require_fit,
    text_tokens,
    with_negative,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder
from workflow_scripts.finetune.layout import Base

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws

TEXT_TOKENS: Final = 256
"""The pipeline's default `max_sequence_length`; the system prompt's tokens are among them."""

PATCH: Final = 2
"""A token of the transformer is a square of this side in the latents."""

VAE_LEVELS: Final = 4
"""The pipeline assumes latents of an eighth of the side, with any VAE."""

_ATTENTION: Final = ("to_q", "to_k", "to_v")
_MLP: Final = ("feed_forward.linear_1", "feed_forward.linear_2", "feed_forward.linear_3")


class Lumina2(LatentPipeline):
    """See the module.

    The sampling options are the pipeline's: `cfg_trunc_ratio`, the share of the steps, from noise
    on, that are guided; `cfg_normalization`, whether a guided prediction keeps the conditional
    one's norm. The option of training is `shift_by_size`: noise levels as in Lumina's own trainer.
    """

    name = "lumina2"
    trained = "transformer"
    takes = Takes(
        attention=MASKED,
        why="it reads captions' lengths from their mask, which is padding in its attention, and "
        "has other shapes in each batch",
    )
    lora_positions = MappingProxyType(
        {"attention": _ATTENTION, "attention_mlp": (*_ATTENTION, *_MLP)}
    )
    options = MappingProxyType({"cfg_trunc_ratio": 1.0, "cfg_normalization": True})
    training_options = MappingProxyType({"shift_by_size": False})
    pipelines = ("Lumina2Pipeline", "Lumina2Text2ImgPipeline")
    networks = MappingProxyType(
        {
            "transformer": "Lumina2Transformer2DModel",
            "vae": "AutoencoderKL",
            "text_encoder": "Gemma2Model",
        }
    )
    tokenizers = MappingProxyType({"tokenizer": "AutoTokenizer"})

    def check_fit(self, base: Base, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """See `LatentPipeline.check_fit`."""
        vae, autoencoder = configs["vae"], base.path("vae") / "config.json"
        _require_fixed_shift(configs["scheduler"], base.path("scheduler") / "scheduler_config.json")
        require_fit(
            configs["text_encoder"].get("hidden_size"),
            configs["transformer"].get("cap_feat_dim"),
            "values per token of the text encoder, taken by the transformer",
            base.path("transformer") / "config.json",
        )
        self.require_latent_channels(base, configs)
        require_fit(
            len(vae.get("block_out_channels", ())),
            VAE_LEVELS,
            "levels of the VAE, taken by the pipeline",
            autoencoder,
        )
        if vae.get("shift_factor") is None:
            raise InputError(
                "the VAE has no `shift_factor`, which the pipeline adds to latents",
                autoencoder,
                REMEDY,
            )

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        name = "Gemma, with a system prompt"
        folder = base.path("tokenizer")
        return [TextEncoder(name, folder, TEXT_TOKENS, template=_after_system_prompt)]

    def check_size(self, pipeline: Any, size: int) -> None:
        """See `Family.check_size`."""
        self.require_multiple(size, pipeline.vae_scale_factor * PATCH)

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_captions`: after the pipeline's system prompt, with the mask.

        The empty caption is encoded as the pipeline's negative prompt: without a system prompt.

        Returns:
            `text` (n, tokens, Gemma's width) and `mask` (n, tokens), 1 at tokens, 0 at padding.
        """
        dropped = [not caption for caption in captions]
        text, mask, *negative = pipeline.encode_prompt(
            list(captions),
            do_classifier_free_guidance=any(dropped),
            max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS),
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
        """See `Family.loss`: mean squared error to the direction towards the image."""
        latents = draw_latents(pipeline.vae, encoded, draws)
        noise = draws.normal(latents.shape[1:])
        tokens = latents.shape[-2] * latents.shape[-1] // PATCH**2
        sigma = noise_levels(draws, tokens if self.training_option("shift_by_size") else None)
        dtype = pipeline.transformer.dtype
        predicted = network(
            hidden_states=noised(latents, noise, sigma).to(dtype),
            timestep=1 - sigma,
            encoder_hidden_states=conditions["text"].to(dtype),
            encoder_attention_mask=conditions["mask"],
            return_dict=False,
        )[0]
        return squared_error(predicted, latents - noise)

    def sample_arguments(self, pipeline: Any, options: Mapping[str, Option]) -> dict[str, Any]:
        """See `LatentPipeline.sample_arguments`."""
        return {
            "max_sequence_length": text_tokens(pipeline.tokenizer, TEXT_TOKENS),
            "cfg_trunc_ratio": float(options["cfg_trunc_ratio"]),
            "cfg_normalization": bool(options["cfg_normalization"]),
        }


def noise_levels(draws: Draws, tokens: int | None = None) -> Tensor:
    """Draw noise levels in (0, 1], float32 (n,): uniform.

    Args:
        draws: one stream per image.
        tokens: of an image, to shift by its size as Lumina's own trainer does: by e^0.63 = 1.88 at
            the 1,024 of 512 pixels. None: no shift.
    """
    sigma = uniform_sigma(draws)
    return sigma if tokens is None else shifted(sigma, shift_by_size(tokens))


def _require_fixed_shift(config: Mapping[str, Any], schedule: Path) -> None:
    kind, shift = config.get("_class_name"), config.get("shift")
    if not str(kind).startswith("FlowMatch"):
        raise InputError(f"the scheduler {kind} is not one for flow matching", schedule, REMEDY)
    fixed = isinstance(shift, (int, float)) and shift > 0
    if not fixed or config.get("use_dynamic_shifting"):
        raise InputError(
            "the scheduler has no fixed `shift`, by which images are sampled", schedule, REMEDY
        )


def _after_system_prompt(caption: str) -> str:
    """Return what Lumina's pipeline tokenizes: its system prompt comes first, and counts."""
    return f"{_system_prompt()} <Prompt Start> {caption}"


@cache
def _system_prompt() -> str:
    from diffusers import Lumina2Pipeline

    pipeline: Any = Lumina2Pipeline(*5 * (None,))
    return str(pipeline.system_prompt)
