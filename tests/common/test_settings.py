"""Settings classes: what their schema, flags and values are, by hand."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import jsonschema
import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.settings import (
    Key,
    add_flags,
    check_settings,
    flag_values,
    schema_of,
    settings_in,
    settings_of_block,
    settings_of_flags,
)


def pair(text):
    name, _, value = text.partition("=")
    return name, value


@dataclass(frozen=True)
class Inner:
    rank: Annotated[int, Key("Of the factors.", minimum=1)]
    scaled: Annotated[bool, Key("Scaled.")] = False
    places: Annotated[tuple[str, ...], Key("Where.", min_items=1)] = ("all",)


@dataclass(frozen=True)
class Outer:
    size: Annotated[int, Key("Side, 100% of it.", minimum=8, maximum=64)]
    rate: Annotated[float, Key("Of learning.", above=0, below=1)]
    weights: Annotated[Path | None, Key("A file.")]
    levels: Annotated[tuple[int, ...], Key("Of it.", minimum=1, min_items=2, unique=True)]
    steps: Annotated[int, Key("Steps.", absent=0)]
    loss: Annotated[Literal["a", "b"], Key("Which.")] = "a"
    saves_memory: Annotated[bool, Key("Slower.", optional=True)] = False
    decay: Annotated[float | None, Key("Or null.", above=0, optional=True)] = None
    inner: Annotated[Inner | None, Key("A part.", optional=True)] = None
    options: Annotated[
        Mapping[str, str],
        Key("More.", optional=True, flag="option", parse=pair, schema={"type": "object"}),
    ] = field(default_factory=dict)


NEEDED = ["--size", "16", "--rate", "0.5", "--weights", "w", "--levels", "4", "8"]


def read(words, only=None):
    parser = argparse.ArgumentParser()
    add_flags(parser, Outer, only)
    return settings_of_flags(Outer, parser.parse_args(words), parser)


def test_the_schema_has_types_bounds_and_what_is_needed():
    found = schema_of(Outer)
    assert found["required"] == ["size", "rate", "weights", "levels", "loss"]
    assert found["additionalProperties"] is False
    described = {name: {**key} for name, key in found["properties"].items()}
    assert all(key.pop("description") for key in described.values())
    assert described.pop("inner")["required"] == ["rank", "scaled", "places"]
    assert described == {
        "size": {"type": "integer", "minimum": 8, "maximum": 64},
        "rate": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "weights": {"type": ["string", "null"]},
        "levels": {
            "type": "array",
            "minItems": 2,
            "uniqueItems": True,
            "items": {"type": "integer", "minimum": 1},
        },
        "steps": {"type": "integer"},
        "loss": {"enum": ["a", "b"]},
        "saves_memory": {"type": "boolean"},
        "decay": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "options": {"type": "object"},
    }


def test_flags_become_settings_with_defaults_for_what_is_left_out():
    settings = read(NEEDED)
    assert settings == Outer(16, 0.5, Path("w"), (4, 8), 0)
    more = ["--loss", "b", "--saves-memory", "--decay", "0.1", "--option", "x=1", "--option", "y=2"]
    more += ["--inner-rank", "3", "--inner-places", "top", "end"]
    settings = read([*NEEDED, *more])
    assert (settings.loss, settings.saves_memory, settings.decay) == ("b", True, 0.1)
    assert settings.options == {"x": "1", "y": "2"}
    assert settings.inner == Inner(3, False, ("top", "end"))
    assert read([*NEEDED, "--inner-rank", "3"]).inner == Inner(3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "7"], "argument --size: 7 is less than the minimum of 8"),
        (["--size", "65"], "argument --size: 65 is greater than the maximum of 64"),
        (["--size", "8.5"], "argument --size: invalid int value: '8.5'"),
        (["--rate", "0"], "argument --rate: 0.0 is less than or equal to the minimum of 0"),
        (["--rate", "1"], "argument --rate: 1.0 is greater than or equal to the maximum of 1"),
        (["--rate", "nan"], "argument --rate: nan is no finite number"),
        (["--levels", "4", "0"], "argument --levels: 0 is less than the minimum of 1"),
        (["--loss", "c"], "argument --loss: invalid choice: 'c'"),
        (["--inner-places", "top"], "--inner-rank is needed with the other --inner flags"),
        (["--levels", "4"], "--levels: 1 of the 2 values or more that are needed"),
        (["--levels", "4", "4"], "--levels: a value recurs"),
    ],
)
def test_a_flag_out_of_its_bounds_is_refused_by_its_name(words, said, capsys):
    with pytest.raises(SystemExit):
        read([*NEEDED, *words])
    assert said in capsys.readouterr().err


def test_help_is_what_the_key_says_with_its_default():
    parser = argparse.ArgumentParser()
    add_flags(parser, Outer)
    text = " ".join(parser.format_help().split())
    assert "Side, 100% of it." in text
    assert "Which. (default: a)" in text
    assert "Where. (default: all)" in text


BLOCK = {
    "size": 16,
    "rate": 0.5,
    "weights": None,
    "levels": [4, 8],
    "loss": "b",
    "inner": {"rank": 2, "scaled": True, "places": ["top"]},
    "options": {"x": "1"},
    "repeats": 3,  # another script's
}


def test_a_block_of_the_config_becomes_flags_that_are_read_back():
    jsonschema.validate({k: v for k, v in BLOCK.items() if k != "repeats"}, schema_of(Outer))
    values = flag_values(Outer, BLOCK)
    assert values == {
        **{name: BLOCK[name] for name in ("size", "rate", "weights", "levels", "loss")},
        **{"inner_rank": 2, "inner_scaled": True, "inner_places": ["top"]},
        "option": {"x": "1"},
    }
    assert flag_values(Outer, BLOCK, only=("size",)) == {"size": 16}
    assert "size" not in flag_values(Outer, BLOCK, without=("size",))
    settings = settings_of_block(Outer, BLOCK)
    inner = ["--inner-rank", "2", "--inner-scaled", "--inner-places", "top"]
    assert settings == Outer(
        16, 0.5, None, (4, 8), 0, "b", inner=Inner(2, True, ("top",)), options={"x": "1"}
    )
    words = [*NEEDED, "--loss", "b", *inner, "--option", "x=1"]
    assert read(words) == settings_of_block(Outer, BLOCK, weights=Path("w"))


def test_settings_made_in_code_are_held_to_the_same_bounds():
    check_settings(Outer(8, 0.5, None, (1, 2), 0))
    faulty = [
        (Outer(7, 0.5, None, (1, 2), 0), "size: 7 is less than", "--size"),
        (Outer(8, 0.5, None, (1, 0), 0), "levels: 0 is less than", "--levels"),
        (Outer(8, 0.5, None, (1,), 0), "levels: 1 of the 2 values", "--levels"),
        (Outer(8, 0.5, None, (1, 2), 0, "c"), "loss: 'c' is none of", "--loss"),
        (Outer(8, 0.5, None, (1, 2), 0, inner=Inner(0)), "rank: 0 is less than", "--inner-rank"),
    ]
    for settings, said, flag in faulty:
        with pytest.raises(InputError, match=said) as caught:
            check_settings(settings)
        assert caught.value.where == flag


def test_a_class_that_cannot_be_derived_from_is_refused():
    @dataclass
    class Bare:
        size: int

    @dataclass
    class Odd:
        size: Annotated[bytes, Key("Of bytes.")]

    @dataclass
    class Lost:
        size: Annotated[int, Key("Of it.", optional=True)]

    for cls, said in ((Bare, "with a Key"), (Odd, "no type"), (Lost, "has no default")):
        with pytest.raises(TypeError, match=said):
            settings_in(cls)
