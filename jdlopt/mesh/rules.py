"""Over which axes of a mesh parameters are split: a table of patterns of their paths.

A rule is a pattern and, for each of the last dimensions of the arrays in whose paths it is found,
an axis of the mesh or None. The first that is found decides: those of ``mesh.rules``, then
`DEFAULTS`. Large arrays are split over `FSDP` as well, along the dimension that is split already or
else the widest, unless their rule names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jdlopt.errors import listing
from jdlopt.mesh.axes import AXES, FSDP, PIPELINE, STACKS
from jdlopt.models.kernel_inputs import FACTOR
from jdlopt.models.lora import nearest_paths

Rule = tuple[str | None, ...]
"""A pattern, then an axis or None for each of the last dimensions."""
Split = tuple[str | tuple[str, ...] | None, ...]
"""The axis or axes over which each dimension of an array is split, if any."""

ODD, EVEN = r"\d*[13579]", r"\d*[02468]"
DEFAULTS: dict[str, tuple[Rule, ...]] = {
    # Shoeybi et al., "Megatron-LM: training multi-billion parameter language models using model
    # parallelism", 2019: into heads and hidden units by columns, out of them by rows
    "transformer_encoder, transformer_decoder, transformer_seq2seq, vit": (
        (r"attention/(query|key|value)/kernel$", None, "tensor"),
        (r"attention/(query|key|value)/bias$", "tensor"),
        (r"attention/out/kernel$", "tensor", None),
        (r"mlp/up/kernel$", None, "tensor"),
        (r"mlp/up/bias$", "tensor"),
        (r"mlp/down/kernel$", "tensor", None),
        (r"(attention/out|mlp/down)/bias$",),
        # Lepikhin et al., "GShard: scaling giant models with conditional computation", 2020
        (r"experts/up/kernel$", "expert", None, "tensor"),
        (r"experts/up/bias$", "expert", "tensor"),
        (r"experts/down/kernel$", "expert", "tensor", None),
        (r"experts/down/bias$", "expert", None),
        (r"experts/router$",),
        (r"layer(s|_\d+)/norm_\d+/(scale|bias)$",),
        (r"^((model|base|embeddings)/)*norm/(scale|bias)$",),
        (r"embeddings/class_token$",),
        # by width, which heads divide, and not by vocabulary, which is any number
        (r"embeddings/(tokens|positions|types)/embedding$", None, "tensor"),
        (r"embeddings/(patches|inputs)/kernel$", None, "tensor"),
        (r"pooler/kernel$", None, "tensor"),
        (r"pooler/bias$", "tensor"),
    ),
    "resnet": (
        (r"block_\d+/conv_0/kernel$", None, "tensor"),
        (r"block_\d+/(conv_0/bias|norm_0/norm/(scale|bias|mean|var))$", "tensor"),
        (r"block_\d+/(conv_[12]|shortcut)/kernel$", "tensor", None),
        (r"block_\d+/(conv_[12]/bias|(norm_[12]|shortcut_norm)/norm/\w+)$",),
        (r"(^|/)(stem/(kernel|bias)|stem_norm/norm/\w+)$",),  # a small convolution of large images
    ),
    "mlp, cnn, vgg": (
        (rf"(?<!block_\d/)(dense|conv)_{EVEN}/kernel$", None, "tensor"),
        (rf"(?<!block_\d/)(dense|conv)_{EVEN}/bias$", "tensor"),
        (rf"(?<!block_\d/)norm_{EVEN}/norm/(scale|bias|mean|var)$", "tensor"),
        (rf"(?<!block_\d/)(dense|conv)_{ODD}/kernel$", "tensor", None),
        (rf"(?<!block_\d/)((dense|conv)_{ODD}/bias|norm_{ODD}/norm/\w+)$",),
    ),
    "any": (
        (r"head/outputs/kernel$", "tensor", None),  # classes may be any number
        (r"(^|/)embedding/tokens$", None, "tensor"),
        (r"^adapters/",),
        (rf"/{FACTOR}/kernel$",),
    ),
}
"""By the models that they are for. Only sizes above 1 count, so that they do nothing on a mesh of
``data`` and ``fsdp`` alone."""

SMALLEST_SHARDED = 4096
"""Arrays of fewer elements are replicated: gathering them costs more than they weigh. Biases and
norms are: ResNet-50 has 53 arrays to gather, where a bound of 1,024 has 76, and ViT-B 74 of 86;
0.24 % and 0.14 % of their parameters lie everywhere (benchmarks/measure_collectives.py)."""
MOST_UNPLACED = 0.02
"""The share of the parameters' bytes that no rule needs to place."""
STACKED = re.compile(r"(^|/)layers/(?!\d)")
"""The paths of arrays whose first dimension is the layers of a scan, which takes one at a time."""
_SHOWN = 4


