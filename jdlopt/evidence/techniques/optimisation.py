"""Techniques of optimisation: optimizers, schedules, batch size, clipping, averaging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdlopt.evidence.techniques.entry import (
    RATE,
    Change,
    Changes,
    Facts,
    Technique,
    needs_unset,
    together,
    unless,
    value_of,
    values,
)

if TYPE_CHECKING:
    from jdlopt.train.schema import Config

RATES: dict[str, tuple[float, ...]] = {
    "sgd": (0.1, 0.3), "momentum": (0.03, 0.1), "nesterov": (0.03, 0.1), "rmsprop": (1e-3,),
    "adagrad": (0.03,), "adam": (3e-3, 1e-3), "adamw": (3e-3, 1e-3), "nadam": (3e-3, 1e-3),
    "lamb": (1e-2,), "lion": (3e-4,), "adafactor": (1e-2,), "muon": (1e-2, 3e-3),
    "schedule_free_adamw": (1e-2, 3e-3), "sam": (0.03, 0.1),
}  # fmt: skip
"""The rates that an optimizer is tried at first."""
WORDS = {
    "sgd": ("Follows the negative gradient.", "Robbins and Monro, 1951", 0.05),
    "momentum": ("Follows a running sum of gradients.", "Polyak, 1964", 0.25),
    "nesterov": ("Looks one step ahead along the momentum.", "Sutskever et al., 2013", 0.3),
    "rmsprop": ("Divides by the root of a moving mean of squared gradients.",
                "Tieleman and Hinton, 2012", 0.15),
    "adagrad": ("Divides by the root of the sum of all squared gradients.",
                "Duchi et al., 2011", 0.1),
    "adam": ("Divides a mean of gradients by the root of that of their squares.",
             "Kingma and Ba, Adam, 2015", 0.3),
    "adamw": ("Adam with decoupled weight decay.", "Loshchilov and Hutter, 2019", 0.45),
    "nadam": ("Adam with Nesterov's momentum.", "Dozat, 2016", 0.25),
    "lamb": ("Adam whose step in each array is as long as the array's norm.",
             "You et al., 2020", 0.15),
    "lion": ("Follows the sign of a momentum.", "Chen et al., 2023", 0.25),
    "adafactor": ("Keeps only row and column means of squared gradients.",
                  "Shazeer and Stern, 2018", 0.15),
    "muon": ("Orthogonalises the momentum of each matrix.", "Jordan, 2024", 0.35),
    "schedule_free_adamw": ("Averages iterates where others lower the rate.",
                            "Defazio et al., 2024", 0.3),
    "sam": ("Takes the gradient at the worst point nearby: flat minima.",
            "Foret et al., 2021", 0.35),
}  # fmt: skip
AVERAGES_ITSELF = "schedule_free_adamw"
"""It can't be had together with an average of the parameters."""
SCHEDULES = {
    "cosine": ("Lowers the learning rate along half a cosine.",
               "Loshchilov and Hutter, SGDR, 2017", 0.5),
    "cosine_log": ("Raises and lowers the learning rate in cycles, each twice as long.",
                   "Holzmüller et al., Better by default, 2024", 0.2),
    "linear": ("Lowers the learning rate in a straight line.",
               "Defazio et al., When, why and how much?, 2023", 0.45),
    "polynomial": ("Lowers the learning rate as a power of what is left.",
                   "Mishra and Sarawadekar, 2019", 0.2),
    "exponential": ("Multiplies the learning rate by a factor per transition.",
                    "Li and Arora, 2019", 0.25),
    "natural_exponential": ("Lowers the learning rate by a natural exponent.",
                            "Li and Arora, 2019", 0.15),
    "piecewise_constant": ("Divides the learning rate by ten at two thirds and at nine tenths.",
                           "He et al., Deep residual learning, 2016", 0.3),
    "one_cycle": ("Raises the learning rate and lowers it again.",
                  "Smith and Topin, Super-convergence, 2018", 0.4),
    "reduce_on_plateau": ("Lowers the learning rate where the loss no longer falls.",
                          "as in Keras and PyTorch", 0.3),
    "constant": ("Keeps the learning rate.", "Robbins and Monro, 1951", 0.05),
}  # fmt: skip


def _optimizer(name: str) -> Technique:
    summary, source, prior = WORDS[name]

    def changes(config: Config, facts: Facts) -> tuple[Change, ...]:
        if value_of(config, "optim.name") == name:
            return ()
        own: Change = {"optim.name": name}
        if name == AVERAGES_ITSELF and value_of(config, "optim.average.name") != "none":
            own["optim.average.name"] = "none"  # it averages the parameters itself
        return tuple({**own, "optim.learning_rate": rate} for rate in RATES[name])

    cost = {"sam": "twice the work of a step", "muon": "matrix products for each matrix"}
    return Technique(
        f"optimizer_{name}", "optimisation", ("accuracy", "speed"), summary, changes,
        cost.get(name, "its state: up to two numbers a parameter"), source, prior,
        nuisance={**RATE, "optim.weight_decay": ("around", 10.0)},
    )  # fmt: skip


def averages_itself(config: Config, facts: Facts) -> str | None:
    """The optimizer must leave an average of the parameters to others."""
    now = value_of(config, "optim.name")
    return f"{now} averages the parameters itself." if now == AVERAGES_ITSELF else None


