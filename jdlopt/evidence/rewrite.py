"""Writes an improved config as a person would have: the baseline's file, with changed lines.

A changed value is replaced where it stands, a new key is added to the dict of its section, and each
such line says what it gained. Where a file can't be changed so, its changes come as lines before
``return config``. The file is then loaded: it must give the config that was meant.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import config as configs
from jdlopt.errors import ConfigError

WIDTH = 100


class Edit(NamedTuple):
    """A piece of a file that becomes another text."""

    start: int
    end: int
    text: str


def rewritten(
    source: str,
    changes: Mapping[str, Any],
    comments: Mapping[str, str],
    removed: Collection[str] = (),
) -> str:
    r"""Returns the text of a config file with values changed.

    Args:
      source: a Python file with ``get_config()``.
      changes: dotted keys and their new values.
      comments: what to say of a key, on its line.
      removed: dotted keys that go, of sections that change.

    Example:
      >>> text = "def get_config():\n    config = {'optim': {'name': 'sgd'}}\n    return config"
      >>> print(rewritten(text, {"optim.name": "adamw"}, {"optim.name": "+0.01"}))
      def get_config():
          config = {'optim': {
              "name": "adamw",  # +0.01
          }}
          return config
    """
    tree = ast.parse(source)
    function = next(
        (node for node in tree.body if isinstance(node, ast.FunctionDef)
         and node.name == "get_config"), None,
    )  # fmt: skip
    if function is None:
        raise ConfigError("the config file has no function get_config() at its top level.")
    code = source.encode()
    offsets = _offsets(code)
    sections = _sections(function)
    by_dict: dict[int, tuple[ast.Dict, dict[str, Any], str]] = {}
    left: dict[str, Any] = {}
    for key, value in changes.items():
        found = _home(sections, key)
        if found is None:
            left[key] = value
            continue
        node, inner, prefix = found
        by_dict.setdefault(id(node), (node, {}, prefix))[1][inner] = value
    edits = []
    for node, values, prefix in by_dict.values():
        text = _dict_text(code, offsets, node, values, prefix, comments, removed)
        edits.append(Edit(_at(offsets, node, False), _at(offsets, node, True), text))
    if left:
        edits.append(_lines(function, offsets, code, left, comments))
    for edit in sorted(edits, reverse=True):
        code = code[: edit.start] + edit.text.encode() + code[edit.end :]
    return code.decode()


def write(
    baseline: Path | None,
    place: Path,
    wanted: Mapping[str, Any],
    changes: Mapping[str, Any],
    comments: Mapping[str, str],
    headline: str,
) -> Path:
    """Writes the improved config file and checks that it gives the config that was meant.

    Args:
      baseline: the file to change; None, or one that is no Python file, gives a file of its own.
      place: where it goes.
      wanted: the config that it must give, as `jdlopt.config.load` would.
      changes: dotted keys and their values.
      comments: what to say of each key.
      headline: what the file opens with.

    Returns:
      ``place``.
    """
    text = None
    if baseline is not None and baseline.suffix == ".py":
        source = baseline.read_text(encoding="utf-8")
        try:
            there = set(configs.flat(configs.load(baseline)))
            removed = there - set(configs.flat(wanted))
            text = _opened(rewritten(source, changes, comments, removed), headline)
            place.write_text(text, encoding="utf-8")
            if configs.to_dict(configs.load(place)) != configs.to_dict(wanted):
                text = None
        except (ConfigError, SyntaxError, ValueError):
            text = None
    if text is None:
        place.write_text(_alone(wanted, comments, headline), encoding="utf-8")
    return place


# --- where a key stands ---------------------------------------------------------------------------


def _offsets(code: bytes) -> list[int]:
    """Where each line begins, in bytes of UTF-8, as ast counts columns."""
    found = [0]
    for line in code.splitlines(keepends=True):
        found.append(found[-1] + len(line))
    return found


def _at(offsets: list[int], node: ast.expr | ast.stmt, end: bool) -> int:
    line = node.end_lineno if end else node.lineno
    column = node.end_col_offset if end else node.col_offset
    assert line is not None and column is not None
    return offsets[line - 1] + column


def _sections(function: ast.FunctionDef) -> dict[str, ast.Dict]:
    """The dicts of a function by the dotted name of what they are assigned to, nested ones too."""
    found: dict[str, ast.Dict] = {}

    def enter(prefix: str, value: ast.expr) -> None:
        if isinstance(value, ast.Call) and len(value.args) == 1 and not value.keywords:
            value = value.args[0]  # ConfigDict({...})
        if not isinstance(value, ast.Dict) or any(
            not isinstance(key, ast.Constant) or not isinstance(key.value, str)
            for key in value.keys
        ):
            return
        found[prefix] = value
        for key, inner in zip(value.keys, value.values):
            assert isinstance(key, ast.Constant)
            name = str(key.value)
            enter(f"{prefix}.{name}" if prefix else name, inner)

    returned = {
        node.value.id
        for node in ast.walk(function)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Name)
    }
    for node in function.body:
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Call | ast.Dict):
            enter("", node.value)
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id in returned:
            enter("", node.value)
        elif (
            isinstance(target, ast.Attribute)
            and isinstance(target.value, ast.Name)
            and target.value.id in returned
        ):
            enter(target.attr, node.value)
    return found


def _home(sections: Mapping[str, ast.Dict], key: str) -> tuple[ast.Dict, str, str] | None:
    """The outermost dict that a key stands in, its name within, and the dict's own name.

    The outermost one is written anew, whole, so that no two edits overlap.
    """
    names = key.split(".")
    for count in range(1, len(names)):
        prefix = ".".join(names[:count])
        if prefix in sections:
            return sections[prefix], ".".join(names[count:]), prefix
    return None


# --- how it is written ----------------------------------------------------------------------------


def _dict_text(
    code: bytes,
    offsets: list[int],
    node: ast.Dict,
    values: Mapping[str, Any],
    prefix: str,
    comments: Mapping[str, str],
    removed: Collection[str],
) -> str:
    """A dict with changed and added keys, a key a line."""
    line = code[offsets[node.lineno - 1] : offsets[node.lineno]]
    indent = len(line) - len(line.lstrip()) + 4
    inner: dict[str, dict[str, Any]] = {}
    own: dict[str, Any] = {}
    for dotted, new in values.items():
        first, _, rest = dotted.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = new
        else:
            own[first] = new
    lines, seen = [], set()
    for key, value in zip(node.keys, node.values):
        assert isinstance(key, ast.Constant)
        name = str(key.value)
        seen.add(name)
        full = f"{prefix}.{name}"
        if full in removed:
            continue
        text = code[_at(offsets, value, False) : _at(offsets, value, True)].decode()
        note = ""
        if name in own:
            text, note = _literal(own[name]), comments.get(full, "")
        elif name in inner:
            body = dict(ast.literal_eval(value)) if isinstance(value, ast.Dict) else {}
            body = {k: v for k, v in body.items() if f"{full}.{k}" not in removed}
            text, note = _nested(body, inner[name], full, comments, indent)
        lines.append(_line(name, text, note, indent))
    for name in [*own, *inner]:
        if name in seen:
            continue
        seen.add(name)
        full = f"{prefix}.{name}"
        if name in own:
            text, note = _literal(own[name]), comments.get(full, "")
        else:
            text, note = _nested({}, inner[name], full, comments, indent)
        lines.append(_line(name, text, note, indent))
    return "{\n" + "\n".join(lines) + "\n" + " " * (indent - 4) + "}"


def _nested(
    body: dict[str, Any],
    values: Mapping[str, Any],
    prefix: str,
    comments: Mapping[str, str],
    indent: int,
) -> tuple[str, str]:
    """A dict within a section: written anew, its changed keys with their comments."""
    for key, value in values.items():
        node = body
        *parents, last = key.split(".")
        for parent in parents:
            child = node.setdefault(parent, {})
            node = child if isinstance(child, dict) else {}
        node[last] = value
    lines = []
    for name, value in body.items():
        full = f"{prefix}.{name}"
        if isinstance(value, dict):
            text, note = _nested(value, {}, full, comments, indent + 4)
        else:
            text, note = _literal(value), comments.get(full, "")
        lines.append(_line(name, text, note, indent + 4))
    return "{\n" + "\n".join(lines) + "\n" + " " * indent + "}", ""


def _line(name: str, text: str, note: str, indent: int) -> str:
    line = f'{" " * indent}"{name}": {text},'
    if not note:
        return line
    if "\n" in note or len(line) + len(note) + 4 > WIDTH:
        above = "".join(f"{' ' * indent}# {one}\n" for one in note.split("\n"))
        return above + line
    return f"{line}  # {note}"


def _literal(value: Any) -> str:
    """A value as the house's formatter writes it: strings in double quotes."""
    if isinstance(value, str):
        text = repr(value)
        return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text
    if isinstance(value, tuple | list):
        items = ", ".join(_literal(item) for item in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f'"{k}": {_literal(v)}' for k, v in value.items()) + "}"
    if isinstance(value, float):
        return repr(float(f"{value:.6g}")) if float(f"{value:.6g}") == value else repr(value)
    return repr(value)


