"""What predictions of models cost, and which of two models is the smaller or the faster one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jdlopt import config as configs
from jdlopt.errors import UserError
from jdlopt.evidence.options import SIZE
from jdlopt.train import inference
from jdlopt.train.experiment import Experiment
from jdlopt.train.facts import count_of
from jdlopt.train.state import Weights

Row = dict[str, Any]
"""Of a model: ``bytes``, ``macs``, ``n_params``, and ``ms``, an `inference.Timing` by batch size;
``timed_as`` says of what form; what is not measured is None, or not in ``ms``."""
COMPILED = "XLA (jit)"
FASTER = 0.95
"""Of another model's time, what a prediction may take to count as faster."""
BATCH_SIZES = (1, 32)
"""At which predictions are timed, where nobody says."""


class Programs(NamedTuple):
    """What predicts, to be timed.

    Attributes:
      calls: by the size of a batch.
      form: what they are, for people.
    """

    calls: Mapping[int, inference.Program]
    form: str


Making = Callable[[Experiment, Weights, Sequence[int]], Programs]
"""What makes a model, with its data, such that predictions for batches of some sizes are timed."""


def compiled(experiment: Experiment, weights: Weights, batch_sizes: Sequence[int]) -> Programs:
    """Returns predictions as XLA compiles them."""
    calls = {size: inference.program(experiment, weights, size) for size in batch_sizes}
    return Programs(calls, COMPILED)


def cost_of(row: Mapping[str, Any], aim: str) -> float:
    """Returns what is to be little: bytes, or the geometric mean of the times against the first.

    Infinite where it is not known.
    """
    if aim == SIZE:
        return math.inf if row["bytes"] is None else float(row["bytes"])
    times = [one["against"] for one in row["ms"].values()]
    if not times:
        return math.inf
    return math.exp(sum(map(math.log, times)) / len(times))


def limit_of(row: Mapping[str, Any], aim: str) -> float:
    """Returns the cost below which another model is smaller, or faster, than this one."""
    return cost_of(row, aim) * (1.0 if aim == SIZE else FASTER)


def in_words(cost: Mapping[str, Row]) -> str:
    """Returns what predictions of a baseline and of what became of it cost.

    Args:
      cost: the rows of ``baseline`` and ``improved``.

    Example:
      >>> row = {"bytes": 4000, "ms": {"1": {"median": 0.2, "against": 1.0}}}
      >>> less = {"bytes": 1000, "ms": {"1": {"median": 0.1, "against": 0.5}}}
      >>> in_words({"baseline": row, "improved": less})
      '4,000 -> 1,000 bytes (0.25 times); a prediction at batch 1 takes 0.1 ms (0.5 times)'
    """
    before, after = cost["baseline"], cost["improved"]
    times = [
        f"a prediction at batch {size} takes {one['median']:.3g} ms ({one['against']:.3g} times)"
        for size, one in after["ms"].items()
    ]
    share = after["bytes"] / before["bytes"]
    bytes_ = f"{before['bytes']:,} -> {after['bytes']:,} bytes ({share:.3g} times)"
    return "; ".join([bytes_, *times])


def measured(
    models: Mapping[str, tuple[Experiment, Weights]],
    batch_sizes: Sequence[int],
    make: Making = compiled,
) -> dict[str, Row]:
    """Returns what predictions of models cost, their times in turns and against the first's.

    Args:
      models: by name; experiments with their data.
      batch_sizes: at which predictions are timed.
      make: what is timed; where it raises a `UserError`, the row has it as ``not_timed``.
    """
    rows: dict[str, Row] = {}
    programs: dict[str, Programs] = {}
    same: dict[str, str] = {}
    for name, (experiment, weights) in models.items():
        rows[name] = {
            "bytes": inference.stored_bytes(experiment.config, weights),
            "macs": inference.multiplications(experiment, weights),
            "n_params": count_of(weights.params),
            "ms": {},
            "timed_as": None,
        }
        # what differs in values alone is the same program, and takes as long
        key = configs.fingerprint(experiment.config)
        try:
            if key not in programs:
                programs[key] = make(experiment, weights, batch_sizes)
        except UserError as error:
            rows[name]["not_timed"] = f"not timed: {error}"
            continue
        same[name], rows[name]["timed_as"] = key, programs[key].form
    for size in batch_sizes:
        times = inference.timed({key: some.calls[size] for key, some in programs.items()})
        for name, key in same.items():
            rows[name]["ms"][str(size)] = times[key]._asdict()
    return rows
