"""What the report says of utility follows from the intervals."""

import json

from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.assemble import build_tables
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run
from workflow_scripts.tables.task_ranks import task_rank_tables
from workflow_scripts.tables.utility_words import GAINS, correlation_sentence, gain_sentence

FAMILY = "classification/augmented"


def table_of(**gains):
    """Build Table 4b of models, each with a gain and half the width of its interval."""
    records = Records("sound")
    models = []
    for key, (gain, half) in gains.items():
        family = "control" if key == "noise" else "external"
        models.append({"key": key, "family": family, "display": {"name": key.title()}})
        bounds = (gain - half, gain + half)
        value = Value("auroc_gain", gain, "higher", 9, interval=bounds, interval_kind="b")
        records.add(Record("downstream", key, FAMILY, "sound", [value]))
    tables = build_tables(Run(records, parse_models(json.dumps(models)), "World"))
    return tables["table04b_classification_gains"]


def test_gains_are_told_from_losses_and_both_from_noise():
    table = table_of(a=(0.02, 0.01), b=(-0.03, 0.02), c=(0.03, 0.04), noise=(0.5, 0.1))
    assert gain_sentence(table, GAINS[0]) == (
        "Classification: the images of A (+0.020) add to the mean AUROC of real data alone; "
        "those of B (-0.030) take from it; C (+0.030) makes no difference beyond noise."
    )


def test_losses_alone_and_noise_alone_are_sentences_too():
    assert gain_sentence(table_of(a=(-0.02, 0.01)), GAINS[0]) == (
        "Classification: the images of A (-0.020) take from the mean AUROC of real data alone."
    )
    assert gain_sentence(table_of(a=(0.0, 0.1), b=(0.1, 0.2)), GAINS[0]) == (
        "Classification: A (+0.000) and B (+0.100) make no difference beyond noise."
    )
    assert gain_sentence(table_of(noise=(0.5, 0.1)), GAINS[0]) is None


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
    table = task_rank_tables(Run(records, models, "World"))["table10b_rank_correlations"]
    assert correlation_sentence(table) == (
        "Does fidelity foretell utility? Over the models, Spearman's correlation of FID with "
        "classification is 0.90 (-0.17 to 1.00), n = 5 (Table 10b)."
    )
    empty = task_rank_tables(Run(Records("sound"), models, "World"))
    assert correlation_sentence(empty["table10b_rank_correlations"]) is None
