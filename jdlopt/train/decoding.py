"""Predictions of tasks whose targets make inputs: targets are written token by token."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp

from jdlopt.config import Scalar
from jdlopt.data.named import INPUT, by_name
from jdlopt.data.spec import DataSpec
from jdlopt.models import beam
from jdlopt.tasks import find_task
from jdlopt.train import step
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights
from jdlopt.train.step import Components, Inputs, Predictions


def written_predict_step(
    components: Components,
    weights: Weights,
    inputs: Inputs,
    *,
    length: int,
    width: int,
    length_penalty: Scalar | None = None,
) -> Predictions:
    """Writes a target for each of a batch of raw inputs; the tokens are the outputs. Pure.

    Args:
      components: of the step.
      weights: what predicts.
      inputs: a batch of raw inputs.
      length, width, length_penalty: as in `jdlopt.models.beam.search`; the penalty is by default
        ``model.length_penalty``.
    """
    seen = jnp.asarray(by_name(components.preprocess(weights.preprocess, inputs))[INPUT])
    hparams = weights.hparams["model"]
    tokens = beam.search(
        components.model,
        weights.params,
        weights.model_state,
        seen,
        hparams,
        length=length,
        width=width,
        length_penalty=hparams.get("length_penalty", 1.0)
        if length_penalty is None
        else length_penalty,
    )
    return Predictions(tokens, None, tokens)


def predictor_of(
    config: Config, spec: DataSpec
) -> Callable[[Components, Weights, Inputs], Predictions]:
    """Returns what predicts from components, weights and raw inputs, by the task.

    Args:
      config: the resolved config: ``model.beam_width``, where its model has that.
      spec: what is known of its data.
    """
    if find_task(spec.task).teacher_forcing is None:
        return step.predict_step
    width = config.model.options.get("beam_width", 1)
    assert isinstance(width, int)
    return partial(written_predict_step, length=spec.target_shape[0], width=width)
