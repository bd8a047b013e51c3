"""The same states as PyTorch's LSTM and GRU, stacked and bidirectional, with copied weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.models.recurrent import Recurrence

pytestmark = pytest.mark.slow


def layer_of(cell, state, layer, direction, features):
    """Our parameters of one layer and direction: PyTorch has two biases, which only add up.

    All but one: a GRU's candidate has its recurrent bias inside the reset gate's product. Ours has
    that one for itself, and an LSTM's forget gate one that starts at 1; the rest is one bias.
    """
    suffix = f"_l{layer}{'_reverse' if direction == 'backward' else ''}"
    kernel, recurrent, bias, second = (
        state[f"{name}{suffix}"].numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    own = np.zeros(features, np.float32)
    if cell == "gru":
        own, second = second[2 * features :], np.append(second[: 2 * features], own)
    return {
        "kernel": kernel.T,
        "recurrent_kernel": recurrent.T,
        "bias": bias + second,
        "recurrent_bias": own,
    }


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_two_layers_in_both_directions(cell):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    features, channels = 7, 5
    peer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](
        channels, features, num_layers=2, bidirectional=True
    )
    state = peer.state_dict()
    x = torch.randn(11, 3, channels)
    with torch.no_grad():
        expected, final = peer(x)
    final = final[0] if cell == "lstm" else final
    y, finals, parameters = jnp.asarray(x.numpy()), [], 0
    for layer in range(2):
        both = []
        for direction in ("forward", "backward"):
            module = Recurrence(features, cell, "glorot_uniform", direction == "backward")
            own = layer_of(cell, state, layer, direction, features)
            params = {name: jnp.asarray(leaf) for name, leaf in own.items()}
            shapes = jax.eval_shape(module.init, jax.random.key(0), y)["params"]
            assert {name: leaf.shape for name, leaf in shapes.items()} == {
                name: leaf.shape for name, leaf in params.items()
            }
            parameters += sum(leaf.size for leaf in params.values())
            states, last = module.apply({"params": params}, y)
            both.append(np.asarray(states))
            finals.append(np.asarray(last))
        y = jnp.concatenate(both, axis=-1)
    np.testing.assert_allclose(y, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(np.stack(finals), final.numpy(), atol=1e-4)
    gates = 4 if cell == "lstm" else 3
    twice = 4 * (gates - 1) * features  # of each layer's second bias, one gate's stays
    assert parameters == sum(value.numel() for value in peer.parameters()) - twice
