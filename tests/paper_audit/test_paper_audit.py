"""The audit of the paper: its list, numbers by hand and by other means, and that it can fail."""

import csv
import io
import math
import random
import re
import shutil
import subprocess
from collections import Counter
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workflow_scripts.common.errors import InputError
from workflow_scripts.paper_audit.build import main
from workflow_scripts.paper_audit.claims import audit_items
from workflow_scripts.paper_audit.items import summary
from workflow_scripts.paper_audit.misprints import row_orders
from workflow_scripts.paper_audit.model_names import model_key
from workflow_scripts.paper_audit.orders import Correlation, pearson, reach_of_ranks, spearman
from workflow_scripts.paper_audit.printed import STEMS, Paper, Printed, printed, published_grid
from workflow_scripts.paper_audit.privacy import COUNT, REID, SAMPLES, largest_deviation
from workflow_scripts.paper_audit.render import to_csv, to_latex, to_markdown
from workflow_scripts.paper_audit.yardstick import (
    CONTRADICTED,
    HOLDS,
    UNCHECKED,
    VERDICTS,
    Bounded,
    agrees,
    as_printed,
    below,
    cut_to,
    every,
    has_place,
    in_all_readings,
    is_side,
    matches,
    mean_of,
    most,
    number_is,
    often,
    places,
    rounded_to,
    side_of_median,
    some,
    verdict,
)

PUBLISHED = Path(str(files("workflow_scripts.paper_audit") / "published"))

CONTRADICTIONS = {
    "text-sd35-low",
    "text-sd35-mirrors-llm-cxr",
    "text-a6-sizes",
    "table1-llm-cxr-size",
    "table2-misprint-sd-v1-5",
    "table2-misprint-sd-v2",
    "text-sana-first",
    "text-five-of-eleven",
    "text-po-low-fid",
    "text-most-prevalent",
    "table9-average-all",
    "table8-precision",
    "table8-recall",
    "table8-average-table1",
    "table10-fid",
    "table10-classification",
    "table10-segmentation",
    "text-correlation-classification-again",
    "text-correlation-segmentation-again",
    "text-segmentation-mirrors",
    "text-superior-is-lower",
    "text-minority-benefit",
    "text-only-high-improves",
    "table13-average",
    "text-place-future-work",
}
OPEN = {
    "table1-precision-density",
    "text-rad-dino-differentiates",
    "table2-repair-sd-v1-5",
    "table2-repair-sd-v2",
    "text-sana-first-intact",
    "table9-fidelity-rank-intact",
    "table9-correlation-intact",
    "table8-fid-inception",
    "table8-kid-inception",
    "text-segmentation-top",
    "text-privacy-regardless",
    "table17b-equal-deviations",
    "table17b-reid-spread",
    "table17b-latent-spread",
    "text-independent-of-fidelity",
    "text-high-fidelity-reaches",
    "text-limited-multimodal",
    "text-alone-degrades",
    "text-alone-llm-cxr",
    "table12-from-scratch",
    "table14-last-place",
}


@pytest.fixture(scope="module")
def items():
    return {item.key: item for item in audit_items()}


def changed(tmp_path: Path, *changes: tuple[str, str, str, str]) -> dict:
    """Audit a copy of the tables in which cells (stem, row, column) have another text."""
    folder = tmp_path / "published"
    shutil.copytree(PUBLISHED, folder, dirs_exist_ok=True)  # what was changed before is put back
    for stem, row, column, text in changes:
        put(folder / f"{stem}.csv", stem, row, column, text)
    return {item.key: item for item in audit_items(folder)}


def put(path: Path, stem: str, row: str, column: str, text: str) -> None:
    grid = published_grid(stem, path.parent)
    lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    i = len(lines) - len(grid.rows) + grid.rows.index(row)
    j = len(lines[0]) - len(grid.columns) + grid.columns.index(column)
    assert lines[i][j] == grid.text(row, column)
    lines[i][j] = text
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(lines)
    path.write_text(written.getvalue(), encoding="utf-8")


# The list


