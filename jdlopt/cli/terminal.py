"""The terminal that people read, on which no text from outside can do harm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.segment import Segment

from jdlopt.errors import escaped


def stderr() -> Console:
    """Returns a console that prints text as it is: no markup in it, and its controls escaped."""
    made = Console(stderr=True, markup=False, emoji=False, highlight=False)
    made.push_render_hook(_Escaping())
    return made


class _Escaping(RenderHook):
    """Has the last word on whatever is printed, wherever its text came from."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(one) for one in renderables]


class _Escaped(NamedTuple):
    """Something that can be printed, its text escaped."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for text, style, control in console.render(self.inner, options):
            yield Segment(text if control else escaped(text), style, control)
