"""Estimates of the memory and disk that the stages other than fine-tuning and sampling need.

Each row is a network, or a computation without one, in the job that runs it. Parameters are counted
in the networks as they are built. The bytes that a training step saves, and those of the inputs and
outputs of a network's widest module, are counted without weights (network_sizes.py, and again in
tests/preflight/test_network_sizes.py). The rest follows from shapes and formulas.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from workflow_scripts.curate.kinds import KINDS

CAPTIONED_TRAINING_IMAGES: Final = 237_388
TEST_PROMPTS: Final = 5_034
BASE: Final = 4e9
"""Bytes of host memory of a process with torch and a GPU context; an assumption."""

READ_AHEAD: Final = 4 * 32 * 3 * 518 * 518 * 4
"""Bytes of the images that extraction decodes ahead: four batches of 32 for RAD-DINO."""

RADIOGRAPH: Final = 1.5e6
"""Mean bytes of a published radiograph: MIMIC-CXR-JPG has 377,110 in about 570 GB."""

TRAINED: Final = 16
"""Bytes per trained parameter in float32: its value, its gradient and Adam's two moments."""

PARAMETERS: Final[Mapping[str, int]] = {
    "rad_dino": 86_580_480,
    "biovil_t_image": 27_349_928,
    "bert_base": 109_482_240,
    "siamese": 23_770_433,
    "inception_v3": 23_850_960,
    "densenet_121": 6_966_034,
    "resnet_50": 23_536_718,
    "cxas": 73_380_191,
    "unet": 2_637_865,
    "llama_7b": 6_738_415_616,
    "deberta_v3_base": 183_831_552,
    "mpnet_base": 109_484_928,
}
"""Numbers of parameters, counted on the meta device. The re-identification network uses the same
ResNet-50 for both images."""

WIDEST: Final[Mapping[str, int]] = {
    "rad_dino": 1_077_411_840,
    "biovil_t_image": 822_083_584,
    "bert_base_32": 402_653_184,
    "siamese": 268_435_456,
    "inception_v3": 354_041_856,
    "densenet_121": 205_520_896,
    "cxas": 805_306_368,
    "bert_base_64": 805_306_368,
    "mpnet_base": 50_331_648,
}
"""Bytes of the widest module's inputs and outputs in float32, counted for 32 images (CXAS 16), 32
or 64 texts of 512 tokens (BERT), and 16 texts of 128 tokens (MPNet)."""

SAVED: Final[Mapping[str, int]] = {
    "siamese_64": 14_362_901_504,
    "resnet_50_256_bf16": 11_249_223_296,
    "unet_16": 465_723_392,
    "llava_projector_16": 13_439_991_808,
    "llava_adapter_16": 20_475_445_248,
}
"""Bytes that a training step saves, counted: 64 pairs at 256 pixels in float32; 256 images at 224
pixels under autocast; 16 images at 256 pixels; 16 texts of 2,048 tokens through Llama with
gradient checkpointing."""

LLAVA_LORA: Final = 159_907_840
"""Parameters of an adapter of rank 64 on every linear layer of Llama 7B, counted."""

LLAVA_VISION: Final = PARAMETERS["rad_dino"]
"""BiomedCLIP-CXR's tower is a ViT-B/14 at 518 pixels, like RAD-DINO."""

LLAVA_PROJECTOR: Final = 768 * 4096 + 4096 + 4096 * 4096 + 4096
"""Parameters of the two layers between tower and language model."""

KV_TOKEN: Final = 2 * 32 * 4096 * 2
"""Bytes of Llama 7B's cache per token in bf16: keys and values of 32 layers."""

