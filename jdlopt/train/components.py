"""From a resolved config and what is known of its data to the components of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jaxtyping import PyTree

from jdlopt import losses, models, optim
from jdlopt.config import to_dict
from jdlopt.data import augment, cleaning, feed, from_run, preprocess, source, vocabulary
from jdlopt.data.augment.batch import Part, make_augment
from jdlopt.data.dataset import Dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.given import open_given
from jdlopt.data.named import DECODER_INPUT, INPUT, by_name, each, those_with
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.errors import ConfigError, listing
from jdlopt.metrics import Collector
from jdlopt.models import pruning
from jdlopt.models.ensemble import with_members
from jdlopt.tasks import find_task
from jdlopt.tasks.pair_outputs import width_of_pairs
from jdlopt.train import scaling
from jdlopt.train.schema import Config
from jdlopt.train.step import Components

DEFAULT_EPOCHS = 20
_FITTED: WeakKeyDictionary[Dataset, dict[tuple[str, preprocess.Recipe], preprocess.State]] = (
    WeakKeyDictionary()
)


def open_clean(fields: DataFields) -> Dataset:
    """Opens the dataset of a resolved ``data`` section, without what its cleaning leaves out."""
    return cleaning.clean(source.open_dataset(fields), fields.preprocess)


def clean_given(fields: DataFields, given: object) -> Dataset:
    """Opens data that a program gives, without what its section's cleaning leaves out."""
    return cleaning.clean(open_given(fields, given), fields.preprocess)


def recipe_of(fields: DataFields, spec: DataSpec) -> preprocess.Recipes:
    """Returns what preprocessing does, to the only input or to each, by a ``data`` section."""
    return preprocess.make_recipes(fields.preprocess, spec.inputs, spec.name)


def kept_of(fields: DataFields, recipe: preprocess.Recipes, spec: DataSpec) -> from_run.State:
    """Returns what a config keeps of what another run learnt of its data: ``data.fit_on``."""
    known = from_run.kept(fields.fit_on)
    if known is None:
        return from_run.State({}, {})
    return from_run.state_for(known, recipe, spec, fields.target)


def learnt(
    recipe: preprocess.Recipes, dataset: Dataset, kept: Mapping[str, preprocess.State]
) -> preprocess.State:
    """Returns what preprocessing learns from a training split; of each input where it has several.

    It reads that split if there is anything to learn, once for each dataset and recipe.

    Args:
      recipe: what is done.
      dataset: the data.
      kept: by the name of an input, what is known of it already.
    """
    known = _FITTED.setdefault(dataset, {})

    def fitted(name: str, one: preprocess.Recipe) -> preprocess.State:
        if name in kept:
            return kept[name]
        if not preprocess.is_fitted(one):
            return {}
        if (name, one) not in known:
            known[name, one] = preprocess.fit_batches(one, lambda: _having(name, dataset))
        return known[name, one]

    found = {name: fitted(name, one) for name, one in by_name(recipe).items()}
    return found if isinstance(recipe, Mapping) else found[INPUT]


def _having(name: str, dataset: Dataset) -> Iterator[np.ndarray]:
    """Yields an input of the training examples that have it, part by part."""
    for part in feed.parts(dataset, "train"):
        values = those_with(by_name(part.inputs), name)
        if len(values):
            yield values


def shaped(
    inputs: InputSpec
    | preprocess.Shaped
    | Mapping[str, InputSpec]
    | Mapping[str, preprocess.Shaped],
    count: int,
) -> PyTree[jax.ShapeDtypeStruct]:
    """Returns the shapes and types of a batch of so many examples: raw, or as the model sees it."""
    return each(lambda one: jax.ShapeDtypeStruct((count, *one.shape), one.dtype), inputs)


def make_components(
    config: Config,
    spec: DataSpec,
    recipe: preprocess.Recipes,
    collector: Collector,
    class_counts: np.ndarray | None = None,
) -> Components:
    """Returns what a step of a resolved config is made of.

    Args:
      config: the resolved config.
      spec: what is known of its data.
      recipe: what preprocessing does.
      collector: of the metrics that an evaluation measures.
      class_counts: training examples of each class or label, where ``loss.class_weights`` asks
        for them.

    Raises:
      ConfigError: components can't be had together, or one can't be made.
    """
    steps, section, task = total_steps(config, spec), to_dict(config.optim), find_task(spec.task)
    asked, weights = config.loss.class_weights, None
    if asked is not None:
        counts = np.ones(spec.num_classes) if class_counts is None else class_counts
        size = spec.sizes["train"] if task.link == "sigmoid" else None
        weights = losses.resolve_class_weights(asked, counts, size)
    half = config.model.dtype == "float16"
    return Components(
        model=model_of(config, spec, recipe),
        loss=losses.make_loss(
            to_dict(config.loss), weights, config.model.ensemble, task.link, spec.positions
        ),
        measured=task.measured,
        optimizer=pruning.scored(
            optim.make_optimizer(section, steps), config.model.prune.criterion
        ),
        average=_average(config, section, steps),
        freezing=optim.make_freezing(section),
        preprocess=partial(preprocess.apply, recipe),
        augment=augment_of(config, spec, config.data.augment),
        learning_rate=partial(optim.learning_rate_at, section, steps),
        eval_params=partial(optim.eval_params, section),
        collect=collector.collect,
        accumulate=config.optim.accumulate,
        loss_scale=scaling.start if half else tuple,
        teacher_forcing=task.teacher_forcing,
    )


