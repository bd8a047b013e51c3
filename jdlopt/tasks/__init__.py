"""Tasks: what a model is asked to predict, and all that follows from it."""

from __future__ import annotations

from jdlopt.config import find_part
from jdlopt.tasks.classification import CLASSIFICATION
from jdlopt.tasks.multilabel import MULTILABEL
from jdlopt.tasks.next_token import NEXT_TOKEN
from jdlopt.tasks.pairs import PAIRS
from jdlopt.tasks.regression import REGRESSION
from jdlopt.tasks.segmentation import SEGMENTATION
from jdlopt.tasks.seq2seq import SEQ2SEQ
from jdlopt.tasks.task import SHOWN, Columns, Decoded, Task
from jdlopt.tasks.token_classification import TOKEN_CLASSIFICATION
from jdlopt.tasks.transcription import TRANSCRIPTION

__all__ = ["SHOWN", "TASKS", "Columns", "Decoded", "Task", "find_task"]

_BUNDLED = (
    CLASSIFICATION,
    MULTILABEL,
    REGRESSION,
    TOKEN_CLASSIFICATION,
    NEXT_TOKEN,
    SEGMENTATION,
    SEQ2SEQ,
    TRANSCRIPTION,
    PAIRS,
)
TASKS: dict[str, Task] = {task.name: task for task in _BUNDLED}
"""Every bundled task by name."""


def find_task(name: str) -> Task:
    """Returns the task of a name: of `TASKS`, or a `Task` of the user's own.

    Args:
      name: ``data.task`` as the data resolved it; ``package.module:TASK`` for one's own.

    Raises:
      ConfigError: there is none, or it is something else.
    """
    task: Task = find_part(name, TASKS, "data.task", kind=Task, or_function=False)
    return task
