"""What the paper's tables show: attributes and metrics, and the words around them."""

from dataclasses import dataclass, replace
from typing import Final

from workflow_scripts.common.manifest import FINDINGS

ARROWS: Final = {"higher": "↑", "lower": "↓", "none": ""}

PROTOCOL_WORDS: Final = {"sound": "sound", "as_published": "as published"}
"""The protocols as readers see them."""

FLOOR_LABEL: Final = "Floor: real against other patients' real"
"""The label of a row of floors."""

_ABBREVIATED: Final = (
    "EC: enlarged cardiomediastinum, LL: lung lesion, LO: lung opacity, NF: no finding, "
    "PE: pleural effusion, PO: pleural other, PN: pneumonia, PT: pneumothorax, "
    "SD: support devices."
)


@dataclass(frozen=True)
class Column:
    """One metric of a table (a row where the table is transposed).

    Attributes:
        header: as the paper has it.
        metric: its name in records.
        direction: `higher` or `lower` is better.
        decimals: digits after the point, for readers; the CSV has all digits. None writes a number
            as short as it is.
        subset: `all` or a finding.
        family: of its records, where it is not the table's.
        protocol: of its records, where a table shows both.
    """

    header: str
    metric: str
    direction: str
    decimals: int | None
    subset: str = "all"
    family: str | None = None
    protocol: str | None = None

    @property
    def is_gain(self) -> bool:
        """Whether it is a difference to training on real data alone."""
        return self.metric.endswith("_gain")


@dataclass(frozen=True)
class RealRow:
    """A row of real data alone: records of the model `real`.

    Attributes:
        label: of the row.
        family: of the record.
        protocol: of the record, where a table shows both.
    """

    label: str
    family: str
    protocol: str | None = None


@dataclass(frozen=True)
class Layout:
    """One table of the paper.

    Attributes:
        stem: of its files.
        number: in the paper; with a letter where the table is ours.
        title: what it compares; the caption opens with it.
        stage: whose records it joins.
        family: the records' family, or None where the stage has one family.
        columns: its metrics, in the paper's order.
        attributes: headers of what is said of a model before its metrics, see `ModelEntry`.
        transposed: metrics are rows and models are columns.
        n_labels: what `n` and `n_reference` count.
        real_rows: the rows of real data alone.
        floor: the metric of the row of real against real, where there is one.
        positives: whether a foot row counts the positive test images per finding.
        models: whether the models have rows.
        varies: a setting: only models that differ from another one in it alone have rows.
        printed: the stem of the paper's table whose values stand beside, where it is not its own.
        row_header: what the rows of a table that is not transposed are.
        explanation: sentences of the caption on what the numbers are.
    """

    stem: str
    number: str
    title: str
    stage: str
    family: str | None
    columns: tuple[Column, ...]
    explanation: str
    n_labels: tuple[str, str]
    attributes: tuple[str, ...] = ()
    transposed: bool = False
    real_rows: tuple[RealRow, ...] = ()
    models: bool = True
    varies: str | None = None
    printed: str | None = None
    floor: str | None = None
    positives: bool = False
    row_header: str = "Model"

    @property
    def has_gains(self) -> bool:
        """Whether it is a table of gains."""
        return any(column.is_gain for column in self.columns)

    @property
    def in_paper(self) -> bool:
        """Whether the paper prints such a table (its Table 17 has two parts)."""
        return self.number.isdigit() or self.number.startswith("17")


def _per_finding(headers: str, metric: str, direction: str, decimals: int) -> tuple[Column, ...]:
    names = headers.split(",")
    return tuple(
        Column(header, metric, direction, decimals, finding)
        for header, finding in zip(names, FINDINGS, strict=True)
    )


