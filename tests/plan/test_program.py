"""What is read from a compiled program: operations, loops, collectives, and the time they need."""

from __future__ import annotations

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jdlopt.models.summary import flops_of
from jdlopt.plan.chips import CHIPS
from jdlopt.plan.collectives import Collective, collectives_of, groups_of
from jdlopt.plan.hlo import Module, parse
from jdlopt.plan.operations import Operation, work_of
from jdlopt.plan.roofline import seconds_of, sent_bytes

TPU = """\
HloModule jit_step, is_scheduled=true, num_partitions=4

%start (p.0: bf16[64,128]) -> (bf16[64,128], bf16[256,128], u32[]) {
  %p.0 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[256,128]{1,0:T(8,128)(2,1)} all-gather(%p.0), channel_id=1, replica_groups=mesh['a'=1,'b'=4] {'b'}, dimensions={0}, use_global_device_ids=true
  ROOT %custom-call.1 = (bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[256,128]{1,0:T(8,128)(2,1)S(1)}, u32[]{:S(2)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%middle (p.1: bf16[64,128], p.2: bf16[512,64]) -> bf16[512,128] {
  %p.1 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %p.2 = bf16[512,64]{1,0:T(8,128)(2,1)} parameter(1)
  %all-gather.2 = bf16[256,128]{1,0:T(8,128)(2,1)S(1)} all-gather(%p.1), channel_id=1, replica_groups=mesh['a'=1,'b'=4] {'b'}, dimensions={0}
  ROOT %convolution.1 = bf16[512,128]{1,0:T(8,128)(2,1)} convolution(%p.2, %p.1), dim_labels=bf_io->bf
}

%all-reduce-scatter (input: bf16[512,128]) -> bf16[128,128] {
  %input = bf16[512,128]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.1 = bf16[512,128]{1,0:T(8,128)(2,1)} all-reduce(%input), channel_id=2, replica_groups={{0,1,2,3}}, use_global_device_ids=true, to_apply=%add
  %id = u32[]{:T(128)} partition-id()
  %zero = u32[]{:T(128)} constant(0)
  ROOT %slice = bf16[128,128]{1,0:T(8,128)(2,1)S(1)} dynamic-slice(%all-reduce.1, %id, %zero), dynamic_slice_sizes={128,128}
}

%first (p.4: bf16[8,128]) -> (bf16[8,128], bf16[32,128], u32[]) {
  %p.4 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.3 = bf16[32,128]{1,0:T(8,128)(2,1)} all-gather(%p.4), channel_id=4, replica_groups=mesh['a'=1,'b'=4] {'b'}, dimensions={0}, use_global_device_ids=true
  ROOT %custom-call.3 = (bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[32,128]{1,0:T(8,128)(2,1)S(1)}, u32[]{:S(2)}) custom-call(%all-gather.3), custom_call_target="AsyncCollectiveStart"
}

%beside (p.5: bf16[8,128]) -> bf16[8,128] {
  %p.5 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.4 = bf16[32,128]{1,0:T(8,128)(2,1)S(1)} all-gather(%p.5), channel_id=4, replica_groups=mesh['a'=1,'b'=4] {'b'}, dimensions={0}
  ROOT %same = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} bitcast(%p.5)
}

%keep (stack: f32[6,512,32], sum: bf16[512,128], layer: s32[], column: s32[]) -> f32[6,512,32] {
  %stack = f32[6,512,32]{2,1,0:T(8,128)S(1)} parameter(0)
  %sum = bf16[512,128]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  %layer = s32[]{:T(128)} parameter(2)
  %column = s32[]{:T(128)} parameter(3)
  %none = s32[]{:T(128)} constant(0)
  %own = bf16[512,32]{1,0:T(8,128)(2,1)} dynamic-slice(%sum, %none, %column), dynamic_slice_sizes={512,32}
  %wide = f32[512,32]{1,0:T(8,128)} convert(%own)
  %row = f32[1,512,32]{2,1,0:T(8,128)} bitcast(%wide)
  ROOT %kept = f32[6,512,32]{2,1,0:T(8,128)S(1)} dynamic-update-slice(%stack, %row, %layer, %none, %none)
}

%body (turn: (s32[], bf16[64,128], bf16[6,512,64])) -> (s32[], bf16[64,128], bf16[6,512,64]) {
  %turn = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)}, /*index=2*/bf16[6,512,64]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %at = s32[]{:T(128)} get-tuple-element(%turn), index=0
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%at, %one)
  %part = bf16[64,128]{1,0:T(8,128)(2,1)} get-tuple-element(%turn), index=1
  %all = bf16[6,512,64]{2,1,0:T(8,128)(2,1)} get-tuple-element(%turn), index=2
  %taken = bf16[512,64]{1,0:T(8,128)(2,1)S(1)} fusion(%all, %at), kind=kLoop, calls=%take
  %fusion.1 = (bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[256,128]{1,0:T(8,128)(2,1)S(1)}, u32[]{:S(2)}) fusion(%part), kind=kCustom, calls=%start
  %fusion.2 = bf16[512,128]{1,0:T(8,128)(2,1)S(1)} fusion(%part, %taken), kind=kOutput, calls=%middle
  %fusion.3 = bf16[128,128]{1,0:T(8,128)(2,1)S(1)} fusion(%fusion.2), kind=kCustom, calls=%all-reduce-scatter
  %gradients = f32[6,512,32]{2,1,0:T(8,128)S(1)} broadcast(%one), dimensions={}
  %all-reduce.2 = bf16[512,128]{1,0:T(8,128)(2,1)S(1)} all-reduce(%fusion.2), channel_id=3, replica_groups=mesh['a'=1,'b'=4] {'b'}, use_global_device_ids=true, to_apply=%add
  %piece = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} broadcast(%one), dimensions={}
  %fusion.6 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%piece), kind=kLoop, calls=%beside
  %fusion.4 = f32[6,512,32]{2,1,0:T(8,128)S(1)} fusion(%gradients, %all-reduce.2, %at, %at), kind=kLoop, calls=%keep
  ROOT %tuple.1 = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[6,512,64]{2,1,0:T(8,128)(2,1)}) tuple(%next, %part, %all)
}

%take (whole: bf16[6,512,64], where: s32[]) -> bf16[512,64] {
  %whole = bf16[6,512,64]{2,1,0:T(8,128)(2,1)} parameter(0)
  %where = s32[]{:T(128)} parameter(1)
  %nothing = s32[]{:T(128)} constant(0)
  %one-of = bf16[1,512,64]{2,1,0:T(8,128)(2,1)S(1)} dynamic-slice(%whole, %where, %nothing, %nothing), dynamic_slice_sizes={1,512,64}
  ROOT %flat = bf16[512,64]{1,0:T(8,128)(2,1)S(1)} bitcast(%one-of)
}

%condition (turn.1: (s32[], bf16[64,128], bf16[6,512,64])) -> pred[] {
  %turn.1 = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[6,512,64]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %end = s32[]{:T(128)} constant(6)
  %now = s32[]{:T(128)} get-tuple-element(%turn.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%now, %end), direction=LT
}

ENTRY %main (x: bf16[64,128], y: bf16[6,512,64]) -> bf16[64,128] {
  %x = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %y = bf16[6,512,64]{2,1,0:T(8,128)(2,1)} parameter(1)
  %first = s32[]{:T(128)} constant(0)
  %own = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} broadcast(%first), dimensions={}
  %fusion.5 = (bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[32,128]{1,0:T(8,128)(2,1)S(1)}, u32[]{:S(2)}) fusion(%own), kind=kCustom, calls=%first
  %tuple.2 = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[6,512,64]{2,1,0:T(8,128)(2,1)}) tuple(%first, %x, %y)
  %while.1 = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[6,512,64]{2,1,0:T(8,128)(2,1)}) while(%tuple.2), condition=%condition, body=%body
  %copy-start.1 = (bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, bf16[64,128]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%x)
  ROOT %copy-done.1 = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start.1)
}
"""  # noqa: E501
"""A loop as the TPU's compiler writes it: no trip count, a gather in two of its computations,
another one that was begun before it and goes on in its turns, a
scatter inside a fusion, a sum that every chip has whole before it keeps its columns, arrays on the
chip (``S(1)``)."""


