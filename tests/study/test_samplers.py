"""Samplers: seeds reproduce, numbers decide, two coordinators draw different points."""

import math

import optuna
import pytest

from jdlopt.errors import ConfigError, UserError
from jdlopt.study import space as spaces
from jdlopt.study.database import quiet
from jdlopt.study.samplers import SAMPLERS, make_sampler
from jdlopt.study.space import choice, integer, log_uniform, uniform

SPACE = spaces.check(
    {"x": uniform(-1, 1), "y": choice("a", "b"), "z": uniform(0, 1, when={"y": "b"})}
)


def drawn(name, count, seed=0, slot=0, objective=True):
    quiet()
    study = optuna.create_study(sampler=make_sampler(name, seed, slot=slot, space=SPACE))
    found = []
    for _ in range(count):
        trial = study.ask()
        params = spaces.suggest(trial, SPACE)
        found.append(params)
        if objective:
            study.tell(trial, params["x"] ** 2)
    return found


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "gp"])
def test_equal_seeds_draw_equal_points_and_others_draw_others(name):
    assert drawn(name, 14) == drawn(name, 14)
    assert drawn(name, 14) != drawn(name, 14, seed=1)
    assert drawn(name, 14) != drawn(name, 14, slot=1)


@pytest.mark.parametrize("name", ["random", "quasi_random"])
def test_points_of_history_free_samplers_depend_on_no_result(name):
    assert drawn(name, 10, objective=False) == drawn(name, 10)


def test_quasi_random_points_are_spread():
    xs = sorted(params["x"] for params in drawn("quasi_random", 32))
    cells = {int((x + 1) / 2 * 16) for x in xs}
    assert len(cells) == 16  # random draws of 32 would leave about two of 16 cells empty


def test_unknown_samplers_name_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'cmaes'"):
        make_sampler("cma", 0)
    with pytest.raises(UserError, match="one objective"):
        make_sampler("cmaes", 0, objectives=2)


def test_cmaes_comes_nearer_and_needs_the_trials_alone():
    quiet()
    space = spaces.check({"x": log_uniform(1e-4, 1.0), "n": integer(1, 64), "z": uniform(-3, 1)})

    def distance(p):
        return math.log10(p["x"] / 0.03) ** 2 + ((p["n"] - 40) / 20) ** 2 + (p["z"] + 2) ** 2

    def draw(study):
        trial = study.ask()
        params = spaces.suggest(trial, space)
        study.tell(trial, distance(params))
        return params

    first = optuna.create_study(sampler=make_sampler("cmaes", 0, space=space))
    found = [draw(first) for _ in range(80)]
    assert all(isinstance(p["n"], int) and 1 <= p["n"] <= 64 for p in found)
    early, late = ([distance(p) for p in some] for some in (found[:15], found[-15:]))
    assert sum(late) < 0.2 * sum(early)
    # a study that holds the same trials goes on with the same points
    again = optuna.create_study(sampler=make_sampler("cmaes", 0, space=space))
    for trial in first.trials[:50]:
        assert all(type(value) is int for value in trial.system_attrs.values())  # no pickle
        again.add_trial(trial)
    assert [draw(again) for _ in range(30)] == found[50:]


@pytest.mark.slow
def test_the_gaussian_process_draws_reproducibly_and_nearer_to_what_was_good():
    pytest.importorskip("torch", reason="Optuna's Gaussian process needs PyTorch")
    found = drawn("gp", 20)
    assert found == drawn("gp", 20)
    early, late = ([abs(p["x"]) for p in some] for some in (found[:8], found[-6:]))
    assert sum(late) / len(late) < sum(early) / len(early)
