"""Rooms import rooms above them alone, and files import each other in no circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DESIGN = (ROOT / "docs/design.md").read_text("utf-8")


def rooms_of_the_design() -> list[str]:
    """Returns the rooms of docs/design.md's first table, from the top: each knows those above."""
    section = DESIGN.partition("## Rooms")[2].partition("\nWithin ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name.removesuffix(".py") for row in rows for name in re.findall(r"`(\w[\w.]*)/?`", row)]


ROOMS = rooms_of_the_design()


def modules() -> dict[str, Path]:
    """Returns every module of the package, by its dotted name."""
    found = {}
    for path in sorted((ROOT / "jdlopt").rglob("*.py")):
        names = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def imported(source: str, known: dict[str, Path] | set[str]) -> Iterator[str]:
    """Yields the modules of the package that a file imports, inside functions and for types too.

    ``from package import name`` is an import of ``package.name`` where that is a module.
    """
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in full)
        pending += ast.iter_child_nodes(node)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Which modules each module imports; the front door, which imports lazily, is left out."""
    known = modules()
    return {
        name: set(imported(path.read_text("utf-8"), known)) - {name, "jdlopt"}
        for name, path in known.items()
        if name != "jdlopt"
    }


def room(module: str) -> str:
    return module.split(".")[1]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Returns modules that import each other: what is left without those at either end."""
    left = dict(graph)
    while True:
        wanted = set().union(*left.values())
        ends = [name for name, others in left.items()
                if not others & left.keys() or name not in wanted]  # fmt: skip
        if not ends:
            return sorted(left)
        for name in ends:
            del left[name]


def test_imports_inside_functions_and_for_types_count():
    source = (
        "from typing import TYPE_CHECKING\nimport os, p.a\n"
        "def f():\n    from p import b, thing\n"
        "if TYPE_CHECKING:\n    import p.c\n"
    )
    assert set(imported(source, {"p", "p.a", "p.b", "p.c"})) == {"p.a", "p.b", "p.c", "p"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c"]


def test_no_file_is_part_of_a_circle(graph):
    assert circle(graph) == []


def test_every_room_is_in_the_designs_table(graph):
    found = {room(name) for name in graph}
    assert found <= set(ROOMS), "add the room to the table in docs/design.md, at its place"
    assert len(ROOMS) == len(set(ROOMS))


def test_no_room_imports_one_below_it(graph):
    place = {name: index for index, name in enumerate(ROOMS)}
    upward = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if place[room(other)] > place[room(name)]
    ]
    assert upward == []


def test_contributing_lists_the_rooms_in_the_designs_order():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    listed = text.partition("## How the code is laid out")[2].partition("## ")[0]
    chain = next(block for block in listed.split("\n\n") if "→" in block)
    assert re.findall(r"\w+", chain) == ROOMS
