"""The downstream metrics by task, declared for the tables that show them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from workflow_scripts.common.measurement import Metric

_TESTED: Final = ("Test images", "Reference images")
_GIVEN: Final = ("Images", "Reference images")


def with_runs(metric: Metric, gain_label: str | None = None) -> Iterator[Metric]:
    """Yield a metric, its spread over training runs and its gain over real data alone.

    Args:
        metric: a metric of a trained network.
        gain_label: the label of its gain; by default `{label}, gain`.
    """
    yield metric
    key, label = metric.key, metric.label
    spread, gain = f"{label}, sd over runs", gain_label or f"{label}, gain"
    yield replace(metric, key=f"{key}_sd", label=spread, direction="none", decimals=3)
    yield replace(metric, key=f"{key}_gain", label=gain, decimals=3)


CLASSIFICATION: Final = (
    *with_runs(Metric("auroc", "AUROC", "higher", 3, _TESTED)),
    *with_runs(Metric("f1", "F1", "higher", 3, _TESTED)),
    *with_runs(Metric("accuracy", "Accuracy", "higher", 3, _TESTED)),
)

SEGMENTATION: Final = (
    Metric("n_images", "Size", "none", 0, _GIVEN),
    *with_runs(Metric("dice", "Dice", "higher", 3, _GIVEN), "Gain in Dice"),
    *with_runs(Metric("dice_pooled", "Pooled Dice", "higher", 3, _GIVEN), "Gain in pooled Dice"),
    *with_runs(Metric("dice_exact", "Dice, exact masks", "higher", 3, _GIVEN), "Gain, exact masks"),
    *with_runs(Metric("dice_pooled_exact", "Pooled Dice, exact masks", "higher", 3, _GIVEN)),
)

REPORT_GENERATION: Final = (
    *with_runs(Metric("bleu_1", "BLEU-1", "higher", 2, _TESTED)),
    *with_runs(Metric("bleu_4", "BLEU-4", "higher", 2, _TESTED)),
    *with_runs(Metric("rouge_l", "ROUGE-L", "higher", 2, _TESTED)),
    *with_runs(Metric("radgraph_f1", "F1-RadGraph", "higher", 2, _TESTED)),
    *with_runs(Metric("chexbert_micro_f1_5", "Micro F1-5", "higher", 2, _TESTED)),
    *with_runs(Metric("chexbert_micro_f1_14", "Micro F1-14", "higher", 2, _TESTED)),
    *with_runs(
        Metric(
            "chexbert_micro_f1_5_uncertain_positive",
            "Micro F1-5, uncertain as present",
            "higher",
            2,
            _TESTED,
        )
    ),
    *with_runs(
        Metric(
            "chexbert_micro_f1_14_uncertain_positive",
            "Micro F1-14, uncertain as present",
            "higher",
            2,
            _TESTED,
        )
    ),
    *with_runs(Metric("green", "GREENScore", "higher", 2, _TESTED)),
    *with_runs(Metric("ratescore", "RaTEScore", "higher", 2, _TESTED)),
    Metric("words_mean", "Words in a report", "none", 1, _TESTED),
    Metric("words_mean_of_references", "Words in a reference", "none", 1, _TESTED),
    Metric("distinct_share", "Distinct reports (share)", "none", 3, _TESTED),
    Metric("distinct_share_of_references", "Distinct references (share)", "none", 3, _TESTED),
)

METRICS: Final = (*CLASSIFICATION, *SEGMENTATION, *REPORT_GENERATION)