def test_the_list_is_as_it_was_found(items):
    assert {key for key, item in items.items() if item.verdict == CONTRADICTED} == CONTRADICTIONS
    assert {key for key, item in items.items() if item.verdict == UNCHECKED} == OPEN
    assert Counter(item.verdict for item in items.values()) == {
        "holds": 80,
        "cannot be checked": 21,
        "contradicted": 25,
    }


def test_every_printed_table_is_there():
    assert {path.stem for path in PUBLISHED.glob("*.csv")} == set(STEMS)
    assert {re.sub(r"\D.*", "", stem[5:]) for stem in STEMS} == {f"{n:02d}" for n in range(1, 18)}


def test_every_item_says_what_where_and_from_what(items):
    for item in items.values():
        assert item.where
        assert item.claim
        assert item.basis
        assert item.verdict in VERDICTS
        assert item.numbers >= 1
        if item.verdict == "cannot be checked":
            assert item.note


def test_the_summary_counts_every_item(items):
    text = summary(list(items.values()))
    total, numbers, *by_verdict = map(int, re.findall(r"\d+", text))
    assert total == len(items) == sum(by_verdict)
    assert numbers == sum(item.numbers for item in items.values())
    assert len(by_verdict) == len(VERDICTS) == 3


# By hand


def test_averages_by_hand(items):
    assert (Fraction("74.58") + Fraction("88.28") + Fraction("95.17")) / 3 == Fraction("86.01")
    assert "rank 128 86.01 (printed 85.68)" in items["table13-average"].found
    # SD V3-5's ranks by Table 1: 5, 5, 10, 4, 6, 4, 7; with Inception's 5 and 5 they sum to 51.
    assert f"SD V3-5 {51 / 9:.4f} (printed 6.00)" in items["table8-average-table1"].found
    # SD V1-4's nine printed ranks: 9+9+9+9+4+8+5+7+8 = 68.
    assert items["table8-average"].found.endswith(f"SD V1-4 {68 / 9:.4f} (printed 7.55, cut off)")


def test_the_one_model_out_of_order_is_named(items):
    for metric in ("precision", "recall"):
        note = items[f"table8-{metric}"].note
        assert note == "except for SD V3-5, the models stand in Table 1's order"
    assert items["table8-fid"].note == ""


def test_no_finding_by_hand_over_the_ten_models(items):
    column = [106.34, 167.81, 193.99, 192.30, 67.88, 48.74, 44.60, 89.60, 95.66, 100.58]
    assert sum(column) / 10 == pytest.approx(110.75)
    item = items["table9-average-without-llm_cxr"]
    assert item.basis.startswith("the same over 10 models, without LLM-CXR")
    assert "NF" not in item.found
    assert "LL 194.999 (printed 194.99, cut off)" in item.found


def test_rank_correlation_by_hand(items):
    squares = 1 + 1 + 2**2 + 3**2 + 2**2 + 2**2 + 1  # of NF, SD, PE, LO, AT, CM, ED
    assert f"{1 - 6 * squares / (14 * (14**2 - 1)):.3f}" == "0.947"
    # Fisher's z is atanh(0.947) = 1.802, and 1.96 / sqrt(14 - 3) = 0.591.
    assert (math.tanh(1.802 - 0.591), math.tanh(1.802 + 0.591)) == pytest.approx(
        (0.837, 0.983), abs=0.001
    )
    assert items["table9-correlation"].found == "0.947 (95% 0.838 to 0.984, n = 14)"


def test_spreads_of_scores_by_hand(items):
    # 2,000 scores in [0, 1] of mean 0.725 deviate by sqrt(0.725 x 0.275) = 0.4465 at most, yet the
    # paper does not say that its 0.71 is a deviation.
    item = items["table17b-reid-spread"]
    assert item.verdict == UNCHECKED
    assert item.found.count("at most") == 2
    assert "SD-V1-4 Original MIMIC 0.725 ± 0.71 (at most 0.447)" in item.found
    assert "SD-V1-5 Original MIMIC 0.721 ± 0.47 (at most 0.449)" in item.found
    # Latent distances: 0.66 is beyond 0.5 for b = 1, and within sqrt(0.482 x 1.518) = 0.855 for 2.
    assert items["table17b-latent-spread"].found.endswith("for b = 2 none")


