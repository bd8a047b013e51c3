"""Which axes of a model's arrays are coupled: a plain table, a function for each family of models.

Where layer norm follows, channels can't be cut: its mean and variance are of all of them. So
transformers keep their width and lose heads and hidden units; ConvNeXt loses hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jdlopt.compress.channels import PARAMS, Couplings, Group, Slot
from jdlopt.errors import ConfigError, listing
from jdlopt.models import MODELS
from jdlopt.models.attention import LayerSizes
from jdlopt.models.cnn import CNN
from jdlopt.models.conformer import Conformer
from jdlopt.models.convnext import ConvNeXt
from jdlopt.models.efficientnet import EfficientNetLite0
from jdlopt.models.ensemble import member_names
from jdlopt.models.fusion import Fusion
from jdlopt.models.mlp import MLP
from jdlopt.models.realmlp import RealMLP
from jdlopt.models.recurrent import GRU, LSTM
from jdlopt.models.resnet import ResNet
from jdlopt.models.speech_rnn import SpeechRNN
from jdlopt.models.tabm import TabM
from jdlopt.models.tcn import TCN
from jdlopt.models.transformer import TransformerDecoder, TransformerEncoder, sizes_of
from jdlopt.models.unet import UNet
from jdlopt.models.vgg import VGG
from jdlopt.models.vit import ViT
from jdlopt.models.wide_and_deep import WideAndDeep

Fed = Sequence[tuple[Group, int]]
"""The groups that stand side by side in what a layer reads, each with the place of its first."""


def couplings_of(
    model: str, options: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], members: int = 1
) -> Couplings:
    """Returns which axes of a model's arrays are coupled.

    Args:
      model: ``model.name``.
      options: the model's own keys.
      shapes: of its arrays by path, parameters under ``params/``, as those of
        `jdlopt.compress.slicing.flat_weights`.
      members: the models of an ensemble, of one structure each.

    Raises:
      ConfigError: nothing is known of such a model, or of one of its layers.

    Example:
      >>> shapes = {"params/head/dense_0/kernel": (4, 8), "params/head/outputs/kernel": (8, 3)}
      >>> group, = couplings_of("mlp", {"features": (8,)}, shapes).groups
      >>> group.name, [(axis.path, axis.axis) for axis in group.axes]
      ('head/dense_0', [('params/head/dense_0/kernel', -1), ('params/head/outputs/kernel', -2)])
    """
    if model not in COUPLINGS:
        layers = sorted({path.rpartition("/")[0].removeprefix(f"{PARAMS}/") for path in shapes})
        raise ConfigError(
            f"model.name {model!r}: how the channels of its layers {listing(layers)} are coupled "
            f"is not known, so they can't be sliced. It is of {listing(COUPLINGS)}."
        )
    found = Couplings(shapes)
    for member in [f"{name}/" for name in member_names(members)] if members > 1 else [""]:
        inner = member
        if any(path.startswith(f"{PARAMS}/{member}embedding/") for path in shapes):
            found.within(member, member).fixed("embedding/")
            inner = f"{member}model/"
        COUPLINGS[model](found.within(inner, member), MODELS[model](num_outputs=1, **options))
    return found.checked(model)


# --- dense layers -----------------------------------------------------------------------------


def _dense_layers(
    known: Couplings,
    layer: str,
    widths: tuple[int, ...],
    key: str,
    fed: Fed = (),
    outputs: Group | None = None,
) -> None:
    """Hidden dense layers and the outputs, as `jdlopt.models.layers.Head` has them.

    Args:
      known: what is added to.
      layer: the head's path.
      widths: of the hidden layers, which stand under ``key``.
      key: of the ``model`` section.
      fed: what the first layer reads.
      outputs: the channels that the last one makes; None: they can't be cut.
    """
    if widths:
        known.widths(**{key: widths})
    for index, width in enumerate(widths):
        _read(known, f"{layer}/dense_{index}", fed)
        group = known.group(f"{layer}/dense_{index}", width, Slot(key, index))
        known.makes(f"{layer}/dense_{index}", group)
        known.norm(f"{layer}/norm_{index}", group)
        fed = [(group, 0)]
    _read(known, f"{layer}/outputs", fed)
    known.makes(f"{layer}/outputs", outputs)


def _read(known: Couplings, layer: str, fed: Fed) -> None:
    """A layer reads one group, which a flattened map repeats, or several side by side."""
    for group, start in fed:
        known.reads(layer, group, start=start, span=group.width if len(fed) > 1 else None)


def _mlp(known: Couplings, model: MLP) -> None:
    _dense_layers(known, "head", model.features, "features")


def _linear(known: Couplings, model: object) -> None:
    known.fixed("outputs/")


def _wide_and_deep(known: Couplings, model: WideAndDeep) -> None:
    _dense_layers(known, "deep/head", model.features, "features")
    known.fixed("wide/", "deep/column_")


def _realmlp(known: Couplings, model: RealMLP) -> None:
    known.widths(features=model.features)
    before = None
    for index, width in enumerate(model.features):
        name = f"dense_{index}"
        known.reads(name, before, shared=True)
        before = known.group(name, width, Slot("features", index))
        known.makes(name, before)
    known.reads("head", before, shared=True)
    known.fixed("head/", "scaling/", "numbers/", "categories/")


def _tabm(known: Couplings, model: TabM) -> None:
    known.widths(features=model.features)
    before = None
    for index, width in enumerate(model.features):
        name = f"dense_{index}"
        known.scales(f"adapter_in_{index}", before)
        known.reads(name, before)
        before = known.group(name, width, Slot("features", index))
        known.makes(name, before)
        known.scales(f"adapter_out_{index}", before)
    known.reads("outputs", before)
    known.fixed("outputs/", "numbers/", "categories/")


# --- convolutions -----------------------------------------------------------------------------


def _cnn(known: Couplings, model: CNN) -> None:
    fed = _convolutions(known, "", model.features, "features")
    _dense_layers(known, "head", model.hidden, "hidden", fed)


def _convolutions(known: Couplings, within: str, widths: tuple[int, ...], key: str) -> Fed:
    """Convolutions one after the other, each with batch norm if it has any; returns the last."""
    known.widths(**{key: widths})
    fed: list[tuple[Group, int]] = []
    for index, width in enumerate(widths):
        _read(known, f"{within}conv_{index}", fed)
        group = known.group(f"{within}conv_{index}", width, Slot(key, index))
        known.makes(f"{within}conv_{index}", group)
        known.norm(f"{within}norm_{index}", group)
        fed = [(group, 0)]
    return fed


def _vgg(known: Couplings, model: VGG) -> None:
    stages = model.plan()
    known.widths(conv_features=sum(stages, ()))
    before: list[tuple[Group, int]] = []
    place = 0
    for stage, widths in enumerate(stages):
        for index, width in enumerate(widths):
            name = f"stage_{stage}/conv_{index}"
            _read(known, name, before)
            group = known.group(name, width, Slot("conv_features", place))
            known.makes(name, group)
            known.norm(f"stage_{stage}/norm_{index}", group)
            before, place = [(group, 0)], place + 1
    _dense_layers(known, "head", model.hidden, "hidden", before)


def _resnet(known: Couplings, model: ResNet) -> None:
    plan, number, place = model.plan(), 0, 0
    known.widths(
        stem_features=plan.stem, features=plan.features, block_features=sum(plan.inner, ())
    )
    stream = known.group("stem", plan.stem, Slot("stem_features"))
    known.makes("stem", stream)
    known.norm("stem_norm", stream)
    for stage, count in enumerate(plan.stage_sizes):
        for index in range(count):
            block = f"stage_{stage}_block_{index}"
            before = stream
            for step, width in enumerate(plan.inner[number]):
                known.reads(f"{block}/conv_{step}", before)
                before = known.group(f"{block}/conv_{step}", width, Slot("block_features", place))
                known.makes(f"{block}/conv_{step}", before)
                known.norm(f"{block}/norm_{step}", before)
                place += 1
            last = len(plan.inner[number])
            known.reads(f"{block}/conv_{last}", before)
            per = 4 if plan.bottleneck else 1
            slot = Slot("features", stage, per)
            if known.shape(f"{block}/shortcut") is not None:
                known.reads(f"{block}/shortcut", stream)
                made = known.group(block, per * plan.features[stage], slot)
                if plan.strides[stage] == 1:
                    known.differ(made, stream)
                stream = made
                known.makes(f"{block}/shortcut", stream)
                known.norm(f"{block}/shortcut_norm", stream)
            elif index == 0:
                stream.slots.append(slot)
            known.makes(f"{block}/conv_{last}", stream)
            known.norm(f"{block}/norm_{last}", stream)
            number += 1
    known.reads("head/outputs", stream)
    known.fixed("head/")


def _unet(known: Couplings, model: UNet) -> None:
    blocks, place = model.blocks(), 0
    known.widths(block_features=sum((widths for _, _, widths in blocks), ()))
    stream: list[tuple[Group, int]] = []
    kept: list[Group] = []
    for block, level, widths in blocks:
        if block.startswith("up"):
            skipped = kept[level]
            stream = [(skipped, 0), *((group, skipped.width) for group, _ in stream)]
        for step, width in enumerate(widths):
            _read(known, f"{block}/conv_{step}", stream)
            group = known.group(f"{block}/conv_{step}", width, Slot("block_features", place))
            known.makes(f"{block}/conv_{step}", group)
            known.norm(f"{block}/norm_{step}", group)
            stream, place = [(group, 0)], place + 1
        if block.startswith("down"):
            kept.append(stream[0][0])
    _read(known, "head/outputs", stream)
    known.fixed("head/")


def _efficientnet(known: Couplings, model: EfficientNetLite0) -> None:
    inner, place, number = model.widths(), 0, 0
    known.widths(
        stem_features=model.stem_features,
        features=model.features,
        last_features=model.last_features,
        block_features=tuple(width for width in inner if width is not None),
    )
    stream = known.group("stem", model.stem_features, Slot("stem_features"))
    known.makes("stem", stream)
    known.norm("stem_norm", stream)
    for stage, count in enumerate(model.stage_sizes):
        for index in range(count):
            block, before = f"block_{number:02}", stream
            width = inner[number]
            if width is not None:
                known.reads(f"{block}/expand", before)
                before = known.group(f"{block}/expand", width, Slot("block_features", place))
                known.makes(f"{block}/expand", before)
                known.norm(f"{block}/expand_norm", before)
                place += 1
            known.makes(f"{block}/depthwise", before)
            known.norm(f"{block}/depthwise_norm", before)
            known.reads(f"{block}/project", before)
            slot = Slot("features", stage)
            # what came in is added wherever the shape stays, even of a stride over one position
            if model.features[stage] != stream.width:
                made = known.group(f"{block}/project", model.features[stage], slot)
                known.differ(made, stream)
                stream = made
            elif index == 0:
                stream.slots.append(slot)
            known.makes(f"{block}/project", stream)
            known.norm(f"{block}/project_norm", stream)
            number += 1
    known.reads("last", stream)
    last = known.group("last", model.last_features, Slot("last_features"))
    known.makes("last", last)
    known.norm("last_norm", last)
    known.reads("head/outputs", last)
    known.fixed("head/")


def _convnext(known: Couplings, model: ConvNeXt) -> None:
    widths, place = model.widths(), 0
    known.widths(block_features=widths)
    for stage, count in enumerate(model.stage_sizes):
        for index in range(count):
            block = f"stage_{stage}_block_{index}"
            _between(known, f"{block}/expand", f"{block}/project", widths[place], place)
            known.fixed(f"{block}/depthwise/", f"{block}/norm/", f"{block}/scale")
            place += 1
        known.fixed(f"stage_{stage}_norm/", f"stage_{stage}_halving/")
    known.fixed("stem/", "stem_norm/", "norm/", "head/")


def _between(known: Couplings, up: str, down: str, width: int, place: int) -> None:
    """The hidden units between two dense layers, whose number is one of ``block_features``."""
    group = known.group(up, width, Slot("block_features", place))
    known.makes(up, group)
    known.reads(down, group)
    known.fixed(f"{down}/")


# --- sequences --------------------------------------------------------------------------------


def _tcn(known: Couplings, model: TCN) -> None:
    inner = model.block_features or model.features
    known.widths(features=model.features, block_features=inner)
    stream: Group | None = None  # the inputs, which can't be cut
    for index, width in enumerate(model.features):
        block = f"block_{index}"
        shape = known.shape(f"{block}/conv_0")
        known.reads(f"{block}/conv_0", stream)
        between = known.group(f"{block}/conv_0", inner[index], Slot("block_features", index))
        known.makes(f"{block}/conv_0", between)
        known.reads(f"{block}/conv_1", between)
        if known.shape(f"{block}/shortcut") is not None:
            known.reads(f"{block}/shortcut", stream)
            made = known.group(f"{block}/conv_1", width, Slot("features", index))
            known.differ(made, stream or (shape[-2] if shape else 0))
            stream = made
            known.makes(f"{block}/shortcut", stream)
        elif stream is not None:
            stream.slots.append(Slot("features", index))
        known.makes(f"{block}/conv_1", stream)
    known.reads("head/outputs", stream)
    known.fixed("head/")


def _recurrent(cell: str, gates: int) -> Callable[[Couplings, Any], None]:
    def couple(known: Couplings, model: GRU | LSTM) -> None:
        widths = model.layer_features or (model.features,) * model.num_layers
        if model.num_layers == 1 and model.layer_features is None:
            slots = [Slot("features")]
            known.widths(features=model.features)
        else:
            slots = [Slot("layer_features", index) for index in range(model.num_layers)]
            known.widths(layer_features=widths)
        before: list[tuple[Group, int]] = []
        for index, (width, slot) in enumerate(zip(widths, slots, strict=True)):
            made = []
            for place, way in enumerate(("forward", "backward")[: 1 + model.bidirectional]):
                layer = f"{cell}_{index}_{way}"
                _read(known, layer, before)
                group = known.group(layer, width, slot)
                known.recurs(layer, group, gates)
                made.append((group, place * width))
            before = made
        _read(known, "head/outputs", before)
        known.fixed("head/", "tokens/")

    return couple


def _speech_rnn(known: Couplings, model: SpeechRNN) -> None:
    layers = [f"{model.cell}_{index}_" for index in range(model.num_layers)]
    known.fixed("subsampling/", *layers, "norm_", "head/")


def _conformer(known: Couplings, model: Conformer) -> None:
    width = model.mlp_features or 4 * model.features
    known.widths(mlp_features=width)
    for index in range(model.num_layers):
        for half in ("first_half", "second_half"):
            mlp = f"block_{index}/{half}"
            units = known.group(f"{mlp}/up", width, Slot("mlp_features"))
            known.makes(f"{mlp}/up", units)
            known.reads(f"{mlp}/down", units)
    known.fixed("subsampling/", "block_", "head/")


def _transformer(known: Couplings, model: TransformerEncoder | TransformerDecoder | ViT) -> None:
    sizes = model.sizes() if isinstance(model, ViT) else sizes_of(model)
    layers = [f"layer_{index}" for index in range(sizes.num_layers)]
    each = sizes.each
    heads, mlps = _slots(sizes)
    known.widths(head_features=each)
    known.widths(**{heads[0].key: sizes.num_heads if heads[0].place is None else sizes.heads})
    known.widths(**{mlps[0].key: sizes.mlps[0] if mlps[0].place is None else sizes.mlps})
    for index, layer in enumerate(layers):
        group = known.group(f"{layer}/attention", sizes.heads[index], heads[index], whole=True)
        for name in ("query", "key", "value"):
            known.makes(f"{layer}/attention/{name}", group, inner=each)
        known.reads(f"{layer}/attention/out", group, inner=each)
        mlp = f"{layer}/{'mlp' if model.experts is None else 'experts'}"
        hidden = known.group(f"{mlp}/up", sizes.mlps[index], mlps[index])
        known.makes(f"{mlp}/up", hidden)
        known.reads(f"{mlp}/down", hidden)
        known.fixed(f"{layer}/attention/out/", f"{mlp}/down/", f"{mlp}/router", f"{layer}/norm_")
    known.fixed("embeddings/", "pooler/", "norm/", "head/")


def _slots(sizes: LayerSizes) -> tuple[list[Slot], list[Slot]]:
    """Where the heads and the hidden units of each layer stand: layers of a loop are alike."""
    count = sizes.num_layers
    if sizes.scan_layers:
        return [Slot("num_heads")] * count, [Slot("mlp_features")] * count
    heads = [Slot("layer_heads", index) for index in range(count)]
    return heads, [Slot("layer_mlp_features", index) for index in range(count)]


# --- several inputs ---------------------------------------------------------------------------


def _fusion(known: Couplings, model: Fusion) -> None:
    if model.fusion != "early":
        raise ConfigError(
            f"model.fusion={model.fusion!r}: how its channels are coupled is not known, so they "
            "can't be sliced; those of 'early' are."
        )
    known.widths(width=model.width)
    found: dict[int, str] = {}
    for name in sorted(known.modules(), key=len, reverse=True):
        if name.startswith("encoder_"):
            found[int(name.split("_")[1])] = name  # the shorter one: the other is of its columns
    made = []
    for place in sorted(found):
        made.append((_encoder(known, model, found[place]), place * model.width))
        known.fixed(f"{found[place]}_columns/")
    _dense_layers(known, "head", model.hidden, "hidden", made)


def _encoder(known: Couplings, model: Fusion, name: str) -> Group:
    """One input's encoder; returns the channels of its encoding, of which all have as many."""
    encoding = known.group(name, model.width, Slot("width"))
    text, kernel = f"{name}/encoder", known.shape(f"{name}/conv_0")
    if kernel is not None:
        key = "image_features" if len(kernel) == 4 else "sequence_features"
        fed = _convolutions(known, f"{name}/", getattr(model, key), key)
        _dense_layers(known, f"{name}/head", (), "", fed, encoding)
    elif known.shape(f"{text}/gru_0_forward", "recurrent_kernel") is not None:
        states = known.group(f"{text}/gru_0_forward", model.width, Slot("width"))
        known.recurs(f"{text}/gru_0_forward", states, 3)
        _dense_layers(known, f"{text}/head", (), "", [(states, 0)], encoding)
        known.fixed(f"{text}/tokens/")
    elif known.shape(f"{name}/outputs") is not None:
        known.makes(f"{name}/outputs", encoding)
        known.fixed(f"{name}/tokens")
    else:
        _dense_layers(known, f"{name}/head", model.table_features, "table_features", (), encoding)
    return encoding


COUPLINGS: dict[str, Callable[[Couplings, Any], None]] = {
    "linear": _linear,
    "mlp": _mlp,
    "cnn": _cnn,
    "gru": _recurrent("gru", 3),
    "lstm": _recurrent("lstm", 4),
    "tcn": _tcn,
    "speech_rnn": _speech_rnn,
    "conformer": _conformer,
    "resnet": _resnet,
    "unet": _unet,
    "vgg": _vgg,
    "efficientnet_lite0": _efficientnet,
    "convnext": _convnext,
    "transformer_encoder": _transformer,
    "transformer_decoder": _transformer,
    "vit": _transformer,
    "wide_and_deep": _wide_and_deep,
    "fusion": _fusion,
    "realmlp": _realmlp,
    "tabm": _tabm,
}
"""What each family says of its channels: ``(couplings, module) → None``."""
