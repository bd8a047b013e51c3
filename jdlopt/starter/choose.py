"""From facts of data to a first config: one pure function."""

from __future__ import annotations

from collections.abc import Callable

from jdlopt.starter import files, tables, texts
from jdlopt.starter.facts import Chosen, Facts

CHOICES: dict[str, Callable[[Facts], Chosen]] = {
    "table": tables.choices,
    "image": files.images,
    "sound": files.sounds,
    "sequence": files.sequences,
    "text": texts.texts,
    "mixed": texts.mixed,
}
"""Kind of inputs → what is chosen for it."""


def choose(facts: Facts) -> Chosen:
    """Returns a first config for data of which these facts are known, without the data's own keys.

    Example:
      >>> from jdlopt.starter.facts import sections
      >>> chosen = choose(Facts("table", rows=1000, task="regression", numbers=8))
      >>> config = sections(chosen.choices)
      >>> config["loss"], config["data"]["preprocess"]["target_scale"]
      ({'name': 'mse'}, 'standard')
    """
    return CHOICES[facts.kind](facts)
