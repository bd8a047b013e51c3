"""What a run's ``result.json`` says at its end, whether the run was trained or made.

Whatever writes such a record, `jdlopt.train.loop.fit` or `jdlopt.compress.made.save_made`, takes
this from here: what a reader finds in one is in the other, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
from jaxtyping import PyTree

from jdlopt import config as configs
from jdlopt.errors import UserError
from jdlopt.models import pruning
from jdlopt.train import log
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights
from jdlopt.train.tracker import Best


class NotEvaluatedWarning(UserWarning):
    """A split of a finished run can't be evaluated; the result says why."""


def facts_of(
    experiment: Experiment,
    best: Best,
    n_params: int,
    mesh: jax.sharding.Mesh,
    began: Mapping[str, object] | None,
    teachers: Sequence[Mapping[str, str]],
    weights: Weights | None = None,
) -> dict[str, object]:
    """Returns what is so of a run whatever its metrics came to.

    Args:
      experiment: with its data.
      best: its best evaluation.
      n_params: see `count_of`.
      mesh: the devices.
      began: what ``pretrained.json`` says, where it began with other weights.
      teachers: what ``teachers.json`` says, where it learnt from other runs.
      weights: what it predicts with; None: it is not at its end.
    """
    note, config = best.note(), experiment.config
    pruned = {}
    if weights is not None and config.model.prune.criterion is not None:
        pruned = {"pruning": pruning.sparsity_of(weights.params, weights.model_state)}
    return {
        "best": {
            "step": best.step,
            "metric": best.metric,
            "value": best.value,
            **({"note": note} if note else {}),
        },
        "total_steps": experiment.total_steps,
        "n_params": n_params,
        "seed": config.seed,
        "versions": log.versions(),
        "devices": [str(device) for device in mesh.devices.flat],
        "mesh": dict(mesh.shape),
        "data_notes": [note.to_dict() for note in experiment.data.notes],
        **({"pretrained": dict(began)} if began else {}),
        **({"teachers": [dict(one) for one in teachers]} if teachers else {}),
        "config_fingerprint": configs.fingerprint(config),
        **pruned,
    }


def count_of(params: PyTree) -> int:
    """Returns how many numbers a model's parameters are, scores of pruning not counted."""
    return sum(leaf.size for leaf in jax.tree.leaves(pruning.without_scores(params)))


# --- the last evaluation --------------------------------------------------------------------------


def evaluated(
    experiment: Experiment, measure: Callable[[str], Mapping[str, object]]
) -> tuple[dict[str, object], dict[str, Exception]]:
    """Returns the metrics of the splits that a run is evaluated on at its end, and what failed.

    Args:
      experiment: with its data.
      measure: a split's metrics by their names in the record. Whatever it raises, the weights are
        there, and nothing of them may be lost.

    Returns:
      The metrics of all splits, and by split what was raised.
    """
    found: dict[str, object] = {}
    faults: dict[str, Exception] = {}
    test = ("test",) if experiment.config.train.evaluate_test else ()
    for split in ("validation", *test):
        if experiment.data.sizes.get(split):
            try:
                found |= measure(split)
            except Exception as error:
                faults[split] = error
    return found, faults


def reasons_of(faults: Mapping[str, Exception]) -> dict[str, object]:
    """Returns what the record says of splits that could not be evaluated; nothing if all could."""
    reasons = {split: str(error) or type(error).__name__ for split, error in faults.items()}
    return {"not_evaluated": reasons} if reasons else {}


def tell_faults(faults: Mapping[str, Exception], workdir: Path | None) -> None:
    """Warns of splits that could not be evaluated, once the record is written.

    Args:
      faults: as `evaluated` returns them; one that is no user's is raised.
      workdir: the run's directory; None: it is in memory.
    """
    for split, error in faults.items():
        if not isinstance(error, UserError):
            raise error
        kept, later = "The run is in memory", f"run.evaluate({split!r})"
        if workdir is not None:
            kept = f"{workdir / log.RESULT} has all else"
            later = f"`jdlopt eval --workdir={workdir} --split={split}`"
        warnings.warn(
            f"the run is done, but its {split} split can't be evaluated: {error} {kept}; once "
            f"this is mended, {later} does it.",
            NotEvaluatedWarning,
            stacklevel=3,
        )
