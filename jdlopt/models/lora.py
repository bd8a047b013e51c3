"""Low-rank adapters: a frozen model, and small matrices beside its kernels that are trained."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

from jdlopt.config import Scalar
from jdlopt.errors import ConfigError, listing
from jdlopt.models.bridge import Model

PATTERNS = "model.lora_patterns"
KERNELS = ("kernel$",)
"""What is adapted unless a config says otherwise: all kernels of dense layers and convolutions."""
HEAD = r"^(model/)?head/"
"""The head, which is new for most tasks: trained itself, without adapters."""
STACKED = r"^(model/)?layers/"
"""The kernels of a model with ``scan_layers``: one array for all layers."""
FREEZE = r"^base/(?!(model/)?head/)"
"""What ``optim.freeze`` of a model with adapters holds unless it says itself what of ``^base/`` is
frozen: all but the head."""


def with_adapters(model: Model, rank: int, patterns: Sequence[str], stacked: str = "$^") -> Model:
    """Returns a model whose chosen kernels W are ``W + (alpha / rank) · a·b``.

    Its parameters are ``{"base": the model's own, "adapters": {…kernel: {"a", "b"}}}``. A kernel of
    more than two dimensions is taken as the matrix of all its dimensions but the last by the last.
    ``b`` starts at 0: the new model is at first the old one, to the bit. Hu et al., "LoRA: low-rank
    adaptation of large language models", 2021.

    Args:
      model: what is adapted.
      rank: columns of ``a``, rows of ``b``.
      patterns: regular expressions, each searched anywhere in the path of a parameter; of what they
        find, kernels outside the head are adapted.
      stacked: a regular expression of the paths whose kernels are stacked along a leading axis, one
        for each layer; every layer gets an adapter of its own.

    Returns:
      The model; its hyperparameters may hold ``lora_alpha``, else alpha is the rank.

    Raises:
      ConfigError: a pattern is not a regular expression, or (from ``init``) chooses nothing.

    Example:
      >>> from jdlopt.models import make_model
      >>> section = {"name": "linear", "lora_rank": 2, "lora_patterns": ("nothing",)}
      >>> make_model(section, 3).init(jax.random.key(0), jnp.ones((1, 4)), {})
      Traceback (most recent call last):
      ...
      jdlopt.errors.ConfigError: model.lora_patterns: 'nothing' matches no parameter. There are ...
    """
    expressions = [compiled(pattern, PATTERNS) for pattern in patterns]

    def init(key: Array, inputs: PyTree, hparams: PyTree) -> tuple[PyTree, PyTree]:
        base, state = model.init(key, inputs, _own(hparams))
        kernels = _chosen(base, expressions)
        keys = jax.random.split(jax.random.fold_in(key, len(kernels)), len(kernels))
        adapters = {}
        for one, (path, kernel) in zip(keys, kernels.items()):
            layers = kernel.shape[: int(bool(re.search(stacked, _name(path))))]
            rows = math.prod(kernel.shape[len(layers) : -1])
            adapters[(*path, "a")] = jax.random.normal(one, (*layers, rows, rank)) / rows**0.5
            adapters[(*path, "b")] = jnp.zeros((*layers, rank, kernel.shape[-1]))
        return {"base": base, "adapters": unflatten_dict(adapters)}, state

    def apply(
        params: PyTree, state: PyTree, inputs: PyTree[Array], hparams: PyTree, **options: object
    ) -> tuple[Array, PyTree]:
        alpha = hparams.get("lora_alpha")
        return model.apply(merged(params, alpha), state, inputs, _own(hparams), **options)

    return Model(init, apply)


def merged(params: Mapping[str, object], alpha: Scalar | None = None) -> PyTree:
    """Returns the parameters of the model without adapters that computes the same.

    Args:
      params: ``{"base": …, "adapters": …}``.
      alpha: the run's ``lora_alpha``; None: the rank.

    Example:
      >>> params = {
      ...     "base": {"kernel": jnp.ones((2, 1))},
      ...     "adapters": {"kernel": {"a": jnp.ones((2, 1)), "b": jnp.ones((1, 1))}},
      ... }
      >>> merged(params, alpha=0.5)["kernel"].tolist()
      [[1.5], [1.5]]
    """
    flat, adapters = flatten_dict(params["base"]), flatten_dict(params["adapters"])
    for path in {path[:-1] for path in adapters}:
        a, b, kernel = adapters[(*path, "a")], adapters[(*path, "b")], flat[path]
        scale = 1.0 if alpha is None else alpha / b.shape[-2]
        flat[path] = kernel + (scale * (a @ b)).reshape(kernel.shape)
    return unflatten_dict(flat)


def _own(hparams: PyTree) -> dict[str, object]:
    return {name: value for name, value in hparams.items() if name != "lora_alpha"}


def _name(path: tuple[object, ...]) -> str:
    return "/".join(map(str, path))


def compiled(pattern: str, key: str) -> re.Pattern[str]:
    """Returns a regular expression of parameters' paths.

    Args:
      pattern: its text.
      key: of the config that has it, for the message.

    Raises:
      ConfigError: it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"{key}: {pattern!r} is not a regular expression of parameter paths: {error}."
        ) from error


def nearest_paths(pattern: str, paths: Sequence[str]) -> str:
    """Returns a sentence with the paths that a pattern which chooses none may mean."""
    close = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.4)
    return f"The nearest are {listing(close)}." if close else f"There are {listing(paths)}."


def _chosen(base: PyTree, patterns: Sequence[re.Pattern[str]]) -> dict[tuple[object, ...], Array]:
    """Returns the kernels to adapt by their paths; each pattern must choose one."""
    flat = flatten_dict(base)
    able = {
        path: kernel
        for path, kernel in flat.items()
        if kernel.ndim >= 2 and not re.search(HEAD, _name(path))
    }
    for pattern in patterns:
        if any(pattern.search(_name(path)) for path in able):
            continue
        names = [_name(path) for path in able]
        if any(pattern.search(_name(path)) for path in flat):
            why = "matches only vectors and the head, which is trained itself"
        else:
            why = "matches no parameter"
        near = nearest_paths(pattern.pattern, names)
        if not names:
            near = "This model has no kernels but its head's: train it without model.lora_rank."
        raise ConfigError(f"{PATTERNS}: {pattern.pattern!r} {why}. {near}")
    return {
        path: kernel
        for path, kernel in able.items()
        if any(pattern.search(_name(path)) for pattern in patterns)
    }