def _lines(
    function: ast.FunctionDef,
    offsets: list[int],
    code: bytes,
    changes: Mapping[str, Any],
    comments: Mapping[str, str],
) -> Edit:
    """What stands in no dict of the file: sections that are new, or a config built another way."""
    last = function.body[-1]
    name = "config"
    if isinstance(last, ast.Return) and isinstance(last.value, ast.Name):
        name = last.value.id
    elif not isinstance(last, ast.Return) or last.value is None:
        raise ConfigError("get_config() does not end with a return.")
    indent = " " * last.col_offset
    lines = []
    returned = code[_at(offsets, last.value, False) : _at(offsets, last.value, True)].decode()
    if not isinstance(last.value, ast.Name):
        lines.append(f"{indent}{name} = {returned}")
    by_section: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, _, rest = key.partition(".")
        by_section.setdefault(section, {})[rest] = value
    for section, values in by_section.items():
        if "" in values:
            lines.append(f'{indent}{name}["{section}"] = {_literal(values[""])}')
            continue
        text, _ = _nested({}, values, section, comments, last.col_offset)
        lines.append(f'{indent}{name}["{section}"] = {text}')
    if by_section and not isinstance(last.value, ast.Name):
        lines.append(f"{indent}return {name}")
        return Edit(offsets[last.lineno - 1], _at(offsets, last, True), "\n".join(lines))
    return Edit(offsets[last.lineno - 1], offsets[last.lineno - 1], "\n".join(lines) + "\n")


