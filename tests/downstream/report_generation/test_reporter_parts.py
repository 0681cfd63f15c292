"""Prompts, the queue of images, the learning rate, and each stage's parameters and loss."""

import threading
import time

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    ViTConfig,
    get_cosine_schedule_with_warmup,
)

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, png_bytes
from workflow_scripts.common.seeded_order import epoch_batches
from workflow_scripts.downstream.report_generation.generate import _batch, generate_reports
from workflow_scripts.downstream.report_generation.images import (
    Ahead,
    Squares,
    tower_input,
    training_order,
)
from workflow_scripts.downstream.report_generation.layout import (
    image_tokens,
    read_llava_config,
    transform,
)
from workflow_scripts.downstream.report_generation.network import (
    LoraSettings,
    ReportTask,
    add_lora,
    load_llava,
    load_tokenizer,
    merge_lora,
    reset_projector,
    train_projector_only,
)
from workflow_scripts.downstream.report_generation.prompts import ReportTokenizer
from workflow_scripts.downstream.report_generation.schedule import warmup_then_cosine

REPORTS = [
    "There is edema.",
    "There is cardiomegaly. There is pneumothorax.",
    "The lungs are clear.",
]
INDICATIONS = ["Fever and pain for two days, evaluate.", None, "Cough."]
QUESTION = "Provide a description of the findings in the radiology image"
ASKED = f"\n{QUESTION}. ASSISTANT:"


@pytest.fixture(scope="module")
def start(world):
    return world.start / "base"


@pytest.fixture(scope="module")
def tokens(start):
    config = read_llava_config(start)
    image = int(config["image_token_index"])
    return ReportTokenizer(load_tokenizer(start), image, image_tokens(config), 512)


@pytest.fixture(scope="module")
def items(world):
    names = sorted(world.images)[:3]
    return [ImageItem(name, f"{name}.png", png_bytes(world.images[name])) for name in names]


def task_of(start, tokens, items, form="v1"):
    squares = Squares(items, transform(start))
    images = Ahead(squares, lambda _: np.arange(3), epochs=9, threads=1, ahead=2)
    return ReportTask(
        images,
        tokens.write(REPORTS, INDICATIONS, form),
        (Squares([], squares.transform), tokens.write([], [], form)),
        image_token=tokens.image_token,
        padding=tokens.eos,
        batch_size=2,
        threads=1,
        device=torch.device("cpu"),
    )


# Prompts


def asked_of(tokens, form="v1"):
    """Return each prompt's text, with the image as a placeholder, and its ids after the image."""
    prompts = [list(ids) for ids in tokens.prompts(INDICATIONS, form).of(range(3))]
    ends = [len(ids) - ids[::-1].index(tokens.image_token) for ids in prompts]
    after = [ids[end:] for ids, end in zip(prompts, ends, strict=True)]
    decode = tokens.tokenizer.decode
    assert all(ids.count(tokens.image_token) == 16 for ids in prompts)
    texts = []
    for ids, end, rest in zip(prompts, ends, after, strict=True):
        opening = decode(ids[: end - 16], skip_special_tokens=True)
        texts.append(f"{opening}<image>{decode(rest).lstrip(' ')}")
    return texts, after


def test_each_image_is_asked_with_its_own_indication_in_vicunas_conversation(tokens):
    texts, after = asked_of(tokens)
    ends = [
        f" given the following indication: {INDICATIONS[0]}",
        ".",
        " given the following indication: Cough.",
    ]
    for text, end in zip(texts, ends, strict=True):
        opening, question = text.split("<image>")
        assert opening.endswith("questions. USER: ")
        assert question == f"\n{QUESTION}{end} ASSISTANT:"
    written = tokens.write(REPORTS, INDICATIONS, "v1")
    assert written.prompts.n_with_indication == 2
    assert written.prompts.n_indications_cut == written.n_cut == 0
    prompts = tokens.prompts(INDICATIONS, "v1").of(range(3))
    for ids, expected in zip(written.prompts.of(range(3)), prompts, strict=True):
        assert ids[0] == tokens.tokenizer.bos_token_id
        assert ids.tolist() == expected.tolist()
    for report, answer, end, ids in zip(REPORTS, written.answers, ends, after, strict=True):
        assert answer[-1] == tokens.eos
        assert tokens.read(answer.tolist()) == report
        whole = f"\n{QUESTION}{end} ASSISTANT: {report}"
        together = tokens.tokenizer(whole, add_special_tokens=False).input_ids
        assert [*ids, *answer[:-1]] == together


