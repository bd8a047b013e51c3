"""Weights from outside: a model starts from a checkpoint instead of random values.

What a table of names says is missing, left over or of another shape is listed, and is an error; a
head of another width is new.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from jdlopt import writing
from jdlopt.errors import ConfigError, listing
from jdlopt.models import pruning
from jdlopt.models.kernel_inputs import is_range
from jdlopt.models.pretrained import files
from jdlopt.models.pretrained.architecture import Architecture, architecture_of, differing
from jdlopt.models.pretrained.families import FAMILIES, Family, Turn
from jdlopt.models.pretrained.hints import THAT_CAME_WITH_IT, hints

__all__ = [
    "FAMILIES", "Loaded", "check_heads", "flat_shapes", "in_words", "load", "placed",
    "problems_in_words", "shapes_of",
]  # fmt: skip

MOST_NAMED = 6
"""Arrays that a line names."""
SHOWN = 10
"""Tensors of each kind of problem that a message lists."""
WRAPPED = re.compile(r"^(base/)?(model/)?")
"""What may stand before a model's own paths: adapters' base, and a model behind an embedding."""
HEAD = "head/"
TOKENS = "embeddings/tokens/embedding"
SPARE_ROWS = 0.01
"""The share of a token table's rows that no token may have: some are as large as is fast."""


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
    files.located(writing.expanded(place))
    if name not in FAMILIES:
        raise ConfigError(
            f"model.pretrained: there is no table of names for model.name {name!r}. Known: "
            f"{listing(FAMILIES)}. Any model can start from a run's directory."
        )
    said = architecture_of(place)
    if said is not None and said.name != name:
        raise ConfigError(
            f"model.pretrained: {said.file} is of what is model.name={said.name!r} here; the "
            f"config's model.name is {name!r}."
        )
    tensors = files.read(place)
    shapes = flat_shapes(params)
    added = ("adapters/", f"{pruning.SCORES}/")
    wanted = {path: shape for path, shape in shapes.items() if not path.startswith(added)}
    beside = flat_shapes(pruning.without_masks(state))
    stats = {path: shape for path, shape in beside.items() if not is_range(path)}
    family, prefix = _best(FAMILIES[name], tensors.arrays, [*wanted, *stats], name, tensors.path)
    return _filled(family, prefix, tensors, wanted, stats, rows, said, section)


def placed(loaded: Any, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    """Returns a model's parameters and state with a checkpoint's arrays in their places. Pure.

    Args:
      loaded: ``(params, state)`` by path, as in `Loaded`.
      params, state: the model's initial ones.
    """
    return _with(params, loaded[0]), _with(state, loaded[1])


def _with(tree: PyTree, arrays: Mapping[str, object]) -> PyTree:
    flat = flatten_dict(tree, keep_empty_nodes=True)
    for path in flat:
        name = "/".join(map(str, path))
        if name in arrays:
            flat[path] = jnp.asarray(arrays[name], flat[path].dtype)
    return unflatten_dict(flat)


def flat_shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array by its path, ``a/b/c``."""
    return {path: leaf.shape for path, leaf in _flat(tree).items()}


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
    said: Architecture | None,
    section: Mapping[str, Any],
) -> Loaded:
    used: set[str] = set()
    missing: list[str] = []
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    new: list[str] = []
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
            misshapen[path] = (shape, whole.shape)
    left = [name for name in tensors.arrays if name not in used]
    ignored = [name for name in left if family.is_unneeded(name.removeprefix(prefix))]
    unexpected = [name for name in left if name not in ignored]
    if any(name.startswith(HEAD) or f"/{HEAD}" in name for name in new):
        head = [path for path in found if _own(path).startswith(HEAD)]
        for path in head:  # a head's matrix of another width makes its bias new as well
            del found[path]
        new += head
    unlike = {} if said is None else differing(said, section)
    if missing or unexpected or misshapen:
        shown = [f"{path}: {here} here, {there} there" for path, (here, there) in misshapen.items()]
        told = [
            f"{said.file} says model.{key}={there!r}; here it is {here!r}."
            for key, (here, there) in unlike.items()
            if said is not None
        ]
        told = told or hints(
            {_own(path): shapes for path, shapes in misshapen.items()},
            [one.partition(" ")[0] for one in missing],
            [name.removeprefix(prefix) for name in unexpected],
            _layer_counts(family, prefix, {**params, **stats}, tensors.arrays),
        )
        tokenizer = Path(tensors.path) / "tokenizer.json"
        if tokenizer.is_file():
            told = [one.replace(THAT_CAME_WITH_IT, f"'{tokenizer}'") for one in told]
        raise ConfigError(
            f"model.pretrained: '{tensors.path}' does not fit the model (names as {family.name} "
            f"has them):\n{problems_in_words(missing, unexpected, shown)}"
            + ("\n  " + " ".join(told) if told else "")
        )
    if said is not None:
        check_heads(unlike, said.file)
    record = {
        "file": tensors.path,
        "sha256": tensors.sha256,
        "family": family.name,
        "tensors": len(used),
        "new": sorted(new),
        "ignored": sorted(ignored),
        "differing": {key: [here, there] for key, (here, there) in unlike.items()},
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


def _turned(turn: Turn, array: np.ndarray) -> np.ndarray:
    """A tensor turned; one of so few axes that it can't be is left, to be reported as misshapen."""
    try:
        return turn.read(array)
    except (ValueError, IndexError):
        return array


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(array).astype(np.float32))


