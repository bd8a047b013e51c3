"""A config file written for a person: every key with what speaks for it, alternatives as comments.

Names and values of the data stand in it as Python literals, or in comments without any sign that
could end one: nothing of the data is ever code.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jdlopt.starter.facts import Choice, Chosen, Search

WIDTH = 100
SECTIONS = ("data", "model", "loss", "optim", "train")
INDENT = " " * 4
HEADLINE = '''\
"""A first config for your data, written by `jdlopt init`: read it, change what you know better.

What stands in a comment can be taken instead. Keys that are not here have defaults; docs/config.md
and docs/reference.md list them all. `--config.KEY=VALUE` sets one for a single call.
"""
'''


def one_line(text: str) -> str:
    r"""Returns text that can't leave the line of a comment: what is no plain sign as its escape.

    Example:
      >>> print(one_line("a\nimport os\u2028\udce9"))
      a\nimport os\u2028\udce9
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )


def literal(value: Any) -> str:
    r"""Returns a value as Python writes it, texts in double quotes where they need no escape.

    Example:
      >>> literal(("a", 'say "b"')), literal({"rate": 0.1}), literal(("a",))
      ('("a", \'say "b"\')', '{"rate": 0.1}', '("a",)')
    """
    if isinstance(value, str):
        plain = repr(value)
        simple = plain[1:-1] == value and not set("\"'\\") & set(value)
        return f'"{value}"' if simple else plain
    if isinstance(value, tuple):
        inner = ", ".join(map(literal, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{literal(key)}: {literal(one)}" for key, one in value.items()) + "}"
        )
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    raise TypeError(f"{type(value).__name__} is no value of a config")


def text(
    choices: Iterable[Choice],
    chosen: Chosen,
    found: Sequence[tuple[str, str]],
    commands: Sequence[tuple[str, str]],
) -> str:
    """Returns the text of a config file.

    Args:
      choices: all its keys, in order.
      chosen: what may be searched around it.
      found: what was found, in lines of two parts.
      commands: what to type next, and what it does.
    """
    choices = list(choices)
    kinds = sorted({one.kind for one in chosen.space})
    lines = [HEADLINE]
    lines += _about(found, commands)
    lines += [
        "from ml_collections import ConfigDict",
        "",
        f"from jdlopt.study.space import Space, {', '.join(kinds)}",
        "",
        "",
        "def get_config() -> ConfigDict:",
        f"{INDENT}config = ConfigDict()",
    ]
    for section in SECTIONS:
        of_it = [one for one in choices if one.key.startswith(f"{section}.")]
        if of_it:
            inner = _dict([_below(one, section) for one in of_it], 2)
            lines += [f"{INDENT}config.{section} = ConfigDict(", f"{INDENT * 2}{{", *inner]
            lines += [f"{INDENT * 2}}}", f"{INDENT})"]
    lines += [f"{INDENT}return config", "", "", *_space(chosen)]
    return "\n".join(lines) + "\n"


def _about(found: Sequence[tuple[str, str]], commands: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max((len(what) for what, _ in found), default=0)
    yield "# Found:"
    for what, words in found:
        start = f"#   {one_line(what):{width}}  "
        yield from _wrapped(words, start, f"#   {' ' * width}  ")
    yield "#"
    yield "# Next:"
    for command, what in commands:
        yield from _wrapped(what, "#   ", "#   ")
        yield f"#     {one_line(command)}"
    yield ""


def _wrapped(words: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        one_line(words),
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [first.rstrip()]


def _below(choice: Choice, section: str) -> Choice:
    return choice._replace(key=choice.key.removeprefix(f"{section}."))


def _dict(choices: Sequence[Choice], depth: int) -> list[str]:
    """Returns the lines of a dict's entries; keys with dots are dicts in it."""
    indent, lines = INDENT * (depth + 1), []
    done: set[str] = set()
    for choice in choices:
        name, dot, _ = choice.key.partition(".")
        if not dot:
            lines += _entry(choice, indent)
            continue
        if name in done:
            continue
        done.add(name)
        inner = [_below(one, name) for one in choices if one.key.startswith(f"{name}.")]
        if not any(one.on for one in inner):  # an empty dict would be no comment
            for one in inner:
                lines += _entry(one._replace(key=name, value={one.key: one.value}), indent)
            continue
        lines += [f"{indent}{literal(name)}: {{", *_dict(inner, depth + 1), f"{indent}}},"]
    return lines


def _entry(choice: Choice, indent: str) -> list[str]:
    """Returns the lines of one key, with its reason at its end, or above it."""
    value = _broken(choice.key, choice.value, indent if choice.on else f"{indent}# ")
    if not choice.why:
        return value
    if choice.on and len(value) == 1 and "\n" not in choice.why:
        line = f"{value[0]}  # {one_line(choice.why)}"
        if len(line) <= WIDTH:
            return [line]
    above = []
    for part in choice.why.split("\n"):
        margin = " " * (len(part) - len(part.lstrip()))
        above += _wrapped(part.strip(), f"{indent}# {margin}", f"{indent}# {margin}")
    return [*above, *value]


def _broken(key: str, value: Any, start: str) -> list[str]:
    """Returns ``"key": value,``, a long tuple or dict with a line for each of its values."""
    whole = f"{start}{literal(key)}: {literal(value)},"
    if len(whole) <= WIDTH or not isinstance(value, tuple | dict):
        return [whole]
    opening, closing = ("(", ")") if isinstance(value, tuple) else ("{", "}")
    if isinstance(value, tuple):
        inner = [f"{literal(one)}," for one in value]
    else:
        inner = [f"{literal(name)}: {literal(one)}," for name, one in value.items()]
    return [
        f"{start}{literal(key)}: {opening}",
        *(f"{start}{INDENT}{one}" for one in inner),
        f"{start}{closing},",
    ]


def _space(chosen: Chosen) -> list[str]:
    return [
        "def get_space() -> Space:",
        f'{INDENT}"""{chosen.question}"""',
        f"{INDENT}return {{",
        *(f"{INDENT * 2}{_search(one)}," for one in chosen.space),
        f"{INDENT}}}",
    ]


def _search(one: Search) -> str:
    values = ", ".join(map(literal, one.values))
    return f"{literal(one.key)}: {one.kind}({values}, role={literal(one.role)})"