def test_the_authors_training_asks_what_the_annotations_store(tokens):
    texts, _ = asked_of(tokens, "v1_stored")
    for text in texts:
        assert text.endswith("<image>\nDescribe the findings of the chest x-ray. ASSISTANT:")
    assert tokens.prompts(INDICATIONS, "v1_stored").n_with_indication == 0


def test_the_first_form_is_the_image_and_the_report(tokens):
    written = tokens.write(REPORTS, INDICATIONS, "plain")
    for ids in written.prompts.of(range(3)):
        assert ids.tolist() == [1] + [tokens.image_token] * 16
    text = [tokens.tokenizer.decode(answer) for answer in written.answers]
    assert text == [f"{report}\n" for report in REPORTS]


def test_what_exceeds_the_length_is_cut_and_counted(tokens):
    room = 4
    plain = len(tokens.prompts([None], "v1").of([0])[0])
    short = ReportTokenizer(tokens.tokenizer, tokens.image_token, 16, plain + room)
    written = short.write(REPORTS, [None] * 3, "v1")
    full = tokens.write(REPORTS, [None] * 3, "v1").answers
    assert written.n_cut == sum(len(answer) > room for answer in full) > 0
    for cut, whole in zip(written.answers, full, strict=True):
        assert cut.tolist() == whole[:room].tolist()
    with pytest.raises(InputError, match="max_length"):
        ReportTokenizer(tokens.tokenizer, tokens.image_token, 16, plain)


@given(
    indication=st.text(min_size=1, max_size=300).filter(str.strip),
    room=st.integers(1, 200),
)
def test_an_indication_never_takes_the_answers_room(tokens, indication, room):
    """The indication is cut to its first words that fit; the answer keeps most of the length."""
    plain = len(tokens.prompts([None], "v1").of([0])[0])
    tokenizer = ReportTokenizer(tokens.tokenizer, tokens.image_token, 16, plain + room)
    prompts = tokenizer.prompts([indication], "v1")
    (ids,) = prompts.of([0])
    assert len(ids) - plain <= room / 4
    whole = tokenizer.tokenizer(
        f"\n{QUESTION} given the following indication: {' '.join(indication.split())} ASSISTANT:",
        add_special_tokens=False,
    ).input_ids
    fits = len(whole) - len(tokenizer.tokenizer(ASKED, add_special_tokens=False).input_ids)
    assert prompts.n_indications_cut == (fits > room / 4)
    (answer,) = tokenizer.write(["word " * 300], [indication], "v1").answers
    assert len(answer) == plain + room - len(ids) >= 3 / 4 * room


def test_a_long_indication_keeps_its_first_words(tokens):
    words = [f"word{number}" for number in range(200)]
    prompts = tokens.prompts([" ".join(words), None], "v1")
    assert (prompts.n_with_indication, prompts.n_indications_cut) == (1, 1)
    first, second = prompts.of([0, 1])
    text = tokens.tokenizer.decode(first)
    kept = text.split("indication: ")[1].removesuffix(" ASSISTANT:").split()
    assert 0 < len(kept) < 200
    assert kept == words[: len(kept)]
    limit = (512 - len(second)) // 4
    more = tokens.prompts([" ".join(words[: len(kept) + 1])], "v1")
    assert more.n_indications_cut == 1
    assert len(first) - len(second) <= limit


def test_a_text_with_the_images_placeholder_is_refused(tokens):
    for reports, indications in ((["<image>"], [None]), (["Clear."], ["see <image>"])):
        with pytest.raises(InputError, match="placeholder"):
            tokens.write(reports, indications, "v1")


# Images


