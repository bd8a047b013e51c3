"""Mixture of experts: feed-forward networks side by side, of which each token goes through a few.

Shazeer et al., "Outrageously large neural networks: the sparsely-gated mixture-of-experts layer",
2017; Lepikhin et al., "GShard", 2020; Fedus, Zoph and Shazeer, "Switch transformers", 2021.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jdlopt.config import Scalar
from jdlopt.errors import ConfigError
from jdlopt.models.axes import BATCH, EXPERTS, HIDDEN, ROUTED, named
from jdlopt.models.layers import ACTIVATIONS
from jdlopt.models.precision import ROUTER
from jdlopt.models.sown import LOSSES, MEASURED

BALANCE_WEIGHT = 0.01
"""What the balance loss counts where a config says nothing: Switch transformers' α."""
ROOM = 5, 4
"""An expert's places where a config says nothing: so many for so many tokens of its even share."""
_INIT = nn.initializers.glorot_uniform(batch_axis=(0,))
_ROUTER_INIT = nn.initializers.normal(0.02)
_BY_TOKEN, _BY_EXPERT = (None, BATCH, None, None), (EXPERTS, ROUTED, None, None)


@runtime_checkable
class Keys(Protocol):
    """The keys of a transformer that say what its experts are."""

    experts: int | None
    experts_per_token: int
    capacity: int | None
    balance_weight: Scalar | None
    router_z_weight: Scalar | None