def test_larger_models_against_the_median_by_hand(items):
    # Lumina's FID and KID and SD V3-5's Recall are the median itself: rank 6 of 11.
    worse = {"FID": 1, "KID": 1, "Alignment": 3, "Precision": 1, "Recall": 2, "Density": 1}
    assert sum(worse.values()) + 2 == 11  # and two by Coverage
    item = items["text-larger-inferior"]
    assert item.verdict == HOLDS
    assert item.found == "worse than the median in 11 of 21, the median itself in 3, better in 7"
    assert "Recall 0.205 rank 6 (median)" in items["text-sd35-low"].found


def test_gains_of_two_tasks_by_hand(items):
    # Means of Table 4's rows: 10.23 / 14 for real data, 10.69 / 14 for Pixart Sigma, the best.
    real, best = 10.23 / 14, 10.69 / 14
    assert best / real - 1 == pytest.approx(0.045, abs=5e-4)
    assert (best - 0.5) / (real - 0.5) - 1 == pytest.approx(0.142, abs=5e-4)
    assert (best - real) / (1 - real) == pytest.approx(0.122, abs=5e-4)
    item = items["text-limited-multimodal"]
    assert item.verdict == UNCHECKED
    assert re.findall(r"classification \+([\d.]+)%", item.found) == ["4.5", "14.2", "12.2"]
    # Less than 12.2% of what lacks: BLEU-1 5.57 / 72.74, BLEU-4 .99 / 89.71, ROUGE-L .03 / .77,
    # F1-RadGraph .05 / .79, GREENScore .05 / .73; more: Micro F1 .07 / .55 twice, RaTE .08 / .55.
    assert re.findall(r"more in (\d) of 8", item.found) == ["8", "6", "3"]


def test_what_was_too_strong_cannot_be_checked(items):
    dice = items["text-high-fidelity-reaches"]
    assert dice.found == "RadEdit -0.002, Pixart Sigma +0.002, Sana -0.002"
    assert "noise" in dice.note
    encoders = items["text-rad-dino-differentiates"]
    assert encoders.found.startswith("range 140.50 (RadDino) against 0.074 (DenseNet)")
    assert encoders.found.endswith("distinct values 11 against 6")
    assert items["text-independent-of-fidelity"].found == "0.46 (95% -0.23 to 0.84, n = 11)"


def test_what_was_missed(items):
    assert items["text-most-prevalent"].found == "AT 5 of 14, CM 6 of 14, SD 2 of 14"
    assert items["table14-last-place"].found == "the header is All Layers"
    assert items["table1-llm-cxr-size"].found == "0 of 1 as printed; LLM-CXR 2.8 (printed 12)"


def test_sana_is_first_in_eleven_as_printed_and_in_twelve_of_ten_models(items):
    item = items["text-sana-first"]
    beaten = "Fracture by LLM-CXR, LL by SD V1-5, PT by SD V1-5"
    assert item.found == f"11 of 14; beaten in {beaten}"
    assert item.note.endswith(": LLM-CXR")
    assert items["text-five-of-eleven"].found.startswith("6 of 11: ")
    assert items["text-five-of-eleven"].note.startswith("5 of the ten models")


# By other means


def frame(stem: str, **options) -> pd.DataFrame:
    return pd.read_csv(PUBLISHED / f"{stem}.csv", thousands=",", **options)


def differing(item) -> dict[str, float]:
    """Return the recomputed numbers of an item that are not as printed, by label."""
    found = re.findall(r"(?:^|[,;] )([^,;]+?) (-?\d+(?:\.\d+)?) \(printed", item.found)
    return {label: float(number) for label, number in found}