def compiled(function, *shapes) -> Module:
    return parse(jax.jit(function).lower(*shapes).compile().as_text())


def flops(module: Module) -> float:
    work = work_of(module)
    assert not work.unread_loops and not work.in_loop
    return sum(one.times * sum(one.flops.values()) for one in work.operations)


def test_a_tpus_program():
    module = parse(TPU)
    work = work_of(module)
    assert not work.unread_loops
    # in each of 6 turns, (512, 64) @ (64, 128)
    assert flops(module) == 6 * 2 * 512 * 64 * 128
    moved = {one.name: (one.times, one.hbm_bytes) for one in work.operations}
    # 64 numbers of a row take the 128 of a tile; what is on the chip moves nothing
    assert moved["taken"] == (6, 512 * 128 * 2 + 4)
    assert moved["fusion.2"] == (6, 64 * 128 * 2)
    assert moved["copy-start.1"] == (1, 64 * 128 * 2)
    assert "fusion.3" not in moved
    sent = collectives_of(module, work, {"data": 1, "fsdp": 4})
    before = [one for one in sent if one.nbytes == 32 * 128 * 2]
    assert [(one.kind, one.times) for one in before] == [("all-gather", 1)]
    found = {one.kind: one for one in sent if one not in before}
    assert sorted(found) == ["all-gather", "all-reduce", "reduce-scatter"]
    gather, scatter, whole = (
        found[kind] for kind in ("all-gather", "reduce-scatter", "all-reduce")
    )
    assert (gather.times, gather.axes, gather.nbytes) == (6, ("fsdp",), 256 * 128 * 2)
    assert (scatter.times, scatter.devices, scatter.nbytes) == (6, 4, 512 * 128 * 2)
    assert (whole.times, whole.axes, whole.nbytes) == (6, ("fsdp",), 512 * 128 * 2)
    assert sent_bytes(whole) == (2 * sent_bytes(scatter)[0], 0.0)
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("not a program")