class Counted(Squares):
    """Squares that record which images are decoded, and in which thread."""

    def __init__(self, n: int, memory: int = 0, seconds: float = 0.0):
        self.decoded: list[int] = []
        self.names: set[str] = set()
        self.n, self.seconds = n, seconds

    def __len__(self) -> int:
        return self.n

    def __call__(self, row: int) -> np.ndarray:
        time.sleep(self.seconds)
        self.decoded.append(row)
        self.names.add(threading.current_thread().name)
        return np.full((2, 2), row % 256, np.uint8)


@pytest.mark.parametrize(("processes", "pieces"), [(1, 1), (1, 3), (3, 2)])
def test_rows_come_in_the_order_of_training_and_are_decoded_once_an_epoch(processes, pieces):
    n, batch, epochs = 23, 6, 3
    for process in range(processes):
        squares = Counted(n)
        order = training_order(n, batch, 5, process, processes)
        ahead = Ahead(squares, order, epochs=epochs, threads=2, ahead=4)
        for epoch in range(epochs):
            for rows in epoch_batches(n, batch, 5, epoch):
                for part in np.array_split(rows[process::processes], pieces):
                    if len(part):
                        assert ahead.read(part, epoch)[:, 0, 0].tolist() == part.tolist()
        ahead.close()
        expected = np.concatenate([order(epoch) for epoch in range(epochs)])
        assert sorted(squares.decoded) == sorted(expected.tolist())
        assert threading.current_thread().name not in squares.names


def test_the_next_images_are_decoded_while_the_network_computes():
    squares = Counted(40)
    ahead = Ahead(squares, lambda _: np.arange(40), epochs=1, threads=1, ahead=8)
    ahead.read(np.arange(4), 0)
    for _ in range(200):
        if len(squares.decoded) == 12:
            break
        time.sleep(0.01)
    assert squares.decoded == list(range(12))  # the next eight, and no more
    ahead.close()


def test_a_run_that_continues_within_an_epoch_finds_its_place():
    squares = Counted(20)
    order = training_order(20, 5, 3, 0, 1)
    ahead = Ahead(squares, order, epochs=2, threads=1, ahead=3)
    rows = order(1)[10:15]
    assert ahead.read(rows, 1)[:, 0, 0].tolist() == rows.tolist()
    assert ahead.read(order(0)[5:9], 0)[:, 0, 0].tolist() == order(0)[5:9].tolist()
    mine = training_order(20, 5, 3, 1, 2)
    reader = Ahead(squares, mine, epochs=1, threads=1, ahead=3)
    foreign = np.setdiff1d(np.arange(20), mine(0))[:1]
    assert reader.read(foreign, 0)[:, 0, 0].tolist() == foreign.tolist()
    assert reader.read(mine(0)[:2], 0)[:, 0, 0].tolist() == mine(0)[:2].tolist()
    reader.close()
    with pytest.raises(ValueError, match="is not the next row"):
        ahead.read(np.array([order(0)[9], order(0)[3]]), 0)
    ahead.close()


def test_decoded_images_are_kept_within_the_budget(start, items):
    opened: list[str] = []

    class Noted(ImageItem):
        def open(self):
            opened.append(self.id)
            return super().open()

    noted = [Noted(item.id, item.path, item.data) for item in items]
    squares = Squares(noted, transform(start), memory=2 * 64 * 64)
    for _ in range(3):
        for row in range(3):
            squares(row)
    assert [opened.count(item.id) for item in items] == [1, 1, 3]


def test_squares_on_the_device_are_what_the_transform_makes_of_an_image(start, items):
    fit = transform(start)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70), np.uint8))
    square = np.array(fit.fit(picture))[None]
    ours = tower_input(square, fit, torch.device("cpu"))[0]
    torch.testing.assert_close(ours, fit(picture.convert("RGB")), rtol=1e-5, atol=1e-6)


def test_a_broken_image_is_named(start):
    squares = Squares([ImageItem("x", "x.png", b"no image")], transform(start))
    ahead = Ahead(squares, lambda _: np.arange(1), epochs=1, threads=1, ahead=1)
    with pytest.raises(InputError, match=r"x\.png"):
        ahead.read(np.array([0]), 0)


# The rate


