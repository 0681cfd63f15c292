"""Scripts that run one after another, each with its own flags, until one fails."""

import pandas as pd
import pytest

from tests.privacy.conftest import World
from workflow_scripts.common import in_turn
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import Record, Value, write_record
from workflow_scripts.privacy import score_lenses
from workflow_scripts.privacy.private_table import write_private_table


def test_each_script_gets_its_own_flags_in_order():
    words = [
        "privacy.score",
        "--model",
        "a",
        "--then",
        "privacy.score_closest",
        "--model",
        "b",
        "--matches",
        "5",
    ]
    assert in_turn.scripts_in(words) == [
        ("privacy.score", ["--model", "a"]),
        ("privacy.score_closest", ["--model", "b", "--matches", "5"]),
    ]


@pytest.mark.parametrize("words", [[], ["--then", "a.b"], ["a.b", "--then"], ["--model", "a"]])
def test_a_part_without_a_script_is_refused_before_any_runs(words):
    with pytest.raises(InputError, match="no script before"):
        in_turn.main(words)


@pytest.mark.parametrize("name", ["privacy.scroe", "privat.score", "privacy.score.lenses"])
def test_an_unknown_script_is_named(name):
    with pytest.raises(InputError, match=f"there is no script {name}"):
        in_turn.main([name, "--model", "a"])


def lenses(tmp_path, pairs, output):
    files = {"--manifest": tmp_path / "manifest.parquet", "--pairs": pairs}
    files |= {"--others": tmp_path / "others.parquet", "--output": output}
    files |= {"--record": tmp_path / "model.json"}
    words = ["privacy.score_lenses", "--model", "a", "--protocol", "sound"]
    return words + [str(word) for pair in files.items() for word in pair]


def test_what_ran_before_a_failure_stays_and_what_follows_does_not_run(tmp_path):
    images = World(tmp_path).images
    lens = {name: [i / 6 for i in range(6)] for name in score_lenses.LENSES}
    table = pd.DataFrame({"prompt_id": images, "image_id": images, "replicate": 0, **lens})
    pairs = tmp_path / "pairs.parquet"
    write_private_table(table, score_lenses.PAIR_SCHEMA, pairs)
    table["other_image_id"] = images[::-1]
    write_private_table(table, score_lenses.OTHERS_SCHEMA, tmp_path / "others.parquet")
    record = Record("privacy", "a", "pairwise", "sound", [Value("reid_max", 0.5, "lower", 6)])
    write_record(record, tmp_path / "model.json")
    outputs = [tmp_path / f"{k}.json" for k in range(3)]
    parts = [
        lenses(tmp_path, pairs, outputs[0]),
        lenses(tmp_path, tmp_path / "none.parquet", outputs[1]),
        lenses(tmp_path, pairs, outputs[2]),
    ]
    with pytest.raises(InputError, match=r"none\.parquet"):
        in_turn.main([*parts[0], "--then", *parts[1], "--then", *parts[2]])
    assert [path.exists() for path in outputs] == [True, False, False]
    in_turn.main([*parts[0], "--then", *parts[2]])
    assert outputs[2].read_text().count('"metric"') == outputs[0].read_text().count('"metric"')
