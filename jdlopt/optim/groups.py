"""Groups of parameters, chosen by regular expressions in their paths: who decays, who is frozen."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import PyTree

from jdlopt.config import Natural, NonNegative, Positive, Value, own_keys
from jdlopt.errors import ConfigError, listing

NO_DECAY = (r"\bbias\b", r"\bscale\b")
"""Biases and the scales of normalisation layers: weight decay should leave them alone."""
REST, FROZEN = "", None
"""The labels of parameters in no group: trained as ``optim`` says, or never."""


def matching(params: PyTree, patterns: Sequence[str], key: str = "") -> PyTree[bool]:
    r"""Returns for each parameter whether a pattern is found in its ``/``-joined path.

    Args:
      params: parameters, or anything of their structure.
      patterns: regular expressions; each is searched anywhere in the path.
      key: of the config that names them, for messages.

    Returns:
      A tree of bools of the same structure.

    Raises:
      ConfigError: a pattern is not a regular expression.

    Example:
      >>> params = {"dense": {"bias": 0, "kernel": 0}, "rescale": 0}
      >>> matching(params, [r"\bbias\b", r"\bscale\b"])
      {'dense': {'bias': True, 'kernel': False}, 'rescale': False}
    """
    compiled = _all_compiled(key, patterns)

    def found(path: tuple[object, ...], _: object) -> bool:
        return any(pattern.search(path_name(path)) for pattern in compiled)

    return jax.tree_util.tree_map_with_path(found, params)


def _compiled(pattern: str, key: str = "") -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        where = f"{key}: " if key else ""
        raise ConfigError(
            f"{where}{pattern!r} is not a regular expression of parameter paths: {error}."
        ) from error


def _all_compiled(key: str, patterns: Sequence[str]) -> list[re.Pattern[str]]:
    return [_compiled(pattern, key) for pattern in patterns]


def decay_mask(params: PyTree, exclude: Sequence[str] = NO_DECAY) -> PyTree[bool]:
    """Returns for each parameter whether weight decay applies to it.

    Args:
      params: parameters, or anything of their structure.
      exclude: regular expressions of the paths that do not decay.

    Example:
      >>> decay_mask({"dense": {"bias": 0, "kernel": 0}})
      {'dense': {'bias': False, 'kernel': True}}
    """
    return jax.tree.map(lambda found: not found, matching(params, exclude))


@dataclass(frozen=True)
class GroupFields:
    r"""The keys of a section ``optim.groups.NAME``: parameters that are trained in their own way.

    A group with a ``name`` also takes the keys of that optimizer, at their own defaults; one
    without uses ``optim``'s optimizer with its keys. Clipping, schedule and ``decay_exclude`` are
    ``optim``'s for all. What no group matches is trained as ``optim`` says.

    Attributes:
      params: regular expressions, each searched anywhere in a parameter's path; no two groups may
        match the same parameter.
      learning_rate: the group's own, which the schedule's factor multiplies; None:
        ``optim.learning_rate``.
      learning_rate_scale: multiplies the learning rate.
      layer_decay: multiplies the rate once more for each layer down from the group's topmost. A
        pattern captures the layer's number, as ``layer_(\d+)`` or ``stage_(\d+)/block_(\d+)`` does;
        what a pattern without one matches lies below them all.
      weight_decay: the group's own; None: ``optim.weight_decay``, or the named optimizer's default.
      unfreeze_at: the first step that trains the group. Before it there is no update, no decay, and
        no moments; its optimizer starts to count there.
      name: an `OPTIMIZERS` entry, or ``package.module:function``; None: ``optim.name``.
      options: the named optimizer's own keys.
    """

    params: tuple[str, ...]
    learning_rate: Positive | None = None
    learning_rate_scale: NonNegative = 1.0
    layer_decay: Positive | None = None
    weight_decay: NonNegative | None = None
    unfreeze_at: Natural = 0
    name: str | None = None
    options: Mapping[str, Value] = own_keys()


def path_name(path: tuple[object, ...]) -> str:
    """Returns a leaf's path as patterns see it: its keys joined by ``/``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def labels_of(section: Mapping[str, Any]) -> Callable[[str], str | None]:
    """Returns what says of a parameter's path which group it is in: `REST`, or `FROZEN` in none.

    Args:
      section: the ``optim`` section; ``freeze`` goes before ``groups``.

    Raises:
      ConfigError: a pattern is not a regular expression.
    """
    frozen = _all_compiled("optim.freeze", section.get("freeze", ()))
    groups = {
        name: _all_compiled(f"optim.groups.{name}.params", group["params"])
        for name, group in section.get("groups", {}).items()
    }

    def label(path: str) -> str | None:
        if any(pattern.search(path) for pattern in frozen):
            return FROZEN
        found = [
            name
            for name, patterns in groups.items()
            if any(pattern.search(path) for pattern in patterns)
        ]
        if len(found) > 1:
            raise ConfigError(
                f"optim.groups: {found[0]!r} and {found[1]!r} both match the parameter {path!r}: "
                "make their patterns exclude each other."
            )
        return found[0] if found else REST

    return label


