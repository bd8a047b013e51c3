"""Spaces: conditions, grids, what is refused, and their JSON."""

import itertools
import json
import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.errors import ConfigError
from jdlopt.study import space as spaces
from jdlopt.study.space import choice, from_json, integer, log_uniform, to_json, uniform

CONDITIONAL = {
    "optim.momentum": uniform(0.0, 0.9, when={"optim.name": ("sgd", "momentum")}),
    "optim.name": choice("adam", "sgd", "momentum", role="scientific"),
    "model.features": choice((10,), (10, 10)),
    "data.batch_size": integer(8, 64, log=True),
    "optim.learning_rate": log_uniform(1e-4, 1e-1, role="nuisance"),
}


def test_a_key_follows_those_that_its_condition_names():
    assert list(spaces.check(CONDITIONAL))[-1] == "optim.momentum"


def test_keys_whose_condition_does_not_hold_are_left_out():
    space = spaces.check(CONDITIONAL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        params = spaces.suggest(study.ask(), space)
        assert ("optim.momentum" in params) == (params["optim.name"] != "adam")
        assert params["model.features"] in ((10,), (10, 10))
        assert 8 <= params["data.batch_size"] <= 64


def test_probes_hold_every_bound_and_choice():
    seen: dict[str, set] = {}
    for params in spaces.probes(spaces.check(CONDITIONAL)):
        for key, value in params.items():
            seen.setdefault(key, set()).add(value)
    assert seen["optim.name"] == {"adam", "sgd", "momentum"}
    assert seen["optim.momentum"] == {0.0, 0.9}
    assert seen["optim.learning_rate"] == {1e-4, 1e-1}


def test_a_grid_has_each_distinct_point_once():
    space = spaces.check({"a": choice(1, 2), "b": uniform(0, 1, when={"a": 2})})
    found = list(spaces.points(space))
    assert len(found) == 1 + spaces.GRID_POINTS
    assert found[0] == {"a": 1}
    assert len({json.dumps(point) for point in found}) == len(found)


def test_a_log_grid_is_even_in_logarithms():
    grid = log_uniform(1e-4, 1.0).grid()
    assert grid[0] == 1e-4 and grid[-1] == 1.0
    steps = [math.log(b / a) for a, b in itertools.pairwise(grid)]
    assert max(steps) == pytest.approx(min(steps))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: uniform(1, 0), "low must be below high"),
        (lambda: uniform(0, float("inf")), "must be finite"),
        (lambda: uniform("a", 1), "must be a number"),
        (lambda: log_uniform(0, 1), "greater than 0"),
        (lambda: integer(0.5, 2), "whole numbers"),
        (lambda: integer(1, 9, step=0), "step"),
        (lambda: integer(0, 9, log=True), "at least 1"),
        (lambda: choice("one"), "at least 2"),
        (lambda: choice(1, 1), "given twice"),
        (lambda: uniform(0, 1, role="scientfic"), "Did you mean 'scientific'"),
        (lambda: spaces.check({}), "expected"),
        (lambda: spaces.check({"a": 3}), "expected one of"),
        (lambda: spaces.check({"a": uniform(0, 1, when={"bb": 1}), "b": choice(1, 2)}), "'b'"),
        (lambda: spaces.check({"a": uniform(0, 1, when={"b": 3}), "b": choice(1, 2)}), "none of"),
        (
            lambda: spaces.check(
                {"a": uniform(0, 1, when={"b": 1}), "b": uniform(0, 1, when={"a": 1})}
            ),
            "circle",
        ),
        (lambda: from_json([{"key": "a", "kind": "normal"}]), "unknown"),
        (lambda: from_json([{"kind": "uniform"}]), "not as jdlopt writes it"),
        (lambda: from_json(3), "not as jdlopt writes it"),
    ],
)
def test_what_is_no_space_is_refused_with_the_reason(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_file_without_get_space_says_so(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("def get_config():\n    return {}\n")
    with pytest.raises(ConfigError, match=r"no function get_space\(\)"):
        spaces.load(path)
    with pytest.raises(ConfigError, match="no file"):
        spaces.load(tmp_path / "absent.py")


_numbers = st.floats(1e-6, 1e6)
_distributions = st.one_of(
    st.builds(lambda a, b: uniform(a, a + b), _numbers, _numbers),
    st.builds(lambda a, b: log_uniform(a, a * (1 + b)), _numbers, _numbers),
    st.builds(lambda a, b: integer(a, a + b), st.integers(-99, 99), st.integers(1, 99)),
    st.builds(
        lambda values: choice(*values),
        st.lists(st.one_of(st.text(), st.tuples(st.integers())), min_size=2, unique=True),
    ),
)


@given(st.dictionaries(st.text(min_size=1), _distributions, min_size=1, max_size=4))
def test_json_gives_back_the_same_space(space):
    assert from_json(json.loads(json.dumps(to_json(space)))) == space
