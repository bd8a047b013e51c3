"""The choice of a convolution's formulation on the CPU: measured once a shape, and kept on disk.

Off until `keep_choices` names a file, so a library's user, and a test, gets what the rules of
`jdlopt.models.formulations` say: the same on every machine. ``JDLOPT_CONVOLUTIONS=rules`` keeps it
off.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np
from jaxtyping import Array

from jdlopt.models.formulations import FORMULATIONS, Unsuited, Window, rule

SWITCH = "JDLOPT_CONVOLUTIONS"
"""The environment variable that leaves every choice to the rules with ``rules``."""

LEAST_WORK = 2**25
"""Products of fewer multiplications (less than a millisecond) are left to the rules."""

GAIN = 0.9
"""A formulation replaces the rule's if it takes at most this part of its time."""

RUNS = 4
"""How often a formulation is timed at most; the fastest counts."""

SECONDS = 0.1
"""About how long a formulation is timed."""

_file: Path | None = None
_known: dict[str, str] = {}


def keep_choices(file: Path | None) -> None:
    """Has choices measured from now on, and kept in a file; None leaves them to the rules.

    Args:
      file: JSON, made when the first choice is. It should be of this processor alone: the keys name
        shapes, the number of cores and jaxlib's version. What can't be read counts as empty.
    """
    global _file
    if os.environ.get(SWITCH) == "rules":
        file = None
    _file = file
    _known.clear()
    _known.update({} if file is None else _read(file))


def product_by_choice(
    product: str, first: Array, second: Array, window: Window, size: tuple[int, ...] = ()
) -> Array:
    """Computes one product of a convolution in the formulation chosen for its shapes.

    Where a `vmap` batches the arguments, the rule decides: what was measured holds for one kernel.

    Args:
      product, first, second, window, size: see `jdlopt.models.formulations.FORMULATIONS`; ``size``
        is ``space`` or ``taps``.
    """
    rest = (window, size) if size else (window,)
    by_rule = rule(product, *_kernel(product, first, second, size), window)
    chosen = _choice(product, first, second, rest, by_rule)
    ways = FORMULATIONS[product]
    if chosen == by_rule:
        return ways[by_rule](first, second, *rest)

    @jax.custom_batching.custom_vmap
    def run(first: Array, second: Array) -> Array:
        try:
            return ways[chosen](first, second, *rest)
        except Unsuited:  # kept by another version
            return ways[by_rule](first, second, *rest)

    @run.def_vmap
    def batched(
        axis_size: int, in_batched: list[bool], first: Array, second: Array
    ) -> tuple[Array, bool]:
        axes = tuple(0 if each else None for each in in_batched)
        return jax.vmap(lambda a, b: ways[by_rule](a, b, *rest), axes)(first, second), True

    return run(first, second)


def _kernel(
    product: str, first: Array, second: Array, size: tuple[int, ...]
) -> tuple[tuple[int, ...], int]:
    if product == "kernel_gradient":
        return size, first.shape[-1]
    return second.shape[:-2], second.shape[-2]


def _choice(product: str, first: Array, second: Array, rest: tuple, by_rule: str) -> str:
    taps, channels = _kernel(product, first, second, rest[-1])
    outputs = first.shape[:-1] if product == "input_gradient" else second.shape[:-1]
    if product == "outputs":  # close enough: the padding's part is small
        spread = zip(first.shape[1:-1], rest[0].strides, strict=True)
        outputs = (first.shape[0], *(-(-edge // step) for edge, step in spread))
    features = first.shape[-1] if product == "input_gradient" else second.shape[-1]
    work = math.prod(outputs) * math.prod(taps) * channels * features
    # processes would have to agree; several devices split the batch, and share the cores
    if _file is None or len(taps) == 1 or work < LEAST_WORK or jax.device_count() > 1:
        return by_rule
    if jax.process_count() > 1 or jax.default_backend() != "cpu":
        return by_rule
    shapes = [f"{array.dtype}{list(array.shape)}" for array in (first, second)]
    version = f"jaxlib {jaxlib.__version__} {_cores()} cores"
    key = f"{version} {product} {' '.join(shapes)} {json.dumps(rest)}"
    if _known.get(key) not in FORMULATIONS[product]:
        with ThreadPoolExecutor(1) as pool:  # a thread of its own: this one may be tracing
            chosen = pool.submit(_measured, product, first, second, rest, by_rule).result()
        _keep(key, product, chosen)
    return _known[key]


def _cores() -> int:
    """The cores that this process may run on: a pinned one measures for itself."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _measured(product: str, first: Array, second: Array, rest: tuple, by_rule: str) -> str:
    """Times a product's formulations one after the other; the rule's wins unless clearly beaten."""
    inputs = jax.device_put([np.full(array.shape, 0.5, array.dtype) for array in (first, second)])

    def compiled(name: str) -> Any:
        function = partial(_called, FORMULATIONS[product][name], rest)
        try:
            return jax.jit(function).lower(*inputs).compile()
        except Unsuited:
            return None

    with ThreadPoolExecutor() as pool:
        names = list(FORMULATIONS[product])
        programs = dict(zip(names, pool.map(compiled, names), strict=True))
    programs = {name: program for name, program in programs.items() if program is not None}
    seconds: dict[str, float] = {}
    for name, program in programs.items():
        jax.block_until_ready(program(*inputs))
        times: list[float] = []
        while len(times) < RUNS and sum(times) < SECONDS:
            start = time.perf_counter()
            jax.block_until_ready(program(*inputs))
            times.append(time.perf_counter() - start)
        seconds[name] = min(times)
    best = min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] <= GAIN * seconds[by_rule] else by_rule


def _called(way: Callable[..., Array], rest: tuple, first: Array, second: Array) -> Array:
    return way(first, second, *rest)


def _read(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: name for key, name in found.items() if isinstance(name, str)}


def _keep(key: str, product: str, name: str) -> None:
    """Writes a choice to the file, unless another process was first: then that one's counts."""
    assert _file is not None
    found = _read(_file)
    if found.get(key) not in FORMULATIONS[product]:
        found[key] = name
        aside = _file.with_name(f"{_file.name}.{os.getpid()}")
        with contextlib.suppress(OSError):  # no cache is no reason not to train
            _file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(found, indent=1), encoding="utf-8")
            aside.replace(_file)
    _known.update(found)
