"""The record of an arm: corpus metrics, intervals over patients, gains, and refused inputs."""

from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from tests.downstream.report_generation.reports_by_hand import write_reports
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import Record, read_record
from workflow_scripts.downstream.gains import patient_draws, percentiles
from workflow_scripts.downstream.report_generation import score
from workflow_scripts.downstream.report_generation.metrics.chexbert_classes import HEADS
from workflow_scripts.downstream.report_generation.metrics.reports import (
    SCORE,
    read_reports,
    write_scores,
)

N = 60
SENTENCES = ["no effusion", "mild cardiomegaly", "the lungs are clear", "left rib fracture"]
RNG = np.random.default_rng(0)
REFERENCES = [" . ".join(RNG.permutation(SENTENCES)[: 1 + k % 3]) for k in range(N)]
PATIENTS = [f"p{k // 3}" for k in range(N)]


def noisy(share: float, seed: int) -> list[str]:
    """Return the references with a share of their words removed."""
    rng = np.random.default_rng(seed)
    return [" ".join(w for w in text.split() if rng.random() > share) for text in REFERENCES]


class Arms:
    """Files of arms, made on demand."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.scores: dict[Path, list[Path]] = {}

    def run(self, name: str, generated: list[str], **run: object) -> Path:
        path = self.folder / f"{name}.parquet"
        write_reports(path, REFERENCES, generated, patients=PATIENTS, **run)
        self.scores[path] = []
        return path

    def add(self, path: Path, metric: str, columns: dict[str, np.ndarray], **made: object) -> Path:
        output = self.folder / f"{path.stem}-{metric}.parquet"
        write_scores(output, read_reports(path), metric, columns, made)
        self.scores[path].append(output)
        return output

    def record(
        self, own: list[Path], baseline: list[Path] | None = None, draws: int = 80
    ) -> Record:
        files = [file for path in own + (baseline or []) for file in self.scores[path]]
        words = ["--outcomes", *own, *(["--baseline", *baseline] if baseline else [])]
        words += ["--scores", *reversed(files), "--output", self.folder / "record.json"]
        words += ["--bootstrap", draws, "--seed", 5]
        score.main([str(word) for word in words])
        return read_record(self.folder / "record.json")


@pytest.fixture
def arms(tmp_path: Path) -> Arms:
    return Arms(tmp_path)


def test_values_are_the_libraries_and_intervals_those_of_whole_patients(arms: Arms):
    generated = noisy(0.3, 1)
    record = arms.record([arms.run("a", generated)], [real(arms)])
    assert (record.stage, record.model, record.family) == (
        "downstream",
        "sana",
        "report_generation/augmented",
    )
    for metric, order in (("bleu_1", 1), ("bleu_4", 4)):
        scorer = BLEU(max_ngram_order=order)
        value = record.get(metric)
        assert value.value == pytest.approx(scorer.corpus_score(generated, [REFERENCES]).score)
        (sets,) = patient_draws(np.array(PATIENTS), 80, 5)
        drawn = []
        for times in sets.astype(int):
            rows = np.repeat(np.arange(N), times)
            texts = [generated[k] for k in rows], [[REFERENCES[k] for k in rows]]
            drawn.append(scorer.corpus_score(*texts).score)
        assert value.interval == pytest.approx(percentiles(np.array(drawn), len(set(PATIENTS))))
        assert value.interval_kind == "bootstrap 95% over test patients"
        assert (value.n, value.direction) == (N, "higher")


def real(arms: Arms, name: str = "real", share: float = 0.5, **run: object) -> Path:
    return arms.run(name, noisy(share, 9), setting="real_only", model="real", **run)


def test_a_better_generator_gains_and_an_equal_one_does_not(arms: Arms):
    baseline = real(arms)
    better = arms.record([arms.run("better", noisy(0.1, 2))], [baseline])
    for metric in ("bleu_1", "bleu_4", "rouge_l"):
        gain = better.get(f"{metric}_gain")
        assert gain.value > 0
        assert gain.interval[0] > 0
    equal = arms.record([arms.run("equal", noisy(0.5, 9))], [baseline])
    for metric in ("bleu_1", "rouge_l"):
        assert equal.get(f"{metric}_gain").value == 0
        assert equal.get(f"{metric}_gain").interval is None  # every draw is 0: there is no spread


def test_real_data_alone_and_the_released_generator_have_no_gain(arms: Arms):
    record = arms.record([real(arms)])
    assert record.get("bleu_4").value is not None
    assert "real data alone" in record.get("bleu_4_gain").reason
    released = arms.run("released", noisy(0.4, 3), setting="released", model="real")
    assert "released generator" in arms.record([released]).get("bleu_4_gain").reason


def test_repeats_give_a_spread_and_intervals_over_runs(arms: Arms):
    augmented = [arms.run(f"r{k}", noisy(0.1 * (k + 1), k), seed=k) for k in range(3)]
    record = arms.record(augmented, [real(arms, f"b{k}", 0.4 + 0.1 * k, seed=k) for k in range(2)])
    points = [arms.record([path]).get("rouge_l").value for path in augmented]
    assert record.get("rouge_l").value == pytest.approx(np.mean(points))
    assert record.get("rouge_l_sd").value == pytest.approx(np.std(points, ddof=1))
    assert record.get("rouge_l_sd").n == 3
    assert record.get("rouge_l_gain").interval_kind == (
        "t 95% over test patients and training runs"
    )


def chexbert_columns(reference: np.ndarray, generated: np.ndarray) -> dict[str, np.ndarray]:
    return {
        f"{side}_{name}": classes[:, k].astype(np.int8)
        for side, classes in (("reference", reference), ("generated", generated))
        for k, name in enumerate(HEADS)
    }


def test_micro_f1_by_hand_in_both_conventions(arms: Arms):
    reference, generated = np.zeros((2, N, 14), int)
    cardiomegaly, fracture = HEADS.index("Cardiomegaly"), HEADS.index("Fracture")
    reference[:30, cardiomegaly], generated[:20, cardiomegaly] = 1, 1  # 20 hits, 10 misses
    reference[:9, fracture], generated[:9, fracture] = 3, 1  # uncertain in the reference
    path = arms.run("a", noisy(0.2, 1))
    arms.add(path, "chexbert", chexbert_columns(reference, generated), weights_sha256="w")
    record = arms.record([path])
    assert record.get("chexbert_micro_f1_5").value == pytest.approx(40 / 50)
    assert record.get("chexbert_micro_f1_5_uncertain_positive").value == pytest.approx(40 / 50)
    assert record.get("chexbert_micro_f1_14").value == pytest.approx(40 / (40 + 10 + 9))
    with_uncertain = record.get("chexbert_micro_f1_14_uncertain_positive")
    assert with_uncertain.value == pytest.approx(58 / 68)
    low, high = with_uncertain.interval
    assert low < with_uncertain.value < high


def test_nothing_to_find_has_no_f1_and_says_so(arms: Arms):
    nothing = np.full((N, 14), 2)
    path = arms.run("a", noisy(0.2, 1))
    arms.add(path, "chexbert", chexbert_columns(nothing, nothing), weights_sha256="w")
    value = arms.record([path]).get("chexbert_micro_f1_14")
    assert value.value is None
    assert "finds nothing" in value.reason


def test_scores_of_networks_are_means_and_a_network_without_weights_leaves_dashes(arms: Arms):
    path, other = arms.run("a", noisy(0.2, 1)), real(arms)
    scores = np.linspace(0, 1, N)
    arms.add(path, "green", {SCORE: scores}, weights_sha256="w")
    arms.add(other, "green", {SCORE: scores * 0.5}, weights_sha256="w")
    record = arms.record([path], [other])
    assert record.get("green").value == pytest.approx(0.5)
    assert record.get("green_gain").value == pytest.approx(0.25)
    for metric in ("radgraph_f1", "ratescore", "chexbert_micro_f1_14"):
        for suffix in ("", "_sd", "_gain"):
            assert record.get(metric + suffix).value is None
    assert "metrics.radgraph" in record.get("radgraph_f1").reason
    names = [value.metric for value in record.values]
    assert [name for name in names if f"{name}_gain" in names] == [
        "bleu_1",
        "bleu_4",
        "rouge_l",
        "radgraph_f1",
        "chexbert_micro_f1_5",
        "chexbert_micro_f1_14",
        "chexbert_micro_f1_5_uncertain_positive",
        "chexbert_micro_f1_14_uncertain_positive",
        "green",
        "ratescore",
    ]


def test_a_generator_that_ignores_the_image_shows_in_its_reports(arms: Arms):
    record = arms.record([arms.run("a", ["the lungs are clear"] * (N - 1) + [""])])
    assert record.get("distinct_share").value == pytest.approx(2 / N)
    assert record.get("distinct_share_of_references").value > 0.2
    assert record.get("words_mean").value == pytest.approx(4 * (N - 1) / N)
    assert record.details["reports"][0]["n_empty"] == 1
    assert record.details["n_test_patients"] == N // 3


def test_a_record_holds_no_report(arms: Arms):
    arms.record([arms.run("a", noisy(0.2, 1))], [real(arms)])
    text = (arms.folder / "record.json").read_text()
    assert "cardiomegaly" not in text
    assert '"i1"' not in text


def test_scores_of_other_reports_are_refused(arms: Arms):
    path = arms.run("a", noisy(0.2, 1))
    arms.add(path, "green", {SCORE: np.ones(N)})
    write_reports(path, REFERENCES, noisy(0.9, 2), patients=PATIENTS)  # trained again since
    with pytest.raises(InputError, match="the scores belong to other reports"):
        arms.record([path])


def test_a_scorer_that_has_not_seen_all_runs_is_named(arms: Arms):
    path, other = arms.run("a", noisy(0.2, 1)), real(arms)
    arms.add(path, "green", {SCORE: np.ones(N)})
    with pytest.raises(InputError, match="green has not scored 1 of 2 runs, first real_only/real"):
        arms.record([path], [other])


def test_scorers_of_other_weights_do_not_mix(arms: Arms):
    path, other = arms.run("a", noisy(0.2, 1)), real(arms)
    arms.add(path, "green", {SCORE: np.ones(N)}, weights_sha256="one")
    arms.add(other, "green", {SCORE: np.ones(N)}, weights_sha256="two")
    with pytest.raises(InputError, match="other weights"):
        arms.record([path], [other])


def test_a_second_file_an_unknown_scorer_and_a_nan_are_refused(arms: Arms):
    path = arms.run("a", noisy(0.2, 1))
    arms.add(path, "green", {SCORE: np.ones(N)})
    arms.scores[path] *= 2
    with pytest.raises(InputError, match="second file"):
        arms.record([path])
    arms.scores[path] = arms.scores[path][:1]
    arms.add(path, "meteor", {SCORE: np.ones(N)})
    with pytest.raises(InputError, match="unknown scorer 'meteor'"):
        arms.record([path])
    arms.scores[path].pop()
    arms.add(path, "green", {SCORE: np.full(N, np.nan)})
    with pytest.raises(InputError, match="finite"):
        arms.record([path])