_FIDELITY: Final = Layout(
    stem="table01_fidelity",
    number="1",
    title="Generation fidelity and mode coverage",
    stage="fidelity",
    family="rad_dino",
    attributes=("Size", "Default Resolution", "Prev. Available For CXR?", "Fine-Tuning"),
    columns=(
        Column("FID ↓ (RadDino)", "fid", "lower", 3),
        Column("KID ↓ (RadDino)", "kid", "lower", 3),
        Column("Alignment Score ↑", "alignment", "higher", 3),
        Column("Precision ↑", "precision", "higher", 3),
        Column("Recall ↑", "recall", "higher", 3),
        Column("Density ↑", "density", "higher", 3),
        Column("Coverage ↑", "coverage", "higher", 3),
    ),
    n_labels=("Generated images", "Real images"),
    explanation=(
        "All metrics but alignment compare RAD-DINO features of the generated test images with "
        "those of the radiographs that their prompts describe, each once (Table 1d has other "
        "references); alignment is the cosine of image and caption in BioViL-T."
    ),
)

_CORRECTED: Final = Layout(
    stem="table01b_fid_sample_size",
    number="1b",
    title="FID (RadDino) and the sample size",
    stage="fidelity",
    family="rad_dino",
    columns=(
        Column("FID ↓", "fid", "lower", 3),
        Column("Floor: other patients", "fid_floor", "none", 3),
        Column("Floor: caption-matched", "fid_floor_matched", "none", 3),
        Column("Prompts without a match", "prompts_without_partner", "none", 0),
        Column("FID without its bias ↓", "fid_corrected", "lower", 3),
        Column("KID ↓", "kid", "lower", 3),
    ),
    n_labels=("Generated images", "Real images"),
    explanation=(
        "Floors are what the reference's radiographs score against each other at as many images, "
        "no patient on both sides: those of other patients, whatever they show; and, "
        "caption-matched, for each radiograph another patient's with the same findings, where "
        "there is one. Neither is a bound: a generator that takes more from a caption than "
        "findings may stand below both, as a copy does. A floor is carried to the sizes of the "
        "comparison where it can be, and stands for fewer images otherwise, too high (n in the "
        "CSV). The jackknife takes the bias off that FID "
        "has at this sample size, so that a perfect generator stands near zero, as it does in "
        "KID. "
    ),
)

_REFERENCES: Final = Layout(
    stem="table01d_references",
    number="1d",
    title="FID and KID (RadDino) against other references",
    stage="fidelity",
    family="rad_dino",
    columns=tuple(
        Column(f"{name} ↓, {words}", metric, "lower", 3)
        for name in ("FID", "KID")
        for words, metric in (
            ("prompts' radiographs", name.lower()),
            ("films of their studies", f"{name.lower()}_studies"),
            ("whole test set", f"{name.lower()}_test_set"),
        )
    ),
    n_labels=("Generated images", "Real images"),
    explanation=(
        "Prompts' radiographs: the reference of all other tables, which a copy of what was asked "
        "for stands at zero from. Films of their studies: all test images of the same studies. "
        "Whole test set: also the images that no prompt describes. Where these are another "
        "population, the distance to them says nothing of a model. "
    ),
)

_PATHOLOGIES: Final = Layout(
    stem="table02_fid_per_pathology",
    number="2",
    title="FID (RadDino) ↓ per pathology",
    stage="fidelity",
    family="rad_dino",
    columns=_per_finding(
        "Atelectasis,Cardiomegaly,Consolid.,Edema,EC,Fracture,LL,LO,NF,PE,PO,PN,PT,SD",
        "fid",
        "lower",
        2,
    ),
    n_labels=("Generated images", "Real images"),
    floor="fid_floor",
    explanation=(
        "The floor is the FID between two groups of radiographs with the finding, no patient in "
        "both, at as many images: what a generator scores that draws real radiographs with the "
        "finding and takes no more from its caption. FID grows as images get fewer and as a "
        "finding looks less alike, so a value says little beyond its floor. Where too "
        "few radiographs or patients have the finding, its floor is drawn from all, whose spread "
        "need not be the finding's: the last row says where. "
    )
    + _ABBREVIATED,
)

_KID_PATHOLOGIES: Final = replace(
    _PATHOLOGIES,
    stem="table02b_kid_per_pathology",
    number="2b",
    title="KID (RadDino) ↓ per pathology",
    columns=tuple(replace(c, metric="kid", decimals=3) for c in _PATHOLOGIES.columns),
    floor=None,
    explanation=(
        "KID is free of FID's bias by sample size: a perfect generator's is zero in expectation "
        "for every finding, and the interval says how far few images can tell. "
    )
    + _ABBREVIATED,
)

