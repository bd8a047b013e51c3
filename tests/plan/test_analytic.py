"""The estimate against closed forms, against a state's own bytes, and what holds on any mesh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jdlopt.errors import ConfigError
from jdlopt.models import make_model
from jdlopt.models.precision import computing_in
from jdlopt.plan.analytic import Workload, estimate, estimated, workload
from jdlopt.plan.chips import CHIPS, find_chip
from jdlopt.plan.traced import trace
from jdlopt.plan.walked import AGAIN, BACKWARD, FORWARD

V5E = find_chip("v5e")
LAYERS, WIDTH, HIDDEN, POSITIONS = 4, 512, 2048, 10  # FSDP splits all of them on any mesh here
RULES = (("up$", None, "tensor"), ("down$", "tensor", None))


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def mlp_layer(x: jax.Array, weights: dict[str, jax.Array]) -> tuple[jax.Array, None]:
    half = {name: value.astype(jnp.bfloat16) for name, value in weights.items()}
    return x + jax.nn.gelu(x @ half["up"]) @ half["down"], None


def stack(params: dict[str, jax.Array], x: jax.Array, full: bool = False) -> jax.Array:
    layer = jax.checkpoint(mlp_layer) if full else mlp_layer
    return lax.scan(layer, x.astype(jnp.bfloat16), params)[0].astype(jnp.float32)


@pytest.fixture(scope="module")
def step() -> Workload:
    work = workload(
        lambda params, x: stack(params["layers"], x),
        {"layers": {"up": shape(LAYERS, WIDTH, HIDDEN), "down": shape(LAYERS, HIDDEN, WIDTH)}},
        shape(1, POSITIONS, WIDTH),
        optimizer=optax.adam(1e-3),
        rules=RULES,
    )
    return work


def flops(function: object, params: object, batch: object, size: int) -> list[float]:
    traced = trace(function, params, batch)  # type: ignore[arg-type]
    return [float(traced.flops(phase)[1]) * size for phase in (FORWARD, BACKWARD, AGAIN)]


def test_flops_of_a_dense_layer() -> None:
    params = {"hidden": shape(32, 64), "out": shape(64, 8)}
    found = flops(lambda p, x: jnp.tanh(x @ p["hidden"]) @ p["out"], params, shape(1, 32), 16)
    first, second = 2 * 16 * 32 * 64, 2 * 16 * 64 * 8
    # the first layer's inputs need no gradient
    assert found == [first + second, first + 2 * second, 0]


def test_flops_of_attention() -> None:
    length, heads, width = 6, 2, 8

    def attention(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        query, key, value = ((x @ params[name]).reshape(-1, length, heads, width) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("nqhd,nkhd->nhqk", query, key))
        return jnp.einsum("nhqk,nkhd->nqhd", weights, value)

    params = {name: shape(12, heads * width) for name in "qkv"}
    projected = 3 * 2 * length * 12 * heads * width
    mixed = 2 * 2 * heads * length * length * width
    found = flops(attention, params, shape(1, length, 12), 4)
    assert found == [4 * (projected + mixed), 4 * (projected + 2 * mixed), 0]


@pytest.mark.parametrize("stride", [1, 2])
def test_flops_of_a_convolution(stride: int) -> None:
    def convolve(params: jax.Array, x: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, params, (stride, stride), "SAME", dimension_numbers=numbers
        )

    side = 8 // stride
    once = 2 * side * side * 3 * 3 * 4 * 16
    found = flops(convolve, shape(3, 3, 4, 16), shape(1, 8, 8, 4), 5)
    assert found == [5 * once, 5 * once, 0]


def test_what_is_computed_again_is_told_apart() -> None:
    params = {"up": shape(LAYERS, WIDTH, HIDDEN), "down": shape(LAYERS, HIDDEN, WIDTH)}
    once = 2.0 * LAYERS * POSITIONS * WIDTH * HIDDEN
    batch = shape(1, POSITIONS, WIDTH)
    plain = flops(stack, params, batch, 1)
    again = flops(lambda params, x: stack(params, x, True), params, batch, 1)
    # the second product's result is not needed again
    assert plain == [2 * once, 4 * once, 0] and again == [2 * once, 4 * once, once]


def test_full_rematerialisation_keeps_less(step: Workload) -> None:
    params = {"layers": {"up": shape(LAYERS, WIDTH, HIDDEN), "down": shape(LAYERS, HIDDEN, WIDTH)}}
    full = workload(
        lambda params, x: stack(params["layers"], x, True), params, shape(1, POSITIONS, WIDTH)
    )
    kept, less = (estimated(one, V5E, {}, 64).memory.activations for one in (step, full))
    assert less < kept / 3


def test_tensor_parallelism_reduces_activations_four_times_a_layer(step: Workload) -> None:
    found = estimated(step, V5E, {"tensor": 4}, 8)
    (sent,) = (one for one in found.collectives if one.what == "activations")
    activations = 8 * POSITIONS * WIDTH * 2
    assert (sent.axis, sent.kind, sent.waited) == ("tensor", "all-reduce", True)
    assert sent.nbytes == 2 * LAYERS * activations  # without attention: two of the four


def test_fsdp_gathers_twice_and_scatters_once_what_is_used(step: Workload) -> None:
    found = estimated(step, V5E, {"fsdp": 8}, 8)
    sent = {one.kind: one.nbytes for one in found.collectives}
    half = 2 * LAYERS * WIDTH * HIDDEN * 2
    assert sent == {"all-gather": 2 * half, "reduce-scatter": half}


def test_data_parallelism_reduces_every_gradient_once(step: Workload) -> None:
    (sent,) = estimated(step, V5E, {"data": 8}, 8).collectives
    assert (sent.axis, sent.kind) == ("data", "all-reduce")
    assert sent.nbytes == 2 * LAYERS * WIDTH * HIDDEN * 2


def test_the_state_is_as_large_as_its_arrays(step: Workload) -> None:
    memory = estimated(step, V5E, {}, 8).memory
    numbers = 2 * LAYERS * WIDTH * HIDDEN
    assert memory.parameters == 4 * numbers
    assert memory.optimizer == 2 * 4 * numbers + 4  # two moments, and the number of updates


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(CHIPS)),
    st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 3),
    st.sampled_from(["data", "fsdp", "tensor"]),
)
def test_more_chips_never_hold_more_each(
    step: Workload, name: str, sizes: tuple[int, int, int], axis: str
) -> None:
    mesh = dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
    more = {**mesh, axis: 2 * mesh[axis]}
    few, many = (estimated(step, CHIPS[name], one, 256) for one in (mesh, more))
    assert many.chips == 2 * few.chips
    for part in ("parameters", "optimizer", "activations"):
        assert getattr(many.memory, part) <= getattr(few.memory, part)
    # what FSDP gathers, it gathers at any size above 1
    gathered = many.memory.gathered if few.memory.gathered == 0 else 0
    assert many.memory.total - gathered <= few.memory.total
    times = many.seconds
    assert times.low <= times.expected <= times.high


def test_a_loss_of_several_outputs_and_a_batch_of_several_inputs() -> None:
    found = estimate(
        lambda params, batch: (batch["left"] @ params, batch["right"] @ params),
        shape(8, 4),
        {"left": shape(1, 8), "right": shape(1, 3, 8)},
        chip=V5E,
        mesh={},
        batch_size=10,
    )
    assert found.flops[FORWARD] == 2 * 10 * 4 * 8 * 4


def test_axes_that_are_not_estimated_are_refused(step: Workload) -> None:
    with pytest.raises(ConfigError, match=r"mesh.pipeline: 2 is more than the estimate knows"):
        estimated(step, V5E, {"pipeline": 2}, 8)


def test_slices_are_joined_by_the_network(step: Workload) -> None:
    one = estimated(step, V5E, {"data": 4}, 8)
    two = estimated(step, V5E, {"data": 4}, 8, slices=2)
    assert one.seconds.dcn == 0 < two.seconds.dcn
    assert two.seconds.ici < one.seconds.ici


@pytest.mark.slow
def test_vit_b_under_fsdp_sends_three_times_its_parameters() -> None:
    keys = {"name": "vit", "features": 768, "num_layers": 12, "num_heads": 12, "patch_size": 16}
    model = computing_in(make_model(keys, 1000), "bfloat16")
    images = shape(1, 224, 224, 3)
    params, _ = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, {}), images)
    key = jax.random.key(0)
    work = workload(lambda p, x: model.apply(p, {}, x, {}, key=key, train=False)[0], params, images)
    found = estimated(work, V5E, {"fsdp": 4}, 64)
    half = 2 * sum(leaf.size for leaf in jax.tree.leaves(params))
    sent = sum(one.nbytes for one in found.collectives)
    assert 2.9 * half < sent < 3 * half
    assert found.flops[FORWARD] == pytest.approx(64 * 2 * 17.6e9, rel=0.01)  # Dosovitskiy et al.
