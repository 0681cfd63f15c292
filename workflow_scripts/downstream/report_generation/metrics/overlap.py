"""Overlap of a generated report's words with the reference: BLEU (sacrebleu) and ROUGE-L.

Both follow LLaVA-Rad's evaluation. BLEU is corpus BLEU, from 0 to 100, with
sacrebleu's tokens (13a), case-sensitive and with exponential smoothing. ROUGE-L is the mean
F-measure, without stemming.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

ORDERS: Final = 4

COUNTS: Final = (
    "generated_words",
    "reference_words",
    *(f"matched_{n}" for n in range(1, ORDERS + 1)),
    *(f"possible_{n}" for n in range(1, ORDERS + 1)),
)
"""BLEU's statistics of one report: lengths in tokens, matching n-grams, and all n-grams."""


OVERLAP_PACKAGES: Final = ("sacrebleu", "rouge_score")


def overlap_rows(generated: Sequence[str], references: Sequence[str]) -> pd.DataFrame:
    """Return the statistics of BLEU and ROUGE-L of each report: `COUNTS` and `rouge_l`, n rows."""
    rows = pd.DataFrame(bleu_counts(generated, references), columns=list(COUNTS))
    return rows.assign(rouge_l=rouge_l(generated, references))


def bleu_counts(generated: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return the sufficient statistics of BLEU, int64 (n, 10), see `COUNTS`.

    They add up: the sum over a set of reports gives that set's corpus BLEU.
    """
    from sacrebleu.metrics import BLEU

    # Without `effective_order` the library warns that BLEU of one sentence is a poor score. Only
    # the counts are used here, and they are the same.
    scorer = BLEU(max_ngram_order=ORDERS, effective_order=True)
    counts = np.zeros((len(generated), len(COUNTS)), dtype=np.int64)
    for row, hypothesis, reference in zip(counts, generated, references, strict=True):
        score = scorer.sentence_score(hypothesis, [reference])
        row[:] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return counts


def bleu(counts: np.ndarray, order: int) -> np.ndarray:
    """Return corpus BLEU up to n-grams of `order`, 0 to 100.

    Args:
        counts: (sets, 10), for each set of reports the sum of its rows of `bleu_counts`.
        order: 1 for BLEU-1, 4 for BLEU-4.
    """
    from sacrebleu.metrics import BLEU

    matched, possible = 2, 2 + ORDERS
    return np.array(
        [
            BLEU.compute_bleu(
                [int(c) for c in row[matched : matched + order]],
                [int(c) for c in row[possible : possible + order]],
                int(row[0]),
                int(row[1]),
                smooth_method="exp",
                max_ngram_order=order,
            ).score
            for row in counts
        ]
    )


def rouge_l(generated: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return ROUGE-L's F-measure of each report, float64 (n,), 0 to 1."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return np.array(
        [
            scorer.score(reference, hypothesis)["rougeL"].fmeasure
            for hypothesis, reference in zip(generated, references, strict=True)
        ],
        dtype=np.float64,
    )