def _opened(source: str, headline: str) -> str:
    """The file with another docstring: what the old one says of results is the baseline's."""
    tree = ast.parse(source)
    safe = headline.replace("\\", "\\\\").replace('"""', "'''")
    text = f'"""{safe}\n"""\n'
    first = tree.body[0] if tree.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        code = source.encode()
        offsets = _offsets(code)
        start, end = _at(offsets, first, False), _at(offsets, first, True)
        return (code[:start] + text.rstrip("\n").encode() + code[end:]).decode()
    return text + "\n" + source


def _alone(wanted: Mapping[str, Any], comments: Mapping[str, str], headline: str) -> str:
    """A file of its own, every key of the config in it."""
    safe = headline.replace("\\", "\\\\").replace('"""', "'''")
    lines = [f'"""{safe}\n"""', "", "from ml_collections import ConfigDict", "", "",
             "def get_config() -> ConfigDict:", "    config = ConfigDict()"]  # fmt: skip
    for section, values in configs.to_dict(wanted).items():
        if not re.fullmatch(r"[A-Za-z_]\w*", section):
            raise ConfigError(f"{section!r} can't be a section's name in a Python file.")
        if isinstance(values, Mapping):
            text, _ = _nested({}, configs.flat(values), section, comments, 4)
            lines.append(f"    config.{section} = ConfigDict({text})")
        else:
            lines.append(f"    config.{section} = {_literal(values)}")
    return "\n".join([*lines, "    return config", ""])
