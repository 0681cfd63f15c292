"""The page says no more than the card: the stricter of policy and terms."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.common.records import Record, Value, write_record
from workflow_scripts.curate.decision import decision_of
from workflow_scripts.curate.kinds import EVERY_KIND
from workflow_scripts.curate.lenses import LENSES
from workflow_scripts.curate.page import page
from workflow_scripts.curate.pool_filter import FilteredPool
from workflow_scripts.curate.scorecard import _KEYS
from workflow_scripts.curate.settings import LENS_NAMES, CurateSettings, read_share
from workflow_scripts.curate.terms import WORLD
from workflow_scripts.fidelity.resample import wilson_interval

WEIGHTS = {WORLD: "results/world/weights/tiny-sana", "MIMIC-CXR": "weights/sana-600m-512px"}


def decided(cohort: str = WORLD, access: str = "release", leaks: int = 0, missing=None,
            caught=None, without=None, records=(), tried=None, refused=None,
            **changed):  # fmt: skip
    policy = CurateSettings(
        **{
            "pool": "privacy", "images": 50, "quotas": {}, "access": access,
            "published_prompts": "withheld", "privacy_false_alarms": 0.01,
            "quality_false_alarms": 0.05, "planted": 200, "held_out": 100, "references": 100,
            "most_flagged": 0.1, "most_remaining": 0.5, "least_sensitivity": 0.9,
            "most_false_rejections": 0.2,
        }
        | changed
    )  # fmt: skip
    pool = pd.DataFrame({
        "leak": [k < leaks for k in range(100)], "sparse": False, "implausible": False,
        "unseen": False, "nearest_patient_id": [f"p{k}" for k in range(100)], "source": None,
    })  # fmt: skip
    tried = np.array([f"u{k}" for k in range(50)]) if tried is None else tried
    refused = np.zeros(len(tried), bool) if refused is None else refused
    planted = dict.fromkeys(EVERY_KIND, (200, 200)) | (caught or {})
    if without:
        planted[without] = (0, 0)
    found = FilteredPool(pool, np.zeros((100, 14)), planted,
                         refused, pd.DataFrame({"patient_id": tried}), refused, {}, {})  # fmt: skip
    args = SimpleNamespace(model="sana", cohort=cohort, source="mimic_cxr_jpg", records=records,
                           family="sana", base=WEIGHTS[cohort])  # fmt: skip
    return decision_of(args, policy, found, np.flatnonzero(~pool["leak"])[:50], missing or {})


def test_films_of_a_patient_that_agree_count_once_in_false_rejections():
    patients = np.repeat([f"u{k}" for k in range(40)], 5)
    decision = decided(tried=patients, refused=np.repeat(np.arange(40) < 4, 5))
    rows = {row["key"]: row for row in decision["measured"]}
    for key in ("false_rejections", "poor_radiographs"):
        assert rows[key]["value"] == pytest.approx(0.1)
        bounds = rows[key]["low"], rows[key]["high"]
        assert bounds == pytest.approx(wilson_interval(0.1, 40), abs=0.01)


def test_nobodys_radiographs_may_be_released():
    assert decided()["verdict"] == "release"


def test_mimic_cxr_is_for_credentialed_users_whatever_the_policy_says():
    decision = decided("MIMIC-CXR", "release")
    assert decision["verdict"] == "credentialed"
    assert "terms of MIMIC-CXR" in decision["reasons"][-1]
    assert "credentialed users only" in page(decision)


def test_captions_and_the_policy_limit_access_as_well():
    assert decided(published_prompts="captions")["verdict"] == "credentialed"
    assert decided(access="credentialed")["verdict"] == "credentialed"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"leaks": 20}, "memorises"),
        ({"missing": {"Fracture": 7}}, "7 image(s) with Fracture are missing"),
        ({"most_remaining": 1e-6, "leaks": 10}, "may be left"),
    ],
)
def test_a_limit_that_is_not_met_means_no_release(changed, said):
    decision = decided(**changed)
    assert decision["verdict"] == "do_not_release"
    assert any(said in reason for reason in decision["reasons"])
    assert "Do not release" in page(decision)


@pytest.fixture
def attacked(tmp_path):
    """Records of attacks on the model: what each found, or why it was not tried."""

    def write(**values):
        rows = [
            Value(name, None, "lower", 40, reason=found)
            if isinstance(found, str)
            else Value(name, found, "lower", 40)
            for name, found in values.items()
        ]
        write_record(Record("privacy", "sana", "membership", "sound", rows), tmp_path / "r.json")
        return [tmp_path / "r.json"]

    return write


TPR = "member_loss_calibrated_tpr"


def test_attacks_stand_on_the_page_and_decide_nothing_without_a_limit(attacked):
    decision = decided(records=attacked(**{TPR: 0.3}))
    (row,) = [row for row in decision["measured"] if row["key"].endswith(TPR)]
    assert (row["value"], row["limit"]) == (0.3, None)
    assert decision["verdict"] == "release"
    assert "pick out, if 1 in 100 others may be picked wrongly?</td><td>30%</td>" in page(decision)


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        ({TPR: 0.02}, "release", "every limit"),
        ({TPR: 0.03}, "do_not_release", "an attack with a limit finds more than it may"),
        ({TPR: "it came trained"}, "do_not_release", "an attack with a limit was not measured"),
        ({}, "do_not_release", "an attack with a limit was not measured"),
    ],
)
def test_a_limit_on_an_attack_has_to_be_met_and_measured(attacked, found, verdict, said):
    decision = decided(records=attacked(**found), most_by_attacks={TPR: 0.02})
    assert decision["verdict"] == verdict
    assert any(reason.startswith(said) for reason in decision["reasons"])
    (row,) = [row for row in decision["measured"] if row["key"].endswith(TPR)]
    assert row["limit"] == 0.02
    (rule,) = [row for row in decision["policy"] if row["key"] == f"attack/{TPR}"]
    assert rule["limit"] == 0.02
    assert "at most 2%" in page(decision)


def test_a_lens_may_have_a_limit_of_its_own():
    decision = decided(lens_false_alarms={"reid": 0.005})
    (rule,) = [row for row in decision["policy"] if row["key"].startswith("lens/")]
    assert (rule["key"], rule["limit"]) == ("lens/reid", 0.005)
    assert "The test that recognises patients may take" in page(decision)
    assert tuple(LENSES) == LENS_NAMES


def test_shares_of_the_command_line_are_of_lenses_and_attacks():
    assert read_share("reid=0.005") == ("reid", 0.005)
    for wrong in ("reid", "nothing=0.1", "reid=2", "reid=x"):
        with pytest.raises(ValueError, match=r"SHARE|float"):
            read_share(wrong)


def test_the_page_says_shares_in_percent_and_limits_with_their_side():
    decision = decided(leaks=7, most_flagged=0.125, least_sensitivity=0.9)
    decision["measured"].append(
        {"key": "fidelity/rad_dino/fid", "words": "x", "value": 0.0593, "low": None, "high": None,
         "limit": None, "passed": None, "reason": None}
    )  # fmt: skip
    text = page(decision)
    assert "<td>7% (3.4% to 14%)</td><td>at most 12.5%</td><td>yes</td>" in text
    assert "<td>at least 90%</td>" in text
    assert "<td>0.0593</td>" in text  # no share
    tiny = dict(decision["measured"][0], value=1e-6, low=None, high=None)
    assert "less than 0.01%" in page(decision | {"measured": [tiny]})
    assert "more than 99%" in page(decision | {"measured": [dict(tiny, value=0.9999)]})


def test_a_kind_that_was_not_planted_stands_with_its_reason_and_in_no_bound():
    decision = decided(without="overfitted")
    (row,) = [row for row in decision["planted"] if row["kind"] == "overfitted"]
    assert (row["planted"], row["sensitivity"], row["low"]) == (0, None, None)
    assert any(row["reason"] in text for text in decision["not_tested"])
    assert f"<td>none</td><td>{row['reason']}</td>" in page(decision)
    with_it = decided()
    assert decision["remaining_leaks_upper"] == with_it["remaining_leaks_upper"]
    assert not any("by heart" in text for text in with_it["not_tested"])


def test_a_kind_that_is_caught_less_widens_the_bound():
    caught = {"overfitted": (7, 10)}
    assert (
        decided(leaks=5, caught=caught)["remaining_leaks_upper"]
        > decided(leaks=5)["remaining_leaks_upper"]
    )


def test_the_scorecard_knows_every_key_of_a_decision():
    assert {row["key"] for row in decided()["measured"]} == set(_KEYS)