@pytest.mark.parametrize(
    ("metric", "column", "ascending"),
    [
        ("fid", 5, True),
        ("kid", 6, True),
        ("alignment", 7, False),
        ("precision", 8, False),
        ("recall", 9, False),
        ("density", 10, False),
        ("coverage", 11, False),
    ],
)
def test_table_8_against_pandas(items, metric, column, ascending):
    table1 = frame("table01_fidelity")
    table1.index = table1["Model"].str.replace(r" \(.*", "", regex=True)
    table1.index = table1.index.str.replace("SD V3.5 Medium", "SD V3-5")
    table8 = frame("table08_ranks", skiprows=1, index_col=0)
    names = "inception fid inception_kid kid alignment precision recall density coverage"
    table8.columns = pd.Index([*names.split(), "average", "normalised"])
    ranks = table1.iloc[:, column].rank(ascending=ascending).reindex(table8.index)
    off = ranks[ranks != table8[metric]]
    assert differing(items[f"table8-{metric}"]) == off.to_dict()
    average = table8.iloc[:, :9].mean(axis=1)
    assert (average.rank() == table8["normalised"]).all()
    assert (average - table8["average"]).abs().max() < 0.01


def test_table_9_against_pandas(items):
    table2 = frame("table02_fid_per_pathology", index_col=0)
    table9 = frame("table09_prevalence", index_col=0)
    short = {"AT": "Atelectasis", "CM": "Cardiomegaly", "ED": "Edema", "CD": "Consolid."}
    columns = [short.get(code, code) for code in table9.index]
    columns = ["Fracture" if code == "Frac." else code for code in columns]
    means = table2.drop("LLM-CXR")[columns].mean()
    cut = np.floor(means * 100 + 1e-6) / 100
    assert np.allclose(cut.to_numpy(), table9["FID (RadDino)"])
    intact = table2.drop(["SD V1-5", "SD V2"])[columns].mean()
    rho = stats.spearmanr(-table9["Count (n)"], intact).statistic
    assert items["table9-correlation-intact"].found.startswith(f"{rho:.3f} (95% ")


def test_correlations_of_table_10_against_scipy(items):
    table10 = frame("table10_task_ranks", index_col=0)
    fid = frame("table01_fidelity")["FID ↓ (RadDino)"]
    auroc = frame("table04_classification_augmented")["Average"][1:]
    dice = frame("table05_segmentation")["DICE"].dropna()[1:]
    table4 = frame("table04_classification_augmented")["Model"][1:].str.replace("Σ", "Sigma")
    assert table10.index.tolist() == table4.tolist()  # the order of all of them
    for task, values in (("classification", auroc), ("segmentation", dice)):
        own = table10[f"{task.title()} Rank"]
        r = np.corrcoef(table10["FID Rank"], own)[0, 1]
        again = np.corrcoef(fid.rank(method="min"), values.rank(method="min", ascending=False))
        assert items[f"text-correlation-{task}"].found.startswith(f"{r:.2f} (")
        assert items[f"text-correlation-{task}-again"].found.startswith(f"{again[0, 1]:.2f} (")
    ranks = pd.Series(dice.rank(method="min", ascending=False).to_numpy(), table10.index)
    off = ranks[ranks != table10["Segmentation Rank"]]
    assert differing(items["table10-segmentation"]) == off.to_dict()


def test_table_4_against_pandas(items):
    table4 = frame("table04_classification_augmented", index_col=0)
    means = table4.drop(columns="Average").mean(axis=1)
    off = (means - table4["Average"]).abs() > 0.005
    assert list(differing(items["table4-average"])) == table4.index[off].tolist() == ["Flux.1-Dev"]
    assert differing(items["table4-average"])["Flux.1-Dev"] == round(means["Flux.1-Dev"], 4)


# Numbers against numbers

DECIMALS = st.decimals(-1000, 1000, places=6).map(Fraction)


@settings(max_examples=60, deadline=None)
@given(DECIMALS, st.integers(0, 4))
def test_what_is_rounded_or_cut_off_agrees(value, decimals):
    unit = Fraction(1, 10**decimals)
    stated = Printed("", rounded_to(value, decimals), unit / 2, decimals)
    assert as_printed(stated, Bounded(value))
    assert agrees(stated, Bounded(value))
    assert agrees(Printed("", cut_to(value, decimals), unit / 2, decimals), Bounded(value))


@settings(max_examples=60, deadline=None)
@given(DECIMALS, st.integers(0, 4), st.decimals(0, 2, places=3).map(Fraction))
def test_a_number_beyond_every_digit_behind_the_printed_ones_does_not_agree(value, decimals, slack):
    unit = Fraction(1, 10**decimals)
    for far in (value + slack + 2 * unit, value - slack - 2 * unit):
        stated = Printed("", rounded_to(far, decimals), unit / 2, decimals)
        assert not agrees(stated, Bounded(value, slack))


