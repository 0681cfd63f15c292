"""Make the inputs of the scoring scripts: a small cohort, features, outcomes, reports and masks.

    python -m tests.scoring.make_inputs

NumPy draws all of them from one seed. They are committed, and the committed records are computed
from them. Make them again only where the workflow's file formats change, and then the records too
(`python -m tests.scoring.freeze`).

As in the workflow, a patient has several radiographs and a prompt several images, the order of ids
differs from file to file, some prompts lack their image, some findings are rare, uncertain or
absent throughout, and a control consists of radiographs. Some generated images are copies.
"""

import shutil
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image

from tests.feature_files import captions_sha256, changed, images_sha256
from tests.scoring import make_attacked, make_faithfulness
from tests.scoring.paths import INPUTS
from workflow_scripts.common.images import ImageItem, png_bytes, read_shards, write_shard
from workflow_scripts.common.manifest import FINDINGS, write_manifest, write_prompts
from workflow_scripts.downstream.outcomes import write_outcomes
from workflow_scripts.downstream.report_generation.metrics.chexbert import HEADS
from workflow_scripts.downstream.report_generation.metrics.reports import (
    read_reports,
    write_scores,
)
from workflow_scripts.downstream.segmentation.masks import Mask, encode_mask, write_masks
from workflow_scripts.features.cache import Features, write_features

PROTOCOLS: Final = ("sound", "as_published")
LATENT, REID, JOINT = 6, 5, 4
"""Dimensions of the encoders' features."""

PATIENTS: Final = {"test": 40, "train": 44, "validate": 6}
SEEDS: Final = (639, 25, 275)
PROMPTS: Final = 26
"""Training captions of the prompt set `privacy`, each with an image for every seed."""

RATES: Final = {
    "Atelectasis": 0.3,
    "Cardiomegaly": 0.35,
    "Consolidation": 0.15,
    "Edema": 0.25,
    "Enlarged Cardiomediastinum": 0.1,
    "Fracture": 0.0,  # one image has it, see `make_manifest`
    "Lung Lesion": 0.12,
    "Lung Opacity": 0.45,
    "No Finding": 0.3,
    "Pleural Effusion": 0.35,
    "Pleural Other": 0.0,
    "Pneumonia": 0.2,
    "Pneumothorax": 0.06,
    "Support Devices": 0.5,
}
UNCERTAIN, ABSENT = 0.12, 0.15
"""Shares of labels that are -1 (uncertain) and null (not mentioned)."""

WEIGHT: Final = np.array([[-1.6, -0.9, -1.3, -0.7, -1.1]], np.float32)
BIAS: Final = np.array([2.75], np.float32)
"""The last layer of the re-identification network: |a - b| times this gives the logit."""

SENTENCES: Final = (
    "the lungs are clear",
    "no pleural effusion or pneumothorax",
    "the heart is mildly enlarged",
    "there is a small left pleural effusion",
    "streaky opacity at the right base , likely atelectasis",
    "a nasogastric tube ends in the stomach",
    "no acute fracture is seen",
    "mild pulmonary edema has improved",
)


def main() -> None:
    """Write all inputs anew."""
    shutil.rmtree(INPUTS, ignore_errors=True)
    rng = np.random.default_rng(20240)
    manifest = make_manifest(rng)
    prompts = {name: make_prompts(manifest, name, rng) for name in ("test", "privacy")}
    make_fidelity(manifest, prompts["test"], rng)
    make_privacy(manifest, prompts["privacy"], rng)
    test = manifest[manifest["split"] == "test"].reset_index(drop=True)
    make_classification(test, rng)
    make_segmentation(test, rng)
    make_reports(test[test["caption"].notna()].reset_index(drop=True), rng)
    set_digests(manifest, prompts["test"])
    make_attacked.main()
    make_faithfulness.main()