class Placed(NamedTuple):
    """Where parameters lie.

    Attributes:
      splits: by path.
      problems: what is wrong with it, in words.
    """

    splits: dict[str, Split]
    problems: list[str]


def placed(
    shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], rules: Sequence[Rule] = ()
) -> Placed:
    """Returns over which axes each parameter is split, and what is wrong with that.

    Args:
      shapes: of the parameters, by path.
      sizes: devices along each axis of the mesh.
      rules: that go before `DEFAULTS`.

    Example:
      >>> sizes = {"data": 2, "fsdp": 2, "pipeline": 1, "expert": 1, "sequence": 1, "tensor": 2}
      >>> placed({"layer_0/mlp/up/kernel": (64, 256)}, sizes).splits
      {'layer_0/mlp/up/kernel': (None, ('tensor', 'fsdp'))}
    """
    splits: dict[str, Split] = {}
    problems: list[str] = []
    unplaced: dict[str, int] = {}
    uneven: dict[str, list[str]] = {}
    for path, shape in shapes.items():
        own = [rule for rule in rules if _found(rule, path)]
        if len({rule[1:] for rule in own}) > 1:
            problems.append(
                f"mesh.rules: {own[0][0]!r} and {own[1][0]!r} both match {path!r} and split it "
                "differently. Make one of them narrower."
            )
        rule = own[0] if own else rule_of(path, len(shape))
        if rule is None:
            unplaced[path] = math.prod(shape)
        elif len(rule) - 1 > len(shape):
            problems.append(
                f"mesh.rules: {rule!r} is for arrays of at least {len(rule) - 1} dimensions; "
                f"{path!r} has shape {shape}."
            )
            rule = None
        for axis, dimension in _uneven(rule, shape, sizes):
            uneven.setdefault(axis, []).append(f"{path} ({shape[dimension]})")
        splits[path] = split_of(path, shape, sizes, rule)
    for rule in rules:
        if not any(_found(rule, path) for path in shapes):
            near = nearest_paths(str(rule[0]), list(shapes))
            problems.append(f"mesh.rules: {rule[0]!r} matches no parameter. {near}")
    for axis, paths in uneven.items():
        problems.append(
            f"mesh.{axis}: {sizes[axis]} devices can't share these widths evenly: "
            f"{listing(paths, _SHOWN)}. Take a divisor of them, change the model's widths, or "
            "leave them whole by a rule without an axis, mesh.rules=((PATTERN,),)."
        )
    return Placed(splits, problems + _unplaced(unplaced, shapes, sizes))


def rule_of(path: str, rank: int, rules: Sequence[Rule] = ()) -> Rule | None:
    """Returns the first rule for an array of so many dimensions, if there is one.

    Args:
      path: of the array.
      rank: its dimensions.
      rules: that go before `DEFAULTS`.
    """
    for family in (rules, *DEFAULTS.values()):
        for rule in family:
            if _found(rule, path) and len(rule) - 1 <= rank:
                return rule
    return None


