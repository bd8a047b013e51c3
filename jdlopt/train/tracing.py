"""A step traced on shapes, so that what can't be computed is said before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, PyTree

from jdlopt import mesh as meshes
from jdlopt.config import to_dict
from jdlopt.data import augment
from jdlopt.data.named import each
from jdlopt.data.preprocess import Shaped
from jdlopt.data.spec import DataSpec
from jdlopt.errors import ConfigError, listing
from jdlopt.models import has_submodels
from jdlopt.models.head import features_of
from jdlopt.models.pretrained import Loaded
from jdlopt.optim.groups import FROZEN, labels_of, path_name
from jdlopt.train.components import num_outputs, shaped
from jdlopt.train.schema import Config
from jdlopt.train.state import TrainState
from jdlopt.train.step import Batch, Collected, Components, Measured

T = TypeVar("T")


@runtime_checkable
class Traceable(Protocol):
    """What of an experiment is traced on shapes; `jdlopt.train.experiment.Experiment` is one."""

    @property
    def config(self) -> Config:
        """The resolved config."""

    @property
    def spec(self) -> DataSpec:
        """What is known of its data."""

    @property
    def components(self) -> Components:
        """What a step is made of."""

    def init(self, seed: int) -> TrainState:
        """Returns the state before the first step."""

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        """Makes one update."""

    def evaluate_step(self, state: TrainState, batch: Batch) -> Collected:
        """Collects what the metrics need of a batch."""

    def pretrained(self) -> Loaded | None:
        """Returns the weights to start from, if any are named."""

    def seen(self, count: int) -> PyTree[jax.ShapeDtypeStruct]:
        """Returns the shapes and types of so many examples as the model takes them."""


class _Failed(Exception):
    """What a component raised while a step was traced, with what it was asked for."""

    def __init__(self, what: str, error: Exception):
        super().__init__(what)
        self.what, self.error = what, error


def _saying(what: str, call: Callable[..., T]) -> Callable[..., T]:
    """Returns a function whose failures say what failed."""

    def called(*args: object, **keys: object) -> T:
        try:
            return call(*args, **keys)
        except _Failed:  # a component that calls another, as an optimizer may its gradients
            raise
        except Exception as error:
            raise _Failed(what, error) from error

    return called


def naming(
    components: Components, config: Config, spec: DataSpec, inputs: PyTree[Shaped]
) -> Components:
    """Returns components of which what one raises says which it was, and whose widths are checked.

    Args:
      components: those of a config.
      config: the config, for their names.
      spec: what is known of its data.
      inputs: what the model is given of each input.
    """
    names = {section: getattr(config, section).name for section in ("model", "loss", "optim")}
    wide, places = num_outputs(config, spec), spec.positions
    shape = each(lambda one: one.shape, inputs)
    ensemble = config.model.ensemble
    model, loss, optimizer, average = (
        components.model,
        components.loss,
        components.optimizer,
        components.average,
    )

    def applied(*args: object, **keys: object) -> tuple[Array, PyTree]:
        outputs, state = model.apply(*args, **keys)
        rows = len(jax.tree.leaves(args[2])[0])
        # how many positions there are is the model's to say; the loss compares them with targets
        expected: tuple[int, ...] = (rows, *outputs.shape[outputs.ndim - 1 - places : -1], wide)
        if keys["train"]:
            members = (ensemble,) if ensemble > 1 else ()
            own = slice(len(members), outputs.ndim - 2 - places)  # axes of submodels, at most one
            submodels = outputs.shape[own][:1] if has_submodels(names["model"]) else ()
            expected = (*members, *submodels, *expected)
        if outputs.shape != expected:
            raise ConfigError(
                f"model: {names['model']!r} returns shape {outputs.shape} for {rows} examples; "
                f"expected {expected}."
            )
        return outputs, state

    def of_each(outputs: Array, targets: Array, hparams: PyTree) -> Array:
        found = loss.per_example(outputs, targets, hparams)
        if found.shape != (len(targets),):
            raise ConfigError(
                f"loss: {names['loss']!r} returns shape {found.shape} for {len(targets)} examples; "
                f"expected ({len(targets)},): one number an example."
            )
        return found

    takes = f"model: {names['model']!r} can't take inputs of shape {shape} of {spec.name!r}"
    targets = f"loss: {names['loss']!r} can't be computed from {wide} outputs and these targets"
    updates = f"optim: {names['optim']!r} can't update the parameters"
    averages = f"optim.average.name: {config.optim.average.name!r} can't average the parameters"
    return components._replace(
        model=model._replace(init=_saying(takes, model.init), apply=_saying(takes, applied)),
        loss=loss._replace(
            per_example=_saying(targets, of_each), objective=_saying(targets, loss.objective)
        ),
        optimizer=optimizer._replace(
            init=_saying(updates, optimizer.init), update=_saying(updates, optimizer.update)
        ),
        average=average._replace(
            init=_saying(averages, average.init), update=_saying(averages, average.update)
        ),
        augment=_saying("data: the inputs can't be augmented or preprocessed", components.augment),
    )


def unbuildable(experiment: Traceable, num_devices: int | None = None) -> list[str]:
    """Traces the real training and evaluation step on shapes, and says in words what can't be.

    So it fails before a directory is claimed for it, and the message says which component it was.

    Args:
      experiment: of components that say which they are (`naming`).
      num_devices: what the mesh is made of; None: all devices that there are.
    """
    config, spec = experiment.config, experiment.spec
    mesh = meshes.shape_of(config.mesh, num_devices or len(jax.devices()))
    size = 2 * config.optim.accumulate * (config.mesh.microbatches or config.mesh.pipeline)
    batch: dict[str, Any] = {
        "inputs": shaped(spec.inputs, size),
        "targets": jax.ShapeDtypeStruct((size, *spec.target_shape), spec.target_dtype),
    }
    weights = jax.ShapeDtypeStruct((size,), np.float32)
    try:
        state = jax.eval_shape(partial(experiment.init, 0))
        if config.model.pretrained is not None:
            _saying("model.pretrained: can't be read", experiment.pretrained)()
        # losses first: what an evaluation says of one is plainer than what a gradient does
        with meshes.splitting(mesh):
            jax.eval_shape(experiment.evaluate_step, state, {**batch, "weights": weights})
            step = jax.make_jaxpr(experiment.train_step)(state, batch)
        problems = meshes.model_problems(step, state.params, config.mesh, mesh.shape)
        if config.train.cache_features:
            problems += _uncacheable(experiment, state)
        return problems
    except _Failed as failure:
        section, text = failure.what.partition(":")[0], " ".join(str(failure.error).split())
        if isinstance(failure.error, ConfigError):
            text = str(failure.error)
            return [text if text.startswith((section, "mesh.")) else f"{section}: {text}"]
        return [f"{failure.what}: {type(failure.error).__name__}: {text[:300]}"]
    except ConfigError as error:
        return [str(error)]


def _uncacheable(experiment: Traceable, state: TrainState) -> list[str]:
    """What is in the way of ``train.cache_features``, in words."""
    config, params = experiment.config, state.params
    label = labels_of(to_dict(config.optim))
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    heads = [path for path in paths if re.match("(base/)?(model/)?head/", path)]
    others = [path for path in paths if path not in heads]
    trained = [path for path in others if label(path) is not FROZEN]
    found = []
    if not heads or not others:
        what = "no parameters named 'head/…'" if not heads else "no parameters but the head's"
        found.append(
            f"train.cache_features: the model {config.model.name!r} has {what}: there is no "
            "body to compute features with. Leave it out."
        )
    elif trained:
        found.append(
            f"train.cache_features: all but the head must be frozen, but {listing(trained, 4)} "
            r"would be trained. Set optim.freeze to ('^(?!(model/)?head/)',) or leave "
            "cache_features out."
        )
    else:
        inputs = experiment.seen(2)
        seen = partial(features_of, experiment.components.model)
        what = "train.cache_features: the head's input can't be computed"
        jax.eval_shape(
            _saying(what, seen), params, state.model_state, inputs, state.hparams["model"]
        )
    section = config.data.augment
    changing = [name for name in augment.AUGMENTATIONS if section.get(name) is not None]
    changing += [name for name in ("own", "alternating_flip") if section.get(name)]
    if changing:
        found.append(
            "train.cache_features: data.augment changes examples anew in each epoch "
            f"({listing(changing)}): switch it off, or leave cache_features out."
        )
    return found
