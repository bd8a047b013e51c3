"""The optimizers by name, as optax builds them, with every float traced.

Each is a function `optimizer(learning_rate, add_decay, **keys)`. The first argument is the step's
learning rate, its schedule applied; the second adds weight decay to an update (or does nothing) and
goes where the method wants it. The keyword parameters are the config keys. It returns a
transformation from gradients to the updates that are added to the parameters.

The state that `init` makes may not depend on the value of a float.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias

import optax
from optax import contrib

from jdlopt.config import Count, NonNegative, Positive, Range, Rate, Scalar
from jdlopt.optim import transforms

Transformation: TypeAlias = optax.GradientTransformation
OpenRate = Annotated[Scalar, Range(0, 1, low_open=True, high_open=True)]


def _descend(
    direction: Transformation, add_decay: Transformation, learning_rate: Scalar
) -> Transformation:
    return optax.chain(direction, add_decay, optax.scale_by_learning_rate(learning_rate))


def sgd(learning_rate: Scalar, add_decay: Transformation) -> Transformation:
    """Follows the negative gradient: ``w ← w - η · g``."""
    return _descend(optax.identity(), add_decay, learning_rate)


def momentum(
    learning_rate: Scalar, add_decay: Transformation, *, momentum: Rate = 0.9
) -> Transformation:
    """Follows a running sum of gradients: ``v ← momentum · v + g``, ``w ← w - η · v``."""
    return _descend(optax.trace(momentum), add_decay, learning_rate)


def nesterov(
    learning_rate: Scalar, add_decay: Transformation, *, momentum: Rate = 0.9
) -> Transformation:
    """Looks one step ahead along the momentum: ``w ← w - η · (momentum · v + g)``.

    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.
    """
    return _descend(optax.trace(momentum, nesterov=True), add_decay, learning_rate)


def rmsprop(
    learning_rate: Scalar,
    add_decay: Transformation,
    *,
    decay: Rate = 0.9,
    eps: Positive = 1e-8,
    momentum: Rate | None = None,
    centered: bool = False,
) -> Transformation:
    """Divides by the root of a moving mean of squared gradients: ``g / √(v + eps)``.

    Tieleman and Hinton, "Neural Networks for Machine Learning", lecture 6.5, 2012.

    Args:
      learning_rate: the step's learning rate.
      add_decay: adds weight decay.
      decay: of the moving means.
      eps: added to the mean square, under the root.
      momentum: of the scaled gradients; None: no momentum, and no memory for it.
      centered: whether to divide by the standard deviation instead.
    """
    scale = (optax.scale_by_stddev if centered else optax.scale_by_rms)(decay, eps)
    trace = optax.identity() if momentum is None else optax.trace(momentum)
    return _descend(optax.chain(scale, trace), add_decay, learning_rate)


def adagrad(
    learning_rate: Scalar,
    add_decay: Transformation,
    *,
    initial_accumulator: NonNegative = 0.1,
    eps: Positive = 1e-7,
) -> Transformation:
    """Divides by the root of the sum of all squared gradients: ``g / √(initial + Σ g² + eps)``.

    Duchi et al., "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
    2011.
    """
    scale = transforms.scale_by_sum_of_squares(initial_accumulator, eps)
    return _descend(scale, add_decay, learning_rate)


def adam(
    learning_rate: Scalar,
    add_decay: Transformation,
    *,
    b1: Rate = 0.9,
    b2: Rate = 0.999,
    eps: Positive = 1e-8,
) -> Transformation:
    """Divides a moving mean of gradients by the root of that of their squares: ``m / (√v + eps)``.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.

    Args:
      learning_rate: the step's learning rate.
      add_decay: adds weight decay.
      b1: decay of the mean.
      b2: decay of the mean square.
      eps: added to the root.
    """
    return _descend(optax.scale_by_adam(b1, b2, eps), add_decay, learning_rate)


def adamw(
    learning_rate: Scalar,
    add_decay: Transformation,
    *,
    b1: Rate = 0.9,
    b2: Rate = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative | None = 0.01,
) -> Transformation:
    """Scales as Adam, with decoupled weight decay on by default (0.01, as PyTorch's).

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Any optimizer here takes
    ``weight_decay``; this one declares it for the sake of its default.
    """
    del weight_decay  # it is in add_decay
    return adam(learning_rate, add_decay, b1=b1, b2=b2, eps=eps)


def nadam(
    learning_rate: Scalar,
    add_decay: Transformation,
    *,
    b1: Rate = 0.9,
    b2: Rate = 0.999,
    eps: Positive = 1e-8,
) -> Transformation:
    """Scales as Adam, with Nesterov's momentum.

    Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """
    return _descend(optax.scale_by_adam(b1, b2, eps, nesterov=True), add_decay, learning_rate)


def lamb(
    learning_rate: Scalar,
    add_decay: Transformation,
    *,
    b1: Rate = 0.9,
    b2: Rate = 0.999,
    eps: Positive = 1e-6,
) -> Transformation:
    """Scales as Adam, the step in each array as long as its norm, decay included: large batches.

    You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020.
    """
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        add_decay,
        optax.scale_by_trust_ratio(),
        optax.scale_by_learning_rate(learning_rate),
    )


def lion(
    learning_rate: Scalar, add_decay: Transformation, *, b1: Rate = 0.9, b2: Rate = 0.99
) -> Transformation:
    """Follows the sign of a momentum: ``sign(b1 · m + (1 - b1) · g)``.

    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. It wants a learning rate 3
    to 10 times smaller than Adam's, and a weight decay as many times larger.
    """
    return _descend(optax.scale_by_lion(b1, b2), add_decay, learning_rate)


def adafactor(
    learning_rate: Scalar,
    add_decay: Transformation,
    *,
    decay_rate: OpenRate = 0.8,
    clipping_threshold: Positive | None = 1.0,
    momentum: Rate | None = None,
    eps: Positive = 1e-30,
    min_dim_size_to_factor: Count = 128,
    multiply_by_parameter_scale: bool = True,
) -> Transformation:
    """Keeps only row and column means of a matrix's squared gradients.

    Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018.

    Args:
      learning_rate: the step's learning rate, relative to each array's own scale.
      add_decay: adds weight decay.
      decay_rate: at step t the means decay by ``1 - t^(-decay_rate)``.
      clipping_threshold: the largest root mean square of an array's update; None: no limit.
      momentum: of the updates; None: none, and no memory for it.
      eps: added to the squared gradients.
      min_dim_size_to_factor: an array with fewer than two axes as long as this is not factored.
      multiply_by_parameter_scale: whether updates grow with the array's root mean square.
    """
    steps = [
        optax.scale_by_factored_rms(
            decay_rate=decay_rate, min_dim_size_to_factor=min_dim_size_to_factor, epsilon=eps
        )
    ]
    if clipping_threshold is not None:
        steps.append(optax.clip_by_block_rms(clipping_threshold))
    if multiply_by_parameter_scale:
        steps.append(optax.scale_by_param_block_rms())
    if momentum is not None:
        steps.append(optax.ema(momentum, debias=False))
    return _descend(optax.chain(*steps), add_decay, learning_rate)


def muon(
    learning_rate: Scalar,
    add_decay: Transformation,
    *,
    beta: Rate = 0.95,
    eps: Positive = 1e-8,
    ns_steps: Count = 5,
    nesterov: bool = True,
    consistent_rms: Positive | None = None,
    adam_b1: Rate = 0.9,
    adam_b2: Rate = 0.999,
) -> Transformation:
    """Orthogonalises the momentum of each matrix; all other parameters are Adam's.

    Jordan, "Muon", 2024, by Newton-Schulz iterations; `optax.contrib.muon`.

    Args:
      learning_rate: the step's learning rate.
      add_decay: adds weight decay, to matrices and the others alike.
      beta: of the matrices' momentum.
      eps: added to the denominators.
      ns_steps: Newton-Schulz iterations.
      nesterov: whether both momenta look ahead.
      consistent_rms: scales matrix updates to this root mean square, as 0.2 is typical of AdamW's
        (Liu et al., "Muon is Scalable for LLM Training", 2025), so that one learning rate suits
        all; None: by ``√max(1, outputs / inputs)``.
      adam_b1: decay of Adam's mean.
      adam_b2: decay of Adam's mean square.
    """
    direction = contrib.muon(
        -1.0,  # cancels the sign that optax puts on: decay and learning rate follow for all alike
        beta=beta,
        eps=eps,
        ns_steps=ns_steps,
        nesterov=nesterov,
        consistent_rms=consistent_rms,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
    )
    return _descend(direction, add_decay, learning_rate)


def schedule_free_adamw(
    learning_rate: Scalar,
    add_decay: Transformation,
    *,
    b1: OpenRate = 0.9,
    b2: Rate = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative | None = 0.01,
) -> Transformation:
    """Averages the iterates of AdamW where others lower the learning rate.

    Defazio et al., "The Road Less Scheduled", 2024. To be used with a constant schedule, warmed up;
    the parameters to evaluate are not those that are trained
    (`jdlopt.optim.chain.eval_params`). Weight decay acts at the trained ones.
    """
    del weight_decay  # it is in add_decay
    scale = optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
    base = _descend(scale, add_decay, learning_rate)
    return transforms.schedule_free(base, learning_rate, b1)


def sam(
    learning_rate: Scalar,
    add_decay: Transformation,
    *,
    rho: NonNegative = 0.05,
    momentum: Rate = 0.9,
) -> Transformation:
    """Follows the gradient at the worst point within ``rho``: twice the work for each step.

    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021.
    """
    base = _descend(optax.trace(momentum), add_decay, learning_rate)
    return transforms.sharpness_aware(base, rho)


OPTIMIZERS: dict[str, Callable[..., Transformation]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adam": adam,
    "adamw": adamw,
    "nadam": nadam,
    "lamb": lamb,
    "lion": lion,
    "adafactor": adafactor,
    "muon": muon,
    "schedule_free_adamw": schedule_free_adamw,
    "sam": sam,
}
