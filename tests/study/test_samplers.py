"""Samplers: seeds reproduce, numbers decide, two coordinators draw different points."""

import optuna
import pytest

from jdlopt.errors import ConfigError, UserError
from jdlopt.study import space as spaces
from jdlopt.study.samplers import SAMPLERS, make_sampler
from jdlopt.study.space import choice, uniform
from jdlopt.study.storage import quiet

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


@pytest.mark.slow
def test_the_gaussian_process_draws_reproducibly_and_nearer_to_what_was_good():
    pytest.importorskip("torch", reason="Optuna's Gaussian process needs PyTorch")
    found = drawn("gp", 20)
    assert found == drawn("gp", 20)
    early, late = ([abs(p["x"]) for p in some] for some in (found[:8], found[-6:]))
    assert sum(late) / len(late) < sum(early) / len(early)
