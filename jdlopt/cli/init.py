"""The verb of a first config: ``init``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jdlopt.cli.show import DONE, WRONG_INPUT, console, print_json, print_path, print_rows
from jdlopt.cli.verbs import InitFlags
from jdlopt.errors import UserError, escaped

if TYPE_CHECKING:
    from jdlopt.starter.facts import Choice
    from jdlopt.starter.make import Starter

TOLD = ("model.", "loss.", "optim.name", "optim.learning_rate", "train.")
"""Keys, beside those of ``data``, that a table of what was chosen shows."""

MOST_COLUMNS = 40
"""So many are shown to choose a target from."""


def init(flags: InitFlags) -> int:
    """Writes a first config for the person's own data, and says what was found and chosen."""
    from jdlopt.starter import make, survey

    place = Path(flags.out)
    make.check_place(place)
    if flags.target is None and (columns := survey.columns(flags.source)):
        if flags.json:
            print_json({"columns": columns})
        else:
            print_rows(columns[:MOST_COLUMNS], f"{flags.source}: {len(columns)} columns")
            if len(columns) > MOST_COLUMNS:
                more = len(columns) - MOST_COLUMNS
                console().print(f"and {more:,} more columns; --json lists all of them")
        print(escaped(f"jdlopt: {survey.no_target(flags.source)}"), file=sys.stderr)
        return WRONG_INPUT
    made = make.write(make.start(flags.source, flags.target, flags.task), place)
    parameters = _checked(place)
    if flags.json:
        print_json(
            {
                "config": made.config(),
                "out": flags.out,
                "found": [list(row) for row in made.found.rows],
                "commands": [command for command, _ in made.commands(flags.out)],
                "n_params": parameters,
            }
        )
        return DONE
    _print(made, flags.out, parameters)
    return DONE


def _checked(place: Path) -> int:
    """Returns the model's parameters, after all checks that come before a training."""
    import numpy as np

    from jdlopt.config import load
    from jdlopt.train.experiment import Experiment

    try:
        import jax

        experiment = Experiment.build(load(place))
        state = jax.eval_shape(experiment.init, 0)
    except UserError as error:
        raise UserError(
            f"{place} is written, but can't be trained yet: {error}\nChange it there."
        ) from error
    return sum(int(np.prod(one.shape)) for one in jax.tree.leaves(state.params))


def _print(made: Starter, out: str, parameters: int) -> None:
    terminal = console()
    print_rows([{"": what, "found": words} for what, words in made.found.rows], made.found.name)
    rows = [_row(one) for one in made.choices if one.on and one.key.startswith(("data.", *TOLD))]
    print_rows(rows, f"chosen: {parameters:,} parameters")
    others = [one.key for one in made.choices if not one.on]
    print_path(terminal, out, f"the config, which passes all checks; read it: {len(others)} keys "
               "more stand in its comments")  # fmt: skip
    terminal.print("Next:")
    for command, what in made.commands(out):
        print_path(terminal, command, what.removesuffix(":"))


def _row(choice: Choice) -> dict[str, str]:
    from jdlopt.starter.config_file import literal

    value = literal(choice.value)
    return {
        "key": choice.key,
        "value": value if len(value) <= 60 else f"{value[:57]}...",
        "why": choice.why,
    }
