"""Tokenizers as they are published: SentencePiece alone, tokenizer.json, byte pairs in two files.

Real vocabularies come from packages (tests/downloads.py). SentencePiece itself, and a published
tokenizer.json of the same vocabulary, say what is right.
"""

import gzip
import io
import json
import shutil

import pytest
import sentencepiece
from transformers import AutoTokenizer, CLIPTokenizer

from tests.downloads import published
from workflow_scripts.common.errors import InputError
from workflow_scripts.downstream.report_generation.convert_llava_rad import read_tokenizer
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.parts import load_tokenizer
from workflow_scripts.finetune.layout import Base
from workflow_scripts.world.tiny_text import write_t5_tokenizer

SENTENCES = [
    "Mild cardiomegaly. No pleural effusion or pneumothorax.",
    "Interval placement of a 5.2 cm catheter (right PICC), tip in the mid SVC.",
    "Unchanged bibasilar atelectasis; low lung volumes.",
]
PIXART = ["special_tokens_map.json", "spiece.model", "tokenizer_config.json"]


def folder_of(path, model, name, kind):
    """A folder that holds a SentencePiece model and the class that is to read it."""
    path.mkdir()
    (path / name).write_bytes(model)
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    return path


def byte_pairs(sentences):
    """A SentencePiece model of byte pairs with Llama's settings."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 20),
        model_writer=written,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return written.getvalue()


def test_pixarts_tokenizer_is_its_published_three_files(base_of, pipeline_of, tmp_path):
    folder = base_of("pixart_sigma").folder / "tokenizer"
    assert sorted(file.name for file in folder.iterdir()) == PIXART
    original = sentencepiece.SentencePieceProcessor(str(folder / "spiece.model"))
    pipeline = pipeline_of("pixart_sigma")
    for sentence in SENTENCES:
        ids = pipeline.tokenizer(sentence).input_ids
        assert ids == [*original.encode(sentence), pipeline.tokenizer.eos_token_id]
    get_family("pixart_sigma").save(pipeline, base_of("pixart_sigma"), tmp_path)
    assert sorted(file.name for file in (tmp_path / "tokenizer").iterdir()) == PIXART


@pytest.mark.parametrize(
    ("name", "component"), [("stable_diffusion_3", "tokenizer_3"), ("flux", "tokenizer_2")]
)
def test_t5_loads_from_its_sentencepiece_model_alone(
    name, component, base_of, two_images, tmp_path
):
    folder = shutil.copytree(base_of(name).folder, tmp_path / "base")
    write_t5_tokenizer(list(two_images), folder / component)
    tokenizer = getattr(get_family(name).load(Base(folder)), component)
    original = sentencepiece.SentencePieceProcessor(str(folder / component / "spiece.model"))
    assert tokenizer(SENTENCES[0]).input_ids[:-1] == original.encode(SENTENCES[0])


def test_any_pipeline_of_diffusers_loads_from_its_sentencepiece_model_alone(base_of):
    pipeline = get_family("diffusers").load(base_of("pixart_sigma"))
    folder = base_of("pixart_sigma").folder / "tokenizer"
    original = sentencepiece.SentencePieceProcessor(str(folder / "spiece.model"))
    assert pipeline.tokenizer(SENTENCES[0]).input_ids[:-1] == original.encode(SENTENCES[0])


def test_a_class_that_reads_a_vocabulary_otherwise_is_refused(tmp_path):
    """T5's class takes any SentencePiece model, and would cut a Llama's words in silence."""
    model = byte_pairs(SENTENCES)
    right = folder_of(tmp_path / "right", model, "tokenizer.model", "LlamaTokenizer")
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    found = load_tokenizer(AutoTokenizer, right)(SENTENCES[1], add_special_tokens=False)
    assert found.input_ids == original.encode(SENTENCES[1])
    wrong = folder_of(tmp_path / "wrong", model, "spiece.model", "T5Tokenizer")
    with pytest.raises(InputError, match=r"T5Tokenizer.* reads [\s\S]*tokenizer_class"):
        load_tokenizer(AutoTokenizer, wrong)


def test_what_is_no_tokenizer_is_refused_and_its_code_is_not_run(tmp_path):
    folder = folder_of(tmp_path / "one", b"no model", "tokenizer.model", "LlamaTokenizer")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_tokenizer(AutoTokenizer, folder)
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nOwn = None\n")
    settings = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_tokenizer(AutoTokenizer, folder)
    assert not (tmp_path / "ran").exists()


# Real vocabularies


def sentencepiece_of(tokenizer, prefix):
    """Write the vocabulary of a published tokenizer.json as the SentencePiece model it came from.

    Its scores fall from merge to merge, in the order of the ids; Llama's puts a space before a
    sentence, Gemma's does not.
    """
    from sentencepiece import sentencepiece_model_pb2

    said = json.loads(tokenizer.read_text())
    special = {token["content"] for token in said["added_tokens"] if token["special"]}
    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.model_type = 2  # byte pairs
    proto.trainer_spec.byte_fallback = True
    proto.trainer_spec.vocab_size = len(said["model"]["vocab"])
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = prefix
    proto.normalizer_spec.remove_extra_whitespaces = False
    kinds = {token["content"]: 4 for token in said["added_tokens"]}  # the user's own
    kinds |= {"<unk>": 2, **dict.fromkeys(special - {"<unk>"}, 3)}
    vocabulary = said["model"]["vocab"]
    first = vocabulary["<0x00>"]  # the bytes follow; Gemma's has a tab in the place of its byte
    for piece, number in sorted(vocabulary.items(), key=lambda entry: entry[1]):
        if first <= number < first + 256:
            proto.pieces.add(piece=f"<0x{number - first:02X}>", type=6)
        else:
            proto.pieces.add(piece=piece, score=-float(number), type=kinds.get(piece, 1))
    names = {
        "unk": ["<unk>"],
        "bos": ["<s>", "<bos>"],
        "eos": ["</s>", "<eos>"],
        "pad": ["<pad>"],
    }
    for name, tokens in names.items():
        found = [vocabulary[token] for token in tokens if token in vocabulary]
        setattr(proto.trainer_spec, f"{name}_id", found[0] if found else -1)
    return proto.SerializeToString()


@pytest.mark.full
def test_a_published_sentencepiece_model_is_read_as_sentencepiece_reads_it(tmp_path):
    model = (published("mistral") / "tokenizer.model.v1").read_bytes()
    folder = folder_of(tmp_path / "llama", model, "tokenizer.model", "LlamaTokenizer")
    tokenizer = load_tokenizer(AutoTokenizer, folder)
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert len(tokenizer) == original.get_piece_size() == 32000
    for sentence in SENTENCES:
        ids = tokenizer(sentence, add_special_tokens=False).input_ids
        assert ids == original.encode(sentence)
        # Vicuna's folder has nothing but this file; the conversion of LLaVA-Rad reads it.
        vicuna = read_tokenizer(folder)(sentence, add_special_tokens=False).input_ids
        assert vicuna == original.encode(sentence)
    wrong = folder_of(tmp_path / "t5", model, "spiece.model", "T5Tokenizer")
    with pytest.raises(InputError, match="SentencePiece"):
        load_tokenizer(AutoTokenizer, wrong)


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "kind", "prefix"),
    [("llama2", "LlamaTokenizer", True), ("gemma", "GemmaTokenizer", False)],
)
def test_a_published_vocabulary_is_the_same_in_either_form(name, kind, prefix, tmp_path):
    folder = published(name)
    whole = load_tokenizer(AutoTokenizer, folder)
    model = sentencepiece_of(folder / "tokenizer.json", prefix)
    alone = folder_of(tmp_path / "alone", model, "tokenizer.model", kind)
    shutil.copyfile(folder / "tokenizer_config.json", alone / "tokenizer_config.json")
    tokenizer = load_tokenizer(AutoTokenizer, alone)
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    for sentence in SENTENCES:
        ids = whole(sentence).input_ids
        assert tokenizer(sentence).input_ids == ids
        assert original.encode(sentence) == ids[1:]
        assert ids[0] == whole.bos_token_id


@pytest.mark.full
def test_clips_published_byte_pairs_give_its_known_ids(tmp_path):
    text = gzip.decompress((published("clip") / "bpe_simple_vocab_16e6.txt.gz").read_bytes())
    merges = text.decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable]
    letters += [chr(256 + i) for i in range(256 - len(printable))]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["".join(merge.split()) for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    tokenizer = load_tokenizer(CLIPTokenizer, tmp_path)
    assert len(tokenizer) == 49408
    # As the published tokenizer's documentation and tests have it.
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
