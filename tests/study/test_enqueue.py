"""Points that are asked for: how they are written, what is refused, where the base config lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.cli.flags import parser, read_flags
from jdlopt.errors import UserError
from jdlopt.study import space as spaces
from jdlopt.study.enqueue import (
    Planned,
    base_point,
    checked,
    completed,
    first_points,
    outside_in_words,
    read_points,
)

SPACE = spaces.check(
    {
        "optim.name": spaces.choice("adamw", "momentum"),
        "optim.learning_rate": spaces.log_uniform(1e-3, 1.0),
        "optim.momentum": spaces.uniform(0.0, 0.99, when={"optim.name": "momentum"}),
        "data.batch_size": spaces.integer(16, 64, step=8),
        "model.features": spaces.choice((8,), (8, 8), None),
        "model.norm": spaces.choice("1", 2, "none", None),
    }
)


def values(text: str) -> dict[str, object]:
    [point] = checked(SPACE, read_points(text))
    return point.values


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("optim.learning_rate=0.01", {"optim.learning_rate": 0.01}),
        ("optim.learning_rate=1", {"optim.learning_rate": 1.0}),
        (
            " optim.learning_rate = 1e-2 , data.batch_size = 32 ",
            {"optim.learning_rate": 0.01, "data.batch_size": 32},
        ),
        (
            "model.features=8,8,optim.name=momentum,optim.momentum=0.5",
            {"model.features": (8, 8), "optim.name": "momentum", "optim.momentum": 0.5},
        ),
        ("model.features=(8,)", {"model.features": (8,)}),
        ("model.features=8", {"model.features": (8,)}),
        ("model.features=None", {"model.features": None}),
        ("model.norm=2", {"model.norm": 2}),
        ("model.norm='1'", {"model.norm": "1"}),
        ("model.norm=1", {"model.norm": "1"}),
        ("model.norm=none", {"model.norm": "none"}),
    ],
)
def test_a_point_is_written_as_keys_and_values(text: str, found: dict[str, object]) -> None:
    read = values(text)
    assert read == found
    assert {key: type(value) for key, value in read.items()} == {
        key: type(value) for key, value in found.items()
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optim.learning_rat=0.1", "optim.learning_rat is not searched. Did you mean"),
        ("optim.learning_rate=3", r"3 lies outside \[0.001, 1\]"),
        ("optim.learning_rate=nan", "expected a number"),
        ("optim.learning_rate=fast", "expected a number, found 'fast'"),
        ("optim.learning_rate=True", "expected a number"),
        ("data.batch_size=20", "20 is not from 16 in steps of 8"),
        ("data.batch_size=16.5", "16.5 is not from 16"),
        ("optim.name=adam", "'adam' is none of 'adamw', 'momentum'. Did you mean 'adamw'"),
        ("optim.momentum=0.5", "exists only if optim.name is 'momentum': name that as well"),
        ("optim.name=adamw,optim.momentum=0.5", "and it is 'adamw' here"),
        ("0.01", "can't be read"),
        ("", "can't be read"),
        ("optim.learning_rate=0.1,optim.learning_rate=0.2", "twice"),
        ("nowhere.json", "nowhere.json can't be read"),
    ],
)
def test_what_is_no_point_of_the_space_is_told(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        values(text)


def test_a_file_has_points_of_flat_or_nested_keys(tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    path.write_text(json.dumps([{"optim": {"learning_rate": 0.1}}, {"model.features": [8, 8]}]))
    found = [one.values for one in checked(SPACE, read_points(str(path)))]
    assert found == [{"optim.learning_rate": 0.1}, {"model.features": (8, 8)}]
    for text in ("{", "3", "[]", "[3]"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"JSON|holds no points"):
            read_points(str(path))


def test_every_mistake_is_told_at_once_and_equal_points_are_one() -> None:
    with pytest.raises(UserError) as error:
        checked(SPACE, [{"optim.learning_rate": 9}, {}, {"a": 1, "data.batch_size": 3}])
    assert len(str(error.value).splitlines()) == 4
    assert "point 1" in str(error.value) and "point 3" in str(error.value)
    twice = checked(SPACE, [{"optim.learning_rate": 1}, {"optim.learning_rate": 1.0}])
    assert len(twice) == 1


def test_flags_are_read_as_python_gives_them() -> None:
    words = ["tune", "--workdir=x", "--enqueue=optim.learning_rate=0.01,model.features=8,8"]
    _, flags = read_flags(parser().parse_args([*words, "--enqueue=data.batch_size=32"]), {})
    options = flags.options  # type: ignore[attr-defined]
    options.check()
    assert [one.values for one in checked(SPACE, options.enqueue)] == [
        {"optim.learning_rate": 0.01, "model.features": (8, 8)}, {"data.batch_size": 32},
    ]  # fmt: skip
    assert options.base


CONFIG = {
    "optim.name": "momentum",
    "optim.learning_rate": 0.01,
    "optim.momentum": 0.9,
    "data.batch_size": 32,
    "model.features": [8, 8],
    "model.norm": None,
}


def test_the_base_config_is_a_point_as_far_as_it_lies_in_the_space() -> None:
    inside = base_point(SPACE, CONFIG)
    assert not inside.outside and outside_in_words(inside, SPACE) == ""
    assert inside.values == {
        "optim.name": "momentum", "optim.learning_rate": 0.01, "optim.momentum": 0.9,
        "data.batch_size": 32, "model.features": (8, 8), "model.norm": None,
    }  # fmt: skip
    partly = base_point(SPACE, {**CONFIG, "optim.name": "sgd", "optim.learning_rate": 3.0})
    assert partly.outside == {"optim.name": "sgd", "optim.learning_rate": 3.0}
    assert partly.values.keys() == {"data.batch_size", "model.features", "model.norm"}
    said = outside_in_words(partly, SPACE)
    assert "optim.learning_rate, 3.0, lies outside [0.001, 1]" in said
    assert "optim.name, 'sgd', is none of 'adamw', 'momentum'" in said
    only = spaces.check({"optim.learning_rate": spaces.uniform(0.1, 1.0)})
    found, said = first_points(only, CONFIG, [{"optim.learning_rate": 0.5}], base=True)
    assert [one.origin for one in found] == ["enqueued"] and "not among the trials" in said
    same, said = first_points(SPACE, CONFIG, [inside.values], base=True)
    assert [one.origin for one in same] == ["base"] and said == ""
    assert [one.origin for one in first_points(SPACE, CONFIG, [], base=False)[0]] == []


@given(st.integers(0, 2**32 - 1), st.sets(st.sampled_from(sorted(SPACE))))
def test_any_point_of_the_space_is_read_back_and_completed(seed: int, keys: set[str]) -> None:
    whole = completed(SPACE, Planned("enqueued", {"data.batch_size": 16}), seed)
    assert whole["data.batch_size"] == 16
    if "optim.momentum" in keys:
        keys |= {"optim.name"}
    part = {key: value for key, value in whole.items() if key in keys} or whole
    [planned] = checked(SPACE, [json.loads(json.dumps(part))])
    assert planned.values == part
    assert Planned.from_dict(json.loads(json.dumps(planned.to_dict())), SPACE) == planned
    again = completed(SPACE, planned, seed + 1)
    assert part.items() <= again.items()
    text = ",".join(f"{key}={value!r}" for key, value in part.items())
    assert checked(SPACE, read_points(text))[0].values == part
