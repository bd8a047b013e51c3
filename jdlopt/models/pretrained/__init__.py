"""Weights from outside: a model starts from a checkpoint instead of random values.

What a table of names says is missing, left over or of another shape is listed, and is an error; a
head of another width is new.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from jdlopt.errors import ConfigError, listing
from jdlopt.models.pretrained import files
from jdlopt.models.pretrained.families import FAMILIES, Family

__all__ = ["FAMILIES", "Loaded", "load", "placed"]

SHOWN = 10
"""Tensors of each kind of problem that a message lists."""
WRAPPED = re.compile(r"^(base/)?(model/)?")
"""What may stand before a model's own paths: adapters' base, and a model behind an embedding."""
HEAD = "head/"
TOKENS = "embeddings/tokens/embedding"
SPARE_ROWS = 0.01
"""The share of a token table's rows that no token may have: some are as large as is fast."""
HINTS = {
    TOKENS: "Its vocabulary is another one: set data.text.tokenizer to the "
    "tokenizer.json that came with it.",
    "embeddings/positions/embedding": "Set model.max_positions (of an image model, the image size "
    "and patch_size) to what it was trained with.",
    "embeddings/types/embedding": "Set model.num_types to what it was trained with.",
}


class Loaded(NamedTuple):
    """A checkpoint as a model's own arrays.

    Attributes:
      params, state: arrays by their paths in the model's parameters and state, ``a/b/c``.
      record: what ``pretrained.json`` says: the file, its sha256, the family, and which parameters
        are new and which tensors were left over.
    """

    params: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    record: dict[str, Any]


def load(
    section: Mapping[str, Any], params: PyTree, state: PyTree, rows: np.ndarray | None = None
) -> Loaded:
    """Returns the checkpoint that ``model.pretrained`` names, for parameters of these shapes.

    Args:
      section: the resolved ``model`` section.
      params, state: the model's, or their shapes.
      rows: of token ids, the checkpoint's id of each; -1 where it has none. None: they are equal.

    Raises:
      ConfigError: it can't be read, is another model's, or tensors are missing, left over or of
        another shape: all of them are listed.
    """
    name, place = section["name"], section["pretrained"]
    if name not in FAMILIES:
        raise ConfigError(
            f"model.pretrained: there is no table of names for model.name {name!r}. Known: "
            f"{listing(FAMILIES)}."
        )
    tensors = files.read(place)
    shapes = {path: leaf.shape for path, leaf in _flat(params).items()}
    adapted = {path for path in shapes if path.startswith("adapters/")}
    wanted = {path: shape for path, shape in shapes.items() if path not in adapted}
    stats = {path: leaf.shape for path, leaf in _flat(state).items()}
    family, prefix = _best(FAMILIES[name], tensors.arrays, [*wanted, *stats], name, tensors.path)
    return _filled(family, prefix, tensors, wanted, stats, rows)


