"""The stages of candidates, done for each seed from its own baseline weights.

What trains goes to worker processes, as populations: candidates that differ in floats alone, over
all their seeds, are one program. What only computes is done here. Both are functions of what is on
disk, so that a call which was killed does nothing twice that trains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdlopt import config as configs
from jdlopt import mesh as meshes
from jdlopt.compress.entry import Apply, Candidate, Given, Train
from jdlopt.data import feed
from jdlopt.errors import UserError, WorkdirError
from jdlopt.evidence.records import WEIGHTS
from jdlopt.evidence.sides import Side, side_of
from jdlopt.evidence.trainer import ENDED_WELL, Trained, Trainer, Wanted
from jdlopt.metrics.scores import Value
from jdlopt.train import weights_file
from jdlopt.train.compiling import Compiler
from jdlopt.train.evaluate import Evaluator
from jdlopt.train.experiment import Experiment
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights
from jdlopt.train.step import Batch

BASELINE = "baseline"


class Reached(NamedTuple):
    """How far one seed of a candidate has come.

    Attributes:
      config: so far, as it would be trained on: with the steps and the rate of the baseline.
      weights: so far, on the host.
      history: what they have been through, in words.
      file: where they are kept; None of those that were computed.
    """

    config: Config
    weights: Weights
    history: str
    file: Path | None


class Failure(NamedTuple):
    """Why a seed of a candidate came to nothing.

    Attributes:
      reason: in words; empty where there was no time.
      decides: whether that says something of the candidate; what did not fit in memory may do so
        the next time.
    """

    reason: str
    decides: bool = True


@dataclass
class Bench:
    """What all candidates of a run share.

    Attributes:
      given: the run.
      side: its config, and the data that it opens.
      trainer: trains, and keeps what it trained.
      metric: that is measured, ``validation/METRIC``.
    """

    given: Given
    side: Side
    trainer: Trainer
    metric: str
    _evaluators: dict[str, Evaluator] = field(default_factory=dict)

    # --- the baseline ----------------------------------------------------------------------------

    def baselines(self, seeds: Sequence[int]) -> dict[int, Reached | Failure]:
        """Returns the run's config, trained with each seed; of its own seed, its own weights.

        Seeds for which there was no time are left out.
        """
        config, own = self.side.config, self.side.config.seed
        wanted = {seed: Wanted(config, seed, keep=True, own_fold=True) for seed in seeds}
        mine = self.trainer.weights_of(wanted[own].key, own)
        if not weights_file.is_whole(mine):
            weights_file.save(mine, jax.device_get(self.given.weights))
        trained = self.trainer.train_wanted(one for seed, one in wanted.items() if seed != own)
        found: dict[int, Reached | Failure] = {}
        for seed, one in wanted.items():
            failure = None if seed == own else self._failure(one, trained)
            if failure is not None:
                if failure.reason:
                    found[seed] = failure
                continue
            file = self.trainer.weights_of(one.key, seed)
            found[seed] = Reached(config, self._load(config, file), f"{BASELINE} {one.key}", file)
        return found

    # --- candidates ------------------------------------------------------------------------------

    def reach(
        self, candidates: Sequence[Candidate], starts: Mapping[int, Reached]
    ) -> dict[str, dict[int, Reached | Failure]]:
        """Does all stages of candidates, for each seed from what it starts with.

        Returns:
          By candidate and seed; those for which there was no time are left out.
        """
        now: dict[tuple[str, int], Reached | Failure] = {
            (one.name, seed): start for one in candidates for seed, start in starts.items()
        }
        for index in range(max((len(one.stages) for one in candidates), default=0)):
            wanted: dict[tuple[str, int], tuple[Config, Wanted]] = {}
            for one in candidates:
                stage = one.stages[index] if index < len(one.stages) else None
                for seed in starts:
                    reached = now.get((one.name, seed))
                    if stage is None or not isinstance(reached, Reached):
                        continue
                    try:
                        if isinstance(stage, Train):
                            wanted[one.name, seed] = self._wanted(stage, reached, seed)
                        else:
                            now[one.name, seed] = self._applied(stage, reached, seed)
                    except WorkdirError:
                        raise  # a full disk says nothing of a candidate
                    except UserError as error:
                        now[one.name, seed] = Failure(str(error))
            trained = self.trainer.train_wanted(one for _, one in wanted.values())
            for place, (config, asked) in wanted.items():
                failure = self._failure(asked, trained)
                if failure is not None and not failure.reason:
                    del now[place]
                elif failure is not None:
                    now[place] = failure
                else:
                    file = self.trainer.weights_of(asked.key, asked.seed)
                    history = f"{asked.after}, trained {asked.key}"
                    now[place] = Reached(config, self._load(config, file), history, file)
        return {
            one.name: {seed: now[one.name, seed] for seed in starts if (one.name, seed) in now}
            for one in candidates
        }

    def _wanted(self, stage: Train, reached: Reached, seed: int) -> tuple[Config, Wanted]:
        """The config after a stage that trains, and what is to be trained."""
        change = dict(stage.change)
        section = self.given.config.model
        if not stage.anew and section.pretrained is not None:
            change |= {"model.pretrained": None, "data.fit_on": str(self.given.run)}
        config = side_of(reached.config, change, like=self.side).config
        steps = max(1, round(stage.epochs * self.given.experiment.total_steps))
        rates = {
            key: value * stage.rate
            for key, value in configs.flat(config).items()
            if key.startswith("optim.") and key.endswith("learning_rate") and key not in change
            and isinstance(value, float)
        }  # fmt: skip
        short = configs.override(config, {**rates, "train.steps": steps, "train.epochs": None})
        trained = Config.from_dict(configs.to_dict(short))
        if stage.anew:
            return config, Wanted(trained, seed, None, "anew", keep=True, own_fold=True)
        start = reached.file or self._kept_start(reached, seed)
        return config, Wanted(trained, seed, start, reached.history, keep=True, own_fold=True)

    def _kept_start(self, reached: Reached, seed: int) -> Path:
        """Writes computed weights to a file that a training starts from."""
        name = hashlib.sha256(reached.history.encode()).hexdigest()[:16]
        place = self.trainer.workdir / WEIGHTS / f"start-{name}" / f"{seed}.safetensors"
        weights_file.save(place, reached.weights)
        return place

    def _applied(self, stage: Apply, reached: Reached, seed: int) -> Reached:
        raw, weights = stage.function(reached.config, reached.weights, lambda: self._batches(seed))
        experiment = self.experiment_of(raw)
        like = self._like(experiment)
        weights = jax.device_get(
            like.replace(params=weights.params, model_state=weights.model_state)
        )
        return Reached(experiment.config, weights, f"{reached.history}, {stage.name}", None)

    def _batches(self, seed: int) -> Iterator[Batch]:
        """One epoch of training batches, in the order of a seed."""
        experiment = self.given.experiment
        size, batch_size = experiment.data.sizes["train"], experiment.config.data.batch_size
        records = experiment.data.records("train")
        for step in range(feed.steps_per_epoch(size, batch_size)):
            (chosen,) = feed.batch_examples(seed, step, batch_size, size, order=experiment.order)
            inputs, targets = feed.read_examples(records, chosen)
            yield {"inputs": inputs, "targets": targets}

    def _failure(self, wanted: Wanted, trained: Trained) -> Failure | None:
        """Why a training came to nothing, with an empty reason where there was no time; or None."""
        training = trained.get(wanted.key, {}).get(wanted.seed)
        if training is None:
            return Failure(self.trainer.left_out.get(wanted.key, ""), decides=False)
        if training.status in ENDED_WELL:
            return None
        return Failure(f"seed {wanted.seed}: {training.reason or training.status}")

    # --- weights ---------------------------------------------------------------------------------

    def experiment_of(self, config: configs.AnyConfig) -> Experiment:
        """Returns the experiment of a config on the run's data, preprocessed as the run's were."""
        own = self.given.experiment
        plain = {**configs.to_dict(config), "mesh": configs.to_dict(meshes.MeshFields())}
        return Experiment.build(
            plain, own.data, learnt_before=own.learnt, check=False, begins=False
        )

    def _like(self, experiment: Experiment) -> Weights:
        learnt = jax.tree.map(np.asarray, experiment.learnt)
        return Weights({}, {}, jax.device_get(experiment.hparams), learnt)

    def _load(self, config: Config, file: Path) -> Weights:
        return weights_file.load(file, self._like(self.experiment_of(config)))

    def measure(self, reached: Reached) -> float:
        """Returns the metric of weights on the validation split."""
        key = configs.fingerprint(reached.config)
        if key not in self._evaluators:
            name = self.metric.partition("/")[2]
            experiment = self.experiment_of(reached.config).measuring((name,))
            mesh = meshes.make_mesh(meshes.MeshFields())
            self._evaluators[key] = Evaluator(experiment, mesh, Compiler())
        evaluator = self._evaluators[key]
        placed = meshes.put(
            jax.tree.map(jnp.asarray, reached.weights), meshes.replicated(evaluator.mesh)
        )
        value: Value = evaluator("validation", placed)[self.metric]
        assert isinstance(value, float)
        return value
