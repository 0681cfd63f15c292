"""A tiny LLM-CXR of the embedded world, in the layout in which the real one is published.

`llmcxr_tiny/` is a GPT-NeoX folder in the format of transformers 4.28, and `vqgan_tiny/` a project
file and a checkpoint of taming-transformers. If images are given, both parts are trained on them
for some seconds. Otherwise they are random, and only a language model that is restricted to image
tokens gives an image.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional

from workflow_scripts.common.files import write_text
from workflow_scripts.common.progress import Progress
from workflow_scripts.finetune.families.llm_cxr import END, IMAGE, prompt_text
from workflow_scripts.finetune.families.taming import VqganConfig, build_vqmodel, taming_key

CODEBOOK: Final = 64
LEVELS: Final = 4  # latents have an eighth of the side
POSITIONS: Final = 1024
_SPECIAL: Final = ("### Instruction:", "### Response:\n", END)
_PAD: Final = "<|endoftext|>"


def write_tiny_llm_cxr(
    captions: Sequence[str],
    folder: Path,
    images: np.ndarray | None = None,
    size: int = 32,
    vqgan_steps: int = 120,
    llm_steps: int = 150,
) -> None:
    """Write `llmcxr_tiny/` and `vqgan_tiny/`; torch's generator draws all weights.

    Args:
        captions: the texts that the tokenizer's vocabulary is made from.
        folder: the model's `base`; created if it does not exist.
        images: uint8 (n, size, size), one per caption, to train on; None for random weights.
        size: side of the images in pixels, a multiple of 8.
        vqgan_steps: training steps of the VQGAN, on 4 images each.
        llm_steps: training steps of the language model, on 8 answers each.
    """
    config = VqganConfig(
        embed_dim=16,
        n_embed=CODEBOOK,
        z_channels=16,
        resolution=size,
        in_channels=3,
        out_ch=3,
        ch=32,
        ch_mult=(1,) * LEVELS,
        num_res_blocks=1,
        attn_resolutions=(size // 2 ** (LEVELS - 1),),
    )
    tokenizer = _tokenizer([prompt_text(caption) for caption in captions])
    vqgan, llm = build_vqmodel(config), _language_model(len(tokenizer) + CODEBOOK)
    if images is not None:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).float()[:, None] / 127.5 - 1
        pixels = pixels.expand(-1, 3, -1, -1)
        _train_vqgan(vqgan, pixels, vqgan_steps)
        answers = _answers(tokenizer, image_codes(vqgan, pixels))
        _train_language_model(llm, tokenizer, captions, answers, llm_steps)
    _write_language_model(llm, tokenizer, folder / "llmcxr_tiny")
    _write_vqgan(vqgan, config, folder / "vqgan_tiny")


def image_codes(vqgan: Any, pixels: Tensor) -> Tensor:
    """Encode images float (n, 3, size, size) in [-1, 1] to codes int64 (n, codes), row by row."""
    with torch.no_grad():
        found = [
            vqgan.quantize(vqgan.encode(image[None]).latents)[2][2].flatten() for image in pixels
        ]
    return torch.stack(found)


def _tokenizer(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[_PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=_PAD,
        pad_token=_PAD,
        additional_special_tokens=list(_SPECIAL),
    )


def _language_model(vocabulary: int) -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=POSITIONS,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()


def _train_vqgan(vqgan: Any, pixels: Tensor, steps: int) -> None:
    # First an autoencoder; then its latents become the codebook, which thus has no unused entries.
    vqgan.train()
    optimiser = torch.optim.Adam(vqgan.parameters(), lr=2e-3)
    progress = Progress("training the VQGAN", steps, "steps")
    for step in range(steps):
        if step == steps // 2:
            _fill_codebook(vqgan, pixels)
        images = pixels[torch.randint(len(pixels), (4,))]
        latents = vqgan.encode(images).latents
        decoded = vqgan.decode(latents, force_not_quantize=step < steps // 2)
        loss = functional.l1_loss(decoded.sample, images) + decoded.commit_loss.mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vqgan.parameters(), 1.0)
        optimiser.step()
        progress.update(note=f"loss {float(loss.detach()):.4f}")
    vqgan.eval()


def _fill_codebook(vqgan: Any, pixels: Tensor) -> None:
    with torch.no_grad():
        latents = vqgan.encode(pixels[:64]).latents.permute(0, 2, 3, 1).flatten(0, 2)
        chosen = torch.randperm(len(latents)).repeat(-(-CODEBOOK // len(latents)))[:CODEBOOK]
        noise = 0.01 * latents.std() * torch.randn(CODEBOOK, latents.shape[1])
        vqgan.quantize.embedding.weight.copy_(latents[chosen] + noise)


def _answers(tokenizer: Any, codes: Tensor) -> Tensor:
    """Return the ids of `<`, an image's codes, `>` and `### End`, int64 (n, codes + 3)."""
    around = tokenizer(IMAGE, add_special_tokens=False).input_ids
    end = tokenizer.convert_tokens_to_ids(END)
    opened = torch.tensor([[around[0]]]).expand(len(codes), -1)
    closed = torch.tensor([[around[-1], end]]).expand(len(codes), -1)
    return torch.cat([opened, codes + len(tokenizer), closed], dim=1)