_PRIVACY: Final = Layout(
    stem="table03_privacy",
    number="3",
    title="Re-identification risk and patient privacy",
    stage="privacy",
    family="pairwise",
    transposed=True,
    columns=(
        Column("Avg. Re-ID Score ↓", "reid_mean_of_max", "lower", 3),
        Column("Avg. Latent Distance ↑", "latent_mean_of_min", "higher", 3),
        Column("Avg. Pixel Distance ↑", "pixel_mean_of_min", "higher", 1),
        Column("Max. Re-ID Score ↓", "reid_max", "lower", 3),
        Column("Count Re-ID > δ ↓", "reid_count", "lower", 0),
    ),
    n_labels=("Prompts", "Training images"),
    explanation=(
        "Each prompt's generated images are compared with the training image that the prompt "
        "describes; a prompt counts with its riskiest image (highest re-identification score, "
        "smallest distance), and the averages are over prompts. The paper's pixel distances stand "
        "near 147 because its release subtracts 8-bit values, which wrap modulo 256: unrelated "
        "images then score about 255 / √3 = 147 whatever they show. Under the protocol sound "
        "nothing wraps. "
    ),
)

_CLOSEST: Final = Layout(
    stem="table03b_closest_training_image",
    number="3b",
    title="The closest of all training images",
    stage="privacy",
    family="closest",
    columns=(
        Column("Latent distance, mean ↑", "closest_latent_mean", "higher", 3),
        Column("Latent distance, least ↑", "closest_latent_min", "higher", 3),
        Column("AuthPct ↑", "authpct", "higher", 1),
        Column("Own patient closest ↓", "own_patient_latent", "lower", 3),
        Column("Re-ID score, mean ↓", "closest_reid_mean", "lower", 3),
        Column("Re-ID score, highest ↓", "closest_reid_max", "lower", 3),
        Column("Share Re-ID > δ ↓", "closest_reid_share", "lower", 3),
        Column("Own patient highest ↓", "own_patient_reid", "lower", 3),
    ),
    n_labels=("Generated images", "Training images"),
    explanation=(
        "Each generated image is compared with every training image, by RAD-DINO distance and by "
        "re-identification score. AuthPct: the percentage that is farther from its closest "
        "training image than that one is from the closest other one (Alaa et al., 2022). Own "
        "patient: the share whose closest training image shows the patient of the prompt. "
    ),
)

_ATTACKER: Final = Layout(
    stem="table03c_attacker",
    number="3c",
    title="How good the attacker is, on real radiographs that no model saw",
    stage="privacy",
    family="attacker",
    models=False,
    real_rows=tuple(
        RealRow(f"Held-out real pairs, {words}", "attacker", protocol)
        for protocol, words in PROTOCOL_WORDS.items()
    ),
    row_header="Pairs",
    columns=(
        Column("ROC AUC", "reid_auc", "none", 3),
        Column("ROC AUC, all sites", "reid_auc_all_sites", "none", 3),
        Column("Found at δ", "reid_true_positive_rate", "none", 4),
        Column("False alarms at δ", "reid_false_positive_rate", "none", 4),
        Column("Share of prompts > δ by chance", "chance_share", "none", 4),
        Column("Count of prompts > δ by chance", "chance_count", "none", 1),
    ),
    n_labels=("Rests on (pairs, images, prompts)", "Against pairs of two patients"),
    explanation=(
        "The re-identification network scores every pair of held-out radiographs: those of one "
        "patient it should find, those of two patients it should not. Pairs of two patients are "
        "of one site, since the site alone tells many apart: over all sites the network would "
        "look better than it is. By chance: what unrelated real images would count in Table 3, as "
        "many for each prompt as a model makes. "
    ),
)