def test_loops_count_as_often_as_they_run():
    def layers(x, kernels):
        def layer(x, kernel):
            return jax.lax.fori_loop(0, 3, lambda _, x: x @ kernel, x), None

        return jax.lax.scan(layer, x, kernels)[0]

    def steps(x, kernels, count):
        return jax.lax.fori_loop(0, count, lambda _, x: layers(x, kernels), x)

    x, kernels = jnp.ones((4, 16)), jnp.ones((5, 16, 16))
    text = jax.jit(steps).lower(x, kernels, 7).compile().as_text()
    assert "known_trip_count" in text
    bare = re.sub(r'"known_trip_count":\{[^}]*\},?', "", text)  # as a TPU's program is
    for one in (text, bare):
        work = work_of(parse(one))
        assert work.unread_loops == 1  # that of a length that is an argument
        turn = sum(one.times * sum(one.flops.values()) for one in work.in_loop)
        assert turn == flops_of(layers, x, kernels) == 15 * 2 * 4 * 16 * 16


@pytest.mark.parametrize(
    ("window", "dilations"),
    [
        ({"padding": "SAME", "window_strides": (2, 1)}, {}),
        ({"padding": [(2, 0), (1, 1)], "window_strides": (1, 1)}, {"lhs_dilation": (2, 1)}),
        ({"padding": "VALID", "window_strides": (1, 2)}, {"rhs_dilation": (2, 1)}),
    ],
)
def test_convolutions_count_the_numbers_that_meet(window, dilations):
    convolve = partial(
        jax.lax.conv_general_dilated,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
        **window,
        **dilations,
    )
    images, kernels = jnp.ones((3, 9, 8, 4)), jnp.ones((3, 3, 2, 6))
    text = jax.jit(convolve).lower(images, kernels).as_text("hlo")  # before XLA rewrites it
    assert flops(parse(text)) == 2 * float(convolve(images, kernels).sum())


