"""Lumina Image 2.0: a single-stream diffusion transformer with Gemma 2 text.

Qin et al., 2025 (arXiv 2503.21758). Flow matching that runs the other way: the network's time is 1
at the image, and it predicts the direction towards the image. Noise levels are uniform, as in
effect in ai-toolkit, with which the paper's authors trained: its `timestep_type: lumina2_shift`
means to shift them as the checkpoint's scheduler does, whose `shift` of 6 its own scheduler loses
(1 instead). Sampling shifts by 6. Only the transformer is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import MASKED, Takes
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.flow import (
    noised,
    shift_by_size,
    shifted,
    squared_error,
    uniform_sigma,
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

TEXT_TOKENS: Final = 256
"""The pipeline's default `max_sequence_length`; the system prompt's tokens are among them."""

PATCH: Final = 2
"""A token of the transformer is a square of this side in the latents."""

VAE_LEVELS: Final = 4
"""The pipeline takes an eighth of the side as given, whatever the VAE."""

_ATTENTION: Final = ("to_q", "to_k", "to_v")
_MLP: Final = ("feed_forward.linear_1", "feed_forward.linear_2", "feed_forward.linear_3")
_REMEDY: Final = "use the published checkpoint, all of its components from one repository"


class Lumina2(Family):
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

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        components = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
        pipelines = ("Lumina2Pipeline", "Lumina2Text2ImgPipeline")
        files = check_pipeline_index(base, pipelines, components)
        network, network_files = component_files(base, "transformer", "diffusion_pytorch_model")
        vae, vae_files = component_files(base, "vae", "diffusion_pytorch_model")
        text, text_files = component_files(base, "text_encoder", "model")
        tokens, _ = tokenizer_files(base.path("tokenizer"))
        schedule = base.path("scheduler") / "scheduler_config.json"
        _require_fixed_shift(schedule)
        where = base.path("transformer") / "config.json"
        require_fit(
            text.get("hidden_size"),
            network.get("cap_feat_dim"),
            "values per token of the text encoder, taken by the transformer",
            where,
        )
        require_fit(
            vae.get("latent_channels"),
            network.get("in_channels"),
            "latent channels of the VAE, taken by the transformer",
            where,
        )
        require_fit(
            len(vae.get("block_out_channels", ())),
            VAE_LEVELS,
            "levels of the VAE, taken by the pipeline",
            base.path("vae") / "config.json",
        )
        if vae.get("shift_factor") is None:
            raise InputError(
                "the VAE has no `shift_factor`, which the pipeline adds to latents",
                base.path("vae") / "config.json",
                _REMEDY,
            )
        return [*files, *network_files, *vae_files, *text_files, *tokens, schedule]

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        name = "Gemma, with a system prompt"
        folder = base.path("tokenizer")
        return [TextEncoder(name, folder, TEXT_TOKENS, template=_after_system_prompt)]

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """See `Family.load`."""
        self.check(base)
        from diffusers import AutoencoderKL, Lumina2Pipeline, Lumina2Transformer2DModel
        from transformers import AutoTokenizer, Gemma2Model

        network = base.path("transformer")
        text_encoder = load_component(Gemma2Model, base.path("text_encoder"), dtype)
        return Lumina2Pipeline(
            transformer=load_component(Lumina2Transformer2DModel, network, network_dtype or dtype),
            vae=load_component(AutoencoderKL, base.path("vae"), vae_dtype or dtype),
            text_encoder=text_encoder,
            tokenizer=load_tokenizer(AutoTokenizer, base.path("tokenizer")),
            scheduler=load_scheduler(base.path("scheduler")),
        )

    def check_size(self, pipeline: Any, size: int) -> None:
        """See `Family.check_size`."""
        self.require_multiple(size, pipeline.vae_scale_factor * PATCH)

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: mean and log-variance of the latents.

        Raises:
            InputError: a size whose latents are no whole number of patches.
        """
        self.check_size(pipeline, size)
        return moments_shape(pipeline.vae, size)

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`."""
        return encode_moments(pipeline.vae, pixels)

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_captions`: after the pipeline's system prompt, with the mask.

        The empty caption is encoded as the pipeline's negative prompt: without a system prompt.

        Returns:
            `text` (n, tokens, Gemma's width) and `mask` (n, tokens), 1 at tokens, 0 at padding.
        """
        import torch

        dropped = torch.tensor([not caption for caption in captions])
        text, mask, negative, negative_mask = pipeline.encode_prompt(
            list(captions),
            do_classifier_free_guidance=bool(dropped.any()),
            max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS),
        )
        if negative is not None:
            dropped = dropped.to(text.device)
            text = torch.where(dropped[:, None, None], negative, text)
            mask = torch.where(dropped[:, None], negative_mask, mask)
        return {"text": text, "mask": mask}

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

    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """See `Family.sample`.

        Raises:
            InputError: a size whose latents are no whole number of patches.
        """
        import torch

        self.check_size(pipeline, settings.size)
        options = {**self.options, **settings.options}
        return pipeline(
            list(captions),
            height=settings.size,
            width=settings.size,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS),
            cfg_trunc_ratio=float(options["cfg_trunc_ratio"]),
            cfg_normalization=bool(options["cfg_normalization"]),
        ).images


def noise_levels(draws: Draws, tokens: int | None = None) -> Tensor:
    """Draw noise levels in (0, 1], float32 (n,): uniform.

    Args:
        draws: one stream per image.
        tokens: of an image, to shift by its size as Lumina's own trainer does: by e^0.63 = 1.88 at
            the 1,024 of 512 pixels. None: no shift.
    """
    sigma = uniform_sigma(draws)
    return sigma if tokens is None else shifted(sigma, shift_by_size(tokens))


def _require_fixed_shift(schedule: Path) -> None:
    config = read_json(schedule)
    kind, shift = config.get("_class_name"), config.get("shift")
    if not str(kind).startswith("FlowMatch"):
        raise InputError(f"the scheduler {kind} does not match flows", schedule, _REMEDY)
    fixed = isinstance(shift, (int, float)) and shift > 0
    if not fixed or config.get("use_dynamic_shifting"):
        raise InputError(
            "the scheduler has no fixed `shift`, by which images are sampled", schedule, _REMEDY
        )


def _after_system_prompt(caption: str) -> str:
    """Return what Lumina's pipeline tokenizes: its system prompt comes first, and counts."""
    return f"{_system_prompt()} <Prompt Start> {caption}"


@cache
def _system_prompt() -> str:
    from diffusers import Lumina2Pipeline

    pipeline: Any = Lumina2Pipeline(*5 * (None,))
    return str(pipeline.system_prompt)