_NOVELTY: Final = Layout(
    stem="table03d_novelty",
    number="3d",
    title="Nearer to training radiographs than following captions makes it",
    stage="privacy",
    family="novelty",
    columns=(
        Column("Nearer to training ↓", "nearer_to_training", "lower", 3),
        Column("Nearer to held out", "nearer_to_held_out", "none", 3),
        Column("Excess ↓", "nearer_to_training_excess", "lower", 3),
    ),
    n_labels=("Generated images", "Patients on each side"),
    explanation=(
        "Of the images that answer training captions, the share that is nearer (RAD-DINO) to one "
        "of these captions' radiographs than to one of the held-out captions'; of those that "
        "answer held-out captions, the share that is nearer to one of the latter. An image that "
        "follows its caption is nearer to its own side, and one that repeats a radiograph, too; "
        "what was held out cannot be repeated. The excess, the first share less the second, is 0 "
        "of a model that memorised nothing. Each side has one radiograph and one image of a "
        "patient, with the same findings. The intervals are some 1.9 times wider than needed. "
    ),
)

_LENSES: Final = Layout(
    stem="table03e_lenses",
    number="3e",
    title="Which lens sees it: prompts with an alarm, at 5% false alarms",
    stage="privacy",
    family="lenses",
    columns=(
        Column("Re-ID score ↓", "reid_seen", "lower", 3),
        Column("Latent distance ↓", "latent_seen", "lower", 3),
        Column("Pixel distance ↓", "pixel_seen", "lower", 3),
        Column("Pixel distance, mirrored ↓", "mirrored_seen", "lower", 3),
        Column("Any of them ↓", "any_seen", "lower", 3),
    ),
    n_labels=("Prompts", "Pairs with other prompts' radiographs"),
    explanation=(
        "The share of prompts whose riskiest image is riskier than all but 5% of what chance "
        "gives: the same model's images before the radiographs of other prompts, with the same "
        "findings or nearly so. Any of them: 5% in all, not 5% of each lens. Images that follow "
        "what captions say beyond findings raise somewhat more than 5%. A lens that sees copies "
        "and misses flipped or brightened ones says nothing of a model that flips or brightens. "
    ),
)

_SIDE_BY_SIDE: Final = Layout(
    stem="table03f_protocols",
    number="3f",
    title="Table 3 under both protocols",
    stage="privacy",
    family="pairwise",
    printed=_PRIVACY.stem,
    columns=tuple(
        replace(column, header=f"{column.header} ({words})", protocol=protocol)
        for column in _PRIVACY.columns
        for protocol, words in PROTOCOL_WORDS.items()
    ),
    n_labels=("Prompts", "Training images"),
    explanation=(
        "Sound: re-identification on the network's own preprocessing, images cropped to a square, "
        "pixels subtracted as numbers, every image compared. As published: no mean and deviation "
        "at 224 pixels, images squashed, 8-bit pixels that wrap modulo 256, and a prompt's last "
        "image compared in the place of all. "
    ),
)

_CAPTION_FIDELITY: Final = Layout(
    stem="table17a_caption_fidelity",
    number="17a",
    title="Captions of another source: fidelity",
    stage="fidelity",
    family="rad_dino",
    attributes=("Prompt Type",),
    varies="caption_source",
    columns=(
        Column("FID (RadDino) ↓", "fid", "lower", 3),
        Column("KID (RadDino) ↓", "kid", "lower", 3),
        Column("Alignment Score ↑", "alignment", "higher", 3),
    ),
    n_labels=("Generated images", "Real images"),
    explanation=(
        "The same model, trained, sampled and measured on captions of another source for the same "
        "radiographs. "
    ),
)

_CAPTION_PRIVACY: Final = replace(
    _CAPTION_FIDELITY,
    stem="table17b_caption_privacy",
    number="17b",
    title="Captions of another source: privacy",
    stage="privacy",
    family="pairwise",
    columns=(
        Column("Max. Re-ID Score (mean) ↓", "reid_mean_of_max", "lower", 3),
        Column("Max. Re-ID Score (sd)", "reid_sd_of_max", "none", 3),
        Column("Min. Latent Distance (mean) ↑", "latent_mean_of_min", "higher", 3),
        Column("Min. Latent Distance (sd)", "latent_sd_of_min", "none", 3),
        Column("Min. Pixel Distance (mean) ↑", "pixel_mean_of_min", "higher", 1),
        Column("Min. Pixel Distance (sd)", "pixel_sd_of_min", "none", 1),
    ),
    n_labels=("Prompts", "Training images"),
    explanation=(
        "The same model, trained, sampled and measured on captions of another source for the same "
        "radiographs. Of a prompt's images the riskiest counts; mean and standard deviation are "
        "over prompts. "
    ),
)