def split_of(
    path: str, shape: tuple[int, ...], sizes: Mapping[str, int], rule: Rule | None = None
) -> Split:
    """Returns how an array is split by a rule, and over `FSDP` beside it.

    What a rule can't split evenly stays whole. FSDP splits arrays that are big enough: the
    dimension that their rule splits, further, or the widest that divides evenly. It never splits
    another one than the rule: of a product with a kernel that is split over ``tensor`` by inputs
    and over ``fsdp`` by outputs, XLA's partitioner (of jax 0.10.2) loses the order of a batch that
    is split over ``data`` and ``fsdp``, where nothing says how the product is split.

    Args:
      path: of the array; the layers of a scan are split over `PIPELINE` alone.
      shape: its shape.
      sizes: devices along each axis of the mesh.
      rule: its rule.

    Example:
      >>> split_of("dense/kernel", (128, 256), {"fsdp": 4})
      (None, 'fsdp')
      >>> split_of("layers/bias", (24, 4096), {"fsdp": 8}), split_of("bias", (10,), {"fsdp": 4})
      ((None, 'fsdp'), (None,))
    """
    named = () if rule is None or len(rule) - 1 > len(shape) else rule[1:]
    split = [
        axis if axis is not None and sizes[axis] > 1 and not size % sizes[axis] else None
        for axis, size in zip((*(None,) * (len(shape) - len(named)), *named), shape, strict=True)
    ]
    stages = sizes.get(PIPELINE, 1)
    first = int(STACKED.search(path) is not None)
    if first and stages > 1 and not shape[0] % stages:
        split[0] = PIPELINE
    taken = {index: axis for index, axis in enumerate(split) if axis not in (None, *STACKS)}
    ways = math.prod(sizes[axis] for axis in split[first:] if axis is not None)
    fsdp = sizes[FSDP]
    if fsdp == 1 or FSDP in named or math.prod(shape[first:]) // ways < SMALLEST_SHARDED:
        return tuple(split)
    free = [index for index in range(first, len(shape)) if split[index] is None]
    able = {
        index: taken.get(index)
        for index in taken or free
        if not shape[index] // sizes.get(str(taken.get(index)), 1) % fsdp
    }
    if not able:
        return tuple(split)
    chosen = max(able, key=lambda index: shape[index])
    axis = able[chosen]
    return (*split[:chosen], FSDP if axis is None else (axis, FSDP), *split[chosen + 1 :])


def _found(rule: Rule, path: str) -> bool:
    return re.search(str(rule[0]), path) is not None


def _uneven(
    rule: Rule | None, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> list[tuple[str, int]]:
    """The axes of a rule that can't split an array evenly, each with the dimension."""
    named = () if rule is None else rule[1:]
    first = len(shape) - len(named)
    return [
        (axis, first + index)
        for index, axis in enumerate(named)
        if axis is not None and shape[first + index] % sizes[axis]
    ]


def _unplaced(
    unplaced: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> list[str]:
    """What no rule places, where an axis is for the whole model."""
    wanting = [name for name, axis in AXES.items() if axis.whole_model and sizes[name] > 1]
    share = sum(unplaced.values()) / max(1, sum(map(math.prod, shapes.values())))
    if not wanting or share <= MOST_UNPLACED:
        return []
    largest = sorted(unplaced, key=lambda path: -unplaced[path])[:_SHOWN]
    more = f" and {len(unplaced) - _SHOWN} more" if len(unplaced) > _SHOWN else ""
    axis = wanting[0]
    return [
        f"mesh.{axis}: no rule places {share:.0%} of the parameters: {', '.join(largest)}{more}. "
        f"Every device would hold and compute them whole. Give rules, mesh.rules=((PATTERN, None, "
        f"{axis!r}), …), or ((PATTERN,),) for what is to stay whole, or use mesh.fsdp."
    ]
