"""What the report says of utility follows from the intervals."""

import json

from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.assemble import joined_table
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run
from workflow_scripts.tables.utility_words import GAINS, correlation_sentence, gain_sentence

FAMILY = "classification/augmented"


def table_of(**gains):
    """Build Table 4b of models, each with a gain and the p of no gain."""
    records = Records("sound")
    models = []
    for key, (gain, p) in gains.items():
        family = "control" if key == "noise" else "external"
        models.append({"key": key, "family": family, "display": {"name": key.title()}})
        value = Value("auroc_gain", gain, "higher", 9, p=p)
        records.add(Record("downstream", key, FAMILY, "sound", [value]))
    run = Run(records, parse_models(json.dumps(models)), "World")
    return joined_table(LAYOUTS["table04b_classification_gains"], run)


def test_gains_are_told_from_losses_and_both_from_noise():
    table = table_of(a=(0.02, 0.001), b=(-0.03, 0.002), c=(0.03, 0.06), noise=(0.5, 0.0))
    assert gain_sentence(table, GAINS[0]) == (
        "Classification: the images of A (+0.020) raise the mean AUROC of real data alone; "
        "those of B (-0.030) lower it; the gain of C (+0.030) is within noise."
    )


def test_losses_alone_and_noise_alone_are_sentences_too():
    assert gain_sentence(table_of(a=(-0.02, 0.04)), GAINS[0]) == (
        "Classification: the images of A (-0.020) lower the mean AUROC of real data alone."
    )
    assert gain_sentence(table_of(a=(0.0, 1.0), b=(0.1, 0.2)), GAINS[0]) == (
        "Classification: the gains of A (+0.000) and B (+0.100) are within noise."
    )
    assert gain_sentence(table_of(noise=(0.5, 0.0)), GAINS[0]) is None


def test_with_one_run_nothing_is_called_a_gain_or_a_loss():
    table = table_of(a=(0.2, None), b=(-0.3, None), c=(0.1, 0.001))
    assert gain_sentence(table, GAINS[0]) == (
        "Classification: the images of C (+0.100) raise the mean AUROC of real data alone; "
        "A (+0.200) and B (-0.300) cannot be told from noise, because an arm was trained only once."
    )
    marks = {row.key: {cell.beyond_noise for cell in row.cells} for row in table.rows}
    assert marks == {"a": {False}, "b": {False}, "c": {False, True}}
    assert "trained only once" in table_of(a=(0.2, None)).caption
    assert "Best in bold" not in table_of(a=(0.2, None), b=(0.1, None)).caption


def test_holm_holds_over_all_gains_of_a_table_and_apart_over_the_controls():
    # Of three gains the first is held to 5% / 3, and where it fails all others do.
    close = {"a": (0.2, 0.02), "b": (0.1, 0.03), "c": (0.1, 0.04)}
    assert "are within noise" in gain_sentence(table_of(**close), GAINS[0])
    assert "raise" not in gain_sentence(table_of(**close), GAINS[0])
    clear = close | {"a": (0.2, 0.016), "b": (0.1, 0.024)}
    assert gain_sentence(table_of(**clear), GAINS[0]).startswith(
        "Classification: the images of A (+0.200), B (+0.100) and C (+0.100) raise"
    )
    # A control neither makes it harder nor is held to as much.
    with_control = table_of(a=(0.2, 0.04), noise=(0.5, 0.04))
    assert [{c.beyond_noise for c in row.cells} for row in with_control.rows] == [{False, True}] * 2


def test_the_correlation_names_its_interval_and_models():
    records = Records("sound")
    entries = []
    for i, (fid, auroc) in enumerate([(1, 0.9), (2, 0.7), (3, 0.8), (4, 0.6), (5, 0.5)]):
        key = f"m{i}"
        entries.append({"key": key, "family": "external"})
        records.add(Record("fidelity", key, "rad_dino", "sound", [Value("fid", fid, "lower", 9)]))
        records.add(
            Record("downstream", key, FAMILY, "sound", [Value("auroc", auroc, "higher", 9)])
        )
    models = parse_models(json.dumps(entries))
    table = one_table("table10b_rank_correlations", Run(records, models, "World"))
    assert correlation_sentence(table) == (
        "Does fidelity predict utility? Over the models, Spearman's correlation of FID with "
        "classification is 0.90 (-0.17 to 1.00), n = 5 (Table 10b)."
    )
    empty = one_table("table10b_rank_correlations", Run(Records("sound"), models, "World"))
    assert correlation_sentence(empty) is None