IMAGE_TOKENS: Final = (518 // 14) ** 2
QUESTION_TOKENS: Final = 128
"""Tokens of a question with its indication; an assumption."""


@dataclass(frozen=True)
class StageNeed:
    """What a job needs at least, in bytes.

    Attributes:
        stage: the stage's name in the table.
        rule: the workflow's rule, whose `mem_mb` must be at least `host`.
        network: the network that is loaded.
        parameters: its number of parameters; 0 if no network is loaded.
        gpu: GPU memory of the weights, in training also of gradients, optimiser state and data.
        activations: further GPU memory at the batch size of `config.yaml`; an estimate.
        host: host memory of all processes together; an estimate.
        disk: what the job writes, with its progress; an estimate.
    """

    stage: str
    rule: str
    network: str
    parameters: float
    gpu: float
    activations: float
    host: float
    disk: float


def stage_needs(config: Mapping[str, Any]) -> list[StageNeed]:
    """Return the needs of each stage's jobs at the paper's counts, in the workflow's order."""
    sets, tasks = config["prompt_sets"], config["downstream"]
    privacy = sets["privacy"]["captions"] * len(sets["privacy"]["seeds"])
    return [
        *_controls(sets, privacy),
        *_extraction(),
        *_reid(),
        *_scores(privacy),
        *_images(tasks, sets["augment"]["captions"]),
        *_reports(tasks["report_generation"]),
        *_looking(tasks["classification"]["repeats"]),
        *_curation(config),
    ]


def _controls(sets: Mapping[str, Any], privacy: int) -> list[StageNeed]:
    images = TEST_PROMPTS + privacy + sets["augment"]["captions"]
    disk = RADIOGRAPH * images
    name = "controls: radiographs as they are, each"
    return [StageNeed(name, "generate_control", "–", 0, 0, 0, 2e9, disk)]


def _extraction() -> list[StageNeed]:
    """Features in float32, of training images if privacy reads them, else of test images."""
    rows = []
    for name, network, widest, width, training in (
        ("RAD-DINO", "rad_dino", "rad_dino", 768, True),
        ("re-identification", "siamese", "siamese", 128, True),
        ("BioViL-T, images", "biovil_t_image", "biovil_t_image", 128, False),
        ("BioViL-T, texts", "bert_base", "bert_base_32", 128, False),
        ("Inception-v3", "inception_v3", "inception_v3", 2048, False),
        ("DenseNet-121", "densenet_121", "densenet_121", 1024, False),
    ):
        number = PARAMETERS[network]
        disk = 4 * width * (CAPTIONED_TRAINING_IMAGES if training else TEST_PROMPTS)
        host = BASE + READ_AHEAD + 4 * number + disk
        rule = "features_training" if training else "features_fidelity"
        stage = f"features: {name}"
        rows.append(StageNeed(stage, rule, name, number, 4 * number, WIDEST[widest], host, disk))
    return rows


def _reid() -> list[StageNeed]:
    number = PARAMETERS["siamese"]
    host = BASE + 256 * 256 * CAPTIONED_TRAINING_IMAGES
    return [
        StageNeed(
            "re-identification, training",
            "features_train_reid",
            "ResNet-50",
            number,
            TRAINED * number,
            SAVED["siamese_64"],
            host,
            3 * 12 * number,
        )
    ]


def _scores(privacy: int) -> list[StageNeed]:
    """Scores, computed on the CPU from features in float32 and a copy in float64."""
    values = (768 + 128) * (CAPTIONED_TRAINING_IMAGES + privacy + TEST_PROMPTS)
    pairs = 8 * 32 * privacy
    test = 2 * TEST_PROMPTS * 2048
    return [
        StageNeed("privacy: scores, closest search", "privacy_score", "–", 0, 0, 0,
                  BASE + 12 * values, pairs),
        _attack(privacy),
        StageNeed("fidelity: scores", "fidelity_score", "–", 0, 0, 0,
                  BASE + 12 * test + 3 * 8 * TEST_PROMPTS**2, 1e6),
    ]  # fmt: skip


def _attack(privacy: int) -> StageNeed:
    """Tiles of training radiographs and of a model's images: 4,096 bytes and 16 tokens, halved.

    A block of 2,048 x 2,048 distances is held with the nearest 50 of each tile.
    """
    tiles = 4096 + 2 * 16 * 768
    number = PARAMETERS["rad_dino"]
    nearest = 17 * 2048 * 50 * (4 + 8)
    disk = tiles * (CAPTIONED_TRAINING_IMAGES + privacy)
    block = 4 * (2 * 2048 * 16 * 768 + 4 * 2048**2) + nearest
    name = "privacy: extraction, each model"
    gpu, host = 4 * number + block, BASE + READ_AHEAD + 2 * disk
    return StageNeed(
        name, "privacy_extraction", "RAD-DINO", number, gpu, WIDEST["rad_dino"], host, disk
    )


def _images(tasks: Mapping[str, Any], captions: int) -> list[StageNeed]:
    classes, segments = tasks["classification"], tasks["segmentation"]
    pixels = classes["size"] ** 2 * 2 * captions
    masks = segments["size"] ** 2 * 2 * segments["images"] * 2
    resnet, cxas, unet = (PARAMETERS[name] for name in ("resnet_50", "cxas", "unet"))
    return [
        StageNeed("classification", "downstream_train_classifier", "ResNet-50", resnet,
                  TRAINED * resnet + pixels, SAVED["resnet_50_256_bf16"], BASE + 2 * pixels,
                  3 * 12 * resnet),
        StageNeed("segmentation: pseudo-masks", "downstream_masks", "CXAS", cxas,
                  4 * cxas, WIDEST["cxas"], BASE + 4 * cxas, 1e4 * segments["images"]),
        StageNeed("segmentation: training", "downstream_train_segmenter", "U-Net", unet,
                  TRAINED * unet, SAVED["unet_16"], BASE + masks, 3 * 12 * unet),
    ]  # fmt: skip


def _looking(judges: int) -> list[StageNeed]:
    """Test images through CXAS, the classifiers and a DenseNet-121, 16 at a time."""
    number = PARAMETERS["cxas"] + judges * PARAMETERS["resnet_50"] + PARAMETERS["densenet_121"]
    disk = 5e3 * TEST_PROMPTS  # masks of three organs in bits, probabilities
    return [
        StageNeed("faithfulness: looking at images", "faithfulness_look",
                  "CXAS, ResNet-50, DenseNet-121", number, 4 * number, WIDEST["cxas"],
                  BASE + 4 * number, disk),
    ]  # fmt: skip


def _curation(config: Mapping[str, Any]) -> list[StageNeed]:
    """A pool, planted leaks and unseen radiographs, each mirrored, with all training radiographs.

    An image has 512 x 512 pixels, of a byte each. A radiograph's gray values are held 32 x 32 in
    float32, in four enlargements. 128 images at once are compared with all of them, which takes
    about six blocks. Of the set only tables of ids are in memory (some 3 KB an image, measured).
    While it is written, its images are on the disk twice.
    """
    policy, tasks = config["curate"], config["downstream"]
    drawn = config["prompt_sets"][policy["pool"]]
    pool = drawn.get("captions", TEST_PROMPTS) * len(drawn.get("seeds", [0]))
    count = 2 * (pool + len(KINDS) * policy["planted"] + policy["held_out"])
    pixels, values = 512**2, 768 + 128
    films = 4 * 4 * 32**2 * CAPTIONED_TRAINING_IMAGES
    blocks = 6 * 4 * 128 * CAPTIONED_TRAINING_IMAGES
    networks = PARAMETERS["rad_dino"] + PARAMETERS["siamese"]
    (look,) = _looking(tasks["classification"]["repeats"])
    return [
        StageNeed("curate: planted leaks, features", "curate_plant",
                  "RAD-DINO, re-identification", networks, 4 * networks, WIDEST["rad_dino"],
                  BASE + READ_AHEAD + 4 * networks + 4 * values * count,
                  (pixels + 2 * 4 * values) * count),
        StageNeed("curate: search, each model", "curate_lenses", "–", 0, films, blocks,
                  BASE + 2 * films + 12 * values * (CAPTIONED_TRAINING_IMAGES + count),
                  films + 300 * count),
        replace(look, stage="curate: looking at the pool", rule="curate_look",
                disk=2 * 5e3 * pool),
        StageNeed("curate: the set", "curate_decide", "–", 0, 0, 0,
                  BASE + 4e3 * policy["images"] + 8 * values * count,
                  2 * pixels * policy["images"]),
    ]  # fmt: skip


def _reports(task: Mapping[str, Any]) -> list[StageNeed]:
    """Report generators on each of four GPUs, and the scorers of their reports on one."""
    frozen = PARAMETERS["llama_7b"] + LLAVA_VISION
    host = 4 * (BASE + 2 * frozen + 1e9 * task["image_memory"])
    adapter = LLAVA_LORA + LLAVA_PROJECTOR
    tokens = IMAGE_TOKENS + QUESTION_TOKENS + task["max_new_tokens"]
    written = KV_TOKEN * tokens * task["generate_batch_size"]
    bert, llama = PARAMETERS["bert_base"], PARAMETERS["llama_7b"]
    entities = PARAMETERS["deberta_v3_base"] + PARAMETERS["mpnet_base"]
    rule = "downstream_train_reporter"
    return [
        StageNeed("reports: projector", rule, "LLaVA 7B", frozen + LLAVA_PROJECTOR,
                  2 * frozen + TRAINED * LLAVA_PROJECTOR, SAVED["llava_projector_16"], host,
                  3 * 12 * LLAVA_PROJECTOR),
        StageNeed("reports: adapter", rule, "LLaVA 7B, LoRA", frozen + adapter,
                  2 * frozen + TRAINED * adapter, SAVED["llava_adapter_16"], host,
                  3 * 12 * adapter),
        StageNeed("reports: writing", rule, "LLaVA 7B", frozen + adapter,
                  2 * frozen + 4 * adapter, written, host, 1e7),
        StageNeed("faithfulness: reports of images", "faithfulness_reports",
                  "LLaVA 7B, BERT base", frozen + LLAVA_PROJECTOR + bert,
                  2 * (frozen + LLAVA_PROJECTOR) + 4 * bert, written,
                  BASE + 2 * frozen + RADIOGRAPH * TEST_PROMPTS, 3e3 * TEST_PROMPTS),
        StageNeed("scores: CheXbert", "downstream_chexbert", "BERT base", bert,
                  4 * bert, WIDEST["bert_base_64"], BASE + 4 * bert, 1e6),
        StageNeed("scores: RadGraph", "downstream_radgraph", "BERT base", bert,
                  4 * bert, WIDEST["bert_base_32"] / 32, BASE + 2 * 4 * bert, 1e6),
        StageNeed("scores: RaTEScore", "downstream_ratescore", "DeBERTa, MPNet", entities,
                  4 * entities, 2 * WIDEST["mpnet_base"], BASE + 2 * 4 * entities, 1e6),
        StageNeed("scores: GREEN", "downstream_green", "Llama 7B", llama,
                  2 * llama, KV_TOKEN * 2048 * 8, BASE + 4 * llama, 1e6),
    ]  # fmt: skip
