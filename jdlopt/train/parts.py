"""What a config and its dataset make together, before anything is built: sizes, fits, the model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from jdlopt import losses, models
from jdlopt.data import cleaning, feed, preprocess, source, vocabulary
from jdlopt.data.text_input import from_meta
from jdlopt.errors import ConfigError, listing
from jdlopt.models.ensemble import with_members

DEFAULT_EPOCHS = 20


def open_clean(section: Mapping[str, Any]) -> source.Dataset:
    """Opens the dataset of a resolved ``data`` section, without what its cleaning leaves out."""
    dataset = source.open_dataset(section)
    return cleaning.clean(dataset, section["preprocess"])


def fitted(
    section: Mapping[str, Any], dataset: source.Dataset
) -> tuple[preprocess.Recipe, preprocess.State]:
    """Returns what preprocessing does to a dataset, and what it learns from its training split.

    It reads that split if there is anything to learn, and remembers what it learnt.
    """
    recipe = preprocess.make_recipe(section["preprocess"], dataset.meta())
    if not preprocess.is_fitted(recipe):
        return recipe, {}
    if recipe not in dataset.fitted:
        dataset.fitted[recipe] = preprocess.fit_batches(
            recipe, lambda: (part.inputs for part in feed.parts(dataset, "train"))
        )
    return recipe, dataset.fitted[recipe]


def model_of(
    config: Mapping[str, Any], outputs: int, meta: Mapping[str, Any], recipe: preprocess.Recipe
) -> models.Model:
    """Returns the model of a config for what preprocessing makes of its data.

    Args:
      config: the resolved config.
      outputs: the width of its last layer.
      meta: `Dataset.meta` of the data.
      recipe: what preprocessing does.
    """
    tokens = from_meta(meta["text"]).size if meta.get("text") else 0
    columns = recipe.cardinalities if recipe.fields.encode == "embedding" else ()
    model = models.make_model(
        config["model"], outputs, tokens=tokens, columns=columns, names=recipe.names
    )
    members = config["model"]["ensemble"]
    if members == 1:
        return model
    _check_ensemble(config)
    mean = partial(losses.mean_outputs, losses.make_loss(config["loss"]))
    return with_members(model, members, mean)


def _check_ensemble(config: Mapping[str, Any]) -> None:
    """Raises what an ensemble's members can't have."""
    clashing = [
        key
        for key, has in (
            ("model.lora_rank", config["model"]["lora_rank"] is not None),
            ("model.pretrained", config["model"]["pretrained"] is not None),
            ("train.cache_features", config["train"]["cache_features"]),
        )
        if has
    ]
    if clashing:
        raise ConfigError(
            f"model.ensemble: members start from random values, each its own; {listing(clashing)} "
            "can't be had together with it. Set model.ensemble=1."
        )


def token_rows(dataset: source.Dataset) -> np.ndarray | None:
    """Returns what a tokenizer file calls each of a text's token ids, -1 for none; or None."""
    return None if dataset.text is None else vocabulary.load(dataset.text.state.tokenizer).own_ids


def num_outputs(config: Mapping[str, Any], dataset: source.Dataset) -> int:
    """Returns the width of the model's last layer."""
    if dataset.task == "regression":
        return 1
    return losses.num_outputs(config["loss"]["name"], dataset.num_classes)


def total_steps(config: Mapping[str, Any], dataset: source.Dataset) -> int:
    """Returns the updates in the whole run."""
    train, batch_size = config["train"], config["data"]["batch_size"]
    epochs = train["epochs"] or DEFAULT_EPOCHS
    return train["steps"] or -(-epochs * dataset.sizes["train"] // batch_size)