def set_digests(manifest: pd.DataFrame, prompts: pd.DataFrame) -> None:
    """Set the digests of captions and shards that the feature files name as their source."""
    asked = dict(zip(prompts["prompt_id"], prompts["caption"], strict=True))
    shown = dict(zip(manifest["image_id"], manifest["caption"], strict=True))
    for path in sorted((INPUTS / "features").rglob("biovil_t_text.h5")):
        with changed(path) as file:
            names, sources = (file[name].asstr()[()] for name in ("image_id", "source_image_id"))
            captions = [
                (shown[source] if source else asked[name]) or ""
                for name, source in zip(names, sources, strict=True)
            ]
            file.attrs["captions_sha256"] = captions_sha256(captions)
    for model in ("tiny", "shown"):
        images = read_shards(sorted((INPUTS / "shards" / model).iterdir()))
        digest = images_sha256([(item.id, item.data or b"") for item in images])
        for path in sorted((INPUTS / "features").glob(f"*/{model}_privacy/*.h5")):
            with changed(path) as file:
                file.attrs["collection_sha256"] = digest


def make_manifest(rng: np.random.Generator) -> pd.DataFrame:
    """Write `manifest.parquet`: patients of two sites with one to four radiographs each."""
    rows = []
    numbers = iter(rng.permutation(1000, axis=0))
    for split, count in PATIENTS.items():
        for number in range(count):
            patient = f"patient-{next(numbers):03d}"
            if split == "validate" and number < 2:  # a user's split may repeat training patients
                patient = next(r["patient_id"] for r in rows[::-1] if r["split"] == "train")
            site = ("site-a", "site-b")[int(rng.random() < 0.3)]
            for _ in range(int(rng.integers(1, 5))):
                rows.append({"patient_id": patient, "site": site, "split": split})
    frame = pd.DataFrame(rows)
    n = len(frame)
    frame["image_id"] = [f"image-{number:04d}" for number in rng.permutation(10 * n)[:n]]
    frame["study_id"] = frame["image_id"].str.replace("image", "study")
    frame["path"] = "images/" + frame["image_id"] + ".png"
    frame["view"] = np.where(rng.random(n) < 0.5, "AP", "PA")
    texts = [f"{' . '.join(rng.permutation(SENTENCES)[:3])} ( {k} )" for k in range(n)]
    captions = pd.Series(texts, dtype=object)
    captions[rng.random(n) < 0.25] = None
    for k in range(5, n, 17):  # two radiographs share a caption
        if frame["split"][k] == frame["split"][k - 1] and captions[k] is not None:
            captions[k - 1] = captions[k]
    frame["caption"] = captions
    frame["caption_source"] = captions.map(lambda text: None if text is None else "made_up")
    frame["indication"] = None
    frame["report"] = captions
    for name in FINDINGS:
        frame[name] = labels(RATES[name], n, rng)
    for split in ("test", "train"):
        of_split = frame.index[frame["split"] == split]
        frame.loc[of_split[0], "Fracture"] = 1
        frame.loc[of_split[4], "Pneumothorax"] = 1
    # Shuffle the rows: their order carries neither split nor patient.
    frame = frame.iloc[rng.permutation(n)].reset_index(drop=True)
    write_manifest(frame, INPUTS / "manifest.parquet")
    return frame


def labels(rate: float, n: int, rng: np.random.Generator) -> pd.Series:
    """Draw n labels: 1 at the given rate, else 0, -1 or null."""
    drawn = (rng.random(n) < rate).astype(object)
    other = ~drawn.astype(bool)
    drawn[other & (rng.random(n) < UNCERTAIN)] = -1
    drawn[other & (drawn == 0) & (rng.random(n) < ABSENT)] = None
    return pd.Series(drawn).astype("Int8")


