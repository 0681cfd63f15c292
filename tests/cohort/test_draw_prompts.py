"""The prompt sets: their prompts, order and seeds."""

import csv
import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.cohort import draw_prompts as prompts
from workflow_scripts.cohort.annotations import GPT4, RULE_BASED
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, read_prompts, scored_prompts, write_manifest

PUBLISHED = [639, 25, 275, 223, 736, 677, 892, 87, 422, 30]


def manifest_of(captions: dict[str, list[str | None]]) -> pd.DataFrame:
    rows = []
    for split, texts in captions.items():
        for i, text in enumerate(texts):
            source = None if text is None else "x"
            image = f"{split}-{i}"
            place = [f"p-{image}", "s", f"/{image}", "AP", None, split]
            rows.append([image, *place, text, source, f"why {image}", text])
    names = ["image_id", "patient_id", "study_id", "path", "view", "site", "split", "caption"]
    names += ["caption_source", "indication", "report"]
    frame = pd.DataFrame(rows, columns=names, dtype=object)
    for name in FINDINGS:
        frame[name] = pd.array([pd.NA] * len(frame), "Int8")
    frame["Edema"] = pd.array([(1, 0, -1)[i % 3] for i in range(len(frame))], "Int8")
    return frame


@pytest.fixture
def manifest() -> pd.DataFrame:
    train = [f"train caption {i // 2}" for i in range(60)] + [None] * 5
    return manifest_of(
        {"train": train, "validate": ["unseen"], "test": ["b", "a", None, "b", "train caption 1"]}
    )


def test_test_set_is_every_unique_test_caption_of_its_first_image(manifest):
    drawn = prompts.draw_test(manifest)
    assert drawn["caption"].to_list() == ["b", "a", "train caption 1"]
    assert drawn["image_id"].to_list() == ["test-0", "test-1", "test-4"]
    assert drawn["replicate"].to_list() == [0, 0, 0]
    findings = manifest.set_index("image_id").loc[drawn["image_id"], list(FINDINGS)]
    pd.testing.assert_frame_equal(
        drawn[list(FINDINGS)], findings.reset_index(drop=True), check_dtype=True
    )


def both_methods(texts):
    """A test split of (caption, report) pairs; the caption is from GPT-4 where the two differ."""
    frame = manifest_of({"train": ["x"], "test": [caption for caption, _ in texts]})
    frame["report"] = ["x", *(report for _, report in texts)]
    is_report = frame["caption"] == frame["report"]
    frame["caption_source"] = is_report.map({True: RULE_BASED, False: GPT4})
    frame.loc[frame["caption"].isna(), "caption_source"] = None
    return frame


def test_the_test_set_holds_both_wordings_and_the_captions_first():
    texts = [("a", "a's report"), ("b", "b"), ("c", None), ("d", "b"), ("e", "a's report")]
    drawn = prompts.draw_test(both_methods(texts))
    assert list(zip(drawn["caption"], drawn["image_id"], drawn["second_wording"], strict=True)) == [
        ("a", "test-0", False),
        ("b", "test-1", False),  # d's report is b's caption: once
        ("c", "test-2", False),
        ("d", "test-3", False),
        ("e", "test-4", False),
        ("a's report", "test-0", True),
    ]
    assert drawn["caption_source"].to_list() == [GPT4, RULE_BASED, GPT4, GPT4, GPT4, RULE_BASED]
    assert scored_prompts(drawn, "as_published").equals(drawn)
    assert scored_prompts(drawn, "sound")["caption"].to_list() == ["a", "b", "c", "d", "e"]


def test_second_wordings_change_no_prompt_of_a_caption():
    texts = [("a", "a"), ("b", "b"), ("c", "c")]
    alone = prompts.draw_test(both_methods(texts))
    rewritten = prompts.draw_test(both_methods([(text, f"{text}'s report") for text, _ in texts]))
    assert len(rewritten) == 6
    columns = ["prompt_id", "image_id", "caption", "seed", "replicate"]
    pd.testing.assert_frame_equal(alone[columns], rewritten[columns].head(3))


