"""What report generation measures, and the families of its records."""

from typing import Final

from workflow_scripts.common.measurement import Metric
from workflow_scripts.downstream.trained import TESTED, with_runs

FAMILIES: Final = (
    "report_generation/real_only",
    "report_generation/augmented",
    "report_generation/synthetic_only",
    "report_generation/released",
)

METRICS: Final = (
    *with_runs(Metric("bleu_1", "BLEU-1", "higher", 2, TESTED)),
    *with_runs(Metric("bleu_4", "BLEU-4", "higher", 2, TESTED)),
    *with_runs(Metric("rouge_l", "ROUGE-L", "higher", 2, TESTED)),
    *with_runs(Metric("radgraph_f1", "F1-RadGraph", "higher", 2, TESTED)),
    *with_runs(Metric("chexbert_micro_f1_5", "Micro F1-5", "higher", 2, TESTED)),
    *with_runs(Metric("chexbert_micro_f1_14", "Micro F1-14", "higher", 2, TESTED)),
    *with_runs(
        Metric(
            "chexbert_micro_f1_5_uncertain_positive",
            "Micro F1-5, uncertain as present",
            "higher",
            2,
            TESTED,
        )
    ),
    *with_runs(
        Metric(
            "chexbert_micro_f1_14_uncertain_positive",
            "Micro F1-14, uncertain as present",
            "higher",
            2,
            TESTED,
        )
    ),
    *with_runs(Metric("green", "GREENScore", "higher", 2, TESTED)),
    *with_runs(Metric("ratescore", "RaTEScore", "higher", 2, TESTED)),
    Metric("words_mean", "Words in a report", "none", 1, TESTED),
    Metric("words_mean_of_references", "Words in a reference", "none", 1, TESTED),
    Metric("distinct_share", "Distinct reports (share)", "none", 3, TESTED),
    Metric("distinct_share_of_references", "Distinct references (share)", "none", 3, TESTED),
)