def make_prompts(manifest: pd.DataFrame, name: str, rng: np.random.Generator) -> pd.DataFrame:
    """Write `prompts/{name}.parquet`: every unique test caption; training captions x seeds."""
    split = "train" if name == "privacy" else "test"
    known = manifest[(manifest["split"] == split) & manifest["caption"].notna()]
    known = known.drop_duplicates("caption")[["image_id", "caption", "caption_source", *FINDINGS]]
    seeds = SEEDS if name == "privacy" else (7,)
    if name == "privacy":
        known = known.iloc[rng.permutation(len(known))[:PROMPTS]]
    parts = [known.assign(replicate=r, seed=seed) for r, seed in enumerate(seeds)]
    frame = pd.concat(parts, ignore_index=True)
    frame["prompt_id"] = [
        f"{name}-{image}-r{r:02d}"
        for image, r in zip(frame["image_id"], frame["replicate"], strict=True)
    ]
    # The last test prompts are second wordings, which only the protocol as_published scores.
    frame["second_wording"] = (name == "test") & (frame.index >= len(frame) - 3)
    write_prompts(frame, INPUTS / f"prompts/{name}.parquet")
    return frame


def write_encoder(
    folder: str,
    encoder: str,
    protocol: str,
    values: np.ndarray,
    ids: Sequence[str],
    rng: np.random.Generator,
    sources: Sequence[str] | None = None,
) -> None:
    """Write one encoder's features of a collection, (n, d), in random order.

    A folder named after a model holds features of its images. A folder with `_privacy` is for the
    stage `privacy`, as are the folders of training and held-out radiographs.
    """
    order = rng.permutation(len(ids))
    head = {"fc_end_weight": WEIGHT, "fc_end_bias": BIAS} if encoder == "reid" else {}
    content = Features(
        np.asarray(values, np.float32)[order],
        [ids[k] for k in order],
        None if sources is None else [sources[k] for k in order],
        {
            "encoder": encoder,
            "weights_sha256": "0" * 64,
            "preprocessing": f"none ({protocol})",
            "collection": folder.removesuffix("_privacy") if sources is not None else "real",
            "collection_sha256": "1" * 64,
            "purpose": "fidelity" if folder in ("real", "tiny", "shown") else "privacy",
            "protocol": protocol,
            "versions": "{}",
        },
        head,
    )
    write_features(INPUTS / f"features/{protocol}/{folder}/{encoder}.h5", content)