_ENCODERS: Final = Layout(
    stem="table07_encoders",
    number="7",
    title="FID and KID in the features of other encoders",
    stage="fidelity",
    family="rad_dino",
    transposed=True,
    columns=tuple(
        Column(f"{metric.upper()} ↓ ({name})", metric, "lower", 3, "all", family)
        for metric in ("fid", "kid")
        for name, family in (
            ("DenseNet", "densenet_121"),
            ("Inception", "inception_v3"),
            ("RadDino", "rad_dino"),
        )
    ),
    n_labels=("Generated images", "Real images"),
    explanation=(
        "The same images, compared in the features of a network trained on radiographs "
        "(DenseNet-121), on photographs (InceptionV3) and on radiographs without labels "
        "(RAD-DINO). Values of different encoders have different scales: compare their order. "
    ),
)

_AUROC_NOTE: Final = (
    "AUROC of a ResNet-50 on the real test images. Positive is a finding labelled 1. "
)

_AUGMENTED: Final = Layout(
    stem="table04_classification_augmented",
    number="4",
    title="Classification (AUROC ↑), trained on real and synthetic images",
    stage="downstream",
    family="classification/augmented",
    columns=(
        *_per_finding(
            "Atelec.,C.Megaly,Consol.,Edema,Enlarged C.,Frac.,LL,LO,NF,PE,PO,PN,PT,SD",
            "auroc",
            "higher",
            2,
        ),
        Column("Average", "auroc", "higher", 2),
    ),
    n_labels=("Test images", "Reference images"),
    real_rows=(RealRow("Original", "classification/real_only"),),
    positives=True,
    explanation=_AUROC_NOTE + "Original is trained on the real images alone. " + _ABBREVIATED,
)

_SYNTHETIC_ONLY: Final = Layout(
    stem="table15_classification_synthetic_only",
    number="15",
    title="Classification (AUROC ↑), trained on synthetic images only",
    stage="downstream",
    family="classification/synthetic_only",
    columns=_per_finding(
        "Atel-ectasis,Cardio-megaly,Consol-idation,Edema,EC,Fracture,LL,LO,NF,PE,PO,PN,PT,SD",
        "auroc",
        "higher",
        2,
    ),
    n_labels=("Test images", "Reference images"),
    real_rows=(RealRow("Original (Real)", "classification/real_only"),),
    positives=True,
    explanation=_AUROC_NOTE + "Original (Real) is trained on real images. " + _ABBREVIATED,
)

_GAIN_NOTE: Final = (
    "A gain is the difference to training on the real images alone, over the same draws of test "
    "patients. "
)

_AUGMENTED_GAINS: Final = replace(
    _AUGMENTED,
    stem="table04b_classification_gains",
    number="4b",
    title="What synthetic images add to real ones: gain in AUROC ↑",
    columns=tuple(replace(c, metric="auroc_gain", decimals=3) for c in _AUGMENTED.columns),
    real_rows=(),
    explanation=_GAIN_NOTE + _ABBREVIATED,
)

_AUGMENTED_SUMMARY: Final = replace(
    _AUGMENTED,
    stem="table04c_classification_metrics",
    number="4c",
    title="Classification, trained on real and synthetic images: means over findings",
    columns=tuple(
        Column(f"{name}{words}", f"{metric}{suffix}", direction, 3)
        for name, metric in (("AUROC", "auroc"), ("F1", "f1"), ("Accuracy", "accuracy"))
        for words, suffix, direction in (
            (" ↑", "", "higher"),
            (", sd over runs", "_sd", "none"),
            (", gain ↑", "_gain", "higher"),
        )
    ),
    positives=False,
    explanation="Positive is a probability of 0.5 or more. " + _GAIN_NOTE,
)

