"""What the paper's tables show: attributes and metrics, and the words around them."""

from dataclasses import dataclass, replace
from typing import Final

from workflow_scripts.common.manifest import FINDINGS

ARROWS: Final = {"higher": "↑", "lower": "↓", "none": ""}

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
        decimals: digits after the point, for readers; the CSV has all digits.
        subset: `all` or a finding.
        family: of its records, where it is not the table's.
    """

    header: str
    metric: str
    direction: str
    decimals: int
    subset: str = "all"
    family: str | None = None


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
        attributes: headers of what is said of a model before its metrics.
        transposed: metrics are rows and models are columns.
        n_labels: what `n` and `n_reference` count.
        real_row: the label of the row of real data alone, where there is one.
        floor: the metric of the row of real against real, where there is one.
        positives: whether a foot row counts the positive test images per finding.
        real_family: of the record behind `real_row`; its model is `real`.
        models: whether the models have rows.
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
    real_row: str | None = None
    real_family: str = "classification/real_only"
    models: bool = True
    floor: str | None = None
    positives: bool = False
    row_header: str = "Model"

    @property
    def in_paper(self) -> bool:
        """Whether the paper prints such a table."""
        return self.number.isdigit()


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
        "those of the real test images; alignment is the cosine of image and caption in BioViL-T."
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
        Column("Floor (real against real)", "fid_floor", "none", 3),
        Column("FID without its bias ↓", "fid_corrected", "lower", 3),
        Column("KID ↓", "kid", "lower", 3),
    ),
    n_labels=("Generated images", "Real images"),
    explanation=(
        "The floor is what real images score against other patients' at as many images; the "
        "jackknife takes the bias off that FID has at this sample size, so that a perfect "
        "generator stands near zero, as it does in KID. "
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
        "The floor is the FID between two groups of real images of as many images, no patient in "
        "both: what a perfect generator would score at this sample size. FID grows as images get "
        "fewer, so a value says little beyond its floor. "
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
    real_row="Held-out real pairs",
    real_family="attacker",
    row_header="Pairs",
    columns=(
        Column("ROC AUC", "reid_auc", "none", 3),
        Column("Found at δ", "reid_true_positive_rate", "none", 4),
        Column("False alarms at δ", "reid_false_positive_rate", "none", 4),
        Column("Share of prompts > δ by chance", "chance_share", "none", 4),
        Column("Count of prompts > δ by chance", "chance_count", "none", 1),
    ),
    n_labels=("Rests on (pairs, images, prompts)", "Against pairs of two patients"),
    explanation=(
        "The re-identification network scores every pair of held-out radiographs: those of one "
        "patient it should find, those of two patients it should not. By chance: what unrelated "
        "real images would count in Table 3, as many for each prompt as a model makes. "
    ),
)

_NOVELTY: Final = Layout(
    stem="table03d_novelty",
    number="3d",
    title="Nearer to training than to unseen radiographs",
    stage="privacy",
    family="novelty",
    columns=(
        Column("Nearer to training ↓", "nearer_to_training", "lower", 3),
        Column("A third real set", "nearer_to_training_real", "none", 3),
    ),
    n_labels=("Generated images, real images", "Patients in each reference"),
    explanation=(
        "The share of images whose nearest radiograph (RAD-DINO) is a training image rather than a "
        "held-out one, where both references hold one radiograph of each of as many patients, "
        "drawn again and again. 0.5 is expected of a model that memorised nothing; the third set, "
        "real radiographs of other held-out patients, shows what it is here. The references are "
        "far smaller than the training set, so that this sees memorisation of many images, not of "
        "a few: Table 3b does. "
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
    real_row="Original",
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
    real_row="Original (Real)",
    positives=True,
    explanation=_AUROC_NOTE + "Original (Real) is trained on real images. " + _ABBREVIATED,
)

LAYOUTS: Final = {
    layout.stem: layout
    for layout in (
        _FIDELITY,
        _CORRECTED,
        _PATHOLOGIES,
        _KID_PATHOLOGIES,
        _PRIVACY,
        _CLOSEST,
        _ATTACKER,
        _NOVELTY,
        _AUGMENTED,
        _ENCODERS,
        _SYNTHETIC_ONLY,
    )
}
