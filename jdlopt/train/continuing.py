"""Texts that a run of `jdlopt.tasks.next_token` continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from jdlopt.config import to_dict
from jdlopt.data import text
from jdlopt.data.inputs import Inputs
from jdlopt.data.vocabulary import END_ID, PADDING_ID
from jdlopt.errors import UserError
from jdlopt.models.generate import generate
from jdlopt.models.transformer import TransformerDecoder
from jdlopt.train.continuation import Continuation
from jdlopt.train.experiment import Experiment
from jdlopt.train.predictions import Predictions
from jdlopt.train.state import Weights

TOGETHER = 32
"""Texts that are continued at a time."""
STEP = 16
"""Prompts are padded to a multiple of so many tokens: each length is a program."""


class Written(NamedTuple):
    """What was written behind some texts.

    Attributes:
      tokens: padded.
      texts: what they spell.
    """

    tokens: Int32[np.ndarray, "n count"]
    texts: list[str]


def decoder_of(experiment: Experiment) -> TransformerDecoder:
    """Returns the decoder of an experiment, as its parameters alone make it.

    Raises:
      UserError: its model is another, or has more than a decoder's parameters.
    """
    section = to_dict(experiment.config.model)
    more = [
        f"model.{key}"
        for key, has in {
            "lora_rank": section.get("lora_rank") is not None,
            "low_rank": experiment.config.model.low_rank.on,
            "quantize": experiment.config.model.quantize.on,
            "ensemble": section.get("ensemble", 1) > 1,
        }.items()
        if has
    ]
    if section["name"] != "transformer_decoder" or more:
        what = more[0] if more else f"model.name={section['name']!r}"
        raise UserError(
            f"{what}: texts are continued by a plain 'transformer_decoder' alone; of another model "
            "only the metrics can be had."
        )
    fields = TransformerDecoder.__dataclass_fields__
    keys = {key: value for key, value in section.items() if key in fields and key != "name"}
    size = experiment.spec.num_classes
    return TransformerDecoder(**{**keys, "num_outputs": size, "num_tokens": size, "positions": 1})


def continued(
    experiment: Experiment,
    weights: Weights,
    prompts: Sequence[Int32[np.ndarray, " tokens"]],
    asked: Continuation,
) -> Int32[np.ndarray, "n count"]:
    """Returns the tokens that are written behind some others, 0 from the end of a text on.

    Args:
      experiment: of the run.
      weights: what writes.
      prompts: the tokens before; of too many the last count.
      asked: how.

    Raises:
      UserError: the model has too few positions, or is no decoder.
    """
    model = decoder_of(experiment)
    room = model.max_positions - asked.new_tokens
    if room < 1:
        raise UserError(
            f"--new-tokens: {asked.new_tokens} is too many for model.max_positions="
            f"{model.max_positions}, of which the text needs one. Ask for at most "
            f"{model.max_positions - 1}."
        )
    longest = min(room, max(map(len, prompts)))
    width = min(room, -(-longest // STEP) * STEP)
    ids = np.full((-(-len(prompts) // TOGETHER) * TOGETHER, width), PADDING_ID, np.int32)
    lengths = np.ones(len(ids), np.int32)
    for row, prompt in enumerate(prompts):
        kept = prompt[-width:]
        ids[row, : len(kept)], lengths[row] = kept, len(kept)
    key = jax.random.key(asked.seed)
    found = [
        generate(
            weights.params,
            jnp.asarray(ids[start : start + TOGETHER]),
            jax.random.fold_in(key, start),
            asked.temperature,
            asked.top_k,
            asked.top_p,
            model=model,
            count=asked.new_tokens,
            end=END_ID,
            lengths=jnp.asarray(lengths[start : start + TOGETHER]),
            scored_by="next_scores",
        )
        for start in range(0, len(ids), TOGETHER)
    ]
    written = np.concatenate(jax.device_get(found))[: len(prompts)]
    return np.where(written == END_ID, PADDING_ID, written)


def write(
    experiment: Experiment, weights: Weights, texts: Sequence[str], asked: Continuation
) -> Written:
    """Returns what is written behind texts.

    Args:
      experiment, weights, asked: as `continued` takes them.
      texts: what comes before; an empty one begins a text.
    """
    assert experiment.spec.input.text is not None
    state = experiment.spec.input.text.state
    end = np.array([END_ID], np.int32)
    before = [np.concatenate([end, one]) for one in text.tokens_of(state, texts)]
    tokens = continued(experiment, weights, before, asked)
    spelt = []
    for prompt, new in zip(before, tokens, strict=True):
        # a token may be a part of a character, whose other part the text has
        start, whole = text.decode(state, prompt[None, 1:])[0], np.concatenate([prompt[1:], new])
        both = text.decode(state, whole[None])[0]
        same = both.startswith(start)
        spelt.append(both[len(start) :] if same else text.decode(state, new[None])[0])
    return Written(tokens, spelt)


def predictions(
    experiment: Experiment, weights: Weights, given: Inputs, asked: Continuation
) -> Predictions:
    """Returns what is written behind the texts of a file, as predictions.

    Raises:
      UserError: the inputs are no texts.
    """
    if given.texts is None:
        raise UserError("--input: continuing takes texts: a .txt file with one a line, or a table.")
    written = write(experiment, weights, given.texts, asked)
    columns = {"text": list(given.texts), "prediction": written.texts}
    return Predictions(given.ids, written.tokens, written.texts, None, (), columns, given.notes)
