"""What is said before a training: what became of the data, and which weights it starts from."""

from __future__ import annotations

from collections.abc import Sequence

from jdlopt.data import notes
from jdlopt.errors import ConfigError
from jdlopt.models import pretrained
from jdlopt.train.experiment import Experiment


def weights_in_words(experiment: Experiment) -> str:
    """Returns in one line which weights an experiment starts from; nothing if from random ones.

    Raises:
      ConfigError: what ``model.pretrained`` names can't be read, or does not fit.
    """
    found = experiment.pretrained()
    return "" if found is None else pretrained.in_words(found.record)


def say(experiments: Sequence[Experiment], weights: bool = True) -> None:
    """Writes the notes on all data and the weights of all models on stderr, a line each, once.

    Args:
      experiments: the first is what the others are changes of: what does not fit them is told
        where they are trained.
      weights: whether they are told.

    Raises:
      ConfigError: the first one's can't be read, or don't fit.
    """
    notes.say(list(dict.fromkeys(note for one in experiments for note in one.data.notes)))
    models: dict[str, Experiment] = {}
    for one in experiments if weights else ():
        models.setdefault(repr(one.config.model), one)
    lines: dict[str, None] = {}
    for one in models.values():
        try:
            lines[weights_in_words(one)] = None
        except ConfigError:
            if one is experiments[0]:
                raise
    for line in filter(None, lines):
        notes.say_line(line)
