"""The aims of ``improve``: a better metric, or a smaller or faster model that loses little enough.

What a prediction costs is known before anything is trained: bytes by the shapes of the weights, and
times of models with weights that are not trained. So what would save nothing is not tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import jax

from jdlopt.errors import UserError
from jdlopt.evidence import costs, margin
from jdlopt.evidence.options import SPEED
from jdlopt.evidence.sides import Side
from jdlopt.evidence.state import Loop
from jdlopt.evidence.trainer import key_of
from jdlopt.train import inference
from jdlopt.train.state import Weights


def weigh(loop: Loop, sides: Sequence[Side]) -> None:
    """Notes what predictions of configs cost; of one whose model can't be built, nothing.

    Each is measured once, so that a call which goes on decides as the one before it did.
    """
    if loop.for_accuracy:
        return
    fresh: dict[str, tuple[Side, int]] = {}
    for side in sides:
        key = key_of(side.config)
        if key not in loop.costs and key not in fresh:
            try:
                fresh[key] = side, inference.expected_bytes(side.experiment)
            except UserError:
                continue
    if not fresh:
        return
    found: Mapping[str, costs.Row] = {}
    if loop.options.aim == SPEED:
        loop.say(f"timing predictions of {len(fresh)} {'model' if len(fresh) == 1 else 'models'}")
        every = {"": loop.base, **{key: side for key, (side, _) in fresh.items()}}
        models = {key: (side.experiment, _untrained(side)) for key, side in every.items()}
        found = costs.measured(models, costs.BATCH_SIZES)
    for key, (_, size) in fresh.items():
        loop.costs[key] = {**found.get(key, {"ms": {}}), "bytes": size}
    loop.note()


def _untrained(side: Side) -> Weights:
    """Weights before the first step: they take as long as trained ones."""
    experiment = side.experiment
    state = jax.jit(partial(experiment.init, experiment.config.seed))()
    return experiment.weights(state)


def saves(loop: Loop, side: Side) -> bool:
    """Says whether a config's predictions cost less than those of what has been reached.

    Where it is the metric that is to get better, they may cost what they will.
    """
    if loop.for_accuracy:
        return True
    weigh(loop, [loop.current, side])
    found, aim = loop.costs.get(key_of(side.config)), loop.options.aim
    return found is not None and costs.cost_of(found, aim) < costs.limit_of(
        loop.cost(loop.current), aim
    )


def share_of(loop: Loop, side: Side) -> float | None:
    """Returns what a config's predictions cost as a share of the baseline's; None of no aim."""
    if loop.for_accuracy:
        return None
    weigh(loop, [loop.base])
    aim = loop.options.aim
    return costs.cost_of(loop.cost(side), aim) / costs.cost_of(loop.cost(loop.base), aim)


def is_promising(loop: Loop, gains: Sequence[float]) -> bool:
    """Says whether more seeds are worth it, by gains over what a change is compared with."""
    if loop.for_accuracy:
        return sum(gains) > 0
    losses = [-gain for gain in gains]
    decided = margin.decide(losses, loop.margin, loop.options.level, loop.resolution)
    return not decided.hopeless


def is_foreseen(loop: Loop, gains: Sequence[float], level: float) -> bool:
    """Says whether a confirmation will find that a change loses little, if its gains go on so.

    Args:
      loop: where it stands.
      gains: seed by seed.
      level: of the confirmation's interval.
    """
    if loop.for_accuracy:
        return True
    losses = [-gain for gain in gains]
    return margin.is_foreseen(losses, loop.margin, level, loop.pacing.confirm, loop.resolution)
