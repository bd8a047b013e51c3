"""Every formulation gives the same numbers; the choice is measured once and kept on disk."""

from __future__ import annotations

import functools
import json

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.models import convolution_choice
from jdlopt.models.convolution import convolve
from jdlopt.models.formulations import FORMULATIONS, Unsuited, Window, lax_outputs, rule

SHAPES = ((2, 6, 6, 3), (3, 3, 3, 4))


@st.composite
def convolutions(draw):
    rank = draw(st.sampled_from([1, 2]))
    taps = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    space = tuple(draw(st.integers(max(taps), 6)) for _ in range(rank))
    strides = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    padding = tuple((draw(st.integers(0, tap - 1)), draw(st.integers(0, 2))) for tap in taps)
    return (2, *space, 3), (*taps, 3, draw(st.sampled_from([2, 9]))), Window(strides, padding)


@hypothesis.given(convolutions())
@hypothesis.settings(max_examples=2)
def test_every_formulation_equals_lax(case):
    x_shape, kernel_shape, window = case
    x, kernel = (
        jax.random.normal(jax.random.key(seed), shape)
        for seed, shape in enumerate((x_shape, kernel_shape))
    )

    @jax.jit
    def reference(x, kernel):
        y, pull = jax.vjp(lambda x, k: lax_outputs(x, k, window), x, kernel)
        dy = jnp.cos(y)
        return y, dy, *pull(dy)

    y, dy, dx, dk = reference(x, kernel)
    space, taps = x_shape[1:-1], kernel_shape[:-2]
    wanted = {
        "outputs": (y, (x, kernel), (window,)),
        "input_gradient": (dx, (dy, kernel), (window, space)),
        "kernel_gradient": (dk, (x, dy), (window, taps)),
    }
    for product, (expected, arrays, rest) in wanted.items():
        for name, way in FORMULATIONS[product].items():
            try:
                found = jax.jit(lambda a, b, way=way, rest=rest: way(a, b, *rest))(*arrays)
            except Unsuited:
                continue
            scale = max(1.0, float(jnp.abs(expected).max()))
            np.testing.assert_allclose(
                found / scale, expected / scale, atol=1e-5, err_msg=f"{product} {name}"
            )


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file for choices, in which every 2-D shape counts as worth measuring."""
    monkeypatch.setattr(convolution_choice, "LEAST_WORK", 1)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    yield tmp_path / "cache" / "choices.json"
    convolution_choice.keep_choices(None)


def products(x, kernel):
    """The convolution and its gradients, in a function of its own: jax traces it anew."""

    @jax.jit
    def all_of(x, kernel):
        y, pull = jax.vjp(convolve, x, kernel)
        return y, *pull(jnp.cos(y))

    return all_of(x, kernel)


def arguments(batch=()):
    return [
        jax.random.normal(jax.random.key(seed), (*batch, *shape))
        for seed, shape in enumerate(SHAPES)
    ]


@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_forms_for_large_shapes_equal_lax(strides, monkeypatch):
    monkeypatch.setattr("jdlopt.models.formulations._CACHED", 1)  # one image at a time
    window = Window(strides, ((1, 1), (2, 0)))
    x, kernel = arguments()
    y, pull = jax.vjp(lambda x, k: lax_outputs(x, k, window), x, kernel)
    dx, dk = pull(y)
    tried = [("kernel_gradient", name, dk, (x, y), (3, 3)) for name in ("chunks", "turned")]
    tried.append(("outputs", "paired", y, (x, kernel), None))
    both = ("paired", "winograd")
    tried += [("input_gradient", name, dx, (y, kernel), (6, 6)) for name in both]
    if strides == (1, 1):
        tried.append(("outputs", "winograd", y, (x, kernel), None))
    for product, name, expected, arrays, size in tried:
        rest = (window,) if size is None else (window, size)
        found = jax.jit(functools.partial(called, product, name, rest))(*arrays)
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5, err_msg=name)


def called(product, name, rest, first, second):
    return FORMULATIONS[product][name](first, second, *rest)


def test_the_switch_leaves_choices_to_the_rules(file, monkeypatch):
    monkeypatch.setenv("JDLOPT_CONVOLUTIONS", "rules")
    monkeypatch.setattr(convolution_choice, "_measured", lambda *_: pytest.fail("measured"))
    convolution_choice.keep_choices(file)
    products(*arguments())
    assert not file.exists()


def test_a_choice_that_does_not_suit_gives_way_to_the_rule(file, monkeypatch):
    def unsuited(*_):
        raise Unsuited

    monkeypatch.setattr(convolution_choice, "_measured", lambda *_: "other")
    for ways in FORMULATIONS.values():
        monkeypatch.setitem(ways, "other", unsuited)
    expected = products(*arguments())
    convolution_choice.keep_choices(file)
    for a, b in zip(products(*arguments()), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert set(json.loads(file.read_text()).values()) == {"other"}


def test_the_rules_decide_unless_choices_are_kept(monkeypatch):
    def fail(*_):
        raise AssertionError("measured")

    monkeypatch.setattr(convolution_choice, "LEAST_WORK", 1)
    monkeypatch.setattr(convolution_choice, "_measured", fail)
    products(*arguments())


def test_a_choice_is_measured_once_and_kept(file, monkeypatch):
    expected = products(*arguments())
    convolution_choice.keep_choices(file)
    found = products(*arguments())
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    kept = json.loads(file.read_text())
    assert sorted(key.split()[4] for key in kept) == sorted(FORMULATIONS)
    assert [path.name for path in file.parent.iterdir()] == [file.name]

    monkeypatch.setattr(convolution_choice, "_measured", lambda *_: pytest.fail("measured again"))
    convolution_choice.keep_choices(file)  # as a new process would
    again = products(*arguments())
    assert all((a == b).all() for a, b in zip(again, found, strict=True))


@pytest.mark.parametrize("product", FORMULATIONS)
def test_a_kept_choice_is_taken(file, monkeypatch, product):
    monkeypatch.setattr(convolution_choice, "_measured", lambda product, *_: "patches")
    convolution_choice.keep_choices(file)
    taken = []
    ways = dict(FORMULATIONS[product])
    marked = ways["patches"]
    monkeypatch.setitem(
        FORMULATIONS[product], "patches", lambda *args: taken.append(1) or marked(*args)
    )
    monkeypatch.setattr("jdlopt.models.formulations._PATCH", 1)
    products(*arguments())
    assert taken


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"key": 3}', "\udc80"])
def test_a_damaged_file_is_written_anew(file, text):
    file.parent.mkdir()
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    convolution_choice.keep_choices(file)
    convolution_choice._keep("jaxlib 1 x", "outputs", "lax")
    assert json.loads(file.read_text()) == {"jaxlib 1 x": "lax"}


def test_another_version_of_jaxlib_measures_anew(file, monkeypatch):
    monkeypatch.setattr(convolution_choice, "_measured", lambda *_: "patches")
    convolution_choice.keep_choices(file)
    products(*arguments())
    monkeypatch.setattr("jaxlib.__version__", "0.0.0")
    products(*arguments())
    assert len(json.loads(file.read_text())) == 6


def test_the_first_process_to_choose_is_right(file):
    convolution_choice.keep_choices(file)
    convolution_choice._keep("jaxlib 1 x", "outputs", "winograd")
    convolution_choice._keep("jaxlib 1 x", "outputs", "lax")
    assert convolution_choice._known == {"jaxlib 1 x": "winograd"}


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path):
    (tmp_path / "taken").write_text("")
    convolution_choice.keep_choices(tmp_path / "taken" / "choices.json")
    convolution_choice._keep("jaxlib 1 x", "outputs", "winograd")
    assert convolution_choice._known == {"jaxlib 1 x": "winograd"}
    convolution_choice.keep_choices(None)


def test_batched_kernels_keep_the_rules(file, monkeypatch):
    expected = jax.vmap(functools.partial(convolve))(*arguments((2,)))
    monkeypatch.setattr(convolution_choice, "_measured", lambda *_: "patches")
    monkeypatch.setattr("jdlopt.models.formulations._PATCH", 1)
    convolution_choice.keep_choices(file)
    taken = []
    for product, ways in FORMULATIONS.items():
        by_rule = rule(product, (3, 3), 3, Window((1, 1), ((1, 1),) * 2))
        way = ways[by_rule]
        monkeypatch.setitem(
            ways, by_rule, lambda *args, way=way, p=product: taken.append(p) or way(*args)
        )

    @jax.jit
    def pulled(x, kernel):
        y, pull = jax.vjp(jax.vmap(convolve), x, kernel)
        return y, *pull(y)

    y, dx, dk = pulled(*arguments((2,)))
    np.testing.assert_allclose(y, expected, atol=1e-4)
    assert dx.shape == (2, *SHAPES[0])
    assert dk.shape == (2, *SHAPES[1])
    assert set(taken) == set(FORMULATIONS)
