"""Traces as times: on events made by hand, as planes of CPUs, GPUs and TPUs have them."""

from types import SimpleNamespace as Made

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt.data.feed import TO_DEVICE
from jdlopt.profiling import sources, trace
from jdlopt.train.execution import DISPATCH, FEED

WINDOW = "window"


def event(name, begin, length, **stats):
    return Made(name=name, start_ns=begin, duration_ns=length, stats=stats.items())


def plane(name, **lines):
    made = [Made(name=line.replace("_", " "), events=events) for line, events in lines.items()]
    return Made(name=name, lines=made)


def read(*planes):
    unknown = sources.Program("", {}, {}, {}, {})
    holds = sources.holds_others
    return trace.read(Made(planes=planes), WINDOW, lambda _, name: holds(unknown, name))


def seconds(found):
    totals = trace.totals(found.operations.values())
    return {name: 1e9 * total.seconds for (_, name), total in totals.items()}


def test_a_cpus_operation_ends_where_its_other_event_says():
    """A product that other threads go on with, in a loop whose event is over before its steps."""
    found = read(
        plane(
            "/host:CPU",
            python=[event(WINDOW, 0, 100), event(DISPATCH, 2, 8), event(FEED, 0, 2)],
            tf_XLAEigen=[
                event("while.1", 10, 5, hlo_op="while.1", hlo_module="step", _p=1),
                event("dot.2", 12, 3, hlo_op="dot.2", hlo_module="step", _p=2),
                event("end: dot.2", 60, 1, _c=2),
                event("ThreadpoolListener::Record", 60, 9),
                event("end: while.1", 80, 1, _c=1),
            ],
        )
    )
    assert seconds(found) == pytest.approx({"dot.2": 48})
    assert trace.shares(found) == pytest.approx({
        "device": 0.48, "runtime": 0.22, "compile": 0, "transfer": 0, "data": 0.02,
        "dispatch": 0.08, "other": 0.2,
    })  # fmt: skip
    assert trace.host_seconds(found)["dispatch"] == pytest.approx(8e-9)


def test_a_tpus_operations_are_one_line_of_its_plane():
    ops = [
        event("%fusion.3 = f32[8]{0} fusion(...)", 10, 30, hlo_category="loop fusion",
              flops=64.0, bytes_accessed=256),
        event("%while.7 = (s32[]) while(...)", 40, 50, hlo_category="while"),
        event("%fusion.3 = f32[8]{0} fusion(...)", 45, 30, hlo_category="loop fusion",
              flops=64.0, bytes_accessed=256),
    ]  # fmt: skip
    found = read(
        plane("/device:TPU:0", XLA_Ops=ops, Steps=[event("1", 0, 100, hlo_category="x")],
              XLA_Modules=[event("jit_step(1)", 5, 90)]),
        plane("/device:CUSTOM:Megascale", x=[event("y", 0, 100)]),
        plane("/host:CPU", python=[event(WINDOW, 0, 100)]),
    )  # fmt: skip
    assert seconds(found) == pytest.approx({"fusion.3": 60})
    (total,) = trace.totals([found.operations["/device:TPU:0"]]).values()
    assert (total.times, total.flops, total.nbytes) == (2, 64, 256)
    assert trace.shares(found)["device"] == pytest.approx(0.6)
    assert trace.shares(found)["runtime"] == pytest.approx(0.3)


def test_gpus_run_side_by_side_and_copies_are_transfers():
    kernel = {"hlo_op": "gemm_fusion_dot.1", "hlo_module": "jit_step"}
    found = read(
        plane("/device:GPU:0", Stream=[event("ampere_sgemm", 0, 40, **kernel)]),
        plane(
            "/device:GPU:1",
            Stream=[event("ampere_sgemm", 20, 60, **kernel)],
            Copies=[event("MemcpyH2D", 80, 10)],
        ),
        plane("/host:CPU", python=[event(WINDOW, 0, 100), event(TO_DEVICE, 0, 10)]),
    )
    assert trace.shares(found)["device"] == pytest.approx(0.5)  # 40 % of one, 60 % of the other
    assert trace.shares(found)["transfer"] == pytest.approx((0.1 + 0.2) / 2)


def test_a_trace_without_the_window_is_refused():
    with pytest.raises(LookupError, match="window"):
        read(plane("/host:CPU", python=[event("other", 0, 1)]))


spans = st.lists(st.tuples(st.integers(-20, 120), st.integers(0, 60)), max_size=8).map(
    lambda found: [(begin, begin + length) for begin, length in found]
)


@settings(max_examples=30)
@given(spans)
def test_parts_sum_to_the_time_of_any(found):
    parts = trace.parts(found)
    assert sum(parts) == pytest.approx(trace.length(trace.union(found)))
    assert all(part <= end - begin + 1e-9 for part, (begin, end) in zip(parts, found))


@settings(max_examples=30)
@given(spans, st.lists(spans, min_size=5, max_size=5))
def test_shares_sum_to_one(operations, others):
    events = [trace.Event("p", "o", begin, end) for begin, end in operations]
    found = trace.Trace({"host": events}, dict(zip(trace.KINDS, others)), 0, 100)
    shares = trace.shares(found)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(-1e-9 <= share <= 1 for share in shares.values())