_SYNTHETIC_GAINS: Final = replace(
    _AUGMENTED_GAINS,
    stem="table15b_classification_gains",
    number="15b",
    title="What synthetic images alone give in place of real ones: gain in AUROC ↑",
    family=_SYNTHETIC_ONLY.family,
)

_SYNTHETIC_SUMMARY: Final = replace(
    _AUGMENTED_SUMMARY,
    stem="table15c_classification_metrics",
    number="15c",
    title="Classification, trained on synthetic images only: means over findings",
    family=_SYNTHETIC_ONLY.family,
    real_rows=_SYNTHETIC_ONLY.real_rows,
)

_SEGMENTED: Final = (
    "A U-Net learns the clavicles from CXAS's masks and is tested on CXAS's masks of the real test "
    "images. "
)

_SEGMENTATION: Final = Layout(
    stem="table05_segmentation",
    number="5",
    title="Segmentation of the clavicles (Dice ↑), trained on real and synthetic images",
    stage="downstream",
    family="segmentation/augmented",
    row_header="Augmentation Source",
    columns=(
        Column("Size", "n_images", "none", 0),
        Column("DICE ↑", "dice", "higher", 3),
    ),
    n_labels=("Images", "Reference images"),
    real_rows=(RealRow("Baseline (None)", "segmentation/real_only"),),
    explanation=_SEGMENTED
    + "Dice is the mean over test images. Size: images given, to train and to validate on. ",
)

_SEGMENTATION_GAINS: Final = Layout(
    stem="table05b_segmentation_gains",
    number="5b",
    title="Segmentation of the clavicles: gains over real data alone, and the labeller's own Dice",
    stage="downstream",
    family="segmentation/augmented",
    columns=(
        Column("Gain in Dice ↑", "dice_gain", "higher", 3),
        Column("Dice, sd over runs", "dice_sd", "none", 3),
        Column("Pooled Dice ↑", "dice_pooled", "higher", 3),
        Column("Gain in pooled Dice ↑", "dice_pooled_gain", "higher", 3),
        Column("Dice, exact masks ↑", "dice_exact", "higher", 3),
        Column("Gain, exact masks ↑", "dice_exact_gain", "higher", 3),
        Column("Pooled Dice, exact masks ↑", "dice_pooled_exact", "higher", 3),
    ),
    n_labels=("Test images, training runs", "Reference images"),
    real_rows=(
        RealRow("Baseline (None)", "segmentation/real_only"),
        RealRow("Pseudo-labeller (CXAS)", "segmentation/labeller"),
    ),
    row_header="Augmentation Source",
    explanation=_SEGMENTED
    + (
        "A gain is the difference to the U-Net of real images alone, over the same test patients "
        "and as many optimiser steps. Pooled Dice counts the pixels of all test images together. "
        "Exact masks are drawn by hand; against them the labeller itself is measured, and a U-Net "
        "that only repeats it can do no better. "
    ),
)

_REPORT_METRICS: Final = (
    Column("BLEU-1 ↑", "bleu_1", "higher", 2),
    Column("BLEU-4 ↑", "bleu_4", "higher", 2),
    Column("ROUGE-L ↑", "rouge_l", "higher", 2),
    Column("F1-RadGraph ↑", "radgraph_f1", "higher", 2),
    Column("Micro F1-5 ↑", "chexbert_micro_f1_5", "higher", 2),
    Column("Micro F1-14 ↑", "chexbert_micro_f1_14", "higher", 2),
    Column("GREENScore ↑", "green", "higher", 2),
    Column("RaTEScore ↑", "ratescore", "higher", 2),
)

_REPORTS_NOTE: Final = (
    "Reports generated for the real test images against those that radiologists wrote. BLEU is of "
    "the whole corpus, 0 to 100, the others 0 to 1. Micro F1 is of CheXbert's labels, uncertain "
    "ones counted as absent. "
)

_REPORTS_AUGMENTED: Final = Layout(
    stem="table06_rrg_augmented",
    number="6",
    title="Report generation, trained on real and synthetic images",
    stage="downstream",
    family="report_generation/augmented",
    transposed=True,
    columns=_REPORT_METRICS,
    n_labels=("Test images", "Reference images"),
    real_rows=(RealRow("Original (Real Data Only)", "report_generation/real_only"),),
    explanation=_REPORTS_NOTE + "Original is trained on the real images alone. ",
)

