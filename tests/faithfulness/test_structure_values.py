"""Which structures images show and lack, on images whose structures are known."""

import numpy as np
import pandas as pd
import pytest

from tests.faithfulness.test_anatomy_values import FILMS, PATIENTS, N, chests, labels
from workflow_scripts.common.errors import InputError
from workflow_scripts.downstream.outcomes import read_outcomes
from workflow_scripts.faithfulness.anatomy_values import (
    anatomy_values,
    halves,
    real_values,
    structures_of,
)
from workflow_scripts.faithfulness.seen import (
    pack_structures,
    read_seen,
    unpack_structures,
    write_seen,
)

CLASSES, SEED = 159, 3
SHOWN = (31, 32, 70, 121, 135, 136, 150)
"""What every radiograph shows; 12 is in half of them, and all other classes in none."""

SOMETIMES = 12


def shown(*without, sometimes=True):
    """Return which classes N films show, bool (N, CLASSES)."""
    present = np.zeros((N, CLASSES), bool)
    present[:, [number for number in SHOWN if number not in without]] = True
    present[::2, SOMETIMES] = sometimes
    return present


def films(present, **changes):
    return chests(1, labels(), structures=pack_structures(present), **changes)


def values_of(images, own):
    found = anatomy_values(images, own, own, labels(), 50, SEED)
    return {value.metric: value for value in found}


def first_half():
    return halves(films(shown())["patient_id"].to_numpy(str), SEED)


def test_packed_structures_come_back():
    present = np.random.default_rng(0).random((6, CLASSES)) < 0.5
    packed = pack_structures(present)
    assert {len(image) for image in packed} == {20}
    assert (unpack_structures(packed)[:, :CLASSES] == present).all()
    assert not unpack_structures(packed)[:, CLASSES:].any()


@pytest.mark.parametrize("gone", SHOWN)
def test_images_that_lack_a_structure_lose_it_and_no_other(gone):
    own = films(shown())
    same, lost = values_of(own, own), values_of(films(shown(gone)), own)
    assert same["structures"].value == len(SHOWN) + 0.5
    assert lost["structures"].value == same["structures"].value - 1
    assert same["structures_drawn"].value == len(SHOWN) + 1
    assert same["structures_asked"].value == len(SHOWN)
    assert same["structures_lacking"].value == 0
    assert lost["structures_lacking"].value == 1
    assert lost["structures_lacking_radiographs"].value == 0
    table = structures_of(own, SEED).table("sana", films(shown(gone)), own).set_index("class")
    assert table["difference"].to_dict() == {
        number: -1.0 if number == gone else 0.0 for number in sorted([*SHOWN, SOMETIMES])
    }


def test_what_no_radiograph_shows_is_left_out_with_the_reason():
    own, strange = films(shown()), shown()
    strange[:, 99] = True
    structures = structures_of(own, SEED)
    assert values_of(films(strange), own)["structures"].value == len(SHOWN) + 0.5
    assert 99 not in set(structures.table("sana", films(strange), own)["class"])
    details = structures.details(CLASSES)
    assert details["drawn"] == sorted([*SHOWN, SOMETIMES])
    assert details["asked"] == sorted(SHOWN)
    assert details["left_out"] == CLASSES - len(SHOWN) - 1
    assert details["why_left_out"] == "the labeller draws them in no test radiograph"
    blind = films(np.zeros((N, CLASSES), bool))
    for metric in ("structures", "structures_lacking", "structures_asked"):
        value = values_of(own, blind)[metric]
        assert value.value is None
        assert value.reason == "the labeller draws no structure in any test radiograph"


def test_what_many_radiographs_lack_is_not_asked_for():
    rarely = np.zeros((N, CLASSES), bool)
    rarely[::2, :3] = True
    own = films(rarely)
    value = values_of(own, own)["structures_lacking"]
    assert value.value is None
    assert value.reason == "no structure is in 99% of the radiographs that decide"
    assert values_of(own, own)["structures"].value == 1.5


def test_one_half_of_the_patients_decides_and_the_other_is_counted():
    present = shown()
    present[~first_half(), 70] = False
    own = films(present)
    found = values_of(films(shown()), own)
    assert found["structures_asked"].value == len(SHOWN)
    assert found["structures_lacking"].value == 0
    assert found["structures_lacking_radiographs"].value == 1
    assert found["structures_lacking_radiographs"].n == (~first_half()).sum()
    of_real = {value.metric: value for value in real_values(own, labels(), 50, SEED)}
    assert of_real["structures_lacking"].value == 1
    assert of_real["structures_asked"].value == len(SHOWN)
    # Copies of the radiographs that decided lack nothing by definition, so they are not counted.
    copies = values_of(own, own)["structures_lacking"]
    assert (copies.value, copies.n) == (1, (~first_half()).sum())


def test_an_interval_is_as_wide_as_patients_differ():
    """Films of a patient that lack the same are one observation, not several."""
    rng = np.random.default_rng(0)
    lacks = np.repeat(rng.random(PATIENTS) < 0.5, FILMS)
    widths = []
    for order in (np.arange(N), rng.permutation(N)):
        present = shown()
        present[lacks[order], 70] = False
        own = films(shown())
        row = structures_of(own, SEED).table("sana", films(present), own).set_index("class").loc[70]
        assert row["low"] < row["difference"] < row["high"]
        assert row["difference"] == pytest.approx(-lacks.mean())
        value = values_of(films(present), own)["structures"]
        assert value.interval[1] - value.interval[0] == pytest.approx(row["high"] - row["low"])
        widths.append(row["high"] - row["low"])
    assert widths[0] > 1.4 * widths[1]


def test_names_are_those_that_are_known():
    own = films(shown())
    table = structures_of(own, SEED).table("sana", own, own).set_index("class")
    names = table["name"].to_dict()
    assert names[31] == "left clavicle"
    assert names[70] == "rib"
    assert names[150] == names[SOMETIMES] == ""
    assert table["asked"].to_dict() == {n: n != SOMETIMES for n in sorted([*SHOWN, SOMETIMES])}
    assert table.loc[SOMETIMES, "radiographs"] == 0.5
    assert (table["n_images"] == N).all()


def test_a_file_without_structures_is_refused_by_name(tmp_path):
    seen = pd.DataFrame(films(shown())).drop(columns="lung_area")
    columns = {name: seen[name].tolist() for name in seen} | {
        "image_id": seen["id"].tolist(), "organs": [b""] * N,
    }  # fmt: skip
    write_seen(tmp_path / "new.parquet", columns, {})
    assert len(read_seen(tmp_path / "new.parquet").rows) == N
    del columns["structures"]
    write_seen(tmp_path / "old.parquet", columns, {})
    assert len(read_outcomes(tmp_path / "old.parquet").rows) == N
    with pytest.raises(InputError, match="without the column `structures`") as error:
        read_seen(tmp_path / "old.parquet")
    assert "faithfulness_look" in error.value.remedy
    assert "old.parquet" in str(error.value)
