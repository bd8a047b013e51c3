"""Convolutions over frames of sound, then recurrent layers that read them in both directions."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, Rate
from jdlopt.data.frames import real_frames
from jdlopt.models.frames import Subsampling, blank_where_padded, frames_of, mean_of
from jdlopt.models.layers import INITIALIZERS, REMAT, Dropout, Head, layer_norm
from jdlopt.models.recurrent import Recurrence

CELLS = ("gru", "lstm")


class SpeechRNN(nn.Module):
    """Convolutions with strides over frames, and GRU or LSTM layers in both directions.

    For speech recognition it has a row of outputs at each step that the ``strides`` leave, and is
    sure of the blank in padding; for other tasks, one of the mean over the steps. Frames at the end
    that are all equal are padding. After Amodei et al., "Deep Speech 2: end-to-end speech
    recognition in English and Mandarin", 2016, with layer normalisation.

    Attributes:
      features: width of the convolutions, and of the hidden state in each direction.
      cell: what the layers are made of.
      strides: of each convolution, how many frames it moves by; their product is the frames of a
        step.
      kernel_size: frames that a convolution covers.
    """

    num_outputs: int
    features: Count = 128
    num_layers: Count = 2
    cell: Annotated[str, Choice(CELLS)] = "gru"
    bidirectional: bool = True
    strides: tuple[int, ...] = (1, 2)
    kernel_size: Count = 5
    initializer: Annotated[str, Choice(INITIALIZERS)] = "glorot_uniform"
    dropout_rate: Rate | None = None
    remat: Annotated[str, Choice(REMAT)] = "none"
    positions: int = 0

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps frames to outputs."""
        x = frames_of(inputs, "speech_rnn")
        real = real_frames(x)
        x, real = Subsampling(
            self.features, self.strides, self.kernel_size, self.initializer, name="subsampling"
        )(x, real)
        times = real.T
        for index in range(self.num_layers):
            x = Dropout(self.dropout_rate, name=f"dropout_{index}")(x, train).swapaxes(0, 1)
            runs = [
                Recurrence(
                    self.features,
                    self.cell,
                    self.initializer,
                    direction == "backward",
                    self.remat,
                    name=f"{self.cell}_{index}_{direction}",
                )(x, times)[0]
                for direction in ("forward", "backward")[: 1 + self.bidirectional]
            ]
            x = jnp.concatenate(runs, axis=-1).swapaxes(0, 1)
            x = layer_norm(1e-5, name=f"norm_{index}")(x)
        x = x if self.positions else mean_of(x, real)
        x = Dropout(self.dropout_rate, name="dropout")(x, train)
        outputs = Head(self.num_outputs, (), "relu", self.initializer, name="head")(x, train)
        return blank_where_padded(outputs, real) if self.positions else outputs
