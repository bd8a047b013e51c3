"""The verb ``techniques``: the catalogue, and what of it a config can use."""

from __future__ import annotations

from typing import Any

from jdlopt.cli.show import DONE, console, print_json
from jdlopt.cli.verbs import TechniquesFlags


def listed(flags: TechniquesFlags) -> int:
    """Lists the catalogue; with a config, what each technique would change in it."""
    from jdlopt.evidence import techniques

    techniques.check_filters(flags.group, flags.aim)
    some = [
        one
        for one in techniques.TECHNIQUES.values()
        if (flags.group in (None, one.group)) and (flags.aim is None or flags.aim in one.aims)
    ]
    rows: list[dict[str, Any]] = [
        {
            "name": one.name, "group": one.group, "aims": list(one.aims), "summary": one.summary,
            "cost": one.cost, "source": one.source,
        }
        for one in some
    ]  # fmt: skip
    about = flags.config is not None or flags.run is not None
    if about:
        from jdlopt.cli.show import load
        from jdlopt.evidence.sides import side_of

        side = side_of(load(flags))
        facts = techniques.facts_of(side.config, side.dataset)
        for one, row in zip(some, rows):
            reason = techniques.why_not(one, side.config, facts)
            row["why_not"] = reason
            row["changes"] = [] if reason else list(one.changes(side.config, facts))
    if flags.json:
        print_json({"techniques": rows})
        return DONE
    _print(rows, with_config=about)
    return DONE


def _print(rows: list[dict[str, Any]], with_config: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    if with_config:
        rows = sorted(rows, key=lambda row: row["why_not"] is not None)
    table = Table(title=f"{len(rows)} techniques", show_lines=False)
    table.add_column("name", no_wrap=True)
    table.add_column("group")
    table.add_column("what it does" if not with_config else "what it would change, or why not")
    for row in rows:
        if not with_config:
            text = Text.assemble(row["summary"], " ", (", ".join(row["aims"]), "dim"))
        elif row["why_not"]:
            text = Text(row["why_not"], "dim")
        else:
            text = Text(" | ".join(_change(one) for one in row["changes"]))
        table.add_row(row["name"], row["group"], text)
    console().print(table)


def _change(change: dict[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in change.items())