def _schedule(name: str) -> Technique:
    summary, source, prior = SCHEDULES[name]

    def changes(config: Config, facts: Facts) -> tuple[Change, ...]:
        if value_of(config, "optim.schedule.name") == name:
            return ()
        change: Change = {"optim.schedule.name": name}
        if name == "piecewise_constant":
            boundaries = (facts.total_steps * 2 // 3, facts.total_steps * 9 // 10)
            change["optim.schedule.boundaries"] = boundaries
        return (change,)

    return Technique(
        f"schedule_{name}", "optimisation", ("accuracy",), summary, changes, "nothing", source,
        prior, nuisance=RATE,
    )  # fmt: skip


def _warmup(config: Config, facts: Facts) -> tuple[Change, ...]:
    if any(value_of(config, f"optim.schedule.warmup_{unit}") for unit in ("steps", "fraction")):
        return ()
    steps = max(1, facts.total_steps // 20)
    return ({"optim.schedule.warmup_steps": steps},)


def _batch(factor: float) -> Changes:
    """Another batch size, the rate scaled by the root of the factor, and by the factor."""

    def changes(config: Config, facts: Facts) -> tuple[Change, ...]:
        size = value_of(config, "data.batch_size")
        new = round(size * factor)
        if not 1 <= new <= facts.train_size or value_of(config, "train.steps") is not None:
            return ()
        warmup = value_of(config, "optim.schedule.warmup_steps")
        rate = value_of(config, "optim.learning_rate")
        scaled = {"optim.schedule.warmup_steps": round(warmup / factor)} if warmup else {}
        return tuple(
            {"data.batch_size": new, "optim.learning_rate": float(f"{rate * by:.3g}"), **scaled}
            for by in (factor**0.5, factor)
        )

    return changes


def _rate(*factors: float) -> Changes:
    def changes(config: Config, facts: Facts) -> tuple[Change, ...]:
        rate = value_of(config, "optim.learning_rate")
        return tuple({"optim.learning_rate": float(f"{rate * by:.3g}")} for by in factors)

    return changes


def _epochs(config: Config, facts: Facts) -> tuple[Change, ...]:
    for key in ("train.epochs", "train.steps"):
        now = value_of(config, key)
        if now is not None:
            return ({key: 2 * now}, {key: 4 * now})
    return ({"train.epochs": 40}, {"train.epochs": 80})


OPTIMISATION = (
    Technique(
        "learning_rate_up", "optimisation", ("accuracy", "speed"), "Takes larger steps.",
        _rate(3.0, 10.0), "nothing", "Bengio, Practical recommendations, 2012", 0.35,
    ),
    Technique(
        "learning_rate_down", "optimisation", ("accuracy",), "Takes smaller steps.",
        _rate(1 / 3, 0.1), "nothing", "Bengio, Practical recommendations, 2012", 0.3,
    ),
    Technique(
        "longer_training", "optimisation", ("accuracy",), "Trains two or four times as long.",
        _epochs, "two or four times the training", "Hoffer et al., Train longer, 2017", 0.45,
        nuisance=RATE,
    ),
    Technique(
        "warmup", "optimisation", ("accuracy", "robustness"),
        "Raises the learning rate from 0 over a twentieth of the training.", _warmup, "nothing",
        "Goyal et al., Accurate, large minibatch SGD, 2017", 0.3, nuisance=RATE,
    ),
    Technique(
        "larger_batch", "optimisation", ("speed",),
        "Doubles the batch, and scales the learning rate with it.", _batch(2.0),
        "half the steps, each larger", "Goyal et al., 2017; McCandlish et al., 2018", 0.2,
        nuisance=RATE,
    ),
    Technique(
        "smaller_batch", "optimisation", ("generalisation",),
        "Halves the batch, and scales the learning rate with it.", _batch(0.5),
        "twice the steps, each smaller", "Keskar et al., On large-batch training, 2017", 0.35,
        nuisance=RATE,
    ),
    Technique(
        "clip_norm", "optimisation", ("robustness", "accuracy"),
        "Scales a gradient down whose norm is above a bound.",
        values("optim.clip_norm", 1.0, 0.1), "a norm in each step",
        "Pascanu et al., On the difficulty of training recurrent neural networks, 2013", 0.3,
        needs_unset("optim.clip_norm"), {"optim.clip_norm": ("around", 10.0)},
    ),
    Technique(
        "clip_value", "optimisation", ("robustness",), "Bounds every entry of the gradient.",
        values("optim.clip_value", 0.1), "nothing", "Graves, Generating sequences, 2013", 0.1,
        needs_unset("optim.clip_value"), {"optim.clip_value": ("around", 10.0)},
    ),
    Technique(
        "clip_adaptive", "optimisation", ("robustness",),
        "Bounds a unit's gradient by its weights' norm.", values("optim.clip_adaptive", 0.01),
        "norms in each step", "Brock et al., High-performance large-scale recognition, 2021", 0.15,
        needs_unset("optim.clip_adaptive"), {"optim.clip_adaptive": ("around", 10.0)},
    ),
    Technique(
        "average_ema", "optimisation", ("generalisation", "accuracy"),
        "Evaluates a moving average of the parameters.",
        together({"optim.average.name": "ema", "optim.average.decay": 0.99},
                 {"optim.average.name": "ema", "optim.average.decay": 0.999}),
        "one more copy of the parameters", "Polyak and Juditsky, 1992; Tarvainen and Valpola, 2017",
        0.45, unless(needs_unset("optim.average.name", "none"), averages_itself),
    ),
    Technique(
        "average_swa", "optimisation", ("generalisation", "accuracy"),
        "Evaluates the mean of the parameters over the end of the training.",
        together({"optim.average.name": "swa"}), "one more copy of the parameters",
        "Izmailov et al., Averaging weights leads to wider optima, 2018", 0.35,
        unless(needs_unset("optim.average.name", "none"), averages_itself),
    ),
    *map(_optimizer, WORDS),
    *map(_schedule, SCHEDULES),
)  # fmt: skip
"""The techniques of optimisation."""
