"""What a run's ``result.json`` says beside its metrics and times, whether it was trained or made.

Whatever writes such a record, `jdlopt.train.loop.fit` or `jdlopt.compress.made.save_made`, takes
this from here: what a reader finds in one is in the other, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
from jaxtyping import PyTree

from jdlopt import config as configs
from jdlopt.models import pruning
from jdlopt.train import log
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights
from jdlopt.train.tracker import Best


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
