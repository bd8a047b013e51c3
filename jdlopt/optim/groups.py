"""Groups of parameters, chosen by regular expressions in their paths: who decays, who doesn't."""

from __future__ import annotations

import re
from collections.abc import Sequence

import jax
from jaxtyping import PyTree

from jdlopt.errors import ConfigError

NO_DECAY = (r"\bbias\b", r"\bscale\b")
"""Biases and the scales of normalisation layers: weight decay should leave them alone."""


def matching(params: PyTree, patterns: Sequence[str]) -> PyTree[bool]:
    r"""Says of each parameter whether a pattern is found in its ``/``-joined path.

    Args:
      params: parameters, or anything of their structure.
      patterns: regular expressions; each is searched anywhere in the path.

    Returns:
      A tree of bools of the same structure.

    Raises:
      ConfigError: a pattern is not a regular expression.

    Example:
      >>> params = {"dense": {"bias": 0, "kernel": 0}, "rescale": 0}
      >>> matching(params, [r"\bbias\b", r"\bscale\b"])
      {'dense': {'bias': True, 'kernel': False}, 'rescale': False}
    """
    compiled = [_compiled(pattern) for pattern in patterns]

    def found(path: tuple, _: object) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return any(pattern.search(name) for pattern in compiled)

    return jax.tree_util.tree_map_with_path(found, params)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"{pattern!r} is not a regular expression of parameter paths: {error}."
        ) from error


def decay_mask(params: PyTree, exclude: Sequence[str] = NO_DECAY) -> PyTree[bool]:
    """Says of each parameter whether weight decay applies to it.

    Args:
      params: parameters, or anything of their structure.
      exclude: regular expressions of the paths that do not decay.

    Example:
      >>> decay_mask({"dense": {"bias": 0, "kernel": 0}})
      {'dense': {'bias': False, 'kernel': True}}
    """
    return jax.tree.map(lambda found: not found, matching(params, exclude))
