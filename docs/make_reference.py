"""Writes docs/reference.md, every key of a config, from the code's own schemas and docstrings.

    python docs/make_reference.py          # write the page
    python docs/make_reference.py --check  # say whether it is up to date: exit code 0 or 1

The keys, types and defaults are those that a config is checked against
(`jdlopt.train.schema.schema_of`), the meanings those of the ``Args`` and ``Attributes`` of each
part. `MEANINGS` stands in where a docstring does not explain a key.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt import losses, mesh, metrics, models, optim
from jdlopt.config import Field, Required
from jdlopt.data import augment, preprocess
from jdlopt.data.fields import DataFields
from jdlopt.data.target_texts import TargetTextFields
from jdlopt.data.text import TextFields
from jdlopt.models.quantization import QuantizeFields
from jdlopt.train.schema import TrainFields, schema_of

PAGE = Path(__file__).with_name("reference.md")

MEANINGS = {
    "activation": "the function between the layers.",
    "batch_norm": "whether layers are followed by batch normalisation.",
    "beta": "decay of the momentum.",
    "bidirectional": "whether each layer also reads the sequence backwards.",
    "b1": "decay of the mean of gradients.",
    "b2": "decay of the mean of squared gradients.",
    "dropout_rate": "probability that a value is dropped while training; None: no dropout.",
    "drop_path_rate": "probability that the last block's branch is left out for an example while "
    "training (stochastic depth); earlier blocks' are smaller, evenly; None: none is.",
    "eps": "added where something is divided by, against zero.",
    "hidden": "widths of the dense layers before the outputs.",
    "initial_accumulator": "what the sum of squares starts with.",
    "initializer": "how kernels start.",
    "kernel_size": "positions that a kernel covers along each axis.",
    "momentum": "what the running sum of gradients is multiplied by in each step.",
    "name": "which of them; each has its own keys beside those of this table.",
    "max_positions": "the longest sequence; the table of position vectors has so many rows.",
    "mlp_features": "width inside each layer's feed-forward network; None: 4 · `features`.",
    "norm_epsilon": "added to the variance in layer normalisation, against a division by zero.",
    "num_heads": "heads of attention in each layer; they share the width evenly.",
    "num_layers": "layers, one on top of the other.",
    "num_types": "kinds of token (BERT: first and second text), each with a vector; 0: none.",
    "own.name": "one more of the augmentations above, or yours, `package.module:name`.",
    "padding": "`same` keeps the size (of stride 1), `valid` uses whole windows only.",
    "patch_size": "height and width of a patch, in pixels; divides those of the images.",
    "pool": "how the block's outputs are pooled.",
    "pool_size": "positions pooled into one along each axis.",
    "remat": "what the backward pass computes again instead of keeping it: `full`, or all but the "
    "results of `dots`, or of `dots_no_batch`.",
    "rho": "distance to the worst point.",
    "scan_layers": "run the layers as one loop, compiled once, with stacked parameters.",
    "strides": "positions that the kernel moves by along each axis.",
    "conv_features": "channels of each convolution, where those of a stage differ.",
    "balance_weight": "what the load-balancing loss of the experts counts; None: 0.01.",
    "capacity": "tokens of a sequence that an expert takes at most; None: 1.25 times its even "
    "share.",
    "experts": "feed-forward networks side by side in each layer; None: one for all tokens.",
    "experts_per_token": "experts that each token goes through.",
    "head_features": "width of a head; None: its share of the features.",
    "router_z_weight": "what the z-loss of the experts' router counts; None: there is none.",
    "layer_features": "width of each layer's hidden state, where they differ.",
    "layer_heads": "heads of attention in each layer, where they differ.",
    "layer_mlp_features": "width inside each layer's feed-forward network, where they differ.",
    "variational_dropout": "whether dropout draws one mask a sequence, also for the state.",
    "groups.name": "the group's own optimizer, as `optim.name`; None: `optim.name`.",
    "weight_decay": "as `optim.weight_decay`, with a default of its own.",
    "cnn.features": "channels of each convolution; there is one block for each.",
    "cnn.readout": "the last feature map flattened, or averaged over its positions.",
    "convnext.block_features": "width inside each block; None: four times its stage's.",
    "convnext.features": "channels of each stage.",
    "convnext.kernel_size": "height and width of the depthwise kernels.",
    "convnext.layer_scale": "what the parameters that scale each block's channels start at; None: "
    "no such parameters.",
    "convnext.patch_size": "height and width of a patch of the stem, in pixels.",
    "convnext.stage_sizes": "blocks of each stage.",
    "efficientnet_lite0.block_features": "width inside each block whose expansion is not 1; None: "
    "its expansion times its inputs' channels.",
    "efficientnet_lite0.expansions": "how many times a stage's blocks widen their inputs inside.",
    "efficientnet_lite0.features": "channels of each stage.",
    "efficientnet_lite0.kernel_sizes": "height and width of each stage's depthwise kernels.",
    "efficientnet_lite0.last_features": "channels of the 1×1 convolution before the mean.",
    "efficientnet_lite0.stage_sizes": "blocks of each stage.",
    "efficientnet_lite0.stem_features": "channels of the 3×3 convolution at the start.",
    "efficientnet_lite0.stem_strides": "its stride; 1 for small images.",
    "efficientnet_lite0.strides": "the stride of each stage's first block.",
    "gru.features": "width of the hidden state.",
    "gru.readout": "the final state, or the mean over time.",
    "huber.delta": "the absolute error from which the loss grows linearly.",
    "lion.b1": "weight of the momentum in the sign.",
    "lion.b2": "decay of the momentum.",
    "lstm.features": "width of the hidden state.",
    "lstm.readout": "the final state, or the mean over time.",
    "mlp.features": "widths of the hidden layers.",
    "model.name": "which model; each has its own keys.",
    "resnet.block_features": "widths inside each block, two in a bottleneck; None: its stage's.",
    "resnet.bottleneck": "whether blocks are 1×1, 3×3, 1×1; None: as `depth` says, else False.",
    "resnet.depth": "a published size: 18, 34, 50, 101 or 152.",
    "resnet.features": "channels of each stage; (): 64, doubled from stage to stage.",
    "resnet.stage_sizes": "blocks of each stage; (): those of `depth`.",
    "resnet.stem": "`imagenet`: a 7×7 convolution of stride 2 and a pooling; `cifar`: a 3×3 one.",
    "resnet.stem_features": "channels of the stem; None: those of the first stage.",
    "resnet.strides": "the stride of each stage's first block; (): 1, then 2 for each.",
    "tcn.block_features": "width between each block's convolutions; None: the block's.",
    "tcn.features": "width of each block.",
    "tcn.kernel_size": "times that a convolution covers.",
    "tcn.readout": "the last time, or the mean over all.",
    "transformer_decoder.features": "width of the vector at each position.",
    "transformer_seq2seq.beam_width": "continuations that go on at each step while a target is "
    "written; 1: greedy.",
    "transformer_seq2seq.decoder_layers": "layers of the decoder; None: as many as `num_layers`.",
    "transformer_seq2seq.features": "width of the vector at each position.",
    "transformer_seq2seq.length_penalty": "of a beam: log-probabilities are compared over the "
    "length to this power.",
    "transformer_seq2seq.num_layers": "layers of the encoder.",
    "transformer_seq2seq.share_embeddings": "which are one matrix: the `decoder`'s embedding and "
    "its outputs; `all` three, with one vocabulary of both sides; or `none`.",
    "transformer_encoder.features": "width of the vector at each position.",
    "transformer_encoder.pooling": "the mean over positions, or the first through a dense layer.",
    "numeric_embedding": "how each number is embedded: `none`, itself; `plr`, by waves, a dense "
    "layer and ReLU; `pbld`, itself beside a dense layer on cosines with phases.",
    "numeric_frequencies": "waves of each number's embedding.",
    "numeric_features": "width of each number's embedding.",
    "numeric_sigma": "standard deviation of the waves' frequencies at the start.",
    "one_hot_up_to": "columns of more categories are embedded, others become 0 and 1.",
    "realmlp.embedding_features": "the most features of a category's embedding.",
    "realmlp.features": "widths of the hidden layers.",
    "tabm.adapters": "each submodel's own scales: around `all` layers, or before the `first`.",
    "tabm.embedding_features": "the most features of a category's embedding.",
    "tabm.features": "widths of the hidden layers.",
    "tabm.submodels": "perceptrons that share kernels.",
    "vgg.depth": "a published size: 16 or 19.",
    "vgg.features": "channels of each stage.",
    "vit.features": "width of the vector at each position; None: the variant's.",
    "vit.num_heads": "heads of attention in each layer; None: the variant's.",
    "vit.num_layers": "layers, one on top of the other; None: the variant's.",
    "vit.pooling": "a class token before the patches, or the mean over them.",
    "vit.variant": "the sizes by a letter: width 192, 384 or 768; 12 layers; 3, 6 or 12 heads.",
    "fusion.fusion": "how encodings are put together: side by side, a head each, or by attention.",
    "fusion.fusion_heads": "heads of attention of the transformer layers over the inputs.",
    "fusion.fusion_layers": "transformer layers over the inputs.",
    "fusion.hidden": "widths of the dense layers on all encodings, or of each head's.",
    "fusion.image_features": "channels of the blocks that encode an image.",
    "fusion.modality_dropout": "probability that an input of an example is masked while training, "
    "one for all or of each by name; None: none is.",
    "fusion.sequence_features": "channels of the blocks that encode a sequence or sound.",
    "fusion.table_features": "widths of the dense layers that encode a table.",
    "fusion.text_encoder": "a text is its embeddings' mean, or what a GRU makes of them.",
    "fusion.use_inputs": "the inputs that are looked at; `()`: all.",
    "fusion.width": "of each input's encoding.",
    "two_towers.bias": "what is added to the scaled similarities at first; it is learnt.",
    "two_towers.features": "numbers of an embedding.",
    "two_towers.image_features": "channels of the blocks that encode an image.",
    "two_towers.sequence_features": "channels of the blocks that encode a sequence or sound.",
    "two_towers.table_features": "widths of the dense layers that encode a table.",
    "two_towers.temperature": "what similarities are divided by at first; it is learnt.",
    "two_towers.text_encoder": "a text is its embeddings' mean, or what a GRU makes of them.",
    "two_towers.width": "of what the encoders make, before the projection.",
    "wide_and_deep.cross_buckets": "the most weights of a cross; where it has more combinations, "
    "they are hashed.",
    "wide_and_deep.crosses": "columns of categories whose combinations get weights, their names "
    "joined by `*`: `('education*occupation',)`.",
    "wide_and_deep.features": "widths of the deep part's hidden layers.",
}
"""Meanings by key, or by part and key, for the keys that a part's docstring leaves out."""

