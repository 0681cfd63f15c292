"""Tiny text encoders and tokenizers of the embedded world: CLIP, T5 and Gemma 2.

Vocabularies are made from the world's captions by trainers that always give the same files. The
encoders are random, so fine-tuning must learn what a caption means.
"""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.common.files import write_text


def t5_tokenizer(captions: Sequence[str], pieces: int = 200, max_length: int = 64) -> Any:
    """Return a T5 tokenizer whose unigram pieces come from the captions."""
    import sentencepiece
    from transformers import T5Tokenizer

    trained = sentencepiece.SentencePieceProcessor(model_proto=_t5_pieces(captions, pieces))
    vocabulary = [
        (trained.id_to_piece(i), trained.get_score(i)) for i in range(trained.get_piece_size())
    ]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=max_length)


def write_t5_tokenizer(
    captions: Sequence[str], folder: Path, pieces: int = 200, max_length: int = 64
) -> Any:
    """Write and return a T5 tokenizer in PixArt-Sigma's published form, without tokenizer.json."""
    from transformers import T5Tokenizer

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(_t5_pieces(captions, pieces))
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    settings = {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": 0,
        "legacy": True,
        "model_max_length": max_length,
        "sp_model_kwargs": {},
        **special,
    }
    write_text(folder / "special_tokens_map.json", json.dumps(special, indent=1))
    write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=1))
    return T5Tokenizer.from_pretrained(folder, local_files_only=True)


def _t5_pieces(captions: Sequence[str], pieces: int) -> bytes:
    """Return a SentencePiece model of unigrams with T5's special tokens."""
    import sentencepiece

    written = io.BytesIO()
    # One thread, because with several the pieces differ from run to run.
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions),
        model_writer=written,
        vocab_size=pieces,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return written.getvalue()


def gemma_tokenizer(captions: Sequence[str], tokens: int = 500, max_length: int = 192) -> Any:
    """Return a Gemma tokenizer (byte-pair encoding with byte fallback) from the captions."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import GemmaTokenizer

    backend = GemmaTokenizer().backend_tokenizer
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer, trained.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    special += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=tokens, special_tokens=special, show_progress=False)
    trained.train_from_iterator(captions, trainer)
    model = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    return GemmaTokenizer(
        vocab=model["vocab"],
        merges=merges,
        model_max_length=max_length,
        add_bos_token=True,
    )


def t5_encoder(tokenizer: Any, width: int = 32) -> Any:
    """Return a random T5 encoder (v1.1 layout: gated GELU)."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=width // 4,
            d_ff=2 * width,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
    ).eval()


def gemma_encoder(tokenizer: Any, width: int = 32) -> Any:
    """Return a random Gemma 2 decoder, used as a text encoder."""
    from transformers import Gemma2Config, Gemma2Model

    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=width // 2,
            query_pre_attn_scalar=width // 2,
            max_position_embeddings=1024,
            sliding_window=64,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
        )
    ).eval()


def clip_encoder(tokenizer: Any, width: int = 32, projected: bool = False) -> Any:
    """Return a random CLIP text encoder; with a projection of the same width for SD 3."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        initializer_factor=3.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()
