"""From a config's ``optim`` section to pure updates: optimizers, schedules, clipping, averages."""

from __future__ import annotations

from jdlopt.optim.average import AVERAGES, Average, AverageFields, AverageState, make_average
from jdlopt.optim.chain import (
    OptimFields,
    OptimizerState,
    eval_params,
    learning_rate_at,
    make_optimizer,
)
from jdlopt.optim.freezing import Freezing, make_freezing
from jdlopt.optim.groups import GroupFields, decay_mask, joined, matching
from jdlopt.optim.optimizers import OPTIMIZERS
from jdlopt.optim.schedules import SCHEDULES, ScheduleFields, make_schedule

__all__ = [
    "AVERAGES",
    "OPTIMIZERS",
    "SCHEDULES",
    "Average",
    "AverageFields",
    "AverageState",
    "Freezing",
    "GroupFields",
    "OptimFields",
    "OptimizerState",
    "ScheduleFields",
    "decay_mask",
    "eval_params",
    "joined",
    "learning_rate_at",
    "make_average",
    "make_freezing",
    "make_optimizer",
    "make_schedule",
    "matching",
]
