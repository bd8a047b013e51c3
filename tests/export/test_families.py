"""A file of every family says what the model says, in batches of any size."""

from __future__ import annotations

import numpy as np
import pytest
from families import FAMILIES, experiment_of, program_of, weights_of

from jdlopt.errors import UserError
from jdlopt.export import litert, onnx, saved_model, stablehlo
from jdlopt.export.agreement import agreement, examples
from jdlopt.export.opened import computing_in_float32
from jdlopt.export.program import Program, make_program
from jdlopt.models import MODELS

FAST = ("mlp", "cnn", "gru of texts")
"""Between them: tables with missing values and categories, bytes, tokens, convolutions, loops."""
EACH = [
    family if family in FAST else pytest.param(family, marks=pytest.mark.slow)
    for family in FAMILIES
]


def test_every_model_is_one_of_the_families():
    families = {model["name"] for model, _, _ in FAMILIES.values()}
    # the one writes token by token, the other is tried in test_every_task.py
    assert set(MODELS) - families == {"transformer_seq2seq", "two_towers"}


@pytest.mark.parametrize("family", EACH)
def test_an_onnx_file_says_what_the_model_says(family, tmp_path):
    experiment = computing_in_float32(experiment_of(family))
    program = make_program(experiment, weights_of(experiment))
    onnx.write(program, tmp_path / "model.onnx")
    found = agreement(program, onnx.load(tmp_path / "model.onnx"), given_of(experiment))
    assert found.relative_error <= 1e-5 and found.same_classes == 1.0


@pytest.mark.parametrize("family", EACH)
def test_a_stablehlo_file_equals_the_model_to_the_bit(family, tmp_path):
    program, given = program_of(family)
    stablehlo.write(program, tmp_path / "model.stablehlo")
    loaded = stablehlo.load(tmp_path / "model.stablehlo")
    assert agreement(program, loaded, given).relative_error == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mlp", "lstm", "vit"])
@pytest.mark.parametrize(
    ("module", "library"), [(litert, "litert_converter"), (saved_model, "tensorflow")]
)
def test_a_file_of_an_optional_library_says_what_the_model_says(module, library, family, tmp_path):
    pytest.importorskip(library)
    program, given = program_of(family)
    module.write(program, tmp_path / "model")
    found = agreement(program, module.load(tmp_path / "model"), given)
    assert found.relative_error <= 1e-5 and found.same_classes == 1.0


def given_of(experiment):
    inputs = experiment.data.read("train").inputs
    return list(inputs.values()) if isinstance(inputs, dict) else [inputs]


def test_examples_hold_what_inputs_may_hold():
    spec = experiment_of("mlp").spec
    (rows,) = examples(spec, 100)
    names = list(spec.input.feature_names)
    colours = rows[:, names.index("colour")]
    assert rows.shape == (100, 4) and set(colours) == {0.0, 1.0, 2.0, 3.0}
    (texts,) = examples(experiment_of("gru of texts").spec, 20)
    assert (
        texts.dtype == np.int32 and texts.max() < experiment_of("gru of texts").spec.input.text.size
    )


def test_an_operation_that_onnx_lacks_is_named_with_its_layer():
    import jax
    import jax.numpy as jnp

    from jdlopt.export.program import Input

    def function(x):
        with jax.named_scope("head/strange"):
            return {"outputs": jax.lax.linalg.schur(x @ jnp.ones((2, 2)))[0]}

    program = Program(function, {"input": Input((2, 2), "float32")}, ("outputs",))
    with pytest.raises(UserError, match=r"schur of head/strange can't be written as ONNX"):
        onnx.convert(program)
