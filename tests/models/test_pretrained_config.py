"""Weights that say what model they are of, and hints where shapes differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jdlopt import config as configs
from jdlopt.errors import ConfigError
from jdlopt.models import make_model, pretrained
from jdlopt.models.pretrained.architecture import WORDS, architecture_of
from jdlopt.models.pretrained.hints import hints
from jdlopt.train.experiment import Experiment
from tests.models.test_pretrained import CONFIG, VIT, vit_tensors

VIT_SAYS = {
    "model_type": "vit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 12, "patch_size": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
    "image_size": 8, "architectures": ["ViTForImageClassification"],
}  # fmt: skip
BERT_MODEL = {
    "name": "transformer_encoder", "features": 8, "num_layers": 1, "num_heads": 2,
    "mlp_features": 12, "max_positions": 16, "num_types": 2,
}  # fmt: skip


def bert_tensors(vocabulary: int = 20) -> dict[str, np.ndarray]:
    """A small BERT's tensors, all zero."""
    layer = "bert.encoder.layer.0"
    wide: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (vocabulary, 8),
        "bert.embeddings.position_embeddings.weight": (16, 8),
        "bert.embeddings.token_type_embeddings.weight": (2, 8),
        f"{layer}.intermediate.dense.weight": (12, 8),
        f"{layer}.intermediate.dense.bias": (12,),
        f"{layer}.output.dense.weight": (8, 12),
        f"{layer}.output.dense.bias": (8,),
    }
    for name in ("self.query", "self.key", "self.value", "output.dense"):
        wide |= {f"{layer}.attention.{name}.weight": (8, 8), f"{layer}.attention.{name}.bias": (8,)}
    for norm in (f"{layer}.attention.output", f"{layer}.output", "bert.embeddings"):
        wide |= {f"{norm}.LayerNorm.weight": (8,), f"{norm}.LayerNorm.bias": (8,)}
    return {name: np.zeros(shape, np.float32) for name, shape in wide.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of weights, with and without a word of what they are."""
    place = tmp_path_factory.mktemp("weights")
    for name, tensors, said in (
        ("vit", vit_tensors(), VIT_SAYS), ("plain", vit_tensors(), None),
        ("bert", bert_tensors(), None), ("llama", vit_tensors(), {"model_type": "llama"}),
        ("swish", vit_tensors(), {**VIT_SAYS, "hidden_act": "mish"}),
        ("biased", vit_tensors(), {**VIT_SAYS, "qkv_bias": False}),
    ):  # fmt: skip
        (place / name).mkdir()
        save_file(tensors, place / name / "model.safetensors")
        if said is not None:
            (place / name / "config.json").write_text(json.dumps(said))
    return place


def told(folder: Path, section: dict[str, Any], *, size: int = 8, tokens: int = 0) -> str:
    """What is said where weights don't fit a model."""
    model = make_model(section, 10, tokens=tokens)
    shape = (1, 6) if tokens else (1, size, size, 1)
    example = jax.ShapeDtypeStruct(shape, jnp.int32 if tokens else jnp.float32)
    shapes = pretrained.shapes_of(model, example, {})
    with pytest.raises(ConfigError) as error:
        pretrained.load({**section, "pretrained": str(folder)}, *shapes)
    return str(error.value)


# --- what a folder says ---------------------------------------------------------------------------


def test_a_folder_says_width_depth_and_heads(place: Path) -> None:
    config = {**CONFIG, "model": {"name": "vit", "pretrained": str(place / "vit")}}
    made = Experiment.build(config, check=False)
    options = made.config.model.options
    asked = {key: options[key] for key in VIT if key != "name"}
    assert asked == {key: value for key, value in VIT.items() if key != "name"}
    assert options["activation"] == "gelu_exact" and made.pretrained() is not None
    nameless = {**CONFIG, "model": {"pretrained": str(place / "vit")}}
    assert Experiment.build(nameless, check=False).config == made.config
    typed = configs.override(CONFIG, {"model.name": configs.Override("vit"),
                                      "model.pretrained": configs.Override(str(place / "vit")),
                                      "model.dropout_rate": configs.Override("0.1")})  # fmt: skip
    assert Experiment.build(typed, check=False).config.model.options["num_heads"] == 2


def test_what_a_config_sets_goes_before_and_other_heads_are_refused(place: Path) -> None:
    folder = place / "vit"
    message = told(folder, {**VIT, "features": 16})
    assert "says model.features=8; here it is 16" in message and "vocabulary" not in message
    assert "Set model.num_heads=2, or leave it out" in told(folder, {**VIT, "num_heads": 4})
    assert "model.name='vit' here" in told(folder, {"name": "resnet", "stage_sizes": (1,)})


REFUSED = {
    "llama": "model_type 'llama', an architecture that no model here is",
    "swish": "the activation 'mish'",
    "biased": "qkv_bias=False",
}


@pytest.mark.parametrize("folder", REFUSED)
def test_what_no_model_here_is_is_refused(place: Path, folder: str) -> None:
    config = {**CONFIG, "model": {"name": "vit", "pretrained": str(place / folder)}}
    with pytest.raises(ConfigError) as error:
        Experiment.build(config)
    assert REFUSED[folder] in str(error.value) and str(error.value).count("problem") == 1


def test_every_key_that_is_taken_is_a_key_of_the_model() -> None:
    from jdlopt.models import MODELS

    for words in WORDS.values():
        known = set(configs.fields_of(MODELS[words.name]))
        assert set(words.keys) | set(words.more({})) <= known


def test_a_file_that_says_nothing_leaves_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"torch_dtype": "float32"}')
    assert architecture_of(str(tmp_path)) is None and architecture_of(None) is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="can't be read"):
        architecture_of(str(tmp_path))