def problems_in_words(
    missing: Sequence[str], unexpected: Sequence[str], misshapen: Sequence[str]
) -> str:
    """Returns what does not fit, the first `SHOWN` of each kind a line each."""
    parts = []
    for what, some in (
        ("missing there", missing),
        ("left over there", unexpected),
        ("of another shape", misshapen),
    ):
        if some:
            more = f"\n    and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
            parts.append(f"  {what}:\n    " + "\n    ".join(some[:SHOWN]) + more)
    return "\n".join(parts)


def _layer_counts(
    family: Family, prefix: str, here: Mapping[str, tuple[int, ...]], there: Mapping[str, object]
) -> tuple[int, int] | None:
    """How many layers a transformer has here and there; None of another model."""
    ours = [match for path in here if (match := re.match(r"layers?(_\d+)?/", _own(path)))]
    if not ours:
        return None
    stacked = [shape[0] for path, shape in here.items() if _own(path).startswith("layers/")]
    count = stacked[0] if stacked else len({match[0] for match in ours})
    found = 0
    while True:
        source = family.source(f"layer_{found}/norm_0/scale")
        if source is None or f"{prefix}{source[0]}" not in there:
            return count, found
        found += 1


def check_heads(unlike: Mapping[str, tuple[object, object]], file: Path) -> None:
    """Raises a `ConfigError` where attention is cut into other heads, which no shape shows.

    Args:
      unlike: the keys that differ from what the weights ask for: here, there.
      file: what says so.
    """
    for key in ("num_heads", "layer_heads", "head_features"):
        if key not in unlike:
            continue
        here, there = unlike[key]
        raise ConfigError(
            f"model.{key}: is {here}; {file} says {there}, and the weights mean something else "
            f"with any other. Set model.{key}={there}, or leave it out."
        )


def in_words(record: Mapping[str, Any]) -> str:
    """Returns in one line what a model starts from: what was loaded, what is new, what is left.

    Args:
      record: of `Loaded`.

    Example:
      >>> in_words({"file": "a", "family": "BERT", "tensors": 9, "new": ["head/b"], "ignored": []})
      "model.pretrained: 9 arrays of 'a' (BERT); new: head/b"
    """
    family, note = record["family"], record.get("note")
    told = ", ".join(str(one) for one in (family, record.get("checkpoint"), note) if one)
    parts = [f"model.pretrained: {record['tensors']:,} arrays of '{record['file']}' ({told})"]
    if record["new"]:
        why = record.get("why_new")
        why = f" (outputs {why})" if why else ""
        parts.append(f"new: {listing(record['new'], MOST_NAMED)}{why}")
    if record["ignored"]:
        parts.append(f"left there: {listing(record['ignored'], MOST_NAMED)}")
    for key, (here, there) in record.get("differing", {}).items():
        parts.append(f"model.{key} is {here!r} here, {there!r} there")
    return "; ".join(parts)


def shapes_of(model: Any, inputs: Any, hparams: PyTree) -> tuple[PyTree, PyTree]:
    """Returns the shapes of a model's parameters and state; nothing is computed."""
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, hparams), inputs)