def test_captions_that_are_no_rewriting_have_no_second_wording(manifest):
    manifest["caption_source"] = manifest["caption_source"].replace({"x": "impression"})
    manifest["report"] = "another text"
    assert not prompts.draw_test(manifest)["second_wording"].any()


def official(captions, sources, labels):
    frame = manifest_of({"train": captions})
    frame["caption_source"] = sources
    frame["Edema"] = pd.array(labels, "Int8")
    return frame


def test_the_official_draw_takes_certain_gpt4_rows_and_drops_captions_that_recur():
    captions = [f"c{i // 2}" for i in range(40)]
    sources = [RULE_BASED if i % 10 == 9 else GPT4 for i in range(40)]
    labels = [-1 if i % 8 == 0 else None for i in range(40)]
    frame = official(captions, sources, labels)
    eligible = [i for i in range(40) if i % 10 != 9 and i % 8]
    drawn = prompts.draw_augment(frame, len(eligible), 42, "official")
    assert len(drawn) == len({captions[i] for i in eligible}) < len(eligible)
    assert set(drawn["caption_source"]) == {GPT4}
    assert not (drawn[list(FINDINGS)] == -1).any(axis=None)
    rows = frame.iloc[eligible].reset_index(drop=True)
    order = np.random.RandomState(42).permutation(len(rows))[:12]
    expected = list(dict.fromkeys(rows["caption"].iloc[order]))
    assert prompts.draw_augment(frame, 12, 42, "official")["caption"].to_list() == expected


def test_the_official_draw_says_what_it_cannot_take():
    frame = official(["a", "b", "c"], [GPT4, RULE_BASED, GPT4], [-1, None, None])
    with pytest.raises(InputError, match=r"1 have an uncertain label, 1 a rule-based caption") as e:
        prompts.draw_augment(frame, 2, 42, "official")
    assert "draw: unique" in str(e.value)


def test_training_captions_are_drawn_as_the_official_release_draws_them(manifest):
    train = manifest[manifest["split"] == "train"]
    unique = train.dropna(subset=["caption"]).drop_duplicates(subset=["caption"])
    # DataFrame.sample without replacement is the head of numpy's legacy permutation.
    expected = unique["caption"].to_numpy()[np.random.RandomState(42).permutation(30)[:12]]
    assert prompts.draw_augment(manifest, 12, 42)["caption"].to_list() == list(expected)
    assert prompts.draw_augment(manifest, 12, 43)["caption"].to_list() != list(expected)
    privacy = prompts.draw_privacy(manifest, 5, 42, PUBLISHED)
    assert privacy["caption"].drop_duplicates().to_list() == list(expected[:5])


def test_privacy_set_is_captions_by_seeds(manifest):
    drawn = prompts.draw_privacy(manifest, 5, 42, PUBLISHED)
    assert len(drawn) == 50
    assert drawn["seed"].to_list() == PUBLISHED * 5
    assert drawn["replicate"].to_list() == list(range(10)) * 5
    assert (drawn.groupby("caption")["image_id"].nunique() == 1).all()


def test_prompt_ids_are_stable_and_unique_across_sets(manifest):
    sets = [
        prompts.draw_test(manifest),
        prompts.draw_privacy(manifest, 30, 42, PUBLISHED),
        prompts.draw_augment(manifest, 30, 42),
    ]
    ids = pd.concat(sets)["prompt_id"]
    assert ids.is_unique
    assert ids.iloc[0] == f"test-{hashlib.sha256(b'b').hexdigest()[:16]}-r00"
    assert sets[1]["prompt_id"].iloc[9].endswith("-r09")


