"""What can't work: everything about a config that is known to be wrong before it is trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jdlopt import config as configs
from jdlopt import losses, mesh, metrics, optim
from jdlopt.data import augment, preprocess, source
from jdlopt.errors import ConfigError, listing
from jdlopt.models import pretrained
from jdlopt.models.head import features_of
from jdlopt.optim.groups import FROZEN, labels_of, path_name
from jdlopt.optim.schedules import warmup_problem
from jdlopt.train.parts import fitted, model_of, num_outputs, token_rows, total_steps
from jdlopt.train.state import as_arrays


def impossible(
    config: Mapping[str, Any], dataset: source.Dataset, known: Sequence[str]
) -> list[str]:
    """What can't work with this dataset or machine, in words.

    Args:
      config: the checked config.
      dataset: its dataset.
      known: the problems found so far; what stands on a key with one is not looked at.
    """
    problems: list[str] = []

    def sound(*keys: str) -> bool:
        return not any(problem.startswith(key) for key in keys for problem in known)

    batch_size, train, loss = config["data"]["batch_size"], config["train"], config["loss"]
    size = dataset.sizes["train"]
    if batch_size > size:
        problems.append(
            f"data.batch_size: {batch_size} is larger than the training split of "
            f"{dataset.name!r}, {size} examples."
        )
    if sound("optim") and batch_size % config["optim"]["accumulate"]:
        problems.append(
            f"optim.accumulate: {config['optim']['accumulate']} doesn't divide data.batch_size, "
            f"{batch_size}."
        )
    if sound("train") and train["epochs"] is not None and train["steps"] is not None:
        problems.append("train: give epochs or steps, not both.")
    if sound("train", "optim.schedule"):
        problem = warmup_problem(config["optim"]["schedule"], total_steps(config, dataset))
        problems += [problem] if problem else []
    if sound("train", "optim.groups"):
        steps = total_steps(config, dataset)
        problems += [
            f"optim.groups.{name}.unfreeze_at: {group['unfreeze_at']} is not within the {steps} "
            "steps of the whole training: unfreeze earlier, or name its parameters in optim.freeze."
            for name, group in config["optim"]["groups"].items()
            if group["unfreeze_at"] >= steps
        ]
    if sound("loss") and losses.task_of(loss["name"]) != dataset.task:
        fitting = listing(name for name in losses.LOSSES if losses.task_of(name) == dataset.task)
        kind = "classes" if dataset.task == "classification" else "a number"
        problems.append(
            f"loss.name: {loss['name']!r} is for {losses.task_of(loss['name'])}; the target of "
            f"{dataset.name!r} is {kind}: choose one of {fitting}."
        )
    if sound("loss") and loss["class_weights"] is not None:
        problems += _weight_problems(loss["class_weights"], dataset)
    if sound("train.metrics"):
        for name in train["metrics"]:
            problem = metric_problem(name, dataset)
            problems += [f"train.metrics: {problem}"] if problem else []
    if sound("train.monitor") and train["monitor"] is not None:
        split, _, name = train["monitor"].partition("/")
        if split == "validation" and name:
            problem = metric_problem(name, dataset, watched=True)
            problems += [f"train.monitor: {problem}"] if problem else []
        else:
            problems.append(
                f"train.monitor: expected 'validation/METRIC', found {train['monitor']!r}."
            )
    if sound("data.augment"):
        data = config["data"]
        problems += augment.problems(data["augment"], dataset, data["preprocess"])
    if sound("mesh"):
        problems += mesh.mesh_problems(config["mesh"], batch_size, len(jax.devices()))
    return problems


def _weight_problems(weights: str | Sequence[float], dataset: source.Dataset) -> list[str]:
    if not dataset.num_classes:
        return [
            f"loss.class_weights: the target of {dataset.name!r} is a number; it has no classes. "
            "Leave it out."
        ]
    if weights == "balanced":
        return []
    try:
        losses.resolve_class_weights(weights, np.ones(dataset.num_classes))
    except ConfigError as error:
        return [str(error)]
    return []


def metric_problem(name: str, dataset: source.Dataset, watched: bool = False) -> str | None:
    """Says why a metric can't be measured on a dataset (or watched during training), or None."""
    try:
        metrics.make_collector([name], dataset.task, dataset.num_classes)
        if watched:
            metrics.higher_is_better(name)
    except ConfigError as error:
        return str(error)
    return None


