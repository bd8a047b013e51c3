"""Losses of pairs: each example's two embeddings are to be nearer than those of two examples.

They look at all examples of a batch together, at its whole matrix of similarities. Over a mesh that
is the global batch: a step is one program, in which a batch is one array wherever its parts lie.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jdlopt.tasks.pair_outputs import parted

Outputs = Float[Array, "batch outputs"]
PerExample = Float[Array, "batch"]
NEVER = -1e9
"""The logit of what is masked."""


def _logits(
    outputs: Outputs, targets: Int[Array, "batch"]
) -> tuple[Float[Array, "batch batch"], Bool[Array, "batch batch"], Bool[Array, "batch"]]:
    """The scaled similarities of first and second embeddings, which of them count, and which rows.

    What doesn't count: pairs of different examples that belong together (equal targets), and
    padding (negative targets).
    """
    pairs = parted(outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)))
    similar = pairs.first @ pairs.second.T
    logits = jnp.exp(pairs.log_scale)[:, None] * similar + pairs.bias[:, None]
    real = targets >= 0
    other = (targets[:, None] != targets[None, :]) & real[:, None] & real[None, :]
    return logits, other | jnp.eye(len(targets), dtype=bool), real


def clip(outputs: Outputs, targets: Int[Array, "batch"]) -> PerExample:
    r"""Returns the mean of two cross-entropies of each example: to find its second, and its first.

    ``-(log softmax_j(s_ij)_i + log softmax_j(s_ji)_i) / 2``, ``s`` the scaled similarities of the
    batch's first and second embeddings. Radford et al., "Learning transferable visual models from
    natural language supervision", 2021, https://arxiv.org/abs/2103.00020. Other examples whose
    target is the same (the same caption) are left out of the sums.

    Args:
      outputs: as `jdlopt.tasks.pair_outputs.parted` takes them.
      targets: equal numbers belong together; negative ones are padding, whose loss is 0.

    Example:
      >>> one = jnp.array([[1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]])
      >>> found = clip(one, jnp.array([0, 1]))
      >>> [round(float(loss), 4) for loss in found], clip(one, jnp.array([5, 5])).tolist()
      ([0.3133, 0.3133], [0.0, 0.0])
    """
    logits, counts, real = _logits(outputs, targets)
    logits, own = jnp.where(counts, logits, NEVER), jnp.diagonal(logits)
    found = sum(jax.nn.logsumexp(logits, axis=axis) - own for axis in (0, 1))
    return jnp.where(real, found / 2, 0.0)


def siglip(outputs: Outputs, targets: Int[Array, "batch"]) -> PerExample:
    r"""Returns the sigmoid loss of each example's pairs with all others of the batch.

    ``-sum_j log sigmoid(z_ij s_ij)``, ``z`` 1 for an example's own pair and -1 for others, half of
    it over the first and half over the second embeddings of the others; so that its mean over a
    batch is that of Zhai et al., "Sigmoid loss for language image pre-training", 2023,
    https://arxiv.org/abs/2303.15343. Other examples whose target is the same are left out.

    Args:
      outputs: as `jdlopt.tasks.pair_outputs.parted` takes them.
      targets: equal numbers belong together; negative ones are padding, whose loss is 0.

    Example:
      >>> one = jnp.array([[1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]])
      >>> print(siglip(one, jnp.array([0, 1])).round(4))
      [1.0064 1.0064]
    """
    logits, counts, real = _logits(outputs, targets)
    signs = 2.0 * jnp.eye(len(targets)) - 1.0
    each = jnp.where(counts, -jax.nn.log_sigmoid(signs * logits), 0.0)
    return jnp.where(real, (each.sum(axis=0) + each.sum(axis=1)) / 2, 0.0)
