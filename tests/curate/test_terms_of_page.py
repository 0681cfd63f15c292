"""The page says no more than the card: the stricter of policy and terms."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.curate.decide import Filtered, decision_of
from workflow_scripts.curate.kinds import KINDS
from workflow_scripts.curate.page import page
from workflow_scripts.curate.scorecard import _KEYS
from workflow_scripts.curate.settings import CurateSettings
from workflow_scripts.curate.terms import WORLD

WEIGHTS = {WORLD: "results/world/weights/tiny-sana", "MIMIC-CXR": "weights/sana-600m-512px"}


def decided(cohort: str = WORLD, access: str = "release", leaks: int = 0, missing=None, **changed):
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
    tried = pd.DataFrame({"patient_id": [f"u{k}" for k in range(50)]})
    found = Filtered(pool, np.zeros((100, 14)), dict.fromkeys(KINDS, (200, 200)),
                     np.zeros(50, bool), tried, np.zeros(50, bool), {}, {})  # fmt: skip
    args = SimpleNamespace(model="sana", cohort=cohort, source="mimic_cxr_jpg", records=[],
                           family="sana", base=WEIGHTS[cohort])  # fmt: skip
    return decision_of(args, policy, found, np.flatnonzero(~pool["leak"])[:50], missing or {})


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


def test_the_scorecard_knows_every_key_of_a_decision():
    assert {row["key"] for row in decided()["measured"]} == set(_KEYS)