INTRODUCTION = """\
# Reference: every key

Written by `python docs/make_reference.py` from the code; [config.md](config.md) says how a config
is loaded, overridden and checked. A key that is left out has its default; *required* has none.

Every float under `model`, `loss` and `optim` is a traced scalar: a new value never compiles a new
program. All other values, tuples of floats among them, are structure.
"""


def text_of(part: Any) -> str:
    """Returns a part's docstring, `dataclass`'s generated one left out."""
    found = inspect.cleandoc(part.__doc__ or "")
    return "" if found.startswith(f"{part.__name__}(") else found


def summary(part: Any) -> str:
    """Returns what a docstring says before its first section, as Markdown."""
    before = re.split(r"^(?:Args|Attributes|Returns|Raises|Example)s?:$", text_of(part), flags=re.M)
    return markdown(before[0].strip())


def meanings(part: Any) -> dict[str, str]:
    """Returns what the ``Args`` and ``Attributes`` of a docstring say of each name."""
    found: dict[str, str] = {}
    for section in re.finditer(
        r"^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)+)", text_of(part), flags=re.M
    ):
        for entry in re.finditer(r"^  (\w[\w, ]*): (.*(?:\n    .*)*)", section[1], flags=re.M):
            for name in entry[1].split(", "):
                found[name] = markdown(" ".join(entry[2].split()))
    return found