def test_seeds_are_frozen():
    # Images depend on these seeds: a change of the formula must be noticed.
    assert prompts.prompt_seed("test", "No acute findings.") == 720051876
    assert prompts.prompt_seed("augment", "No acute findings.") == 1880477285


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text("abc \n\té", min_size=1).filter(str.strip), min_size=1, unique=True),
    st.data(),
)
def test_seed_and_id_depend_on_nothing_but_the_prompt(captions, data):
    subset = data.draw(st.lists(st.sampled_from(captions), min_size=1, unique=True))
    whole = prompts.draw_test(manifest_of({"test": captions})).set_index("caption")
    part = prompts.draw_test(manifest_of({"test": subset})).set_index("caption")
    for column in ("seed", "prompt_id"):
        assert part[column].equals(whole.loc[part.index, column])
    assert whole["seed"].between(0, 2**31 - 1).all()


def test_a_longer_draw_keeps_the_shorter_ones_prompts(manifest):
    short = prompts.draw_augment(manifest, 7, 42)
    pd.testing.assert_frame_equal(prompts.draw_augment(manifest, 20, 42).head(7), short)


def test_too_few_captions(manifest):
    with pytest.raises(InputError, match=r"31 training captions.* has 30") as caught:
        prompts.draw_augment(manifest, 31, 42)
    assert "1 to 30" in caught.value.remedy
    with pytest.raises(InputError, match="0 training captions"):
        prompts.draw_privacy(manifest, 0, 42, PUBLISHED)
    with pytest.raises(InputError, match="no test image has a caption"):
        prompts.draw_test(manifest[manifest["split"] == "train"])


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], list(range(101))])
def test_bad_seeds(manifest, seeds):
    with pytest.raises(InputError, match="seeds"):
        prompts.draw_privacy(manifest, 2, 42, seeds)


def run(folder, prompt_set: str, *flags: str) -> None:
    outputs = ["--out", str(folder / "p.parquet"), "--csv", str(folder / "p.csv")]
    source = ["--manifest", str(folder / "manifest.parquet"), "--prompt-set", prompt_set]
    prompts.main([*source, *flags, *outputs])


def test_command_line_and_export(tmp_path, manifest):
    manifest.loc[0, "caption"] = 'Line one,\n"line two".'
    write_manifest(manifest, tmp_path / "manifest.parquet")
    flags = ["--captions", "31", "--draw-seed", "1", "--seeds", "5", "6"]
    run(tmp_path, "privacy", *flags)
    table = read_prompts(tmp_path / "p.parquet")
    with (tmp_path / "p.csv").open(newline="") as stream:
        exported = list(csv.DictReader(stream))
    assert list(exported[0]) == ["prompt_id", "caption", "seed", "replicate"]
    assert [row["caption"] for row in exported] == table["caption"].to_list()
    assert [int(row["seed"]) for row in exported] == [5, 6] * 31
    first = [(tmp_path / name).read_bytes() for name in ("p.parquet", "p.csv")]
    run(tmp_path, "privacy", *flags)
    assert [(tmp_path / name).read_bytes() for name in ("p.parquet", "p.csv")] == first
    run(tmp_path, "test")
    assert len(read_prompts(tmp_path / "p.parquet")) == 3


@pytest.mark.parametrize(
    ("prompt_set", "flags"),
    [
        ("test", ["--captions", "3"]),
        ("augment", ["--captions", "3"]),
        ("augment", ["--captions", "3", "--draw-seed", "1", "--seeds", "1"]),
        ("privacy", ["--captions", "3", "--draw-seed", "1"]),
    ],
)
def test_flags_that_a_set_needs_or_does_not_take(tmp_path, manifest, prompt_set, flags, capsys):
    write_manifest(manifest, tmp_path / "manifest.parquet")
    with pytest.raises(SystemExit):
        run(tmp_path, prompt_set, *flags)
    assert f"prompt set {prompt_set}" in capsys.readouterr().err
    assert not (tmp_path / "p.parquet").exists()