def placed(loaded: Any, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    """Returns a model's parameters and state with a checkpoint's arrays in their places. Pure.

    Args:
      loaded: ``(params, state)`` by path, as in `Loaded`.
      params, state: the model's initial ones.
    """
    return _with(params, loaded[0]), _with(state, loaded[1])


def _with(tree: PyTree, arrays: Mapping[str, object]) -> PyTree:
    flat = flatten_dict(tree)
    for path in flat:
        if "/".join(path) in arrays:
            flat[path] = jnp.asarray(arrays["/".join(path)], flat[path].dtype)
    return unflatten_dict(flat)


def _flat(tree: PyTree) -> dict[str, Any]:
    return {"/".join(map(str, path)): leaf for path, leaf in flatten_dict(tree).items()}


# --- names ----------------------------------------------------------------------------------------


def _own(path: str) -> str:
    """A path without what wraps the model."""
    return WRAPPED.sub("", path)


def _layers(path: str, shape: tuple[int, ...]) -> list[str]:
    """The paths of a stacked parameter's layers, or the path itself."""
    if not path.startswith("layers/"):
        return [path]
    return [f"layer_{index}/{path.removeprefix('layers/')}" for index in range(shape[0])]


def _best(
    families: tuple[Family, ...],
    arrays: Mapping[str, np.ndarray],
    paths: list[str],
    name: str,
    place: str,
) -> tuple[Family, str]:
    """The family and the prefix by which most of a model's parameters are found."""

    def found(family: Family, prefix: str) -> int:
        sources = [family.source(_layers(_own(path), (1,))[0]) for path in paths]
        return sum(one is not None and f"{prefix}{one[0]}" in arrays for one in sources)

    family, prefix = max(
        ((family, prefix) for family in families for prefix in family.prefixes),
        key=lambda pair: found(*pair),
    )
    if found(family, prefix) < 0.5 * sum(family.source(_own(p)) is not None for p in paths):
        examples = [one[0] for path in paths if (one := family.source(_own(path)))][:3]
        known = [
            f"{model!r} ({other.name})"
            for model, some in FAMILIES.items()
            for other in some
            if model != name and _looks(other, arrays)
        ]
        hint = f" It looks like a checkpoint of {known[0]}." if known else ""
        raise ConfigError(
            f"model.pretrained: '{place}' is no checkpoint of model.name {name!r}: it holds "
            f"{len(arrays)} tensors, such as {listing(list(arrays)[:3])}; expected names such as "
            f"{listing(examples)}.{hint}"
        )
    return family, prefix


def _looks(family: Family, arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether most of a family's names without numbers are there, under some prefix."""
    plain = [rule.theirs for rule in family.rules if "{" not in rule.theirs]
    plain = [name for name in plain if not family.is_unneeded(name)]
    return any(
        sum(f"{prefix}{name}" in arrays for name in plain) > 0.6 * len(plain)
        for prefix in family.prefixes
    )


def _filled(
    family: Family,
    prefix: str,
    tensors: files.Tensors,
    params: Mapping[str, tuple[int, ...]],
    stats: Mapping[str, tuple[int, ...]],
    rows: np.ndarray | None,
) -> Loaded:
    used: set[str] = set()
    missing: list[str] = []
    misshapen: list[str] = []
    new: list[str] = []
    hints: list[str] = []
    found: dict[str, np.ndarray] = {}
    for path, shape in {**params, **stats}.items():
        own = _own(path)
        arrays, lacks = [], False
        for one in _layers(own, shape):
            source = family.source(one)
            theirs = None if source is None else f"{prefix}{source[0]}"
            if source is not None and theirs not in tensors.arrays and own.startswith(HEAD):
                theirs = source[0]  # heads stand outside what has the prefix
            if source is None or theirs not in tensors.arrays:
                lacks = True
                if not own.startswith(HEAD):
                    missing.append(f"{one} ({theirs or 'no name there'})")
                continue
            used.add(str(theirs))
            arrays.append(_float32(_turned(source[1], tensors.arrays[str(theirs)])))
        if lacks or not arrays:
            new += [path] if own.startswith(HEAD) else []
            continue
        shapes = {array.shape for array in arrays}
        whole = np.stack(arrays) if own.startswith("layers/") and len(shapes) == 1 else arrays[0]
        if own == TOKENS and rows is not None:
            whole = _by_row(whole, rows)
        if whole.shape == shape:
            found[path] = whole
        elif own.startswith(HEAD):
            new.append(path)
        else:
            misshapen.append(f"{path}: {shape} here, {whole.shape} there")
            hints += [HINTS[own]] if own in HINTS else []
    left = [name for name in tensors.arrays if name not in used]
    ignored = [name for name in left if family.is_unneeded(name.removeprefix(prefix))]
    unexpected = [name for name in left if name not in ignored]
    if any(name.startswith(HEAD) or f"/{HEAD}" in name for name in new):
        head = [path for path in found if _own(path).startswith(HEAD)]
        for path in head:  # a head's matrix of another width makes its bias new as well
            del found[path]
        new += head
    _raise(missing, unexpected, misshapen, hints, family, tensors.path)
    record = {
        "file": tensors.path,
        "sha256": tensors.sha256,
        "family": family.name,
        "tensors": len(used),
        "new": sorted(new),
        "ignored": sorted(ignored),
    }
    return Loaded(
        {path: array for path, array in found.items() if path in params},
        {path: array for path, array in found.items() if path in stats},
        record,
    )


def _by_row(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The vector of each of our token ids; a table of another vocabulary is left as it is.

    A token that the checkpoint does not know has the mean of all vectors; padding is 0.
    """
    known = int((rows >= 0).sum())
    spare = SPARE_ROWS * len(table)
    if table.ndim != 2 or rows.max() >= len(table) or len(table) - known > spare:
        return table
    found = table[np.maximum(rows, 0)]
    found[rows < 0] = table.mean(axis=0)
    if rows[0] < 0:
        found[0] = 0.0
    return found


def _turned(turn: Any, array: np.ndarray) -> np.ndarray:
    """A tensor turned; one of so few axes that it can't be is left, to be reported as misshapen."""
    try:
        return turn(array)
    except (ValueError, IndexError):
        return array


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(array).astype(np.float32))


def _raise(
    missing: list[str],
    unexpected: list[str],
    misshapen: list[str],
    hints: list[str],
    family: Family,
    place: str,
) -> None:
    parts = []
    for what, some in (
        ("missing there", missing),
        ("left over there", unexpected),
        ("of another shape", misshapen),
    ):
        if some:
            more = f"\n    and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
            parts.append(f"  {what}:\n    " + "\n    ".join(some[:SHOWN]) + more)
    if not parts:
        return
    if any("token_type" in name for name in unexpected):
        hints.append(HINTS["embeddings/types/embedding"])
    raise ConfigError(
        f"model.pretrained: '{place}' does not fit the model (names as {family.name} has them):\n"
        + "\n".join(parts)
        + ("\n  " + " ".join(dict.fromkeys(hints)) if hints else "")
    )


def shapes_of(model: Any, inputs: Any, hparams: PyTree) -> tuple[PyTree, PyTree]:
    """Returns the shapes of a model's parameters and state; nothing is computed."""
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, hparams), inputs)
