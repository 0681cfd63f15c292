"""LLM-CXR: a language model whose vocabulary holds the codes of a VQGAN.

Lee et al., 2024 (arXiv 2305.11490). A GPT-NeoX (dolly-v2-3b) is asked in words for a radiograph. It
answers with `<`, the image's 256 codes in rows of 16, `>` and `### End`. The answer is drawn token
by token, and drawn again if it does not hold exactly as many codes as an image has.

It is not fine-tuned here. Attacks on membership use its loss: how unlikely an image's codes are
after the caption.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.checkpoints import check_weight_file
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import Takes
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.finite import (
    NotFiniteError,
    rows_named,
    rows_not_finite,
)
from workflow_scripts.finetune.families.options import Option
from workflow_scripts.finetune.families.parts import load_component, load_tokenizer, require_fit
from workflow_scripts.finetune.families.taming import (
    VqganConfig,
    load_taming_vqgan,
    read_vqgan_config,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder
from workflow_scripts.finetune.layout import Base, component_files, read_json, tokenizer_files

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws

log = logging.getLogger(__name__)

END: Final = "### End"
IMAGE: Final = "<image>"  # in training, the codes took the place of its middle token
# The first of the ten wordings that the authors drew from in training; the option `instruction`.
INSTRUCTION: Final = (
    "Generate a chest X-ray image that corresponds to the entered free-text radiology reports for "
    "the chest X-ray image."
)
# The authors' evaluation lets an answer have 300 tokens, 256 of them codes.
SPARE_TOKENS: Final = 44

_REMEDY = "give a folder that holds the published llmcxr_*/ and vqgan_*/, unpacked"


def prompt_text(caption: str, instruction: str = INSTRUCTION) -> str:
    """Return the language model's prompt, as in its training (the authors' training/consts.py)."""
    return (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{instruction}\n\nInput:\n{caption}\n\n### Response:\n"
    )


class LlmCxr(Family):
    """See the module. It is sampled as published, at the VQGAN's resolution alone.

    The two parts are `llm` (a Hugging Face folder) and `vqgan` (a folder with taming's yaml and
    ckpt). Options: `top_p` is as the authors sample. After `attempts` answers without an image,
    only image tokens may follow, so that sampling always ends. `instruction` is the task in the
    prompt, also for measuring the loss.
    """

    name = "llm_cxr"
    takes = Takes(why="a language model answers token by token, in shapes that grow")
    denoises = False
    decoder = "vqgan"
    options = MappingProxyType({"top_p": 0.92, "attempts": 20, "instruction": INSTRUCTION})
    training_options = MappingProxyType({"instruction": INSTRUCTION})

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        llm, yaml_file, checkpoint = find_parts(base)
        config, llm_files = component_files(Base(base.folder, {"llm": llm}), "llm", "model")
        if config.get("model_type") != "gpt_neox":
            raise InputError(
                f"the language model is {config.get('model_type')!r}, not 'gpt_neox'",
                llm / "config.json",
                _REMEDY,
            )
        tokens, _ = tokenizer_files(llm)
        vqgan = read_vqgan_config(yaml_file)
        check_weight_file(checkpoint)
        if llm / "tokenizer.json" not in tokens:
            raise InputError("the tokenizer has no tokenizer.json", llm, _REMEDY)
        words = _words(llm / "tokenizer.json")
        if END not in words:
            raise InputError(
                f"the tokenizer does not know {END!r}, so it is not LLM-CXR's",
                llm / "tokenizer.json",
                _REMEDY,
            )
        _require_vocabulary(len(words), vqgan, config.get("vocab_size"), llm / "config.json")
        return [*llm_files, *tokens, yaml_file, checkpoint]

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`. The answer, an image, limits the caption's length."""
        if not base.folder.is_dir() and not {"llm", "vqgan"} <= base.parts.keys():
            return []
        llm, vqgan, _ = find_parts(base)
        longest_answer = read_vqgan_config(vqgan).codes + SPARE_TOKENS
        context = int(read_json(llm / "config.json").get("max_position_embeddings", 0))
        return [
            TextEncoder(
                "GPT-NeoX, with instructions",
                llm,
                context - longest_answer,
                "PreTrainedTokenizerFast",
                prompt_text,
                special=False,
            )
        ]

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> LlmCxrPipeline:
        """See `Family.load`; returns an `LlmCxrPipeline`, whose VQGAN is always in float32."""
        self.check(base)
        from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

        llm_folder, yaml_file, checkpoint = find_parts(base)
        config = read_vqgan_config(yaml_file)
        llm = load_component(GPTNeoXForCausalLM, llm_folder, network_dtype or dtype)
        # tokenizer.json as it is: the class name in the config is ignored.
        tokenizer = load_tokenizer(PreTrainedTokenizerFast, llm_folder)
        _require_vocabulary(
            len(tokenizer), config, llm.config.vocab_size, llm_folder / "config.json"
        )
        return LlmCxrPipeline(llm, tokenizer, load_taming_vqgan(config, checkpoint), config)

    def network(self, pipeline: LlmCxrPipeline) -> nn.Module:
        """See `Family.network`: the language model."""
        return pipeline.llm

    def encoded_shape(self, pipeline: LlmCxrPipeline, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: the codes of an image."""
        self.check_size(pipeline, size)
        return (pipeline.image_tokens.count,)

    def encode_images(self, pipeline: LlmCxrPipeline, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`: codes as float32, which holds them exactly; row by row."""
        import torch

        # In float32 as the authors run it, so that a code does not change with the precision.
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            latents = pipeline.vqgan.encode(pixels.float()).latents
            codes = pipeline.vqgan.quantize(latents)[2][2]
        return codes.view(len(pixels), -1).float()

    def encode_captions(
        self, pipeline: LlmCxrPipeline, captions: Sequence[str]
    ) -> dict[str, Tensor]:
        """See `Family.encode_captions`: ids int64 (n, longest), padded before, and their mask."""
        instruction = str(self.training_option("instruction"))
        rows = [pipeline.prompt_tokens(caption, instruction) for caption in captions]
        ids, mask = padded(rows, pipeline.image_tokens.end)
        return {"ids": ids.to(pipeline.device), "mask": mask.to(pipeline.device)}

    def loss(
        self,
        pipeline: LlmCxrPipeline,
        network: nn.Module,
        encoded: Tensor,
        conditions: dict[str, Tensor],
        draws: Draws,
    ) -> Tensor:
        """See `Family.loss`: the mean of -log p of an image's codes, in nats; nothing is drawn.

        p is the probability of a code, of all tokens of the vocabulary, after the prompt, the
        opening token and the image's codes before it.
        """
        import torch
        from torch.nn import functional

        tokens = pipeline.image_tokens
        codes = encoded.long() + tokens.first
        opened = codes.new_full((len(codes), 1), tokens.opening)
        ids = torch.cat([conditions["ids"], opened, codes], dim=1)
        answered = conditions["mask"].new_ones(len(codes), 1 + codes.shape[1])
        mask = torch.cat([conditions["mask"], answered], dim=1)
        logits = network(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=tokens.count + 1,
        ).logits[:, :-1]
        each = functional.cross_entropy(logits.float().transpose(1, 2), codes, reduction="none")
        return each.mean(dim=1)

    def check_size(self, pipeline: LlmCxrPipeline, size: int) -> None:
        """See `Family.check_size`: only the VQGAN's resolution."""
        if size != pipeline.vqgan_config.resolution:
            raise InputError(
                f"LLM-CXR makes images of {pipeline.vqgan_config.resolution} pixels, not {size}",
                "generate.size",
                f"use {pipeline.vqgan_config.resolution}",
            )

    def check_options(self, options: Mapping[str, Option]) -> None:
        """See `Family.check_options`; ranges are checked, too."""
        super().check_options(options)
        given = {**self.options, **options}
        top_p, attempts = float(given["top_p"]), float(given["attempts"])
        if not 0 < top_p <= 1 or attempts < 0 or attempts != int(attempts):
            raise InputError(
                f"top_p {top_p} or attempts {attempts} is out of range",
                "generate.options",
                "use 0 < top_p <= 1 and a whole number of attempts, at least 0",
            )

    def sample(
        self,
        pipeline: LlmCxrPipeline,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """See `Family.sample`.

        Raises:
            InputError: the size is not the VQGAN's, or an option is out of range.
        """
        import torch

        options = {**self.options, **settings.options}
        top_p, attempts = float(options["top_p"]), int(options["attempts"])
        self.check_size(pipeline, settings.size)
        self.check_options(settings.options)
        answers = draw_images(
            pipeline.llm,
            [pipeline.prompt_tokens(caption, str(options["instruction"])) for caption in captions],
            [torch.Generator().manual_seed(seed) for seed in seeds],
            pipeline.image_tokens,
            top_p,
            attempts,
        )
        if answers.redrawn or answers.held:
            log.log(
                logging.WARNING if answers.held else logging.INFO,
                "%d images: %d answers without exactly %d codes; %d images made by holding the "
                "language model to image tokens",
                len(captions),
                answers.redrawn,
                pipeline.image_tokens.count,
                answers.held,
            )
        return pipeline.decode(answers.codes)


class LlmCxrPipeline:
    """The language model, its tokenizer and the VQGAN, with the calls of a diffusers pipeline.

    Args:
        llm: GPTNeoXForCausalLM; the ids after the tokenizer's are the VQGAN's codes.
        tokenizer: the tokenizer of the text.
        vqgan: diffusers' VQModel. It stays in float32, as the authors run it.
        vqgan_config: its architecture.
    """

    def __init__(self, llm: Any, tokenizer: Any, vqgan: Any, vqgan_config: VqganConfig):
        self.llm, self.tokenizer, self.vqgan = llm, tokenizer, vqgan
        self.vqgan_config = vqgan_config
        self.image_tokens = ImageTokens(
            first=len(tokenizer),
            count=vqgan_config.codes,
            opening=tokenizer(IMAGE, add_special_tokens=False).input_ids[0],
            end=tokenizer.convert_tokens_to_ids(END),
        )

    @property
    def device(self) -> torch.device:
        """Where the language model lies."""
        return self.llm.device

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> LlmCxrPipeline:
        """Move to a device; the language model also to a dtype."""
        self.llm.to(device, dtype) if dtype else self.llm.to(device)
        self.vqgan.to(device)
        return self

    def set_progress_bar_config(self, **_: Any) -> None:
        """Do nothing: there is no progress bar."""

    def prompt_tokens(self, caption: str, instruction: str = INSTRUCTION) -> list[int]:
        """Return a caption's prompt; if it leaves no room for the answer, its last words are cut.

        Raises:
            InputError: there is no room even without a caption.
        """
        longest = self.llm.config.max_position_embeddings - self.image_tokens.longest_answer
        words = caption.split()
        tokens = self._tokens(caption, instruction)
        if len(tokens) > longest:
            while len(tokens) > longest and words:
                words.pop()
                tokens = self._tokens(" ".join(words), instruction)
            # The log does not say which caption: its readers may not be allowed to read a patient's
            # report.
            log.warning("a caption was cut from %d to %d words", len(caption.split()), len(words))
        if len(tokens) > longest:
            raise InputError(
                f"the language model takes {self.llm.config.max_position_embeddings} tokens: too "
                "few for the prompt and an image",
                "config.json",
                _REMEDY,
            )
        return tokens

    def _tokens(self, caption: str, instruction: str) -> list[int]:
        return self.tokenizer(prompt_text(caption, instruction), add_special_tokens=False).input_ids

    def decode(self, codes: Tensor) -> list[Image.Image]:
        """Decode images from their codes, int64 (n, codes), row by row."""
        import torch
        from PIL import Image

        side, depth = self.vqgan_config.side, self.vqgan_config.embed_dim
        with torch.inference_mode():
            entries = self.vqgan.quantize.get_codebook_entry(
                codes.to(self.vqgan.device).reshape(-1), (len(codes), side, side, depth)
            )
            pixels = self.vqgan.decode(entries, force_not_quantize=True).sample
        levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in levels]


@dataclass(frozen=True)
class ImageTokens:
    """The tokens of an answer that holds an image.

    Attributes:
        first: id of code 0; all ids from here on are codes.
        count: codes of an image.
        opening: id of the token before the codes.
        end: id of the token that ends an answer.
    """

    first: int
    count: int
    opening: int
    end: int

    @property
    def longest_answer(self) -> int:
        """The most tokens that an answer may have."""
        return self.count + SPARE_TOKENS


@dataclass(frozen=True)
class Answers:
    """What was drawn for some captions.

    Attributes:
        codes: int64 (n, count), on the CPU.
        redrawn: number of answers that were discarded.
        held: number of images drawn with image tokens alone.
    """

    codes: Tensor
    redrawn: int
    held: int


def draw_images(
    llm: Any,
    prompts: Sequence[list[int]],
    generators: Sequence[torch.Generator],
    tokens: ImageTokens,
    top_p: float,
    attempts: int,
) -> Answers:
    """Draw the codes of one image per prompt, each from its own generator.

    An answer is taken if it holds exactly `tokens.count` codes. After `attempts` answers without
    them, the opening token is given and only codes may follow.

    Raises:
        NotFiniteError: the language model's logits are not finite.
    """
    import torch

    codes: dict[int, list[int]] = {}
    redrawn = 0
    waiting = list(range(len(prompts)))
    for _ in range(attempts):
        if not waiting:
            break
        with rows_named(waiting):
            drawn = draw_answers(
                llm,
                [prompts[i] for i in waiting],
                [generators[i] for i in waiting],
                tokens,
                top_p,
            )
        for i, answer in zip(waiting, drawn, strict=True):
            answered = [token - tokens.first for token in answer if token >= tokens.first]
            if len(answered) == tokens.count:
                codes[i] = answered
        waiting = [i for i in waiting if i not in codes]
        redrawn += len(waiting)
    if waiting:
        with rows_named(waiting):
            drawn = draw_answers(
                llm,
                [[*prompts[i], tokens.opening] for i in waiting],
                [generators[i] for i in waiting],
                tokens,
                top_p,
                only_codes=True,
            )
        for i, answer in zip(waiting, drawn, strict=True):
            codes[i] = [token - tokens.first for token in answer]
    return Answers(
        torch.tensor([codes[i] for i in range(len(prompts))]).view(-1, tokens.count),
        redrawn,
        len(waiting),
    )


def draw_answers(
    llm: Any,
    prompts: Sequence[list[int]],
    generators: Sequence[torch.Generator],
    tokens: ImageTokens,
    top_p: float,
    only_codes: bool = False,
) -> list[list[int]]:
    """Draw one answer per prompt, token by token, at temperature 1.

    A row draws from its own generator, and only until it ends, so its draws do not depend on the
    other rows. It ends with `### End`, after `tokens.longest_answer` tokens, or with more codes
    than an image has.

    Args:
        llm: a causal language model.
        prompts: token ids, of any lengths.
        generators: one per prompt, on the CPU.
        tokens: the meaning of the ids.
        top_p: see `draw_tokens`.
        only_codes: draw exactly `tokens.count` codes and nothing else.

    Returns:
        The answers' ids, without `### End`.

    Raises:
        NotFiniteError: a row's logits hold NaN or infinity, from which any token could be drawn.
    """
    import torch

    ids, mask = padded(prompts, tokens.end)
    # A prompt's first token has position 0, wherever the padding puts it.
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    ids, mask, places = ids.to(llm.device), mask.to(llm.device), places.to(llm.device)
    answers: list[list[int]] = [[] for _ in prompts]
    n_codes = [0] * len(prompts)
    lasts = [True] * len(prompts)
    cache = None
    with torch.inference_mode():
        for _ in range(tokens.count if only_codes else tokens.longest_answer):
            output = llm(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logits = output.logits[:, -1].float()
            bad = [i for i in rows_not_finite(logits) if lasts[i]]
            if bad:
                raise NotFiniteError("logits", bad)
            if only_codes:
                logits[:, : tokens.first] = -torch.inf
            levels = torch.tensor(
                [
                    float(torch.rand((), generator=generator)) if last else 0.0
                    for generator, last in zip(generators, lasts, strict=True)
                ],
                dtype=torch.float64,
            )
            drawn = draw_tokens(logits, levels.to(logits.device), top_p)
            for i, token in enumerate(drawn.tolist()):
                if not lasts[i]:
                    continue
                n_codes[i] += token >= tokens.first
                lasts[i] = token != tokens.end and n_codes[i] <= tokens.count
                if token != tokens.end:
                    answers[i].append(token)
            if not any(lasts):
                break
            ids = drawn[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            places = places[:, -1:] + 1
    return answers


def padded(rows: Sequence[list[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Return token ids, padded on the left to one length, and their mask.

    Returns:
        int64 (n, longest) each; the mask is 0 at padding, else 1.
    """
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[filler] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def draw_tokens(logits: Tensor, levels: Tensor, top_p: float) -> Tensor:
    """Draw one token per row from its nucleus (Holtzman et al., 2020, arXiv 1904.09751).

    The nucleus is the smallest set of most probable tokens whose probabilities sum to at least
    `top_p`. Tokens divide [0, 1) in the order of their ids, not of their ranks. Rounding may swap
    the ranks of two almost equal tokens; by id it moves their borders by a rounding error only.

    Args:
        logits: float32 (n, vocabulary).
        levels: float64 (n,), uniform in [0, 1), where in its nucleus each row's token lies.
        top_p: in (0, 1].

    Returns:
        int64 (n,).
    """
    import torch

    shares = logits.double().softmax(dim=-1)
    ranked, order = shares.sort(dim=-1, descending=True, stable=True)
    outside = ranked.cumsum(dim=-1) - ranked >= top_p
    nucleus = shares.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), 0)
    borders = nucleus.cumsum(dim=-1)
    # The search on the right never stops at a token of probability 0.
    targets = levels[:, None] * borders[:, -1:]
    return torch.searchsorted(borders, targets, right=True)[:, 0]


def find_parts(base: Base) -> tuple[Path, Path, Path]:
    """Return the language model's folder, the VQGAN's yaml and its ckpt."""
    if not base.folder.is_dir() and not {"llm", "vqgan"} <= base.parts.keys():
        raise InputError("the checkpoint folder is missing", base.folder, _REMEDY)
    llm = base.parts.get("llm")
    if llm is None:
        llm = _only(base.folder, "llmcxr*/config.json", "llm").parent
    vqgan = base.parts.get("vqgan")
    within = "" if vqgan else "vqgan*/"
    folder = vqgan or base.folder
    return (
        llm,
        _only(folder, f"{within}*.yaml", "vqgan"),
        _only(folder, f"{within}*.ckpt", "vqgan"),
    )


def _only(folder: Path, pattern: str, part: str) -> Path:
    paths = sorted(folder.glob(pattern))
    if len(paths) == 1:
        return paths[0]
    if not paths:
        raise InputError(f"the checkpoint has no {pattern}", folder, _REMEDY)
    names = ", ".join(str(path.relative_to(folder)) for path in paths)
    raise InputError(
        f"the checkpoint has {len(paths)} of {pattern}: {names}",
        folder,
        f"keep one, or name the folder of the right one in the model's `parts` as {part!r}",
    )


def _words(path: Path) -> set[str]:
    """Return the tokens of a tokenizer.json, the added ones included."""
    content = read_json(path)
    try:
        return {
            *content["model"]["vocab"],
            *(token["content"] for token in content["added_tokens"]),
        }
    except (KeyError, TypeError) as error:
        raise InputError(f"the tokenizer has no vocabulary: {error!r}", path, _REMEDY) from None


def _require_vocabulary(words: int, vqgan: VqganConfig, vocabulary: Any, where: Path) -> None:
    require_fit(
        words + vqgan.n_embed,
        vocabulary,
        f"{words} tokens of the tokenizer and {vqgan.n_embed} codes of the VQGAN, known to the "
        "language model",
        where,
    )
