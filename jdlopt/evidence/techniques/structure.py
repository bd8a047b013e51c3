"""Techniques of structure: how deep and wide a model is, and what it is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from jdlopt.evidence.techniques.entry import (
    RATE,
    Change,
    Changes,
    Facts,
    Technique,
    needs_key,
    needs_kind,
    needs_one_input,
    needs_several_inputs,
    needs_task,
    not_for,
    unless,
    value_of,
    values,
)

if TYPE_CHECKING:
    from jdlopt.train.schema import Config

FEATURES, LAYERS, HIDDEN = "model.features", "model.num_layers", "model.hidden"


OF_LAYERS = tuple(f"model.{part}features" for part in ("block_", "conv_", "layer_", "layer_mlp_"))
"""Widths of single layers, where they differ: a sliced model has them."""


WRITES = not_for("next_token")
"""The model that it brings in sees what it is to predict there."""


def widths_of(config: Config) -> tuple[int, ...] | None:
    """Returns the widths of the layers that a config names, or None."""
    found = value_of(config, FEATURES)
    if isinstance(found, int) and not isinstance(found, bool):
        return (found,)
    return tuple(found) if found else None


def _fusion(config: Config, factor: float) -> Change:
    """Every width of a model of several inputs, changed by a factor."""
    keys = ("width", "hidden", "table_features", "image_features", "sequence_features")
    return _times(config, (f"model.{name}" for name in (*keys, "embedding_features")), factor)


def _times(config: Config, keys: Iterable[str], factor: float) -> Change:
    """Widths changed by a factor, of those keys that have any."""
    change: Change = {}
    for key in keys:
        now = value_of(config, key)
        if isinstance(now, int):
            change[key] = max(1, round(now * factor))
        elif now:
            change[key] = tuple(max(1, round(width * factor)) for width in now)
    return change


def _scaled(*factors: float) -> Changes:
    def changes(config: Config, facts: Facts) -> tuple[Change, ...]:
        if value_of(config, "model.name") == "fusion":
            return tuple(_fusion(config, factor) for factor in factors)
        widths = widths_of(config)
        if widths is None:
            return ()
        heads = value_of(config, "model.num_heads") or 1
        one = isinstance(value_of(config, FEATURES), int)
        found = []
        for factor in factors:
            new = tuple(max(heads, round(width * factor / heads) * heads) for width in widths)
            if new != widths:
                others = _times(config, OF_LAYERS, factor)
                found.append({FEATURES: new[0] if one else new, **others})
        return tuple(found)

    return changes


halved = _scaled(0.5)
"""Every layer half as wide."""


def _has_own_layers(config: Config) -> bool:
    """Whether a config says of single layers how wide they are: of no more and no fewer."""
    own = (*OF_LAYERS, "model.layer_heads")
    return any(isinstance(value_of(config, key), tuple) for key in own)


def _deeper(config: Config, facts: Facts) -> tuple[Change, ...]:
    if value_of(config, "model.name") == "fusion":
        hidden = value_of(config, HIDDEN) or (value_of(config, "model.width"),)
        return ({HIDDEN: (*hidden, hidden[-1])}, {HIDDEN: (*hidden, hidden[-1], hidden[-1])})
    if _has_own_layers(config):
        return ()
    layers, stages = value_of(config, LAYERS), value_of(config, "model.stage_sizes")
    if isinstance(layers, int):
        return ({LAYERS: layers + 1}, {LAYERS: 2 * layers}) if layers > 1 else ({LAYERS: 2},)
    if stages:
        return ({"model.stage_sizes": tuple(size + 1 for size in stages)},)
    widths = widths_of(config)
    if widths is None or stages is not None or isinstance(value_of(config, FEATURES), int):
        return ()  # published sizes: another depth is another model
    return ({FEATURES: (*widths, widths[-1])}, {FEATURES: (*widths, widths[-1], widths[-1])})


def _shallower(config: Config, facts: Facts) -> tuple[Change, ...]:
    if value_of(config, "model.name") == "fusion":
        hidden = value_of(config, HIDDEN)
        return ({HIDDEN: hidden[:-1]},) if hidden else ()
    if _has_own_layers(config):
        return ()
    layers, widths = value_of(config, LAYERS), widths_of(config)
    if isinstance(layers, int):
        return ({LAYERS: layers - 1},) if layers > 1 else ()
    if widths is None or len(widths) < 2 or value_of(config, "model.stage_sizes") is not None:
        return ()
    return ({FEATURES: widths[:-1]},)


def _another(name: str, **keys: object) -> Changes:
    def changes(config: Config, facts: Facts) -> tuple[Change, ...]:
        if value_of(config, "model.name") == name:
            return ()
        return ({"model.name": name, **{f"model.{key}": value for key, value in keys.items()}},)

    return changes


def _convolutional(config: Config, facts: Facts) -> tuple[Change, ...]:
    if value_of(config, "model.name") not in ("linear", "mlp"):
        return ()
    (only,) = facts.inputs.values()
    deep = (32, 64, 64) if min(only.shape[:2]) >= 8 else (32, 64)
    small = {
        "model.name": "cnn", "model.features": deep, "model.kernel_size": 3,
        "model.batch_norm": True,
    }  # fmt: skip
    if only.kind == "sequence":
        return ({**small, "model.kernel_size": 5, "model.strides": 2}, small)
    return ({**small, "model.pool": "max"}, small)


def _finer(config: Config, facts: Facts) -> tuple[Change, ...]:
    """A stride less of a recogniser's convolutions, or frames that are half as far apart."""
    strides, hop = value_of(config, "model.strides"), value_of(config, "data.preprocess.hop")
    found: list[Change] = []
    if isinstance(strides, tuple | list) and max(strides, default=1) > 1:
        last = max(place for place, stride in enumerate(strides) if stride > 1)
        finer = tuple(1 if place == last else stride for place, stride in enumerate(strides))
        found.append({"model.strides": finer})
    if value_of(config, "data.preprocess.audio") not in (None, "none") and hop > 1:
        found.append({"data.preprocess.hop": hop // 2})
    return tuple(found)


def _readout(config: Config, facts: Facts) -> tuple[Change, ...]:
    now = value_of(config, "model.readout")
    other = {"flatten": "average", "average": "flatten", "last": "mean", "mean": "last"}
    return ({"model.readout": other[now]},) if now in other and not facts.positions else ()


STRUCTURE = (
    Technique(
        "wider", "structure", ("accuracy",), "Makes every layer twice or four times as wide.",
        _scaled(2.0, 4.0), "twice the width: up to four times the arithmetic",
        "Zagoruyko and Komodakis, Wide residual networks, 2016", 0.5, nuisance=RATE,
    ),
    Technique(
        "narrower", "structure", ("generalisation", "size", "speed", "inference speed"),
        "Makes every layer half as wide.", halved, "less than before",
        "Bishop, Pattern recognition and machine learning, 2006", 0.2, nuisance=RATE,
    ),
    Technique(
        "deeper", "structure", ("accuracy",), "Adds layers like the last one.",
        _deeper, "a layer's arithmetic", "Simonyan and Zisserman, VGG, 2015", 0.35, nuisance=RATE,
    ),
    Technique(
        "shallower", "structure", ("generalisation", "size", "speed", "inference speed"),
        "Takes the last layer away.", _shallower, "less than before",
        "Bishop, Pattern recognition and machine learning, 2006", 0.15, nuisance=RATE,
    ),
    Technique(
        "activation", "structure", ("accuracy",), "Uses another function between the layers.",
        values("model.activation", "gelu", "silu", "relu", "tanh", "elu", "leaky_relu", "selu"),
        "smooth functions cost a little of each step",
        "Hendrycks and Gimpel, GELU, 2016; Ramachandran et al., Swish, 2017", 0.3,
        needs_key("model.activation"), RATE,
    ),
    Technique(
        "initializer", "structure", ("accuracy", "speed"), "Starts kernels from other values.",
        values("model.initializer", "he_normal", "glorot_uniform", "lecun_normal"), "nothing",
        "He et al., Delving deep into rectifiers, 2015; Glorot and Bengio, 2010", 0.15,
        needs_key("model.initializer"), RATE,
    ),
    Technique(
        "batch_norm", "structure", ("accuracy", "speed", "generalisation"),
        "Normalises each layer over the batch.", values("model.batch_norm", True),
        "a part of each step, and running statistics",
        "Ioffe and Szegedy, Batch normalization, 2015", 0.5, needs_key("model.batch_norm"), RATE,
    ),
    Technique(
        "pooling", "structure", ("accuracy", "robustness", "speed", "size", "inference speed"),
        "Pools the outputs of each block.", values("model.pool", "max", "avg"),
        "smaller maps: less than before", "LeCun et al., 1998", 0.25, needs_key("model.pool"), RATE,
    ),
    Technique(
        "readout", "structure", ("accuracy", "size"),
        "Reads the last features out another way: flattened or averaged, the last or the mean.",
        _readout, "an average needs a smaller head", "Lin et al., Network in network, 2014", 0.25,
        needs_key("model.readout"), RATE,
    ),
    Technique(
        "kernel_size", "structure", ("accuracy",), "Lets a convolution see more, or less.",
        values("model.kernel_size", 5, 3, 7), "in proportion to the kernel",
        "Ding et al., Scaling up your kernels, 2022", 0.25, needs_key("model.kernel_size"), RATE,
    ),
    Technique(
        "finer_steps", "structure", ("accuracy",),
        "Leaves a recogniser more steps a second: a stride less, or half the hop.", _finer,
        "about twice the steps of what follows",
        "Graves et al., Connectionist temporal classification, 2006", 0.3,
        needs_task("transcription"), RATE,
    ),
    Technique(
        "bidirectional", "structure", ("accuracy",), "Reads the sequence backwards as well.",
        values("model.bidirectional", True), "twice the recurrent arithmetic",
        "Schuster and Paliwal, Bidirectional recurrent neural networks, 1997", 0.4,
        unless(WRITES, needs_key("model.bidirectional")), RATE,
    ),
    Technique(
        "convolutional", "structure", ("accuracy", "generalisation"),
        "Replaces a perceptron by convolutions with batch norm: neighbours are seen together.",
        _convolutional, "more arithmetic, often fewer parameters", "LeCun et al., 1998", 0.6,
        unless(needs_one_input, needs_kind("sequence", "image")), RATE,
    ),
    Technique(
        "recurrent", "structure", ("accuracy",),
        "Replaces the model by gated recurrent units that read the sequence step by step.",
        _another("gru", features=64, bidirectional=True), "steps in turn: slow for long sequences",
        "Cho et al., 2014", 0.25,
        unless(WRITES, needs_one_input, needs_kind("sequence", "text")), RATE,
    ),
    Technique(
        "dilated_convolutions", "structure", ("accuracy",),
        "Replaces the model by residual blocks of causal convolutions whose dilation doubles.",
        _another("tcn"), "more arithmetic, all steps at once", "Bai et al., 2018", 0.3,
        unless(needs_one_input, needs_kind("sequence", "text")), RATE,
    ),
    Technique(
        "residual_connections", "structure", ("accuracy",),
        "Replaces the model by a small residual network: layers learn what to add.",
        _another("resnet", stem="cifar", stage_sizes=(1, 1, 1), features=(32, 64, 128)),
        "several times the arithmetic of a small convolutional network",
        "He et al., Deep residual learning for image recognition, 2016", 0.35,
        unless(needs_one_input, needs_kind("image")), RATE,
    ),
    Technique(
        "another_fusion", "structure", ("accuracy", "robustness"),
        "Puts the encodings of several inputs together another way: by attention, or late.",
        values("model.fusion", "attention", "late", "early"),
        "attention: a small transformer layer; late: a head for each input",
        "Baltrušaitis et al., Multimodal machine learning: a survey and taxonomy, 2019", 0.25,
        unless(needs_key("model.fusion"), needs_several_inputs), RATE,
    ),
    Technique(
        "attention", "structure", ("accuracy",),
        "Replaces the model by a transformer's encoder: every position sees all others.",
        _another("transformer_encoder", features=64, num_layers=2, num_heads=4),
        "grows with the square of the length", "Vaswani et al., Attention is all you need, 2017",
        0.25, unless(WRITES, needs_one_input, needs_kind("sequence", "text")), RATE,
    ),
)  # fmt: skip
"""The techniques of structure."""