def test_the_rate_is_that_of_transformers():
    steps = 200
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, int(0.03 * steps), steps)
    ours = warmup_then_cosine(0.03)
    for step in range(steps):
        assert ours(step / steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()
    assert warmup_then_cosine(0.0)(0.0) == 1.0


# The network


def test_a_loss_is_the_mean_over_the_answers_tokens_alone(start, tokens, items):
    network = load_llava(start, torch.float32).eval()
    task = task_of(start, tokens, items)
    with torch.no_grad():
        together = float(task.loss(network, np.arange(3), 0))
        total, count = 0.0, 0
        for row, item in enumerate(items):
            prompt, answer = task.written.prompts.of([row])[0], task.written.answers[row]
            pixels = transform(start)(item.open())[None]
            ids = torch.from_numpy(np.concatenate([prompt, answer]))[None]
            logits = network(input_ids=ids, pixel_values=pixels).logits[0, :, : tokens.image_token]
            log_probabilities = logits[len(prompt) - 1 : -1].log_softmax(-1)
            total -= float(
                log_probabilities[torch.arange(len(answer)), torch.from_numpy(answer)].sum()
            )
            count += len(answer)
    assert together == pytest.approx(total / count, rel=1e-5)
    assert task.weight(np.arange(3)) == count
    assert task.validation_loss(network) is None


def test_the_projector_alone_is_trained_first_then_the_adapter_with_it(start, tokens, items):
    network = load_llava(start, torch.float32)
    reset_projector(network, 1)
    first = network.model.multi_modal_projector.linear_1.weight.clone()
    reset_projector(network, 1)
    assert torch.equal(first, network.model.multi_modal_projector.linear_1.weight)
    train_projector_only(network)
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert {name.rpartition("projector.")[2] for name in trained} == {
        "linear_1.weight",
        "linear_1.bias",
        "linear_2.weight",
        "linear_2.bias",
    }
    task = task_of(start, tokens, items)
    before = float(task.loss(network.eval(), np.arange(3), 0).detach())
    add_lora(network, LoraSettings(4, 8, 0.0), 1)
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    adapted = {name for name in trained if ".lora_" in name}
    layers = {
        name
        for name, module in network.model.language_model.named_modules()
        if name.endswith("_proj") and hasattr(module, "lora_A")
    }
    assert len(adapted) == 2 * 7 * 2
    assert {name.rpartition(".")[2] for name in layers} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    assert not any("vision_tower" in name or "lm_head" in name for name in trained)
    assert len(trained - adapted) == 4
    assert float(task.loss(network.eval(), np.arange(3), 1).detach()) == before
    # Merged, the adapter is part of the weights.
    for name, value in network.named_parameters():
        if ".lora_B" in name:
            value.data = 0.1 * torch.randn_like(value)
    apart = float(task.loss(network.eval(), np.arange(3), 2).detach())
    merge_lora(network)
    assert apart != before
    assert float(task.loss(network, np.arange(3), 3).detach()) == pytest.approx(apart, rel=1e-4)


def test_the_image_reaches_the_answer_and_the_padding_does_not(start, tokens, items):
    network = load_llava(start, torch.float32).eval()
    task = task_of(start, tokens, items)
    written, first = task.written, np.array([0])
    with torch.no_grad():
        squares = np.stack([task.images.squares(0)] * 2)
        alone = task._loss(network, squares[:1], written, first)
        two = task._loss(network, squares, written, np.arange(2))
        second = task._loss(network, squares[:1], written, np.array([1]))
        black = task._loss(network, np.zeros((1, 64, 64), np.uint8), written, first)
    weights = [len(answer) for answer in written.answers[:2]]
    mean = (float(alone) * weights[0] + float(second) * weights[1]) / sum(weights)
    assert float(two) == pytest.approx(mean, rel=1e-5)
    assert abs(float(black) - float(alone)) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dinov2", "vit", "clip"])
def test_the_projector_takes_the_last_block_but_one_without_the_class_token(kind):
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    configs = {"dinov2": Dinov2Config, "vit": ViTConfig, "clip": CLIPVisionConfig}
    text = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=30,
    )
    config = LlavaConfig(
        vision_config=configs[kind](**sizes), text_config=text, image_token_index=29
    )
    network = LlavaForConditionalGeneration(config).eval()
    assert image_tokens(config.to_dict()) == 4
    tower = network.model.vision_tower
    (blocks,) = [m for m in tower.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3]
    seen: dict[str, torch.Tensor] = {}

    def keep(name):
        def hook(module, given, returned):
            output = returned if name == "block" else given[0]
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    blocks[1].register_forward_hook(keep("block"))
    network.model.multi_modal_projector.linear_1.register_forward_hook(keep("projector"))
    ids = torch.full((1, 6), 29)
    ids[:, 4:] = 3
    network(input_ids=ids, pixel_values=torch.randn(1, 3, 16, 16))
    assert seen["projector"].shape == (1, 4, 32)
    assert torch.equal(seen["projector"], seen["block"][:, 1:])