def _train_language_model(
    llm: Any, tokenizer: Any, captions: Sequence[str], answers: Tensor, steps: int
) -> None:
    prompts = [
        tokenizer(prompt_text(caption), add_special_tokens=False).input_ids for caption in captions
    ]
    llm.train()
    optimiser = torch.optim.AdamW(llm.parameters(), lr=3e-3, weight_decay=0.0)
    progress = Progress("training the language model", steps, "steps")
    length = answers.shape[1]
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 10, 2 * (1 - step / steps))
        chosen = torch.randint(len(prompts), (8,)).tolist()
        width = max(len(prompts[i]) for i in chosen)
        texts = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in chosen])
        mask = torch.tensor(
            [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in chosen]
        )
        mask = torch.cat([mask, mask.new_ones(len(mask), length)], dim=1)
        wanted = answers[chosen]
        logits = llm(
            input_ids=torch.cat([texts, wanted], dim=1),
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            logits_to_keep=length + 1,
        ).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(llm.parameters(), 1.0)
        optimiser.step()
        progress.update(note=f"loss {float(loss.detach()):.4f}")
    llm.eval()


def _write_language_model(llm: Any, tokenizer: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        "additional_special_tokens": [END, "### Instruction:", "### Response:\n"],
        "bos_token": _PAD,
        "eos_token": _PAD,
        "pad_token": _PAD,
    }
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": _PAD,
            "eos_token": _PAD,
            "model_max_length": 1000000000000000019884624838656,
            "tokenizer_class": "GPTNeoXTokenizer",
        },
    )
    config = llm.config
    _write_json(
        folder / "config.json",
        {
            "architectures": ["GPTNeoXForCausalLM"],
            "bos_token_id": 0,
            "eos_token_id": 0,
            "hidden_act": "gelu",
            "hidden_size": config.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": config.intermediate_size,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": config.max_position_embeddings,
            "model_type": "gpt_neox",
            "num_attention_heads": config.num_attention_heads,
            "num_hidden_layers": config.num_hidden_layers,
            "rotary_emb_base": 10000,
            "rotary_pct": 0.25,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "transformers_version": "4.28.1",
            "use_cache": True,
            "use_parallel_residual": True,
            "vocab_size": config.vocab_size,
        },
    )
    state = {
        key.replace("lm_head", "embed_out"): value.clone()
        for key, value in llm.state_dict().items()
    }
    # Buffers that transformers 4.28 saved with the weights.
    positions = config.max_position_embeddings
    rotated = config.hidden_size // config.num_attention_heads // 4
    for i in range(config.num_hidden_layers):
        name = f"gpt_neox.layers.{i}.attention"
        state[f"{name}.bias"] = torch.ones(1, 1, positions, positions, dtype=torch.bool).tril()
        state[f"{name}.masked_bias"] = torch.tensor(-1e9)
        state[f"{name}.rotary_emb.inv_freq"] = 10000 ** -(torch.arange(0, rotated, 2) / rotated)
    torch.save(state, folder / "pytorch_model.bin")


def _write_vqgan(vqgan: Any, config: VqganConfig, folder: Path) -> None:
    folder.mkdir(parents=True)
    state = {}
    for key, value in vqgan.state_dict().items():
        name = taming_key(key, len(config.ch_mult))
        linear = value.ndim == 2 and ".attn" in name
        state[name] = value[:, :, None, None].clone() if linear else value.clone()
    # Weights of the training losses, which a checkpoint has and sampling drops.
    state["loss.discriminator.main.0.weight"] = torch.zeros(4, 3, 4, 4)
    state["loss.perceptual_loss.lin0.model.1.weight"] = torch.zeros(1, 4, 1, 1)
    torch.save({"state_dict": state}, folder / "tiny.ckpt")
    details = {
        "double_z": False,
        "z_channels": config.z_channels,
        "resolution": config.resolution,
        "in_channels": config.in_channels,
        "out_ch": config.out_ch,
        "ch": config.ch,
        "ch_mult": list(config.ch_mult),
        "num_res_blocks": config.num_res_blocks,
        "attn_resolutions": list(config.attn_resolutions),
        "dropout": 0.0,
    }
    params = {"embed_dim": config.embed_dim, "n_embed": config.n_embed, "ddconfig": details}
    project = {"model": {"target": "taming.models.vqgan.VQModel", "params": params}}
    write_text(folder / "tiny-project.yaml", yaml.safe_dump(project, sort_keys=False))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