def _average(config: Config, section: Mapping[str, Any], steps: int) -> optim.Average:
    """What is evaluated of a training: parameters averaged, and pruned, where it asks for that."""
    average = optim.make_average(section, steps)
    if config.model.prune.criterion is None:
        return average

    def evaluated(state: Any, params: PyTree, model_state: PyTree) -> tuple[PyTree, PyTree]:
        params, model_state = average.evaluated(state, params, model_state)
        return pruning.applied(params, model_state), model_state

    return average._replace(evaluated=evaluated)


def augment_of(config: Config, spec: DataSpec, section: Mapping[str, object]) -> Any:
    """Returns the augmentation that a ``data.augment`` section describes."""
    parts, vocabulary = parts_of(spec, config.data.preprocess, section)
    return make_augment(
        section,
        size=spec.sizes["train"],
        batch_size=config.data.batch_size,
        num_outputs=num_outputs(config, spec),
        classes=spec.num_classes,
        vocabulary=vocabulary,
        parts=parts,
        masks=spec.positions == 2 and parts is None,
    )


def parts_of(
    spec: DataSpec, fields: preprocess.PreprocessFields, section: Mapping[str, object]
) -> tuple[dict[str, Part] | None, dict[str, int] | None]:
    """Returns what augments each of named inputs, and the vocabulary of an only one that is text.

    Args:
      spec: what is known of the data.
      fields: their ``data.preprocess`` section.
      section: ``data.augment``.
    """
    if isinstance(spec.inputs, InputSpec):
        return None, _vocabulary(spec.inputs)
    fitting = {name: augment.inputs_of(spec, fields, one) for name, one in spec.inputs.items()}
    parts = {
        name: Part(augment.fitted(section, fitting[name]), _vocabulary(one))
        for name, one in spec.inputs.items()
    }
    return parts, None


def _vocabulary(one: InputSpec) -> dict[str, int] | None:
    return None if one.text is None else one.text.vocabulary()


def model_of(
    config: Config,
    spec: DataSpec,
    recipe: preprocess.Recipes,
    members: int | None = None,
    more_outputs: int = 0,
) -> models.Model:
    """Returns the model of a config for what preprocessing makes of its data.

    Args:
      config: the resolved config.
      spec: what is known of its data.
      recipe: what preprocessing does.
      members: models of the ensemble, instead of the config's.
      more_outputs: outputs beside those that the task needs.
    """
    section, wide = to_dict(config.model), num_outputs(config, spec) + more_outputs
    facts = each(_facts, spec.inputs, recipe)
    task = find_task(spec.task)
    loss = losses.make_loss(to_dict(config.loss), link=task.link, positions=spec.positions)
    mean = partial(losses.mean_outputs, loss)
    keys: dict[str, Any] = {
        "mean_outputs": mean,
        "steps": total_steps(config, spec),
        "calls": config.optim.accumulate,
        "microbatches": config.mesh.microbatches,
        "positions": spec.positions,
        "target_inputs": () if task.teacher_forcing is None else (DECODER_INPUT,),
    }
    if isinstance(facts, models.InputFacts):
        model = models.make_model(
            section,
            wide,
            tokens=facts.tokens,
            columns=facts.columns,
            names=facts.names,
            **keys,
        )
    else:
        model = models.make_model(section, wide, named=facts, **keys)
    members = config.model.ensemble if members is None else members
    if members == 1:
        return model
    _check_ensemble(config)
    return with_members(model, members, mean)


def _facts(spec: InputSpec, recipe: preprocess.Recipe) -> models.InputFacts:
    return models.InputFacts(
        tokens=0 if spec.text is None else spec.text.size,
        columns=recipe.cardinalities if recipe.fields.encode == "embedding" else (),
        names=recipe.names,
        waveform=recipe.kind == "audio" and recipe.fields.audio == "none",
    )


def _check_ensemble(config: Config) -> None:
    """Raises what an ensemble's models can't have."""
    clashing = [
        key
        for key, has in (
            ("model.lora_rank", config.model.lora_rank is not None),
            ("model.pretrained", config.model.pretrained is not None),
            ("train.cache_features", config.train.cache_features),
        )
        if has
    ]
    if clashing:
        raise ConfigError(
            f"model.ensemble: members start from random values, each its own; {listing(clashing)} "
            "can't be had together with it. Set model.ensemble=1."
        )


def token_rows(spec: DataSpec) -> np.ndarray | None:
    """Returns what a tokenizer file calls each of a text's token ids, -1 for none; or None."""
    text = spec.inputs.text if isinstance(spec.inputs, InputSpec) else None
    return None if text is None else vocabulary.load(text.state.tokenizer).own_ids


def num_outputs(config: Config, spec: DataSpec) -> int:
    """Returns the width of the model's outputs."""
    wide = find_task(spec.task).width(spec, config.loss.name)
    if wide:
        return wide
    features = config.model.options.get("features")
    return width_of_pairs(features) if isinstance(features, int) else 0


def total_steps(config: Config, spec: DataSpec) -> int:
    """Returns the updates in the whole run."""
    epochs = config.train.epochs or DEFAULT_EPOCHS
    return config.train.steps or -(-epochs * spec.sizes["train"] // config.data.batch_size)