@torch.no_grad()
def test_reports_do_not_depend_on_who_is_in_the_batch(world, tokens, tmp_path):
    """Compare greedy decoding of one image at a time with batches of prompts of three lengths."""
    folder = world.start / "released"
    network = load_llava(folder, torch.float32).eval()
    rows = world.manifest[world.manifest["split"] == "test"].head(7)
    squares = Squares([ImageItem(r.image_id, r.path) for r in rows.itertuples()], transform(folder))
    prompts = tokens.prompts(rows["indication"].tolist(), "v1")
    assert len({len(ids) for ids in prompts.of(range(7))}) == 3
    expected = []
    for row, ids in enumerate(prompts.of(range(7))):
        pixels = tower_input(np.stack([squares(row)]), squares.transform, torch.device("cpu"))
        written: list[int] = []
        while len(written) < 24 and tokens.eos not in written:
            given = torch.tensor([[*ids, *written]])
            logits = network(input_ids=given, pixel_values=pixels).logits[0, -1]
            written.append(int(logits[: tokens.image_token].argmax()))
        expected.append(tokens.read(written))
    for size in (1, 3, 7):
        reports = generate_reports(
            network,
            tokens,
            prompts,
            squares,
            batch_size=size,
            max_new_tokens=24,
            progress=tmp_path / str(size),
            key="key",
            accelerator=Accelerator(cpu=True),
            threads=1,
        )
        assert reports == expected


@torch.no_grad()
def test_padding_before_a_prompt_changes_no_logit(start, tokens, items):
    """Compare the logits that `generate` computes for a padded row, to within rounding."""
    network = load_llava(start, torch.float32).eval()
    prompts = tokens.prompts(INDICATIONS, "v1").of(range(3))
    squares = np.stack([transform(start).fit(item.open().convert("L")) for item in items])
    pixels = tower_input(squares, transform(start), torch.device("cpu"))
    steps: list[torch.Tensor] = []

    def keep(module, given, returned):
        steps.append(returned.logits[:, -1])

    handle = network.register_forward_hook(keep)
    _batch(network, tokens, prompts, pixels, 1)
    handle.remove()
    for row, ids in enumerate(prompts):
        alone = network(input_ids=torch.from_numpy(ids)[None], pixel_values=pixels[row : row + 1])
        torch.testing.assert_close(steps[0][row], alone.logits[0, -1], rtol=1e-4, atol=1e-4)


def test_weights_that_do_not_fit_are_named(start, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    shutil.copytree(start, folder)
    state = load_file(folder / "model.safetensors")
    lost = next(name for name in state if name.endswith("layers.1.mlp.up_proj.weight"))
    state["vision_tower.more.weight"] = state.pop(lost)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"missing: .*up_proj[\s\S]*unexpected: .*more\.weight"):
        load_llava(folder, torch.float32)


def test_the_cross_entropy_leaves_the_placeholder_out(start, tokens, items):
    network = load_llava(start, torch.float32).eval()
    task = task_of(start, tokens, items)
    with torch.no_grad():
        before = float(task.loss(network, np.arange(3), 0))
        network.lm_head.weight[tokens.image_token] = 50.0
        assert float(task.loss(network, np.arange(3), 1)) == before