# --- what a shape tells ---------------------------------------------------------------------------

VIT_WRONG = {
    "a width": ({"features": 16}, "Set model.features=8."),
    "too many layers": ({"num_layers": 3}, "Set model.num_layers=2."),
    "too few layers": ({"num_layers": 1}, "Set model.num_layers=2."),
    "scanned layers": ({"num_layers": 3, "scan_layers": True}, "Set model.num_layers=2."),
    "the inner width": ({"mlp_features": 20}, "Set model.mlp_features=12."),
    "the patches": ({"patch_size": 2}, "set model.patch_size"),
    "the pooling": ({"pooling": "mean"}, "set model.pooling='cls'"),
}


@pytest.mark.parametrize("case", VIT_WRONG)
def test_a_vit_that_differs_names_the_key(place: Path, case: str) -> None:
    changes, hint = VIT_WRONG[case]
    message = told(place / "plain", {**VIT, **changes})
    assert hint.lower() in message.lower() and "vocabulary" not in message


BERT_WRONG = {
    "a width": ({"features": 16}, 20, "Set model.features=8."),
    "another vocabulary": ({}, 33, "set data.text.tokenizer"),
    "the positions": ({"max_positions": 8}, 20, "set model.max_positions=16"),
    "no types": ({"num_types": 0}, 20, "Set model.num_types"),
    "more types": ({"num_types": 3}, 20, "Set model.num_types=2."),
    "the layers": ({"num_layers": 2}, 20, "Set model.num_layers=1."),
}


@pytest.mark.parametrize("case", BERT_WRONG)
def test_a_bert_that_differs_names_the_key(place: Path, case: str) -> None:
    changes, tokens, hint = BERT_WRONG[case]
    message = told(place / "bert", {**BERT_MODEL, **changes}, tokens=tokens)
    assert hint in message
    assert ("vocabulary" in message) == (case == "another vocabulary")


def test_the_tokenizer_beside_the_weights_is_named(place: Path) -> None:
    (place / "bert/tokenizer.json").write_text("{}")
    message = told(place / "bert", BERT_MODEL, tokens=33)
    assert f"set data.text.tokenizer to '{place / 'bert/tokenizer.json'}'" in message
    (place / "bert/tokenizer.json").unlink()


def test_convolutions_that_differ_name_the_key() -> None:
    stem = {"stem/kernel": ((3, 3, 1, 64), (7, 7, 3, 64))}
    found = " ".join(hints(stem, (), (), None))
    assert "model.stem" in found and "images of 3 channels" in found
    wider = {"stem/kernel": ((7, 7, 3, 32), (7, 7, 3, 64)),
             "stage_0_block_0/conv_0/kernel": ((3, 3, 32, 32), (3, 3, 64, 64))}  # fmt: skip
    assert hints(wider, (), (), None) == ["model.features says how wide each stage is: 64 is the "
                                          "width there."]  # fmt: skip
    assert "model.depth" in hints({}, ["stage_3_block_2/conv_0/kernel"], (), None)[0]