class Mixture(NamedTuple):
    """The experts of a layer.

    Attributes:
      experts: how many there are.
      per_token: how many of them a token goes through.
      capacity: tokens of a sequence that an expert takes; None: 1.25 times its even share.
      balance_weight, router_z_weight: of the losses of `Experts`; None: 0.01, and no such loss.
    """

    experts: int
    per_token: int = 1
    capacity: int | None = None
    balance_weight: Scalar | None = None
    router_z_weight: Scalar | None = None

    def places(self, positions: int) -> int:
        """Returns how many tokens of a sequence an expert has room for.

        Example:
          >>> Mixture(experts=4, per_token=2).places(16), Mixture(4, capacity=99).places(16)
          (10, 16)
        """
        more, share = ROOM
        even = -(-more * self.per_token * positions // (share * self.experts))
        return min(positions, self.capacity or even)


def mixture_of(model: Keys) -> Mixture | None:
    """Returns the experts that a model's keys ask for; None: one network for all tokens.

    Raises:
      ConfigError: keys that need others, or more experts a token than there are.
    """
    if model.experts is None:
        for key in ("capacity", "balance_weight", "router_z_weight"):
            if getattr(model, key) is not None:
                raise ConfigError(
                    f"model.{key}: without model.experts there are none that it could be for. Give "
                    "model.experts, or leave it out."
                )
        if model.experts_per_token != 1:
            raise ConfigError(
                f"model.experts_per_token: is {model.experts_per_token} without model.experts. "
                "Say how many there are, such as model.experts=8, or leave it out."
            )
        return None
    if model.experts_per_token > model.experts:
        raise ConfigError(
            f"model.experts_per_token: {model.experts_per_token} is more than the "
            f"{model.experts} of model.experts. Set it to {model.experts} or fewer; 1 and 2 are "
            "usual."
        )
    return Mixture(
        model.experts,
        model.experts_per_token,
        model.capacity,
        model.balance_weight,
        model.router_z_weight,
    )


class Routing(NamedTuple):
    """Which token goes to which expert.

    Attributes:
      dispatch: 1 where a token has a place of an expert, else 0.
      combine: the same times how much the expert counts for the token.
      balance: the load-balancing loss.
      z: the router's z-loss.
      dropped: the share of the tokens' choices that found no place.
    """

    dispatch: Float[Array, "n positions experts places"]
    combine: Float[Array, "n positions experts places"]
    balance: Float[Array, ""]
    z: Float[Array, ""]
    dropped: Float[Array, ""]


def route(
    logits: Float[Array, "n positions experts"],
    real: Bool[Array, "n positions"] | None,
    per_token: int,
    places: int,
) -> Routing:
    """Returns which of a batch's tokens go to which experts. Pure; its shapes are static.

    With ``p = softmax(logits)``, a token goes to the ``per_token`` experts of largest p, each of
    which counts p, or with several ``p / Σ p`` over the chosen ones (GShard). An expert takes the
    first ``places`` tokens of a sequence that choose it; for later ones it counts 0. So what
    becomes of a token depends on no other sequence, and on no later token.

    Over all real tokens of the batch, with N experts, ``f_i`` the share of choices that fell on
    expert i, and ``P_i`` the mean of p_i, the load-balancing loss is ``N · Σ f_i P_i``: 1 where all
    are even, N where one expert has all (Fedus et al., 2021). The z-loss is the mean of
    ``logsumexp(logits)²`` (Zoph et al., "ST-MoE", 2022).

    Args:
      logits: the router's, in float32.
      real: which positions are no padding, which goes nowhere; None: all.
      per_token: experts that a token goes through.
      places: tokens of a sequence that an expert takes.

    Example:
      >>> logits = jnp.array([[[9.0, 0.0], [9.0, 0.0], [0.0, 9.0]]])
      >>> found = route(logits, None, per_token=1, places=1)
      >>> found.dispatch[0, :, :, 0].tolist(), round(float(found.dropped), 3)
      ([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], 0.333)
    """
    experts = logits.shape[-1]
    shares = jax.nn.softmax(logits)
    left, chosen = shares, jnp.zeros_like(shares)
    for _ in range(per_token):  # products and comparisons alone: no sort, no gather
        best = jax.nn.one_hot(jnp.argmax(left, axis=-1), experts, dtype=shares.dtype)
        chosen, left = chosen + best, jnp.where(best > 0, -1.0, left)
    weight = jnp.ones(logits.shape[:2]) if real is None else real.astype(shares.dtype)
    chosen = lax.stop_gradient(chosen) * weight[..., None]
    gates = shares * chosen
    if per_token > 1:
        total = gates.sum(axis=-1, keepdims=True)
        gates = gates / jnp.where(total > 0, total, 1.0)
    place = jnp.cumsum(chosen, axis=1) - chosen  # earlier tokens of the sequence that chose it
    at = jax.nn.one_hot(place.astype(jnp.int32), places, dtype=shares.dtype)  # 0 beyond the last
    dispatch = chosen[..., None] * at
    count = jnp.maximum(weight.sum(), 1.0)

    def mean(values: Array) -> Array:
        return jnp.einsum("np...,np->...", values, weight) / count

    balance = experts * jnp.sum(mean(chosen) / per_token * mean(shares))
    z = mean(jnp.square(jax.nn.logsumexp(logits, axis=-1)))
    dropped = 1.0 - dispatch.sum() / (per_token * count)
    return Routing(dispatch, gates[..., None] * at, balance, z, jnp.maximum(dropped, 0.0))


class ExpertDense(nn.Module):
    """A dense layer of each expert: a kernel [experts, ins, outs] and a bias [experts, outs]."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "experts n places ins"]) -> Array:
        """Maps what each expert was given by the expert's own kernel."""
        experts, ins = x.shape[0], x.shape[-1]
        kernel = self.param("kernel", _INIT, (experts, ins, self.features))
        bias = self.param("bias", nn.initializers.zeros, (experts, self.features))
        return jnp.einsum("encd,edf->encf", x, kernel) + bias[:, None, None]


class Experts(nn.Module):
    """Feed-forward networks side by side, `route` and what comes back of them.

    A token that no expert has a place for comes back as 0: a residual connection passes it on. The
    router computes in float32. Sows the terms ``balance_weight · balance`` and ``router_z_weight ·
    z`` of the objective (`jdlopt.models.sown`), and ``balance_loss``, ``router_z_loss`` and
    ``dropped_tokens`` to be logged.
    """

    features: int
    activation: str
    mixture: Mixture

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n positions width"],
        real: Bool[Array, "n positions"] | None = None,
    ) -> Float[Array, "n positions width"]:
        """Maps each vector to one of the same width; ``real`` as in `route`."""
        mixture, width = self.mixture, x.shape[-1]
        router = self.param(ROUTER, _ROUTER_INIT, (width, mixture.experts))
        wide = x.astype(jnp.float32), router.astype(jnp.float32)
        logits = jnp.einsum("npd,de->npe", *wide, precision=lax.Precision.HIGHEST)
        routing = route(logits, real, mixture.per_token, mixture.places(x.shape[1]))
        given = jnp.einsum("npec,npd->encd", routing.dispatch.astype(x.dtype), x)
        # from a device's own tokens to its own experts and back: an all-to-all each
        given = named(named(given, _BY_TOKEN), _BY_EXPERT)
        hidden = named(ExpertDense(self.features, name="up")(given), (*_BY_EXPERT[:3], HIDDEN))
        made = ExpertDense(width, name="down")(ACTIVATIONS[self.activation](hidden))
        made = named(named(made, _BY_EXPERT), _BY_TOKEN)
        balance_weight = mixture.balance_weight
        weight = BALANCE_WEIGHT if balance_weight is None else balance_weight
        self.sow(LOSSES, "balance", weight * routing.balance)
        self.sow(MEASURED, "balance_loss", routing.balance)
        self.sow(MEASURED, "dropped_tokens", routing.dropped)
        if mixture.router_z_weight is not None:
            self.sow(LOSSES, "router_z", mixture.router_z_weight * routing.z)
            self.sow(MEASURED, "router_z_loss", routing.z)
        return jnp.einsum("npec,encd->npd", routing.combine.astype(x.dtype), made)