_REPORTS_SYNTHETIC_ONLY: Final = replace(
    _REPORTS_AUGMENTED,
    stem="table16_rrg_synthetic_only",
    number="16",
    title="Report generation, the released generator trained further on synthetic images only",
    family="report_generation/synthetic_only",
    real_rows=(RealRow("Original", "report_generation/released"),),
    explanation=_REPORTS_NOTE + "Original is the released generator as it is. ",
)

_UNCERTAIN_POSITIVE: Final = tuple(
    Column(f"{header} ↑, uncertain as present", f"{metric}_uncertain_positive", "higher", 2)
    for header, metric in (
        ("Micro F1-5", "chexbert_micro_f1_5"),
        ("Micro F1-14", "chexbert_micro_f1_14"),
    )
)

_REPORT_GAINS: Final = tuple(
    Column(f"{column.header}, gain", f"{column.metric}_gain", "higher", 3)
    for column in (*_REPORT_METRICS, *_UNCERTAIN_POSITIVE)
)

_REPORT_SHAPE: Final = (
    Column("Words in a report", "words_mean", "none", 1),
    Column("Words in a reference", "words_mean_of_references", "none", 1),
    Column("Distinct reports (share)", "distinct_share", "none", 3),
    Column("Distinct references (share)", "distinct_share_of_references", "none", 3),
)

_REPORTS_SHAPE_NOTE: Final = (
    "Uncertain as present: micro F1 with CheXbert's uncertain labels counted as present, in both "
    "reports; other evaluations do so, and their numbers are not comparable with those that count "
    "them as absent. A generator that ignores the image writes few distinct reports. "
)

_REPORTS_AUGMENTED_GAINS: Final = replace(
    _REPORTS_AUGMENTED,
    stem="table06b_rrg_augmented_gains",
    number="6b",
    title="Report generation: what synthetic images add to real ones",
    columns=(*_REPORT_GAINS, *_UNCERTAIN_POSITIVE, *_REPORT_SHAPE),
    explanation="The gain is the difference to Original, on the same draws of test patients. "
    + _REPORTS_SHAPE_NOTE,
)

_REPORTS_SYNTHETIC_ONLY_GAINS: Final = replace(
    _REPORTS_SYNTHETIC_ONLY,
    stem="table16b_rrg_synthetic_only_gains",
    number="16b",
    title="Report generation: what training on synthetic images does to the released generator",
    columns=_REPORTS_AUGMENTED_GAINS.columns,
    explanation=_REPORTS_AUGMENTED_GAINS.explanation,
)


def by_stem(*layouts: Layout) -> dict[str, Layout]:
    """Return layouts by the stem of their files, in their order.

    Raises:
        ValueError: two layouts would write the same files.
    """
    found: dict[str, Layout] = {}
    for layout in layouts:
        if layout.stem in found:
            raise ValueError(f"{layout.stem} is listed twice")
        found[layout.stem] = layout
    return found


LAYOUTS: Final = by_stem(
    _FIDELITY,
    _CORRECTED,
    _REFERENCES,
    _PATHOLOGIES,
    _KID_PATHOLOGIES,
    _PRIVACY,
    _CLOSEST,
    _ATTACKER,
    _NOVELTY,
    _LENSES,
    _SIDE_BY_SIDE,
    _AUGMENTED,
    _AUGMENTED_GAINS,
    _AUGMENTED_SUMMARY,
    _SEGMENTATION,
    _SEGMENTATION_GAINS,
    _ENCODERS,
    _SYNTHETIC_ONLY,
    _SYNTHETIC_GAINS,
    _SYNTHETIC_SUMMARY,
    _REPORTS_AUGMENTED,
    _REPORTS_AUGMENTED_GAINS,
    _REPORTS_SYNTHETIC_ONLY,
    _REPORTS_SYNTHETIC_ONLY_GAINS,
    _CAPTION_FIDELITY,
    _CAPTION_PRIVACY,
)