def test_collectives_by_axis():
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 4), ("data", "fsdp"))

    @partial(jax.shard_map, mesh=mesh, in_specs=P("data", "fsdp"), out_specs=P("data", "fsdp"))
    def talk(x):
        whole = jax.lax.all_gather(x, "fsdp", axis=1, tiled=True)
        parts = jax.lax.psum_scatter(whole, "fsdp", scatter_dimension=1, tiled=True)
        moved = jax.lax.ppermute(parts, "data", [(0, 1), (1, 0)])
        return jax.lax.psum(moved, ("data", "fsdp"))

    x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=NamedSharding(mesh, P("data", "fsdp")))
    module = compiled(talk, x)
    found = collectives_of(module, work_of(module), dict(mesh.shape))
    told = {one.kind: (one.axes, one.nbytes, one.devices) for one in found}
    part = 8 * 8 * 4
    assert told == {
        "all-gather": (("fsdp",), 4 * part, 4),
        "reduce-scatter": (("fsdp",), 4 * part, 4),
        "collective-permute": (("data",), part, 2),
        "all-reduce": (("data", "fsdp"), part, 8),
    }


def test_groups_in_every_notation():
    rows = ((0, 1, 2, 3), (4, 5, 6, 7))
    columns = ((0, 4), (1, 5), (2, 6), (3, 7))
    for text, groups in (
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", rows),
        ("replica_groups=[2,4]<=[8]", rows),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", columns),
        ("replica_groups=mesh['x'=2,'y'=4] {'x'}, dimensions={1}", columns),
        ("replica_groups=mesh['x'=8] {'x':(1)2}", columns),
        ("replica_groups=mesh['x'=8] {'x':(2)4}", rows),
        ("replica_groups=mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'y'}", columns),
        ("replica_groups={}", (tuple(range(8)),)),
    ):
        assert groups_of(text, 8) == groups, text


def test_what_bounds_a_step():
    chip = CHIPS["v5e"]
    products = Operation("a", "fusion", "", 1, {"bfloat16": chip.peak("bfloat16")}, 1)
    memory = Operation("b", "copy", "", 1, {}, int(3 * chip.hbm_bandwidth))
    gather = Collective(
        "c", "all-gather", ("fsdp",), int(4 / 3 * 5 * chip.ici_bandwidth), 4, 1, False, "bf16", "",
        ((0, 1, 2, 3),),
    )  # fmt: skip
    one = seconds_of([(products, 2.0)], [], chip)
    assert (one.bound, one.compute, one.low) == ("compute", 2.0, 2.0)
    both = seconds_of([(products, 2.0), (memory, 1.0)], [], chip)
    assert both.bound == "HBM" and both.low == pytest.approx(5.0, rel=1e-6)
    sent = seconds_of([(products, 2.0), (memory, 1.0)], [(gather, 1.0)], chip, lambda _: 0.5)
    assert sent.bound == "ICI" and sent.ici == pytest.approx(10.0, rel=1e-6)
    assert sent.low == sent.ici and sent.high > sent.low
    # over 2 slices, each of 2 chips in a slice gets its part of what the other slice has
    assert sent_bytes(gather, slices=2) == (gather.nbytes / 2, gather.nbytes / 4)
    apart = seconds_of([], [(gather, 1.0)], chip, slices=lambda _: 2)
    assert apart.bound == "DCN"