def shifted(rows: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Return latent features, (n, LATENT): noise plus a patient effect and finding effects."""
    codes = np.unique(rows["patient_id"].to_numpy(str), return_inverse=True)[1]
    places = 0.6 * rng.standard_normal((codes.max() + 1, LATENT))
    positive = rows[list(FINDINGS)].eq(1).fillna(False).to_numpy(float)
    directions = np.random.default_rng(3).standard_normal((len(FINDINGS), LATENT))
    noise = rng.standard_normal((len(rows), LATENT))
    return 0.5 + noise + places[codes] + 0.25 * positive @ directions


def make_fidelity(manifest: pd.DataFrame, prompts: pd.DataFrame, rng: np.random.Generator) -> None:
    """Write features of the real test images, of a model and of a control."""
    real = manifest[manifest["split"] == "test"].reset_index(drop=True)
    made = prompts.iloc[sorted(rng.permutation(len(prompts))[2:])].reset_index(drop=True)
    ids = made["prompt_id"].tolist()
    for protocol in PROTOCOLS:
        features = shifted(real, rng)
        write_encoder("real", "rad_dino", protocol, features, real["image_id"].tolist(), rng)
        latent = 0.8 * shifted(made.assign(patient_id=made["image_id"]), rng) + 0.6
        none = [""] * len(ids)
        latent[:7] *= 2.5  # far outside the real features
        write_encoder("tiny", "rad_dino", protocol, latent, ids, rng, none)
        texts = rng.standard_normal((len(ids), JOINT))
        images = texts + 0.8 * rng.standard_normal(texts.shape)
        write_encoder("tiny", "biovil_t_text", protocol, texts, ids, rng, none)
        write_encoder("tiny", "biovil_t_image", protocol, 3 * images, ids, rng, none)
    # The control has a random radiograph of the split for each prompt, with that one's findings.
    ids = prompts["prompt_id"].tolist()
    shown = rng.permutation(len(real))[: len(ids)]
    sources = real["image_id"].iloc[shown].tolist()
    latent = shifted(real, rng)[shown]
    write_encoder("shown", "rad_dino", "sound", latent, ids, rng, sources)
    for encoder in ("biovil_t_text", "biovil_t_image"):
        joint = rng.standard_normal((len(ids), JOINT))
        write_encoder("shown", encoder, "sound", joint, ids, rng, sources)


def radiograph(rng: np.random.Generator) -> Image.Image:
    """Draw noise with a bright corner, in one of four aspect ratios."""
    height, width = ((20, 24), (26, 20), (22, 22), (18, 30))[int(rng.integers(4))]
    y, x = np.mgrid[:height, :width]
    place = rng.random(2) * (height, width)
    values = 60 + 130 * np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 40)
    values += rng.normal(0, 14, (height, width))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def make_privacy(manifest: pd.DataFrame, prompts: pd.DataFrame, rng: np.random.Generator) -> None:
    """Write features and images of training and held-out radiographs, a model and a control."""
    training = manifest[manifest["split"] == "train"].reset_index(drop=True)
    held_out = manifest[manifest["split"] != "train"].reset_index(drop=True)
    asked = prompts["image_id"].unique()
    files = dict(zip(asked, (radiograph(rng) for _ in asked), strict=True))
    (INPUTS / "images").mkdir(parents=True)
    for name, image in files.items():
        (INPUTS / f"images/{name}.png").write_bytes(png_bytes(image))
    made = prompts.iloc[sorted(rng.permutation(len(prompts))[2:])].reset_index(drop=True)
    ids, none = made["prompt_id"].tolist(), [""] * len(made)
    near = rng.random(len(made)) < 0.13  # near copies; each lens detects some of them
    copies, recognised = (near & (rng.random(len(made)) < share) for share in (0.4, 0.7))
    for protocol in PROTOCOLS:
        latent, reid = shifted(training, rng), branches(training, rng)
        rows = range(len(training))
        if protocol == "as_published":  # scored against the prompts' own radiographs only
            rows = np.flatnonzero(training["image_id"].isin(asked)).tolist()
        names = [training["image_id"][k] for k in rows]
        write_encoder("train", "rad_dino", protocol, latent[rows], names, rng)
        write_encoder("train", "reid", protocol, reid[rows], names, rng)
        others = shifted(held_out, rng)
        names = held_out["image_id"].tolist()
        if protocol == "sound":
            write_encoder("held_out", "rad_dino", protocol, others, names, rng)
        write_encoder("held_out", "reid", protocol, branches(held_out, rng), names, rng)

        position = {name: k for k, name in enumerate(training["image_id"])}
        source = np.array([position[name] for name in made["image_id"]])
        drawn = shifted(made.assign(patient_id=ids), rng)
        drawn[near] = latent[source][near] + 0.3 * rng.standard_normal((int(near.sum()), LATENT))
        drawn[copies] = latent[source][copies]
        branch = rng.random((len(ids), REID)) * 2
        noise = 0.15 * rng.standard_normal((int(recognised.sum()), REID))
        branch[recognised] = reid[source][recognised] + noise
        # Scores of 0.845 and 0.8495, the highest of their prompts, with a threshold between them.
        for prompt, score in ((3, 0.845), (4, 0.8495)):
            images = np.flatnonzero((made["image_id"] == asked[prompt]).to_numpy())
            branch[images] = reid[source[images]] + 5
            away = (float(BIAS[0]) - np.log(score / (1 - score))) / -float(WEIGHT[0, 0])
            branch[images[0]] = reid[source[images[0]]]
            branch[images[0], 0] += away
        write_encoder("tiny_privacy", "rad_dino", protocol, drawn, ids, rng, none)
        write_encoder("tiny_privacy", "reid", protocol, branch, ids, rng, none)

    of_split = held_out.index[held_out["split"] == "test"].to_numpy()
    sources = held_out["image_id"].iloc[rng.permutation(of_split)[: len(prompts)]]
    sources = sources.tolist() + sources.tolist()[: len(prompts) - len(sources)]
    rows_shown = [int(np.flatnonzero(held_out["image_id"] == name)[0]) for name in sources]
    everybody = prompts["prompt_id"].tolist()
    for encoder, values in (
        ("rad_dino", others[rows_shown]),
        ("reid", branches(held_out, rng)[rows_shown]),
    ):
        write_encoder("shown_privacy", encoder, "sound", values, everybody, rng, sources)

    images = [radiograph(rng) for _ in ids]
    for k in np.flatnonzero(near):
        own_image = files[made["image_id"][k]]
        alike = (own_image, mirrored(own_image), mirrored(own_image), brightened(own_image))
        images[k] = alike[k % 4]
    images[5] = Image.merge("RGB", (images[5], images[5], images[6].resize(images[5].size)))
    write_shards("tiny", ids, images, none)
    shown = [radiograph(rng) for _ in everybody]
    write_shards("shown", everybody, shown, sources)


def branches(rows: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Return the re-identification network's features, (n, REID), clustered by patient."""
    codes = np.unique(rows["patient_id"].to_numpy(str), return_inverse=True)[1]
    places = 2 * rng.random((codes.max() + 1, REID))
    site = (rows["site"] == "site-b").to_numpy(float)[:, None]
    return places[codes] + 0.5 * site + 0.3 * rng.standard_normal((len(rows), REID))


def mirrored(image: Image.Image) -> Image.Image:
    """Return the image flipped left to right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def brightened(image: Image.Image) -> Image.Image:
    """Return the image with 30 added to its gray values, clipped at 255."""
    return image.point(lambda value: min(255, value + 30))


def write_shards(
    model: str, ids: Sequence[str], images: Sequence[Image.Image], sources: Sequence[str]
) -> None:
    """Write two shards; the images go to them in turn."""
    for part in range(2):
        items = [
            ImageItem(ids[k], f"{ids[k]}.png", png_bytes(images[k]), "caption", sources[k] or None)
            for k in range(part, len(ids), 2)
        ]
        write_shard(items, INPUTS / f"shards/{model}/part-0000{part}-of-00002.parquet")


def run_of(setting: str, model: str, seed: int, **more: Any) -> dict[str, Any]:
    """Return the columns of outcomes that describe the training run."""
    return {
        "setting": setting,
        "model": model,
        "protocol": "sound",
        "seed": seed,
        "provenance": {"device": "cpu"},
        **more,
    }


def who(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of outcomes that identify a row's image and patient."""
    return {name: rows[name].tolist() for name in ("image_id", "patient_id")}


def make_classification(test: pd.DataFrame, rng: np.random.Generator) -> None:
    """Write probabilities of three arms, in steps of 0.05 so that there are ties."""
    truth = test[list(FINDINGS)].eq(1).fillna(False).to_numpy(float)
    for setting, model, seeds, skill in (
        ("real_only", "real", 2, 1.0),
        ("augmented", "tiny", 3, 1.3),
        ("synthetic_only", "tiny", 1, 0.5),
    ):
        for k in range(seeds):
            logits = rng.standard_normal(truth.shape) + skill * (truth - 0.35)
            steps = np.round(20 / (1 + np.exp(-logits))) / 20
            columns = {name: steps[:, j].astype(np.float32) for j, name in enumerate(FINDINGS)}
            path = INPUTS / f"outcomes/classification/{setting}/{model}/repeat-{k}.parquet"
            write_outcomes(path, {**who(test), **columns}, run_of(setting, model, 7 + k))


def make_segmentation(test: pd.DataFrame, rng: np.random.Generator) -> None:
    """Write pixel counts of two arms, and masks of the labeller and of a human annotator."""
    n = len(test)
    true = rng.integers(20, 200, n)
    true[rng.permutation(n)[:4]] = 0
    by_hand = np.where(rng.random(n) < 0.3, np.maximum(1, true - rng.integers(0, 15, n)), np.nan)
    for setting, model, overlap, given in (
        ("real_only", "real", 0.6, 30),
        ("augmented", "tiny", 0.7, 60),
    ):
        for k in range(2):
            predicted = np.where(rng.random(n) < 0.05, 0, rng.integers(15, 220, n))
            most = np.minimum(predicted, true)
            both = (most * np.clip(overlap + 0.2 * rng.standard_normal(n), 0, 1)).astype(int)
            most_by_hand = np.minimum(predicted, by_hand)
            counts = {
                "predicted": predicted.tolist(),
                "true": true.tolist(),
                "both": both.tolist(),
                "exact_true": [None if np.isnan(x) else int(x) for x in by_hand],
                "exact_both": [None if np.isnan(x) else int(x * overlap) for x in most_by_hand],
            }
            run = run_of(setting, model, 7 + k, n_images=given)
            path = INPUTS / f"outcomes/segmentation/{setting}/{model}/repeat-{k}.parquet"
            write_outcomes(path, {**who(test), **counts}, run)
    masks = []
    (INPUTS / "by_hand").mkdir()
    for k, name in enumerate(test["image_id"]):
        width, height = ((24, 20), (20, 26), (22, 22))[k % 3]
        top, left = (int(x) for x in rng.integers(2, 7, 2))
        mask = np.zeros((16, 16), bool)
        if k != 5:
            mask[top : top + 6, left : left + 7] = True
        masks.append(Mask(name, encode_mask(mask), (width, height)))
        if k % 6 == 0:
            drawn = np.zeros((height, width), bool)
            drawn[top + 1 : top + 9, left + 1 : left + 10] = k != 12
            (INPUTS / f"by_hand/{name}.png").write_bytes(encode_mask(drawn))
    write_masks(INPUTS / "masks.parquet", masks, {**run_of("", "real", 0), "labeller": "by hand"})


def make_reports(test: pd.DataFrame, rng: np.random.Generator) -> None:
    """Write reports of four arms, and the networks' outputs for them."""
    n = len(test)
    counts = 1 + rng.integers(0, 4, n)
    references = [" . ".join(rng.permutation(SENTENCES)[:count]) for count in counts]
    said = rng.integers(0, 4, (n, len(HEADS)))
    said[:, -1] = np.minimum(said[:, -1], 1)
    for setting, model, seeds, lost in (
        ("released", "real", 1, 0.4),
        ("real_only", "real", 2, 0.35),
        ("augmented", "tiny", 2, 0.25),
        ("synthetic_only", "tiny", 1, 0.5),
    ):
        for k in range(seeds):
            folder = INPUTS / f"outcomes/report_generation/{setting}/{model}"
            generated = [
                " ".join(word for word in text.split() if rng.random() > lost)
                for text in references
            ]
            generated[3], generated[4] = "", generated[5]
            texts = {"reference": references, "generated": generated}
            path = folder / f"repeat-{k}.parquet"
            write_outcomes(path, {**who(test), **texts}, run_of(setting, model, 7 + k))
            reports = read_reports(path)
            heard = np.where(rng.random(said.shape) < lost, rng.integers(0, 4, said.shape), said)
            heard[:, -1] = np.minimum(heard[:, -1], 1)
            findings = {
                f"{side}_{head}": classes[:, j].astype(np.int8)
                for side, classes in (("reference", said), ("generated", heard))
                for j, head in enumerate(HEADS)
            }
            made = {"weights_sha256": "2" * 64}
            write_scores(folder / f"chexbert-{k}.parquet", reports, "chexbert", findings, made)
            for scorer in ("radgraph", "ratescore"):
                scores = {"score": np.round(rng.beta(4, 6 * lost + 1, n), 6)}
                write_scores(folder / f"{scorer}-{k}.parquet", reports, scorer, scores, made)


if __name__ == "__main__":
    main()
