"""Methods of few bits: kernels and inputs of layers quantized after training, and trained so."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax

from jdlopt.compress.entry import Apply, Candidate, Given, Method, Train, TrainingBatches
from jdlopt.compress.quantize import EXAMPLES, calibrate
from jdlopt.evidence.options import SIZE, SPEED
from jdlopt.models.quantization import QuantizeFields, chosen_kernels
from jdlopt.train.experiment import Experiment
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights
from jdlopt.train.step import Batch

INT8 = QuantizeFields(weights=8.0, activations=8.0, calibration="mse")
INT4 = QuantizeFields(weights=4.0, activations=8.0, calibration="mse")
INT3 = QuantizeFields(weights=3.0, activations=8.0, calibration="mse")


def _first(batches: TrainingBatches) -> Iterator[Batch]:
    """The first batches of an epoch, of so many examples as a calibration sees."""
    seen = 0
    for batch in batches():
        yield batch
        seen += len(jax.tree.leaves(batch["inputs"])[0])
        if seen >= EXAMPLES:
            return


def _quantized(
    given: Given,
    fields: QuantizeFields,
    config: Config,
    weights: Weights,
    batches: TrainingBatches,
) -> tuple[Config, Weights]:
    """Weights of a config quantized by what its layers are given on training examples."""
    experiment = Experiment.build(
        config,
        given.experiment.data,
        learnt_before=given.experiment.learnt,
        check=False,
        begins=False,
    )
    made = calibrate(experiment, weights, fields, partial(_first, batches))
    return made.config, made.weights


def _stage(given: Given, fields: QuantizeFields) -> Apply:
    assert fields.weights is not None and fields.activations is not None
    name = (
        f"quantize weights to {fields.weights:g} and activations to {fields.activations:g} bits, "
        f"{fields.calibration} on {EXAMPLES} examples"
    )
    return Apply(name, partial(_quantized, given, fields))


def _why_not(given: Given) -> str | None:
    if given.config.model.quantize.on:
        return "The run is quantized already (model.quantize)."
    if not chosen_kernels(given.weights.params, QuantizeFields().patterns):
        return f"model {given.config.model.name!r} has no kernels."
    return None


def _after_training(given: Given) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(name, (_stage(given, fields),))
        for name, fields in (("int8", INT8), ("int4_weights", INT4))
    )


def _while_training(given: Given) -> tuple[Candidate, ...]:
    made = []
    for name, fields in (("qat_int4_weights", INT4), ("qat_int3_weights", INT3)):
        stage = _stage(given, fields)
        # at the end once more: ranges that ran while training are those of training mode
        made.append(Candidate(name, (stage, Train(), stage)))
    return tuple(made)


POST_TRAINING_QUANTIZATION = Method(
    "quantize", (SIZE, SPEED),
    "Rounds kernels and inputs of layers to 8 bits, or kernels to 4, without training.",
    "a few batches", "Jacob et al., Quantization and training of neural networks, 2018",
    _after_training, _why_not, follows=True,
)  # fmt: skip

QUANTIZATION_AWARE_TRAINING = Method(
    "qat", (SIZE, SPEED), "Trains on with kernels of 4 or 3 bits and inputs of layers of 8.",
    "half a training", "Jacob et al., Quantization and training of neural networks, 2018; "
    "Bengio et al., Straight-through gradients, 2013", _while_training, _why_not,
)  # fmt: skip
