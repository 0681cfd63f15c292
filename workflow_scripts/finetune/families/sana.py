"""Sana: a linear diffusion transformer over the deep-compression autoencoder, with Gemma 2 text.

Xie et al., 2025 (arXiv 2410.10629). Flow matching with logit-normal noise levels, shifted by the
scheduler's `flow_shift`. The autoencoder is deterministic and shrinks the side by 32. It encodes in
float32, and the linear attention's scores are float32, as in Sana's own trainer.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import MASKED, Takes
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
    load_tokenizer,
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
"""Of Sana's published configuration (`model_max_length`) and its pipeline's default."""

SIDE: Final = 32
"""The pipeline takes multiples of it, whatever the autoencoder."""

_REMEDY: Final = "use the published checkpoint, all of its components from one repository"


class Sana(Family):
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
    training_options = MappingProxyType({"instruction": False, "caption_mask_when_dropped": False})
    encodes_in_float32 = True

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        components = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
        files = check_pipeline_index(base, ("SanaPipeline",), components)
        network, network_files = component_files(base, "transformer", "diffusion_pytorch_model")
        vae, vae_files = component_files(base, "vae", "diffusion_pytorch_model")
        text, text_files = component_files(base, "text_encoder", "model")
        tokens, _ = tokenizer_files(base.path("tokenizer"))
        schedule = base.path("scheduler") / "scheduler_config.json"
        _require_shifted_flow(schedule)
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
        require_fit(
            network.get("in_channels"),
            network.get("out_channels") or network.get("in_channels"),
            "latent channels that the transformer takes and that it predicts",
            where,
        )
        if network.get("guidance_embeds"):
            raise InputError(
                "a distilled transformer that is told the guidance scale (Sana-Sprint)",
                where,
                _REMEDY,
            )
        return [*files, *network_files, *vae_files, *text_files, *tokens, schedule]

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        return [TextEncoder("Gemma", base.path("tokenizer"), TEXT_TOKENS)]

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """See `Family.load`."""
        self.check(base)
        from diffusers import AutoencoderDC, SanaPipeline, SanaTransformer2DModel
        from transformers import AutoTokenizer, Gemma2Model

        network = base.path("transformer")
        text_encoder = load_component(Gemma2Model, base.path("text_encoder"), dtype)
        transformer = load_component(SanaTransformer2DModel, network, network_dtype or dtype)
        for block in transformer.transformer_blocks:
            block.attn1.set_processor(LinearAttention())
        return SanaPipeline(
            transformer=transformer,
            vae=load_component(AutoencoderDC, base.path("vae"), vae_dtype or dtype),
            text_encoder=text_encoder,
            tokenizer=load_tokenizer(AutoTokenizer, base.path("tokenizer")),
            scheduler=load_scheduler(base.path("scheduler")),
        )

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
        import torch

        instructed = bool(self.training_option("instruction"))
        dropped = torch.tensor([not caption for caption in captions])
        text, mask, negative, negative_mask = pipeline.encode_prompt(
            list(captions),
            do_classifier_free_guidance=instructed and bool(dropped.any()),
            clean_caption=False,
            max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS),
            complex_human_instruction=_instruction(pipeline) if instructed else None,
        )
        if negative is not None:
            dropped = dropped.to(text.device)
            text = torch.where(dropped[:, None, None], negative, text)
            mask = torch.where(dropped[:, None], negative_mask, mask)
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
        """See `Family.sample`.

        Without binning and with the size: by default, 512 pixels are sampled and enlarged to 1024.

        Raises:
            InputError: a size that the pipeline does not sample.
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
            use_resolution_binning=False,
            clean_caption=False,
            complex_human_instruction=_instruction(pipeline) if options["instruction"] else None,
        ).images


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


def _require_shifted_flow(schedule: Path) -> None:
    config = read_json(schedule)
    prediction, shift = config.get("prediction_type"), config.get("flow_shift")
    if prediction != "flow_prediction" or not config.get("use_flow_sigmas"):
        kind = config.get("_class_name")
        raise InputError(
            f"the scheduler {kind} (prediction {prediction!r}) does not sample along flows",
            schedule,
            _REMEDY,
        )
    if not isinstance(shift, (int, float)) or shift <= 0:
        raise InputError(
            "the scheduler has no `flow_shift`, by which noise levels are drawn", schedule, _REMEDY
        )