def markdown(text: str) -> str:
    """Returns reStructuredText's double backticks as Markdown's single ones."""
    return text.replace("``", "`")


def type_text(field: Field) -> str:
    """Says what a key takes: its types, bounds and names."""
    words = []
    for kind in field.types:
        number = kind in (int, float) or typing.get_args(kind)[:1] in ((int,), (float,))
        text = Field((kind,), range=field.range if number else None).describe()
        if kind is str and field.choice is not None:
            text = ", ".join(f"`{name}`" for name in typing.cast(Any, field.choice.names))
        words.append(text)
    return " or ".join(words)


def default_text(field: Field) -> str:
    """Returns a key's default as Python writes it."""
    return "*required*" if field.default is Required else f"`{field.default!r}`"


def table(
    fields: Mapping[str, Field],
    explained: Mapping[str, str],
    part: str,
    types_of: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Yields a Markdown table of keys.

    Raises:
      KeyError: neither a docstring nor `MEANINGS` says what a key means.
    """
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for key, field in fields.items():
        meaning = None if key == "name" else explained.get(key)
        meaning = meaning or MEANINGS.get(f"{part}.{key}") or MEANINGS.get(key)
        if meaning is None:
            raise KeyError(f"{part}.{key}: its part's docstring has to say what it means")
        kind = (types_of or {}).get(key) or type_text(field)
        cells = [f"`{key}`", kind, default_text(field), meaning]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def names_of(parts: Mapping[str, Any]) -> str:
    """Returns a table's names, and that a dotted path may stand instead."""
    known = ", ".join(f"`{name}`" for name in parts)
    return f"{known}, or `package.module:Name`"


def schema(**sections: Any) -> configs.Schema:
    """Returns the schema of a config with the given parts chosen."""
    problems: list[str] = []
    raw = {"model": {"name": "linear"}, **sections}
    found = schema_of(raw, problems)
    assert not problems, problems
    return found


def leaves(fields: configs.Schema) -> dict[str, Field]:
    """Returns a schema's own keys, those of its subsections left out."""
    return {
        key: field
        for key, field in fields.items()
        if isinstance(field, Field) and not dataclasses.is_dataclass(field.types[0])
    }


def parts_of(
    parts: Mapping[str, Callable[..., Any] | None],
    shared: Mapping[str, Field],
    chosen: Callable[[str], configs.Schema],
) -> Iterator[str]:
    """Yields each part's docstring and the keys that it adds to, or changes in, the shared ones."""
    for name, part in parts.items():
        yield f"### `{name}`"
        yield ""
        if part is None:
            yield "Nothing; it costs nothing."
            yield ""
            continue
        yield summary(part)
        yield ""
        own = {
            key: field
            for key, field in leaves(chosen(name)).items()
            if key != "name" and (key not in shared or field != shared[key])
        }
        if own:
            yield from table(own, meanings(part), name)
        else:
            yield "No keys of its own."
            yield ""


def section_of(
    title: str, fields: Any, name: str, types_of: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Yields a section that a dataclass describes."""
    yield f"## {title}"
    yield ""
    yield from table(leaves(configs.fields_of(fields)), meanings(fields), name, types_of)


def lines() -> Iterator[str]:
    """Yields the lines of the page."""
    yield INTRODUCTION
    yield "## Top level"
    yield ""
    seed = {"seed": schema()["seed"]}
    yield from table(
        seed, {"seed": "initial parameters, dropout and the data order are functions of it."}, ""
    )
    yield from section_of("`data`", DataFields, "data")
    yield f"`columns` is a section of freely named keys: {meanings(DataFields)['columns']}"
    yield ""
    yield "[data.md](data.md) tells what each kind of source takes."
    yield ""
    yield from section_of("`data.preprocess`", preprocess.PreprocessFields, "preprocess")
    yield from section_of("`data.text`", TextFields, "text")
    yield from section_of("`data.target_text`", TargetTextFields, "target_text")
    yield "## `data.augment`"
    yield ""
    yield "[preprocessing.md](preprocessing.md#augmentation) tells how they run, in this order."
    yield ""
    known = meanings(augment.AugmentFields)
    for part in augment.AUGMENTATIONS.values():
        known |= meanings(part.prepare or part.apply)
    known |= {name: part.strength + "." for name, part in augment.AUGMENTATIONS.items()}
    yield from table(leaves(augment.schema({}, [])), known, "augment")
    yield from section_of("`data.augment.own.NAME`", augment.OwnFields, "own")
    yield "The keyword-only parameters of the function are keys of the section, too."
    yield "[python.md](python.md#an-augmentation) shows one."
    yield ""

    yield "## `model`"
    yield ""
    name = {"name": schema()["model"]["name"], **configs.fields_of(models.ModelFields)}
    known = meanings(models.ModelFields)
    yield from table(name, known, "model", {"name": names_of(models.MODELS)})
    yield from section_of("`model.prune`", models.PruneFields, "prune")
    yield "[pruning.md](pruning.md) tells how a model is pruned. Models by name:"
    yield ""
    yield from parts_of(models.MODELS, name, lambda chosen: schema(model={"name": chosen})["model"])

    yield from section_of("`model.quantize`", QuantizeFields, "quantize")

    yield from section_of("`model.low_rank`", models.LowRankFields, "low_rank")
    ranks = meanings(models.LowRankFields)["ranks"]
    yield f"`ranks` is a section of freely named keys: {ranks}"
    yield ""
    yield "[low_rank.md](low_rank.md) tells when that is of use."
    yield ""

    yield from section_of("`loss`", losses.LossFields, "loss", {"name": names_of(losses.LOSSES)})
    shared = configs.fields_of(losses.LossFields)
    yield from parts_of(losses.LOSSES, shared, lambda chosen: schema(loss={"name": chosen})["loss"])
    yield from section_of("`loss.distill`", losses.DistillFields, "distill")
    yield "[distillation.md](distillation.md) tells what a teacher may be."
    yield ""

    yield from section_of(
        "`optim`", optim.OptimFields, "optim", {"name": names_of(optim.OPTIMIZERS)}
    )
    shared = configs.fields_of(optim.OptimFields)
    yield from parts_of(
        optim.OPTIMIZERS, shared, lambda chosen: schema(optim={"name": chosen})["optim"]
    )

    for key, fields, parts, known in (
        ("schedule", optim.ScheduleFields, optim.SCHEDULES, names_of(optim.SCHEDULES)),
        ("average", optim.AverageFields, optim.AVERAGES, names_of(optim.AVERAGES)),
    ):

        def chosen(name: str, key: str = key) -> configs.Schema:
            return schema(optim={key: {"name": name}})["optim"][key]

        yield from section_of(f"`optim.{key}`", fields, key, {"name": known} if known else None)
        yield from parts_of(parts, configs.fields_of(fields), chosen)

    yield from section_of("`optim.groups.NAME`", optim.GroupFields, "groups")
    yield "A group with a `name` has the keys of that optimizer too, as in `optim`, at their own"
    yield "defaults."
    yield "[transfer.md](transfer.md#a-rate-and-an-optimizer-for-each-group) shows groups."
    yield ""
    yield from section_of("`train`", TrainFields, "train")
    yield from section_of("`mesh`", mesh.MeshFields, "mesh")

    yield "## Metrics"
    yield ""
    yield "The names that `train.metrics` takes, and `train.monitor` after `validation/`. Only what"
    yield "is one number can be monitored. `top_K_accuracy` is known for any `K` below the number"
    yield "of classes. A `Metric` of yours is `package.module:NAME`, as"
    yield "[python.md](python.md#a-metric) shows."
    yield ""
    yield "| metric | task | better |"
    yield "|---|---|---|"
    better = {True: "higher", False: "lower", None: "– (not one number)"}
    for metric_name, metric in metrics.METRICS.items():
        direction = better[metric.higher_is_better]
        yield f"| `{metric_name}` | {', '.join(metric.tasks) or 'any'} | {direction} |"


def page() -> str:
    """Returns the page's text."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines())).rstrip() + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Writes the page, or compares it; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    flags = parser.parse_args(arguments)
    text = page()
    if not flags.check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE} is out of date: run python docs/make_reference.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