def unbuildable(config: Mapping[str, Any], dataset: source.Dataset) -> list[str]:
    """Traces a step's parts on the shapes of two examples: what can't be built fails here.

    So it fails before a directory is claimed for it, and the message says which part it was.
    """
    names = {section: config[section]["name"] for section in ("model", "loss", "optim")}
    wide = num_outputs(config, dataset)
    hparams = as_arrays(configs.hyperparameters(config))
    key = jax.random.key(0)
    recipe, state = fitted(config["data"], dataset)
    shape, dtype = preprocess.output_shape(recipe, state, dataset.input_shape, dataset.input_dtype)
    inputs = jax.ShapeDtypeStruct((2, *shape), dtype)
    targets = jax.ShapeDtypeStruct((2,), dataset.target_dtype)
    weighted = config["loss"]["class_weights"] is not None
    weights = np.ones(dataset.num_classes) if weighted else None

    members = config["model"]["ensemble"]

    def forward(inputs: Array) -> Any:
        model = model_of(config, wide, dataset.meta(), recipe)
        params, model_state = model.init(key, inputs, hparams["model"])
        outputs = model.apply(params, model_state, inputs, hparams["model"], key=key, train=True)
        return params, model_state, outputs[0]

    def objective(outputs: Array, targets: Array, params: Any) -> Any:
        loss = losses.make_loss(config["loss"], weights, members)
        one = outputs if members == 1 else outputs[0]
        return (
            loss.per_example(one, targets, hparams["loss"]),
            loss.objective(outputs, targets, params, hparams["loss"]),
        )

    def update(params: Any) -> Any:
        optimizer = optim.make_optimizer(config["optim"], total_steps(config, dataset))
        optim.make_average(config["optim"], total_steps(config, dataset))
        return optimizer.update(
            params,
            optimizer.init(params),
            params,
            hparams=hparams["optim"],
            value=jnp.zeros(()),
            grad_fn=lambda params: params,
        )[0]

    def probe(params: Any, inputs: Array) -> Any:
        model = model_of(config, wide, dataset.meta(), recipe)
        state = model.init(key, inputs, hparams["model"])[1]
        return features_of(model, params, state, inputs, hparams["model"])

    try:
        what = f"model: {names['model']!r} can't take inputs of shape {shape} of {dataset.name!r}"
        params, model_state, outputs = jax.eval_shape(forward, inputs)
        returned = outputs.shape if members == 1 else outputs.shape[1:]
        if returned != (2, wide):
            return [
                f"model: {names['model']!r} returns shape {returned} for 2 examples; "
                f"expected {(2, wide)}."
            ]
        if config["model"]["pretrained"] is not None:
            what = "model.pretrained: can't be read"
            pretrained.load(config["model"], params, model_state, token_rows(dataset))
        what = f"loss: {names['loss']!r} can't be computed from {wide} outputs and these targets"
        each, mean = jax.eval_shape(objective, outputs, targets, params)
        if each.shape != (2,) or mean.shape != ():
            return [
                f"loss: {names['loss']!r} returns shape {each.shape} for 2 examples; expected "
                "(2,): one number an example."
            ]
        what = f"optim: {names['optim']!r} can't update the parameters"
        jax.eval_shape(update, params)
        if config["train"]["cache_features"]:
            what = "train.cache_features: the head's input can't be computed"
            found = _uncacheable(config, params)
            if found:
                return found
            jax.eval_shape(probe, params, inputs)
    except ConfigError as error:
        section, text = what.partition(":")[0], str(error)
        return [text if text.startswith(section) else f"{section}: {text}"]
    except Exception as error:  # whatever a part raises about what it is given, the config chose it
        text = " ".join(str(error).split())
        return [f"{what}: {type(error).__name__}: {text[:300]}"]
    return []


def _uncacheable(config: Mapping[str, Any], params: Any) -> list[str]:
    """What is in the way of ``train.cache_features``, in words."""
    label = labels_of(config["optim"])
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    heads = [path for path in paths if re.match("(base/)?(model/)?head/", path)]
    others = [path for path in paths if path not in heads]
    trained = [path for path in others if label(path) is not FROZEN]
    found = []
    if not heads or not others:
        what = "no parameters named 'head/…'" if not heads else "no parameters but the head's"
        found.append(
            f"train.cache_features: the model {config['model']['name']!r} has {what}: there is no "
            "body to compute features with. Leave it out."
        )
    elif trained:
        found.append(
            f"train.cache_features: all but the head must be frozen, but {listing(trained, 4)} "
            r"would be trained. Set optim.freeze to ('^(?!(model/)?head/)',) or leave "
            "cache_features out."
        )
    section = config["data"]["augment"]
    changing = [name for name in augment.AUGMENTATIONS if section.get(name) is not None]
    changing += [name for name in ("own", "alternating_flip") if section.get(name)]
    if changing:
        found.append(
            "train.cache_features: data.augment changes examples anew in each epoch "
            f"({listing(changing)}): switch it off, or leave cache_features out."
        )
    return found