def test_agreement_by_hand():
    assert agrees(printed("86.01"), Bounded(Fraction("86.0149")))
    assert agrees(printed("101.19"), Bounded(Fraction("101.198")))
    assert not agrees(printed("101.18"), Bounded(Fraction("101.198")))
    assert agrees(printed("0.73"), Bounded(Fraction("0.7236"), Fraction("0.005")))
    assert not agrees(printed("0.74"), Bounded(Fraction("0.7236"), Fraction("0.005")))
    assert (printed("78,939").exact, printed("5e-6").exact) == (78939, Fraction(5, 10**6))


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 3))
def test_an_order_that_the_digits_decide_is_the_true_one(a, b, decimals):
    said = below(printed(f"{a:.{decimals}f}"), printed(f"{b:.{decimals}f}"))
    assert said in (None, a <= b, a < b)


def test_orders_by_hand():
    assert below(printed("0.66"), printed("0.67")) is True
    assert below(printed("0.67"), printed("0.66")) is False
    assert below(printed("0.67"), printed("0.67")) is None
    # Means of 0.1, 0.3 and of 0.2, 0.3: 0.20 and 0.25, each within 0.05 by the digits.
    means = [mean_of([printed(x), printed("0.3")]) for x in ("0.1", "0.2", "0.4")]
    assert below(means[0], means[1]) is None
    assert below(means[0], means[2]) is True
    # What matches allows for noise, of which nothing is printed: it is never false.
    assert matches(printed("0.667"), printed("0.669")) is None
    assert matches(printed("0.669"), printed("0.669")) is True
    assert matches(printed("0.671"), printed("0.669")) is True


def test_claims_of_several_parts_by_hand():
    assert [verdict(truth) for truth in (True, None, False)] == list(VERDICTS)
    assert every([True, None, False]) is False
    assert every([True, None]) is None
    assert every([]) is True
    assert some([False, None, True]) is True
    assert some([False, None]) is None
    assert most([True, True, True, False]) is True
    assert most([True, True, None, False]) is None
    assert most([True, True, False, False]) is False
    assert often([True, True, False, False]) is True
    assert often([True, None, False, False]) is None
    assert number_is([True, None, False], 1) is None
    assert number_is([True, None, False], 3) is False
    assert number_is([True, True, False], 2) is True
    assert in_all_readings([False, False]) is False
    assert in_all_readings([False, True]) is None


def test_places_by_hand():
    numbers = {name: printed(text) for name, text in zip("abcde", "12334", strict=True)}
    assert list(places(numbers, "c", lower=True)) == [3, 4]
    assert list(places(numbers, "e", lower=False)) == [1]
    assert has_place(numbers, "c", True, 3) is None
    assert has_place(numbers, "c", True, 3, 4) is True
    assert has_place(numbers, "a", True, 2, 5) is False
    sides = [side_of_median(numbers, name, lower=False) for name in "abce"]
    assert sides == [
        "low",
        "low",
        "open",
        "high",
    ]  # c and d are alike: either is the median
    numbers["d"] = printed("5")
    assert side_of_median(numbers, "c", lower=False) == "median"
    assert is_side("median", "low") is False
    assert is_side("open", "low") is None


def test_intervals_of_correlations_by_hand():
    # 0.36 of eleven models: z = 0.3769, 1.96 / sqrt(8) = 0.6930; tanh(-0.3161), tanh(1.0699).
    ranks = {str(i): float(i) for i in range(11)}
    noisy = [3.0, 0, 5, 1, 9, 2, 4, 10, 6, 7, 8]
    found = pearson(ranks, dict(zip(ranks, noisy, strict=True)))
    low, high = stats.pearsonr(list(ranks.values()), noisy).confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high))  # SciPy's is Fisher's, too
    z = math.atanh(0.36)
    assert (round(math.tanh(z - 0.6930), 2), round(math.tanh(z + 0.6930), 2)) == (-0.31, 0.79)
    # Bonett and Wright: the variance (1 + r² / 2) / (n - 3), so a wider one.
    rho = spearman(ranks, dict(zip(ranks, noisy, strict=True)))
    reach = 1.959964 * math.sqrt((1 + rho.value**2 / 2) / 8)
    assert rho.high == pytest.approx(math.tanh(math.atanh(rho.value) + reach))
    assert Correlation(0.4, 0.1, 0.8, 11).absent is False
    assert Correlation(0.4, -0.1, 0.8, 11).absent is None
    assert Correlation(0.0, -0.2, 0.4, 99).absent is True


