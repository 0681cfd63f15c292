"""RadEdit: a Stable Diffusion UNet for chest radiographs, only sampled.

Perez-Garcia et al., 2024 (arXiv 2312.12865). microsoft/radedit publishes the UNet alone. The VAE
is SDXL's (stabilityai/sdxl-vae), the text encoder BioViL-T's CXR-BERT
(microsoft/BiomedVLP-BioViL-T). They are put together as in CheXGenBench's official release: DDIM,
captions padded to 128 tokens, and no attention mask, so that the padding is attended too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.checkpoints import build_device, load_exactly, load_state
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import ATTENTIONS, Takes
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.parts import (
    WITHOUT_SAFETY_CHECKER,
    decode_images,
    load_component,
    load_tokenizer,
    require_fit,
    sample_images,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder
from workflow_scripts.finetune.layout import (
    Base,
    component_files,
    read_json,
    tokenizer_files,
    weight_files,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image

TEXT_TOKENS: Final = 128

NOISE_SCHEDULE: Final = MappingProxyType(
    {
        "beta_schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 2e-2,
        "clip_sample": False,
        "prediction_type": "epsilon",
        "timestep_spacing": "trailing",
        "steps_offset": 1,
    }
)
"""As in the official release, which leaves the betas at diffusers' defaults."""

_SOURCES: Final = MappingProxyType(
    {"vae": "stabilityai/sdxl-vae", "text_encoder": "microsoft/BiomedVLP-BioViL-T"}
)
_REMEDY = "use the UNet of microsoft/radedit, stabilityai/sdxl-vae and BiomedVLP-BioViL-T"


class RadEdit(Family):
    """See the module. Parts: `vae`, `text_encoder`, and `tokenizer` if it lies elsewhere.

    Images are decoded in float32: in float16, the SDXL VAE may overflow.
    """

    name = "radedit"
    denoiser = "unet"
    takes = Takes(compile=("blocks", "network"), channels_last=True, attention=ATTENTIONS)
    decodes_in_float32 = True

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        for component, source in _SOURCES.items():
            if not base.path(component).is_dir():
                raise InputError(
                    f"the {component}'s folder is missing; microsoft/radedit holds only the UNet",
                    base.path(component),
                    f"name a folder of {source} as the model's `parts.{component}`",
                )
        unet, unet_files = component_files(base, "unet", "diffusion_pytorch_model")
        vae, vae_files = component_files(base, "vae", "diffusion_pytorch_model")
        text, text_files = component_files(base, "text_encoder", "model")
        tokens, _ = tokenizer_files(_tokenizer_folder(base))
        where = base.path("text_encoder") / "config.json"
        require_fit(
            text.get("hidden_size"),
            unet.get("cross_attention_dim"),
            "values per token of the text encoder, taken by the UNet",
            where,
        )
        require_fit(
            vae.get("latent_channels"),
            unet.get("in_channels"),
            "latent channels of the VAE, taken by the UNet",
            base.path("unet") / "config.json",
        )
        if text.get("max_position_embeddings", 0) < TEXT_TOKENS:
            raise InputError(
                f"the text encoder has {text.get('max_position_embeddings')} positions, captions "
                f"are padded to {TEXT_TOKENS} tokens",
                where,
                _REMEDY,
            )
        vocabulary = _tokenizer_folder(base) / "vocab.txt"
        if vocabulary in tokens:
            words = len(vocabulary.read_text(encoding="utf-8").rstrip("\n").split("\n"))
            require_fit(
                words,
                text.get("vocab_size"),
                "words of the tokenizer and of the text encoder",
                vocabulary,
            )
        return list(dict.fromkeys([*unet_files, *vae_files, *text_files, *tokens]))

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        return [TextEncoder("CXR-BERT", _tokenizer_folder(base), TEXT_TOKENS, "BertTokenizer")]

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """See `Family.load`."""
        self.check(base)
        from diffusers import (
            AutoencoderKL,
            DDIMScheduler,
            StableDiffusionPipeline,
            UNet2DConditionModel,
        )
        from transformers import BertTokenizer

        return StableDiffusionPipeline(
            unet=load_component(UNet2DConditionModel, base.path("unet"), network_dtype or dtype),
            vae=load_component(AutoencoderKL, base.path("vae"), vae_dtype or dtype),
            text_encoder=_load_text_encoder(base.path("text_encoder"), dtype),
            tokenizer=load_tokenizer(
                BertTokenizer, _tokenizer_folder(base), model_max_length=TEXT_TOKENS
            ),
            scheduler=DDIMScheduler(**NOISE_SCHEDULE),
            **WITHOUT_SAFETY_CHECKER,
        )

    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """See `Family.sample`."""
        latents = sample_images(pipeline, captions, seeds, settings, output_type="latent")
        return decode_images(pipeline, latents)


def _tokenizer_folder(base: Base) -> Path:
    return base.parts.get("tokenizer", base.path("text_encoder"))


def _load_text_encoder(folder: Path, dtype: torch.dtype | None) -> Any:
    """Load CXR-BERT as transformers' BERT: its remote code adds heads, which are not used here.

    Raises:
        InputError: keys of BERT are missing, unexpected or of another shape.
    """
    import torch
    from transformers import BertConfig, BertModel

    # The file's own `auto_map` and `model_type` are not used, since they ask for remote code.
    known = BertConfig().to_dict().keys() - {"model_type", "transformers_version"}
    config = read_json(folder / "config.json")
    settings = BertConfig(**{key: value for key, value in config.items() if key in known})
    with build_device():
        network: Any = BertModel(settings, add_pooling_layer=False)
    weights = weight_files(folder, "model")[0]
    # `cls.*`: the heads. Checkpoints of older transformers store the positions as a buffer.
    state = {
        key.removeprefix("bert."): value
        for key, value in load_state(weights).items()
        if not key.startswith(("cls.", "cls_projection_head.")) and not key.endswith("position_ids")
    }
    load_exactly(network, state, weights)
    return network.to(dtype or torch.float32).requires_grad_(False).eval()
