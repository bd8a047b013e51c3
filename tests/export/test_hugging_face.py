"""Folders as Hugging Face lays them out: opened by its library, read back here, and refused."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CLASSES, IMAGES, LAYERS, TEXT, TEXTS, built, weights_of
from flax.traverse_util import flatten_dict

from jdlopt.export import weights as files
from jdlopt.export.hugging_face import KINDS, folder_of
from jdlopt.models import pretrained
from jdlopt.models.pretrained.architecture import WORDS, architecture_of, differing

LARGE = {"preprocess": {"resize": (32, 32)}}
SMALL = {"stage_sizes": (1, 2), "features": (8, 16)}
ENCODER = {"name": "transformer_encoder", **LAYERS, "pooling": "cls"}
DECODER = {"name": "transformer_decoder", **LAYERS}
VIT = {"name": "vit", **LAYERS, "patch_size": 2}
RESNET = {"name": "resnet", **SMALL}
CONVNEXT = {"name": "convnext", **SMALL, "patch_size": 2}
OF_TEXTS, OF_IMAGES = (TEXT, TEXTS), ({}, (IMAGES, CLASSES))

OPENED = {
    "an encoder": (ENCODER, *OF_TEXTS),
    "an encoder with types, scanned": (
        {**ENCODER, "num_types": 2, "scan_layers": True, "activation": "relu"},
        *OF_TEXTS,
    ),
    "a decoder": (DECODER, *OF_TEXTS),
    "a decoder with adapters": ({**DECODER, "lora_rank": 2, "activation": "silu"}, *OF_TEXTS),
    "a ViT": ({**VIT, "scan_layers": True}, *OF_IMAGES),
    "a ResNet": ({**RESNET, "stem_features": 4}, LARGE, (IMAGES, CLASSES)),
    "a ResNet of bottlenecks": (
        {**RESNET, "bottleneck": True, "strides": (2, 2)}, LARGE, (IMAGES, CLASSES),
    ),
    "a ConvNeXt": (CONVNEXT, *OF_IMAGES),
    "a regression without scales": (
        {**CONVNEXT, "layer_scale": None}, {}, (IMAGES, IMAGES[:, 0, 0, 0] / 9.0)
    ),
}  # fmt: skip
"""A model section, a data section and data of each case."""
CHANGED = ("an encoder", "a decoder with adapters")
"""Of which a tensor is none of ours, or several of ours."""
MOVED = ("norm/bias", "head/")


def opened(folder, experiment, found):
    """The outputs of our model, and those of Hugging Face's from the folder, on training inputs."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    raw = jnp.asarray(experiment.data.read("train").inputs[:6])
    given = np.asarray(experiment.components.preprocess(found.preprocess, raw))
    automatic = {
        2: transformers.AutoModelForSequenceClassification,
        4: transformers.AutoModelForImageClassification,
    }[given.ndim]
    model, told = automatic.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    with torch.no_grad():
        if given.ndim == 2:
            ids = torch.tensor(given.astype(np.int64))
            said = model.eval()(input_ids=ids, attention_mask=(ids != 0).long())
        else:
            said = model.eval()(torch.tensor(given.transpose(0, 3, 1, 2).copy()))
    return np.asarray(jax.jit(experiment.predict)(found, raw).scaled), said.logits.numpy(), model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("case", OPENED)
def test_transformers_opens_it_and_says_the_same(case, tmp_path):
    experiment = built(*OPENED[case])
    found = weights_of(experiment)
    record = files.write(experiment, found, tmp_path)
    assert record["why_not"] is None
    ours, theirs, model = opened(tmp_path, experiment, found)
    assert type(model).__name__ == record["opens"]
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5 * np.abs(ours).max())
    names = experiment.spec.class_names or ("LABEL_0",)
    assert list(model.config.id2label.values()) == list(names)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in OPENED if case not in CHANGED])
def test_the_folder_reads_back_here(case, tmp_path):
    experiment = built(*OPENED[case])
    found = weights_of(experiment)
    files.write(experiment, found, tmp_path)
    model = experiment.config.model
    section = {"name": model.name, **model.options, "pretrained": str(tmp_path)}
    read = pretrained.load(section, found.params, found.model_state)
    said = architecture_of(str(tmp_path))
    assert said is not None and said.name == model.name
    unlike = differing(said, section)
    assert all(here in (None, ()) for here, _ in unlike.values()), unlike
    arrays = flatten_dict({**found.params, **found.model_state}, sep="/")
    if model.name == "transformer_decoder":  # its head has no bias there
        arrays = {path: one for path, one in arrays.items() if not path.startswith(MOVED)}
    for path, values in arrays.items():
        np.testing.assert_array_equal((read.params | read.state)[path], values)


# --- what it has no place for ---------------------------------------------------------------------

REFUSED = {
    "model.pooling: is 'mean'": ({**ENCODER, "pooling": "mean"}, *OF_TEXTS),
    r"model.layer_heads: is \(1, 2\)": (
        {**ENCODER, "layer_heads": (1, 2), "head_features": 4}, *OF_TEXTS
    ),
    "model.layer_mlp_features": ({**DECODER, "layer_mlp_features": (8, 16)}, *OF_TEXTS),
    "model.head_features: is 3": ({**VIT, "head_features": 3}, *OF_IMAGES),
    "model.activation: 'elu' is none of ViT": ({**VIT, "activation": "elu"}, *OF_IMAGES),
    "model.stem: is 'cifar'": ({**RESNET, "stem": "cifar"}, *OF_IMAGES),
    "model.kernel_size: is 3; ConvNextForImageClassification has 7 alone": (
        {**CONVNEXT, "kernel_size": 3}, *OF_IMAGES
    ),
    "model.ensemble: is 2": ({**CONVNEXT, "ensemble": 2}, *OF_IMAGES),
    "model.low_rank": ({**VIT, "low_rank": {"rank": 2}}, *OF_IMAGES),
    "model.batch_norm: is False": ({**RESNET, "batch_norm": False}, *OF_IMAGES),
    "model.quantize": ({**CONVNEXT, "quantize": {"weights": 8.0}}, *OF_IMAGES),
    "model.name: 'linear' is no model of transformers": ({"name": "linear"}, *OF_IMAGES),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("line", REFUSED)
def test_what_transformers_has_not_is_said_in_a_line(line, tmp_path):
    experiment = built(*REFUSED[line])
    found = weights_of(experiment)
    with pytest.raises(AssertionError, match=line):
        raise AssertionError(folder_of(experiment, found))
    record = files.write(experiment, found, tmp_path)
    assert record["names"] == "jdlopt" and "\n" not in record["why_not"]
    assert json.loads((tmp_path / files.CONFIG).read_text())["library_name"] == "jdlopt"


def test_every_kind_is_read_by_its_own_table():
    for name, kind in KINDS.items():
        assert kind.family in pretrained.FAMILIES[name] and WORDS[kind.word].name == name
