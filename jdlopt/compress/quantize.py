"""Quantization after training: the ranges of layers' inputs, from training examples; what it costs.

The float model runs in evaluation mode on examples of the training split; what each layer with a
quantized kernel is given decides the range that its codes cover. Jacob et al., "Quantization and
training of neural networks for efficient integer-arithmetic-only inference", 2018; Nagel et al., "A
white paper on neural network quantization", 2021, has the choices of a range.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jdlopt import config as configs
from jdlopt.compress.made import save_made, with_data_of
from jdlopt.compress.ranges import (
    known_of,
    observed_ranges,
    unquantized,
    with_ranges,
    without_ranges,
)
from jdlopt.data import feed
from jdlopt.errors import ConfigError, DataError
from jdlopt.models.kernel_inputs import RANGES, Visit, visiting
from jdlopt.models.quantization import QuantizeFields, chooser
from jdlopt.train.experiment import Experiment
from jdlopt.train.run import Run
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights
from jdlopt.train.step import Batch, Inputs

EXAMPLES, BATCH = 512, 64
"""Training examples that a calibration sees, and those of them together."""


class LayerError(NamedTuple):
    """What quantization costs at one layer.

    Attributes:
      layer: its path.
      low, high: the range of its inputs; None where they are not quantized.
      sqnr: its outputs' power over that of their error, in decibels, all layers before it quantized
        too; infinite where they are equal.
    """

    layer: str
    low: float | None
    high: float | None
    sqnr: float


class Quantized(NamedTuple):
    """A model quantized after training.

    Attributes:
      config: with ``model.quantize``; an ordinary one, which trains on.
      weights: the float parameters, and the ranges in their model state.
      layers: what it costs at each layer, in the model's order of names.
    """

    config: Config
    weights: Weights
    layers: tuple[LayerError, ...]


def calibrate(
    experiment: Experiment,
    weights: Weights,
    fields: QuantizeFields,
    batches: Callable[[], Iterable[Batch]],
) -> Quantized:
    """Returns a model quantized by what its layers are given on some batches.

    Args:
      experiment: of the float model, or of one that was quantized otherwise.
      weights: its own.
      fields: how it is to be quantized; its ``calibration`` and ``percentile`` choose the ranges of
        inputs, too.
      batches: gives the same batches of raw training examples at each call.

    Raises:
      ConfigError: bits outside of 2 to 8, a pattern that matches no kernel, or nothing to quantize.
      DataError: there is no example, or what a layer is given is not finite.
    """
    if not fields.on:
        raise ConfigError(
            "model.quantize: neither weights nor activations have bits: there is nothing to "
            "quantize. Give model.quantize.weights=8."
        )
    plain = _changed(experiment, QuantizeFields())
    made = _changed(experiment, fields)
    observed = _changed(experiment, QuantizeFields(activations=8.0, patterns=fields.patterns))
    start = with_ranges(observed, weights)
    state = start.model_state
    if fields.activations is not None:
        state = observed_ranges(plain, start, fields, batches)
    asked = {"quantize": made.hparams["model"]["quantize"]}
    hparams = {**weights.hparams, "model": {**weights.hparams["model"], **asked}}
    floats = weights.replace(model_state=state, hparams=unquantized(hparams))
    layers = _errors(plain, made, floats, hparams, batches, fields)
    if fields.activations is None:
        state = without_ranges(state)
    return Quantized(
        made.config, weights.replace(model_state=state, hparams=hparams), tuple(layers)
    )


def quantize_run(
    source: Run,
    directory: str | Path,
    fields: QuantizeFields,
    examples: int = EXAMPLES,
    split: str = "train",
) -> Run:
    """Returns a finished run quantized after training, as a run of its own.

    Args:
      source: the finished run.
      directory: the new run's.
      fields: how it is quantized.
      examples: of the training split that the ranges are found on.
      split: ``train``; no other is calibrated on.

    Raises:
      ConfigError, DataError, WorkdirError: as `calibrate` and `save_made`.
    """
    experiment = with_data_of(source, source.config)
    batches = partial(training_batches, experiment, examples, split)
    made = calibrate(experiment, source.weights, fields, batches)
    how = {
        "method": "quantize",
        "examples": min(examples, experiment.data.sizes["train"]),
        **{name: value for name, value in dataclasses.asdict(fields).items() if value is not None},
        "layers": [layer._asdict() for layer in made.layers],
    }
    return save_made(source, made.config, made.weights, directory, how)


def training_batches(
    experiment: Experiment, examples: int = EXAMPLES, split: str = "train", batch_size: int = BATCH
) -> Iterator[Batch]:
    """Yields batches of raw training examples, not augmented, the same at each call.

    Args:
      experiment: with its data.
      examples: how many, drawn by the config's seed.
      split: ``train``.
      batch_size: examples together; the last batch may have fewer.

    Raises:
      ConfigError: another split is asked for, or no example.
    """
    if split != "train":
        raise ConfigError(
            f"calibration is on examples of the training split alone, found split {split!r}: what "
            "is measured on the others would not be fair any more. Leave it out."
        )
    if examples < 1:
        raise ConfigError(f"calibration needs examples, at least 1; found {examples}.")
    size = experiment.data.sizes[split]
    records = experiment.data.records(split)
    chosen = feed.batch_examples(experiment.config.seed, 0, min(examples, size), size)[0]
    for first in range(0, len(chosen), batch_size):
        inputs, targets = feed.read_examples(records, chosen[first : first + batch_size])
        yield {"inputs": inputs, "targets": targets}


# --- experiments and states -----------------------------------------------------------------------


def _changed(experiment: Experiment, fields: QuantizeFields) -> Experiment:
    """The experiment of another ``model.quantize``, of the same data and what they taught."""
    config = configs.to_dict(experiment.config)
    return Experiment.build(
        {**config, "model": {**config["model"], "quantize": configs.to_dict(fields)}},
        experiment.spec if experiment.dataset is None else experiment.dataset,
        learnt_before=experiment.learnt,
        check=False,
        begins=False,
    )


# --- what it costs --------------------------------------------------------------------------------


def _errors(
    plain: Experiment,
    made: Experiment,
    weights: Weights,
    hparams: Mapping[str, PyTree],
    batches: Callable[[], Iterable[Batch]],
    fields: QuantizeFields,
) -> list[LayerError]:
    """What the quantized model's layers return against the float model's, on the first batch."""
    chooses = chooser(fields.patterns)
    kept = Visit(
        inputs=lambda x, known: (x, known),
        outputs=lambda outputs, known: {**known, "outputs": outputs},
    )

    @jax.jit
    def program(weights: Weights, inputs: Inputs) -> dict[str, tuple[Array, Array]]:
        seen = plain.components.preprocess(weights.preprocess, inputs)
        found = []
        for one, rates in ((plain, weights.hparams["model"]), (made, hparams["model"])):
            with visiting(kept, chooses):
                outputs, state = one.components.model.apply(
                    weights.params, weights.model_state, seen, rates, key=None, train=False,
                    updates=(RANGES,),
                )  # fmt: skip
            found.append({**known_of(state, "outputs"), "": outputs})
        return {
            layer: (jnp.square(whole).sum(), jnp.square(whole - found[1][layer]).sum())
            for layer, whole in found[0].items()
        }

    batch = next(iter(batches()), None)
    if batch is None:
        raise DataError("calibration: there is no example. Give at least one training example.")
    powers = program(weights, batch["inputs"])
    low, high = known_of(weights.model_state, "low"), known_of(weights.model_state, "high")

    def end(
        of_layers: Mapping[str, Array], layer: str, extreme: Callable[..., Array]
    ) -> float | None:
        if fields.activations is None or layer not in of_layers:
            return None
        return float(extreme(of_layers[layer]))

    return [
        LayerError(layer or "outputs of the model", end(low, layer, jnp.min),
                   end(high, layer, jnp.max), _decibels(*map(float, pair)))
        for layer, pair in sorted(powers.items(), key=lambda item: (item[0] == "", item[0]))
    ]  # fmt: skip


def _decibels(power: float, error: float) -> float:
    if error == 0:
        return math.inf
    return 10 * math.log10(power / error) if power > 0 else -math.inf
