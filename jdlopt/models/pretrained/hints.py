"""Which config key to set where a checkpoint's tensors have other shapes than a model's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

Shape = tuple[int, ...]


class Cause(NamedTuple):
    """What a size that differs comes from.

    Attributes:
      paths: a regular expression of whole paths here, without what wraps the model.
      axis: of the parameter, counted from the end where it is negative.
      hint: what to do; ``{there}`` is the size there.
    """

    paths: str
    axis: int
    hint: str


WIDTH = "Set model.features={there}."
PER_STAGE = "model.features says how wide each stage is: {there} is the width there."
THAT_CAME_WITH_IT = "the tokenizer.json that came with it"
VOCABULARY = f"Its vocabulary is another one: set data.text.tokenizer to {THAT_CAME_WITH_IT}."
CHANNELS = (
    "It was trained on images of {there} channels: data.preprocess.color='rgb' or 'grayscale' makes"
    " them so."
)
CAUSES = (
    Cause(r"embeddings/(tokens|positions|types)/embedding", -1, WIDTH),
    Cause(r"embeddings/(patches|inputs)/kernel|embeddings/class_token", -1, WIDTH),
    Cause(r"layer.*/attention/.*kernel", 0, WIDTH),
    Cause(r"layer.*/mlp/up/kernel", -2, WIDTH),
    Cause(r"(norm|pooler|layer.*/norm_\d)/.*", -1, WIDTH),
    Cause(r"layer.*/mlp/up/kernel", -1, "Set model.mlp_features={there}."),
    Cause(r"embeddings/tokens/embedding", 0, VOCABULARY),
    Cause(
        r"embeddings/positions/embedding", 0,
        "It has {there} positions: set model.max_positions={there} (of an image model, the image "
        "size and patch_size to what it was trained with).",
    ),
    Cause(r"embeddings/types/embedding", 0, "Set model.num_types={there}."),
    Cause(
        r"embeddings/patches/kernel", 0,
        "A patch has {there} numbers there, its side² times its channels: set model.patch_size, or "
        "data.preprocess.color.",
    ),
    Cause(r"stem/kernel", 0, "The first convolution is {there} wide there: set model.stem, "
                             "'imagenet' (7) or 'cifar' (3), or model.patch_size."),
    Cause(r"stem/kernel", 2, CHANNELS),
    Cause(r"stage_0/conv_0/kernel", 2, CHANNELS),
    Cause(r"(stem|stage_.*)/kernel", -1, PER_STAGE),
    Cause(r"(stem|stage_.*)/(norm/)?(scale|bias|mean|var)", -1, PER_STAGE),
    Cause(r"stage_.*/kernel", 0, "Its convolutions are {there} wide there: set model.kernel_size, "
                                 "or model.bottleneck."),
)  # fmt: skip
"""The first that fits a size that differs is told; a width goes before all that follows from it."""
LACKING = (
    (r"pooler/.*", "Its head was trained on the mean: set model.pooling='mean'."),
    (r"embeddings/types/.*", "It has no token types: set model.num_types=0."),
    (r"embeddings/class_token", "It has no class token: set model.pooling='mean'."),
    (r"(stage_.*|stem)_?norm.*", "It has no batch norm: set model.batch_norm=False."),
    (r".*/scale", "It scales no branch: set model.layer_scale=None."),
)
"""What paths here that the checkpoint has no tensor for come from."""
LEFT_OVER = (
    (r"token_type", "Set model.num_types to the rows of its table of token types."),
    (r"cls_token", "It has a class token: set model.pooling='cls'."),
    (r"layer_scale", "It scales its branches: set model.layer_scale=1e-6."),
    (r"running_mean", "It has batch norm: set model.batch_norm=True."),
)
"""What tensors come from that nothing here has a place for."""


def hints(
    misshapen: Mapping[str, tuple[Shape, Shape]],
    missing: Sequence[str],
    left_over: Sequence[str],
    layers: tuple[int, int] | None,
) -> list[str]:
    """Returns what to change in a config, the likeliest first.

    Args:
      misshapen: a path here, without what wraps the model → the shape here, the shape there.
      missing: paths here without a tensor.
      left_over: tensors without a path here.
      layers: of a transformer, how many there are here and there.

    Example:
      >>> table = {"embeddings/tokens/embedding": ((99, 8), (99, 16))}
      >>> hints(table, (), (), None)
      ['Set model.features=16.']
    """
    found = list(_of_shapes(misshapen))
    if layers is not None and layers[0] != layers[1]:
        found.append(f"Set model.num_layers={layers[1]}.")
    else:
        for table, names in ((LACKING, missing), (LEFT_OVER, left_over)):
            found += [
                hint for pattern, hint in table if any(map(re.compile(pattern).search, names))
            ]
            stages = [name for name in names if re.match(r"(encoder\.)?(stage|layer\d)", name)]
            if stages and not found:
                found.append("Its blocks are of another number: set model.depth, or "
                             "model.stage_sizes.")  # fmt: skip
    return list(dict.fromkeys(found))


def _of_shapes(misshapen: Mapping[str, tuple[Shape, Shape]]) -> Iterator[str]:
    for cause in CAUSES:
        for path, (here, there) in misshapen.items():
            if not re.fullmatch(cause.paths, path) or len(here) != len(there):
                continue
            at = cause.axis
            if -len(here) <= at < len(here) and here[at] != there[at]:
                yield cause.hint.format(there=there[at])
                if cause.hint in (WIDTH, PER_STAGE):
                    return  # all other sizes follow from it
                break
