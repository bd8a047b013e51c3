"""What is printed: text from outside as it is, and none of it can do harm."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from jdlopt.cli import show
from jdlopt.cli.terminal import stderr
from jdlopt.errors import escaped

HOSTILE = "[bold]a[/] \x1b[31m :smile: \u202e caf\udce9 [link=x]b"
HARMLESS = r"[bold]a[/] \x1b[31m :smile: \u202e caf\udce9 [link=x]b"


def printed(monkeypatch, act):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "200")
    act()
    return stream.getvalue()


@pytest.mark.parametrize(
    "act",
    [
        lambda: show.console().print(HOSTILE),
        lambda: show.console().print(HOSTILE, style="dim", soft_wrap=True),
        lambda: show.console().print(Text.assemble((HOSTILE, "red"), HOSTILE)),
        lambda: show.print_rows([{HOSTILE: HOSTILE}], HOSTILE),
        lambda: show.print_path(show.console(), HOSTILE, HOSTILE),
    ],
    ids=["text", "styled", "assembled", "rows", "path"],
)
def test_text_from_outside_is_no_markup_and_no_control(monkeypatch, act):
    said = printed(monkeypatch, act)
    assert HARMLESS in said
    assert escaped(said) == said


def test_a_bar_shows_such_text_too(monkeypatch):
    def act():
        with Progress(TextColumn("{task.description}", markup=False), console=stderr()) as bar:
            bar.add_task(HOSTILE)

    assert "[bold]a[/]" in printed(monkeypatch, act)


def test_colours_are_kept(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    said = printed(monkeypatch, lambda: show.console().print(Text("\x1b[5mred", "red")))
    assert said == "\x1b[31m\\x1b[5mred\x1b[0m\n"


@given(st.text())
def test_what_is_escaped_prints_anywhere_and_is_left_alone_then(text):
    shown = escaped(text)
    assert shown.encode("utf-8").decode() == shown == escaped(shown)
    assert "\x1b" not in shown and "\x9b" not in shown
    assert text.isprintable() <= (shown == text)


def test_a_table_shows_its_cells_as_they_are(monkeypatch):
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    said = printed(monkeypatch, lambda: show.console().print(table))
    assert said.count(HARMLESS) == 3
