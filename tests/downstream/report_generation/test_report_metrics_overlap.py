"""BLEU and ROUGE-L compared with values by hand, and with the libraries on resampled corpora."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from tests.downstream.report_generation.reports_by_hand import write_reports
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError
from workflow_scripts.downstream.report_generation.metrics import reports as metric_reports
from workflow_scripts.downstream.report_generation.metrics.overlap import (
    COUNTS,
    bleu,
    bleu_counts,
    overlap_rows,
    rouge_l,
)
from workflow_scripts.downstream.report_generation.metrics.reports import (
    read_reports,
    read_scores,
    score_in_batches,
)

WORDS = ["no", "the", "heart", "effusion", "mild", "is", "clear.", "lungs,", "5%", "Edema"]
report = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
pair = st.tuples(report, report.filter(bool))


@settings(max_examples=60, deadline=None)
@given(st.lists(pair, min_size=1, max_size=8), st.integers(0, 1000))
def test_a_resampled_corpus_scores_as_sacrebleu_scores_it(pairs, seed):
    generated, references = map(list, zip(*pairs, strict=True))
    counts = bleu_counts(generated, references)
    drawn = np.random.default_rng(seed).integers(len(pairs), size=len(pairs))
    times = np.bincount(drawn, minlength=len(pairs))
    resampled = [generated[k] for k in drawn], [[references[k] for k in drawn]]
    for order in (1, 4):
        expected = BLEU(max_ngram_order=order).corpus_score(*resampled).score
        assert bleu((times @ counts)[None], order)[0] == pytest.approx(expected, abs=1e-9)


def test_bleu_by_hand():
    # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, 0 of 1 four (smoothed to 1/2); 4 words for 5.
    counts = bleu_counts(["the heart is big"], ["the heart is not enlarged"])
    assert dict(zip(COUNTS, counts[0].tolist(), strict=True)) == {
        "generated_words": 4,
        "reference_words": 5,
        **{"matched_1": 3, "matched_2": 2, "matched_3": 1, "matched_4": 0},
        **{"possible_1": 4, "possible_2": 3, "possible_3": 2, "possible_4": 1},
    }
    penalty = np.exp(1 - 5 / 4)
    assert bleu(counts, 1)[0] == pytest.approx(100 * penalty * 3 / 4)
    product = (3 / 4) * (2 / 3) * (1 / 2) * (1 / 2)
    assert bleu(counts, 4)[0] == pytest.approx(100 * penalty * product**0.25)


def test_the_reference_itself_scores_100_and_silence_0():
    texts = ["No pleural effusion or pneumothorax.", "The heart is mildly enlarged."]
    assert bleu(bleu_counts(texts, texts).sum(0)[None], 4)[0] == pytest.approx(100)
    assert rouge_l(texts, texts).tolist() == [1, 1]
    silent = ["", ""]
    assert bleu(bleu_counts(silent, texts).sum(0)[None], 1)[0] == 0
    assert rouge_l(silent, texts).tolist() == [0, 0]


def test_rouge_l_by_hand():
    # The longest common subsequence is "heart is enlarged": 3 of 4 words and 3 of 5, no stemming.
    (f1,) = rouge_l(["heart is enlarged today"], ["The heart is mildly enlarged"])
    assert f1 == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))
    assert rouge_l(["effusions"], ["effusion"])[0] == 0


@settings(max_examples=40, deadline=None)
@given(pair)
def test_rouge_l_is_the_longest_common_subsequence(texts):
    words = [
        text.lower().replace("%", "").replace(".", "").replace(",", "").split() for text in texts
    ]
    table = np.zeros((len(words[0]) + 1, len(words[1]) + 1))
    for i, one in enumerate(words[0]):
        for j, other in enumerate(words[1]):
            best = max(table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = table[i, j] + 1 if one == other else best
    total = len(words[0]) + len(words[1])
    assert rouge_l([texts[0]], [texts[1]])[0] == pytest.approx(2 * table[-1, -1] / total)


def test_what_a_report_adds_is_a_row():
    rows = overlap_rows(["", "the heart"], ["no effusion", "the heart"])
    assert rows["rouge_l"].tolist() == [0, 1]
    assert rows["generated_words"].tolist() == [0, 2]
    assert rows["reference_words"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("references", "generated", "fault"),
    [
        (["", "b"], ["a", "b"], "1 test report.s. have no words, first that of image 'i0'"),
        (["a", None], ["a", "b"], "null"),
        (["a", "b"], ["a", None], "null"),
        ([], [], "no reports"),
    ],
)
def test_reports_that_cannot_be_scored_are_refused(tmp_path: Path, references, generated, fault):
    path = write_reports(tmp_path / "r.parquet", references, generated)
    with pytest.raises(InputError, match=fault):
        read_reports(path)


def test_files_that_hold_no_reports_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot read"):
        read_reports(tmp_path / "none.parquet")
    path = write_reports(tmp_path / "r.parquet", ["a"], ["b"])
    with pytest.raises(InputError, match="not a scorer's file"):
        read_scores(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot read"):
        read_reports(path)


def test_a_killed_scorer_continues_and_another_key_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_reports(tmp_path / "r.parquet", list("abcdefg"), list("xxxxxxx"))
    reports = read_reports(path)
    seen: list[str] = []

    def score(limit: int, weights: str):
        def of(references, generated):
            if len(seen) >= limit:
                raise KeyboardInterrupt
            seen.extend(references)
            return [ord(text) / 3 for text in references]

        return score_in_batches(
            reports,
            of,
            batch_size=2,
            attempt=Attempt(tmp_path / "progress"),
            key={"weights": weights},
            module="downstream.report_generation.metrics.score_green",
            label="test",
        )

    with pytest.raises(KeyboardInterrupt):
        score(4, "w")
    assert seen == list("abcd")
    (first, _) = sorted((tmp_path / "progress").glob("attempt-*/*.json"))
    first.write_bytes(first.read_bytes()[:-3])
    scores = score(100, "w")
    assert seen == list("abcdabefg")  # the damaged batch is scored again
    del seen[4:6]
    assert scores.tolist() == [ord(text) / 3 for text in "abcdefg"]
    score(100, "other weights")
    assert len(seen) == 14
    monkeypatch.setattr(metric_reports, "own_digests", lambda module: [f"{module} edited"])
    score(100, "other weights")
    assert len(seen) == 21