def members(
    label: Callable[[str], str | None], names: Container[str | None], tree: PyTree
) -> PyTree:
    """Returns a tree with the leaves of some groups, and None, which is no leaf, elsewhere.

    Args:
      label: what `labels_of` returned.
      names: the groups' labels.
      tree: parameters, or anything of their structure.

    Example:
      >>> label = labels_of({"freeze": ("^body",)})
      >>> members(label, (FROZEN,), {"body": 1, "head": 2})
      {'body': 1, 'head': None}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if label(path_name(path)) in names else None, tree
    )


def joined(*trees: PyTree) -> PyTree:
    """Puts trees that `members` made together again: each leaf from the first tree that has it.

    Example:
      >>> joined({"body": 1, "head": None}, {"body": None, "head": 2})
      {'body': 1, 'head': 2}
    """

    def first(*leaves: object) -> Any:
        return next((leaf for leaf in leaves if leaf is not None), None)

    return jax.tree.map(first, *trees, is_leaf=lambda leaf: leaf is None)


def check_groups(section: Mapping[str, Any], params: PyTree) -> None:
    """Checks the patterns of ``optim.freeze`` and ``optim.groups`` against the parameters.

    Raises:
      ConfigError: a pattern matches nothing, a group is empty, two groups share a parameter, or
        nothing is left to train.
    """
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    groups = section.get("groups", {})
    patterns = [("optim.freeze", pattern) for pattern in section.get("freeze", ())]
    patterns += [
        (f"optim.groups.{name}.params", pattern)
        for name, group in groups.items()
        for pattern in group["params"]
    ]
    for key, pattern in patterns:
        if not any(_compiled(pattern, key).search(path) for path in paths):
            close = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.4)
            near = f"The nearest are {listing(close)}" if close else f"There are {listing(paths)}"
            raise ConfigError(f"{key}: {pattern!r} matches no parameter. {near}.")
    label = labels_of(section)
    labels = [label(path) for path in paths]
    for name, group in groups.items():
        if name not in labels:
            why = (
                "optim.freeze takes all that it matches" if group["params"] else "it has no params"
            )
            raise ConfigError(f"optim.groups.{name}: holds no parameter: {why}.")
    if paths and set(labels) == {FROZEN}:
        raise ConfigError(
            f"optim.freeze: {listing(section['freeze'])} freezes all {len(paths)} parameters: "
            "leave something to train, such as the head."
        )
    starts = [groups[name]["unfreeze_at"] if name else 0 for name in labels if name is not FROZEN]
    if starts and min(starts) > 0:
        raise ConfigError(
            f"optim.groups: nothing is trained before step {min(starts)}: give one group "
            "unfreeze_at=0."
        )


def layers_from_top(name: str, patterns: Sequence[str], params: PyTree) -> PyTree[int]:
    r"""Returns for each parameter of a group how many layers lie above its own.

    Args:
      name: the group's name, for messages.
      patterns: regular expressions; the numbers that the first one to match captures are the
        layer's. Without a number it lies below all others.
      params: the group's parameters.

    Raises:
      ConfigError: no number is captured, or something else is.

    Example:
      >>> params = {"embed": 0, "layer_2": 0, "layer_10": 0}
      >>> layers_from_top("body", ["^embed", r"layer_(\d+)"], params)
      {'embed': 2, 'layer_10': 0, 'layer_2': 1}
    """
    compiled = [_compiled(pattern, f"optim.groups.{name}.params") for pattern in patterns]

    def numbers(path: str) -> tuple[int, ...]:
        match = next(found for pattern in compiled if (found := pattern.search(path)))
        captured = [text for text in match.groups() if text is not None]
        if not all(text.isdecimal() for text in captured):
            raise ConfigError(
                f"optim.groups.{name}.layer_decay: {match.re.pattern!r} captures {captured[0]!r} "
                rf"in {path!r}; expected the layer's number, as in 'layer_(\d+)'."
            )
        return tuple(map(int, captured))

    named = jax.tree_util.tree_map_with_path(lambda path, _: path_name(path), params)
    order = sorted({numbers(path) for path in jax.tree.leaves(named)})
    if order in ([], [()]):
        raise ConfigError(
            f"optim.groups.{name}.layer_decay: no pattern of its params captures a layer's number; "
            rf"expected one such as 'layer_(\d+)'."
        )
    return jax.tree.map(lambda path: len(order) - 1 - order.index(numbers(path)), named)
