"""Paths of records, compared with paths by hand."""

from workflow_scripts.planning.records import (
    curate_records,
    downstream_records,
    faithfulness_records,
    fidelity_records,
    membership_records,
    privacy_records,
    round_trip_records,
)


def test_fidelity_has_a_record_of_each_encoder_and_model():
    assert fidelity_records(["rad_dino", "inception"], ["a", "b"]) == [
        "results/fidelity/rad_dino/a.json",
        "results/fidelity/rad_dino/b.json",
        "results/fidelity/inception/a.json",
        "results/fidelity/inception/b.json",
    ]


def test_privacy_has_both_protocols_and_an_attacker_where_there_are_models():
    records = privacy_records(["a"], "as_published")
    assert records == [
        f"results/privacy/{name}.json"
        for name in (
            "attacker/real",
            "as_published/attacker/real",
            "a",
            "as_published/a",
            "closest/a",
            "novelty/a",
            "lenses/a",
            "extraction/a",
        )
    ]
    assert privacy_records([], "as_published") == []


def test_membership_has_a_record_of_each_model_that_was_trained():
    assert membership_records(["a"]) == ["results/privacy/membership/a.json"]


def test_downstream_has_the_baselines_of_a_task_without_any_model():
    assert downstream_records(["segmentation"], ["a"]) == [
        "results/downstream/segmentation/real_only/real.json",
        "results/downstream/segmentation/augmented/a.json",
        "results/downstream/segmentation/labeller/real.json",
    ]
    assert downstream_records(["classification", "report_generation"], []) == [
        "results/downstream/classification/real_only/real.json",
        "results/downstream/report_generation/real_only/real.json",
        "results/downstream/report_generation/released/real.json",
    ]
    both = downstream_records(["classification"], ["a"])
    assert "results/downstream/classification/synthetic_only/a.json" in both


def test_the_round_trip_has_a_record_of_each_model():
    assert round_trip_records(["a", "b"]) == [
        "results/faithfulness/round_trip/a.json",
        "results/faithfulness/round_trip/b.json",
    ]


def test_faithfulness_has_the_radiographs_and_each_judge_of_each_model():
    radiographs = [
        "results/faithfulness/anatomy/real.json",
        "results/faithfulness/labeller/real.json",
    ]
    assert faithfulness_records(["classifier"], []) == radiographs
    assert faithfulness_records(["classifier", "densenet_121"], ["a"]) == [
        *radiographs,
        "results/faithfulness/findings/classifier/a.json",
        "results/faithfulness/findings/densenet_121/a.json",
        "results/faithfulness/anatomy/a.json",
        "results/faithfulness/texture/a.json",
    ]
    assert faithfulness_records([], ["a"])[2:] == [
        "results/faithfulness/anatomy/a.json",
        "results/faithfulness/texture/a.json",
    ]


def test_a_curated_set_has_a_record_of_its_filter_and_on_request_of_its_worth():
    assert curate_records(["a"], worth=False) == ["results/curate/a/filter.json"]
    assert curate_records(["a", "b"], worth=True) == [
        f"results/curate/{model}/{name}.json" for model in "ab" for name in ("filter", "worth")
    ]
    assert curate_records([], worth=True) == []
    also = curate_records(["a"], worth=True, also=["segmentation"])
    assert also[-1] == "results/curate/a/worth_segmentation.json"
    assert len(also) == 3
    assert curate_records(["a"], worth=False, also=["segmentation"]) == [also[0]]