def test_reach_of_ranks_by_hand():
    ranks = {"a": 1, "b": 2, "c": 3}
    alike = {name: printed("0.5") for name in ranks}
    assert reach_of_ranks(ranks, alike, lower=True) == pytest.approx((-1, 1))
    apart = {name: printed(text) for name, text in zip("abc", ("1", "2", "3"), strict=True)}
    assert reach_of_ranks(ranks, apart, lower=True) == pytest.approx((1, 1))
    assert reach_of_ranks(ranks, apart, lower=False) == pytest.approx((-1, -1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.integers(0, 3))
def test_no_scores_deviate_more_than_the_bound(scores, decimals):
    sample = np.resize(np.array(scores), SAMPLES)
    mean = printed(f"{sample.mean():.{decimals}f}")
    assert sample.std(ddof=1) <= largest_deviation(mean, 1) + 1e-9


def test_scores_at_both_ends_reach_the_bound():
    sample = np.repeat([0.0, 1.0], [SAMPLES * 3 // 4, SAMPLES // 4])
    bound = largest_deviation(Printed("", Fraction(1, 4), Fraction(0), 9), 1)
    assert sample.std(ddof=1) == pytest.approx(bound)


# Misprinted rows


def test_a_row_with_numbers_moved_by_hand_is_found_and_read(tmp_path):
    row = published_grid("table02_fid_per_pathology")
    columns = row.columns
    own = [row.text("Sana", column) for column in columns]
    lo = columns.index("LO")
    moved = own[:lo] + own[lo + 2 :] + own[lo : lo + 2]  # NF's, PE's columns get what follows them
    stem = "table02_fid_per_pathology"
    changes = [(stem, "Sana", c, t) for c, t in zip(columns, moved, strict=True)]
    folder = tmp_path / "published"
    shutil.copytree(PUBLISHED, folder)
    for change in changes:
        put(folder / f"{stem}.csv", *change)
    order = {o.row: o for o in row_orders(published_grid(stem, folder))}["Sana"]
    assert order.misprinted
    assert order.repeated == ()
    assert set(order.moved) >= {"PO", "PN", "PT"}
    assert all(
        columns.index(a) > columns.index(b) for a, b in zip(order.moved, order.under, strict=True)
    )
    # Numbers that lie close may be swapped, but none comes to stand far from its place.
    back = np.array([float(order.rearranged[column]) for column in columns])
    assert np.abs(back - np.array(own, float)).max() < 5


def test_the_misprinted_rows_are_two_and_what_they_hold(items):
    orders = row_orders(Paper()["2"])
    broken = {order.row: order for order in orders if order.misprinted}
    assert {row: order.repeated for row, order in broken.items()} == {
        "SD V1-5": ("243.17",),
        "SD V2": ("214.40", "193.99"),
    }
    assert broken["SD V1-5"].moved == broken["SD V2"].moved == ("PO", "PN", "PT")
    assert broken["SD V1-5"].under == ("LO", "NF", "PE")
    assert broken["SD V2"].under == ("PE", "PO", "PN")
    assert all(order.correlation > 0.85 for order in orders if not order.misprinted)
    assert "243.17 (Fracture, PO)" in items["table2-misprint-sd-v1-5"].found
    assert "214.40 (Edema, EC)" in items["table2-misprint-sd-v2"].found


# That it can fail

T1, T2, T3 = "table01_fidelity", "table02_fid_per_pathology", "table03_privacy"
T4, T5, T6 = "table04_classification_augmented", "table05_segmentation", "table06_rrg_augmented"
T7, T8, T9 = "table07_encoders", "table08_ranks", "table09_prevalence"
T10, T11, T13 = "table10_task_ranks", "table11_t2i_hyperparameters", "table13_lora_rank"
T14, T15 = "table14_lora_position", "table15_classification_synthetic_only"
T16, T17A, T17B = (
    "table16_rrg_synthetic_only",
    "table17a_caption_fidelity",
    "table17b_caption_privacy",
)
LORA128 = "FID by LoRA Rank, Rank 128"
ORIGINAL, LLAVA = "SD-V1-4, Original MIMIC", "SD-V1-4, LlaVA-Rad"
SANA, FLUX = "Sana (Xie et al., 2025)", "Flux.1-Dev (Labs, 2024)"
FID, CLASSIFIED = "FID ↓ (RadDino)", "Classification Rank"
BLEU4, PLUS_SANA = "BLEU-4 (\\uparrow)", "Real Data + Sana (N=70,000)"


@pytest.mark.parametrize(
    ("change", "key", "verdict"),
    [
        ((T1, FLUX, "Recall ↑", "1.008"), "table1-possible", CONTRADICTED),
        ((T1, SANA, FID, "84.225"), "text-sana-best", CONTRADICTED),
        ((T1, FLUX, "Size", "1.2B"), "text-a6-sizes", HOLDS),
        ((T2, "LLM-CXR", "Edema", "83.19"), "text-llm-cxr-quoted", CONTRADICTED),
        ((T2, "Sana", "PO", "199.46"), "text-sana-range", CONTRADICTED),
        ((T2, "LLM-CXR", "NF", "70.62"), "text-five-of-eleven", HOLDS),
        ((T3, COUNT, "Flux", "150"), "text-share-at-risk", CONTRADICTED),
        ((T3, REID, "Flux", "0.994"), "table3-possible", CONTRADICTED),
        ((T4, "Sana", "Average", "0.78"), "table4-average", CONTRADICTED),
        ((T4, "Flux.1-Dev", "Average", "0.72"), "text-all-match-baseline", UNCHECKED),
        ((T5, "Pixart Σ", "DICE", "0.673"), "text-dice-quoted", CONTRADICTED),
        ((T6, BLEU4, PLUS_SANA, "11.27"), "text-report-quoted", CONTRADICTED),
        ((T7, "KID, RadDino", "Sana", "0.017"), "table7-kid", CONTRADICTED),
        ((T7, "FID, DenseNet", "SD V1-5", "0.076"), "table7-ranges", CONTRADICTED),
        ((T8, "Sana", "Average Rank", "1.54"), "table8-average", CONTRADICTED),
        ((T8, "Sana", "FID, Inception", "2"), "table8-fid-inception", CONTRADICTED),
        ((T9, "PO", "Count (n)", "84,024"), "table9-prevalence-rank", CONTRADICTED),
        ((T9, "SD", "Fidelity Rank", "14"), "table9-correlation", CONTRADICTED),
        ((T9, "NF", "FID (RadDino)", "110.77"), "table9-average-without", UNCHECKED),
        ((T10, "Sana", CLASSIFIED, "4"), "text-correlation-classification", CONTRADICTED),
        ((T11, "Sana", "Fine-Tuning", "LoRA (r=16)"), "table11-table1", CONTRADICTED),
        ((T13, "Average", LORA128, "86.01"), "table13-average", HOLDS),
        ((T14, "FID", "All Layers", "89.19"), "text-place", CONTRADICTED),
        ((T15, "Sana", "SD", "0.82"), "text-sana-10-of-13", CONTRADICTED),
        ((T15, "Lumina 2.0", "Edema", "0.84"), "table15-underlined", CONTRADICTED),
        ((T16, "BLEU-1 (\\uparrow)", "Sana", "39.11"), "text-alone-degrades", CONTRADICTED),
        ((T17A, LLAVA, "KID (RadDino)", "0.173"), "table17a-table1", CONTRADICTED),
        ((T5, "Baseline (None)", "DICE", "0.667"), "text-high-fidelity-reaches", HOLDS),
        ((T1, "LLM-CXR (Lee et al., 2024)", "Size", "2.8B"), "table1-llm-cxr-size", HOLDS),
        ((T9, "SD", "Count (n)", "46,000"), "text-frequent-and-rare", CONTRADICTED),
        ((T1, SANA, "Recall ↑", "0.544"), "text-sana-best", UNCHECKED),
        ((T17B, LLAVA, "Min. Pixel Distance (mean)", "141.9"), "table17b-table3", CONTRADICTED),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_a_changed_number_changes_the_verdict(items, tmp_path, change, key, verdict):
    assert key not in items or items[key].verdict != verdict
    assert changed(tmp_path, change)[key].verdict == verdict


def test_ranks_put_right_are_reproduced(tmp_path):
    right = [
        (T8, model, "Precision", rank)
        for model, rank in (("SD V3-5", "4"), ("Pixart Sigma", "3"), ("Sana", "2"))
    ]
    found = changed(tmp_path, *right)
    assert found["table8-precision"].verdict == HOLDS
    assert found["table8-recall"].verdict == CONTRADICTED
    assert found["table8-average"].verdict == CONTRADICTED  # of the averages that are still old


FREE = {
    T1: {"Default Resolution", "Prev. Available For CXR?"},
    T7: {"KID, DenseNet"},
    T11: {"LR"},
    T15: {"SD V1-5", "SD V2", "SD V2-1"},
}
"""Rows and columns of which the paper claims nothing that follows from them."""


@pytest.mark.parametrize("most", [1, pytest.param(3, marks=pytest.mark.full)])
@pytest.mark.parametrize("stem", [stem for stem in STEMS if not stem.startswith("table12")])
def test_every_number_that_something_follows_from_matters(items, tmp_path, stem, most):
    grid = published_grid(stem)
    cells = [
        (row, column)
        for (row, column), text in grid.cells.items()
        if re.fullmatch(r"[\d,.]+", text) and not {row, column} & FREE.get(stem, set())
    ]
    for cell in random.Random(stem).sample(cells, min(most, len(cells))):
        was = grid.number(*cell)
        texts = [f"{was.value * by:.{was.decimals}f}" for by in (3, 0.1)]
        assert any(changed(tmp_path, (stem, *cell, text)) != items for text in texts), cell


def test_a_table_that_lacks_a_cell_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a number"):
        changed(tmp_path, (T2, "Sana", "PO", "n/a"))
    with pytest.raises(InputError, match="no Table 18"):
        Paper()["18"]


def test_models_have_their_config_keys_however_a_table_names_them():
    assert model_key("Pixart- Σ") == model_key("Pixart Sigma (Chen et al., 2024)") == "pixart_sigma"
    assert model_key("SD V3.5 Medium (Esser et al., 2024)") == "sd_v3_5"
    assert model_key("Real Data + SD V1-4 (N=70,000)") == "sd_v1_4"
    with pytest.raises(InputError, match="no model"):
        model_key("SDXL")


# Files


def test_files_are_whole_and_the_same_every_time(tmp_path, items):
    for name in "ab":
        main(["--out", str(tmp_path / name)])
    for suffix in ("csv", "md", "tex", "json"):
        first, second = (tmp_path / name / f"audit.{suffix}" for name in "ab")
        assert first.read_bytes() == second.read_bytes()
    read = pd.read_csv(tmp_path / "a/audit.csv")
    assert read["key"].tolist() == list(items)
    assert read["verdict"].tolist() == [item.verdict for item in items.values()]
    main(["--out", str(tmp_path / "c"), "--published", str(PUBLISHED)])
    assert (tmp_path / "c/audit.csv").read_bytes() == (tmp_path / "a/audit.csv").read_bytes()


def test_markdown_has_a_row_of_five_cells_for_each_item(items):
    lines = to_markdown(list(items.values())).splitlines()[2:]
    assert len(lines) == len(items) + 2
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path, items):
    (tmp_path / "audit.tex").write_text(to_latex(list(items.values())))
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs,longtable}\n"
        "\\begin{document}\n\\input{audit}\n\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout


def test_csv_keeps_every_attribute(items):
    rows = list(csv.DictReader(io.StringIO(to_csv(list(items.values())))))
    assert [row["note"] for row in rows] == [item.note for item in items.values()]
