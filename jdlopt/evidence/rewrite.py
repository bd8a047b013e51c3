"""Writes an improved config as a person would have: the baseline's file, with changed lines.

A changed value is replaced where it stands, a new key is added to the dict of its section, and each
such line says what it gained; comments and lines that do not change stay. The file is then loaded:
it must give the config that was meant, or else a file of its own is written.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import libcst as cst

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.errors import ConfigError

WIDTH = 100
ALONE = "def get_config():\n    return {}\n"


class Edits(NamedTuple):
    """What changes in a file.

    Attributes:
      changes: dotted keys and their new values.
      comments: what to say of a key, on its line.
      removed: dotted keys that go.
    """

    changes: Mapping[str, Any]
    comments: Mapping[str, str]
    removed: Collection[str]

    def below(self, prefix: str) -> list[str]:
        """Returns the names right below a dotted prefix that lead to a change or removal."""
        start = f"{prefix}." if prefix else ""
        keys = [key for key in (*self.changes, *self.removed) if key.startswith(start)]
        names = (key.removeprefix(start).partition(".")[0] for key in keys)
        return list(dict.fromkeys(names))


class Item(NamedTuple):
    """An entry of a dict, with the comments above it and at the end of its line."""

    element: cst.DictElement
    above: Sequence[str] = ()
    note: str = ""


def rewritten(
    source: str,
    changes: Mapping[str, object],
    comments: Mapping[str, str],
    removed: Collection[str] = (),
) -> str:
    r"""Returns the text of a config file with values changed.

    Args:
      source: a Python file with ``get_config()``.
      changes: dotted keys and their new values.
      comments: what to say of a key, on its line.
      removed: dotted keys that go.

    Raises:
      ConfigError: it does not end with the return of a config, or a key stands in no plain dict.

    Example:
      >>> text = "def get_config():\n    config = {'optim': {'name': 'sgd'}}\n    return config"
      >>> print(rewritten(text, {"optim.name": "adamw"}, {"optim.name": "+0.01"}))
      def get_config():
          config = {'optim': {
              'name': "adamw",  # +0.01
          }}
          return config
    """
    edits, module = Edits(changes, comments, removed), cst.parse_module(source)
    for function in module.body:
        if isinstance(function, cst.FunctionDef) and function.name.value == "get_config":
            body = _statements(function.body.body, edits)
            return module.with_deep_changes(function.body, body=body).code
    raise ConfigError("the config file has no function get_config() at its top level.")


class Written(NamedTuple):
    """An improved config file.

    Attributes:
      place: where it lies.
      note: why it is no version of the baseline's file, or None if it is one.
    """

    place: Path
    note: str | None = None


def write(
    baseline: str | Path | None,
    place: Path,
    wanted: configs.AnyConfig,
    comments: Mapping[str, str],
    headline: str,
) -> Written:
    """Writes the improved config file and checks that it gives the config that was meant.

    Args:
      baseline: the file to change, ``FILE[:ARG]``; its argument becomes the default of the new
        file's ``get_config``. None, or one that is no Python file, gives a file of its own.
      place: where it goes.
      wanted: the config that it must give, as `jdlopt.config.load` would; what differs from the
        baseline's is what changes.
      comments: what to say of each key.
      headline: what the file opens with.
    """
    note, meant = None, configs.to_dict(wanted)
    name, argument = configs.split_argument(str(baseline)) if baseline is not None else ("", None)
    if baseline is not None and name.endswith(".py"):
        source = Path(name).read_text(encoding="utf-8")
        try:
            before, after = configs.flat(_loaded(baseline)), configs.flat(wanted)
            changes = {key: value for key, value in after.items()
                       if key not in before or before[key] != value}  # fmt: skip
            if argument is not None:
                source = with_default(source, argument)
            for _ in range(2):
                text = rewritten(source, changes, comments, before.keys() - after.keys())
                writing.write_aside(place, _opened(text, headline))
                found = _loaded(place)
                if found == meant:
                    return Written(place)
                # what the file looks up from where it lies, as a path beside it
                flat = configs.flat(found)
                changes |= {key: value for key, value in after.items()
                            if key not in flat or flat[key] != value}  # fmt: skip
            note = f"changed lines of {name} do not give the config that is meant"
        except (ConfigError, cst.ParserSyntaxError, ValueError) as error:
            note = str(error).rstrip(".")  # it is built in a way of its own
        note = f"{place.name} is written anew, every value as it is, and not after {name}: {note}."
    empty: dict[str, object] = {key: {} for key, value in meant.items() if value == {}}
    text = rewritten(ALONE, {**configs.flat(wanted), **empty}, comments)
    writing.write_aside(place, _opened(text, headline))
    return Written(place, note)


def _loaded(place: str | Path) -> dict[str, Any]:
    """The config of a file, without the word of paths that lie beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return configs.to_dict(configs.load(place))


def with_default(source: str, argument: str) -> str:
    r"""Returns a config file whose ``get_config`` has an argument as its default.

    Raises:
      ConfigError: it has no parameter that could have one.

    Example:
      >>> with_default("def get_config(size: str, deep=False):\n    return {}", "large")
      "def get_config(size: str = 'large', deep=False):\n    return {}"
    """
    module = cst.parse_module(source)
    for function in module.body:
        if isinstance(function, cst.FunctionDef) and function.name.value == "get_config":
            places = [*function.params.posonly_params, *function.params.params]
            if not places:
                break
            space = cst.SimpleWhitespace(" " if places[0].annotation else "")
            given = places[0].with_changes(
                default=cst.parse_expression(repr(argument)),
                equal=cst.AssignEqual(space, space),
            )
            return module.with_deep_changes(function, params=function.params.deep_replace(
                places[0], given)).code  # fmt: skip
    raise ConfigError("its get_config() has no first parameter to give the argument to.")


def _statements(
    body: Sequence[cst.BaseStatement | cst.BaseSmallStatement], edits: Edits
) -> list[cst.BaseStatement]:
    """The body of ``get_config``, the dicts changed that make what its last line returns."""
    done = [one for one in body if isinstance(one, cst.BaseStatement)]
    if not done:
        raise ConfigError("get_config() is written in one line.")
    left = edits.below("")
    returned = _value(done[-1])
    if not isinstance(returned, cst.Name):
        done[-1] = _replaced(done[-1], _section(returned, "", edits, 0))
        return done
    name = returned.value
    for place in reversed(range(len(done) - 1)):
        value, target = _value(done[place]), _target(done[place])
        if target == name and left and isinstance(_inside(value), cst.Dict):
            done[place] = _replaced(done[place], _section(value, "", edits, 0))
            return done
        section = target.removeprefix(f"{name}.")
        if section != target and section in left:
            left.remove(section)
            done[place] = _replaced(done[place], _changed(value, section, edits, 0))
    for section in left:
        made = cst.parse_statement(f'{name}["{section}"] = None')
        done.insert(-1, _replaced(made, _changed(cst.Dict([]), section, edits, 0)))
    return done


def _only(statement: cst.BaseStatement) -> cst.BaseSmallStatement:
    if isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1:
        return statement.body[0]
    return cst.Pass()


def _value(statement: cst.BaseStatement) -> cst.BaseExpression | None:
    only = _only(statement)
    return only.value if isinstance(only, cst.Assign | cst.Return) else None


def _target(statement: cst.BaseStatement) -> str:
    only = _only(statement)
    if isinstance(only, cst.Assign) and len(only.targets) == 1:
        return _code(only.targets[0].target)
    return ""


def _replaced(statement: cst.BaseStatement, value: cst.BaseExpression) -> cst.BaseStatement:
    return statement.with_deep_changes(_only(statement), value=value)


def _code(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node)


# --- dicts ----------------------------------------------------------------------------------------


def _inside(value: cst.BaseExpression | None) -> cst.BaseExpression | None:
    """What a call such as ``ConfigDict({...})`` is given, or the value itself."""
    if isinstance(value, cst.Call) and len(value.args) == 1 and value.args[0].keyword is None:
        return value.args[0].value
    return value


def _changed(
    value: cst.BaseExpression | None, key: str, edits: Edits, column: int
) -> cst.BaseExpression:
    """A key's new value, or its old one with what stands in it changed."""
    if key in edits.changes:
        return cst.parse_expression(_literal(edits.changes[key]))
    return _section(value, key, edits, column)


def _section(
    value: cst.BaseExpression | None, prefix: str, edits: Edits, column: int
) -> cst.BaseExpression:
    """A section's dict, maybe in a call, with keys changed, added and removed.

    Args:
      value: as the file has it.
      prefix: the section's dotted name.
      edits: what changes.
      column: where its line begins, counted from the function's block.
    """
    node = _inside(value)
    if value is None or not isinstance(node, cst.Dict):
        raise ConfigError(f"{prefix or 'the config'} is not written as a dict.")
    if isinstance(value, cst.Call):
        column = _column(value.whitespace_before_args, column)
    items, end = _items(node)
    keys = {name: f"{prefix}.{name}" if prefix else name for name in edits.below(prefix)}
    notes = {name: edits.comments.get(key, "") for name, key in keys.items()
             if key in edits.changes}  # fmt: skip
    many = any(notes.values()) or not keys.keys() <= items.keys() or _broken(node)
    inner = _column(node.lbrace.whitespace_after, column + 4) if many else column
    for name, key in keys.items():
        if key in edits.removed:
            items.pop(name, None)
            continue
        item = items.get(name) or Item(_element(name, cst.Dict([])))
        changed = _changed(item.element.value, key, edits, inner)
        item = item._replace(element=item.element.with_changes(value=changed))
        items[name] = _noted(item, notes.get(name, ""), inner)
    many = many and bool(items)
    made = _laid_out([*items.values()], end, inner) if many else _in_a_line([*items.values()])
    return made if value is node else cst.ensure_type(value.deep_replace(node, made), cst.Call)


def _broken(node: cst.Dict) -> bool:
    return isinstance(node.lbrace.whitespace_after, cst.ParenthesizedWhitespace)


def _column(space: cst.BaseParenthesizableWhitespace, otherwise: int) -> int:
    if isinstance(space, cst.ParenthesizedWhitespace):
        return len(space.last_line.value)
    return otherwise


def _element(name: str, value: cst.BaseExpression) -> cst.DictElement:
    return cst.DictElement(cst.SimpleString(f'"{name}"'), value)


def _items(node: cst.Dict) -> tuple[dict[str, Item], list[str]]:
    """The entries of a dict by their names, and the comments before its closing brace."""
    commas = [one.comma for one in node.elements[:-1] if isinstance(one.comma, cst.Comma)]
    between = [comma.whitespace_after for comma in commas]
    spaces = [node.lbrace.whitespace_after, *between, node.rbrace.whitespace_before]
    notes, above = zip(*(_comments(space) for space in spaces))
    items = {}
    for place, element in enumerate(node.elements):
        if not isinstance(element, cst.DictElement) or not isinstance(
            element.key, cst.SimpleString
        ):
            raise ConfigError("a key of the config is not written out.")
        name = str(element.key.evaluated_value)
        items[name] = Item(element, above[place], notes[place + 1])
    return items, above[-1] if node.elements else []


def _comments(space: cst.BaseParenthesizableWhitespace) -> tuple[str, list[str]]:
    """The comment at the end of a line, and those on the lines that follow."""
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return "", []
    lines = [line.comment.value if line.comment else "" for line in space.empty_lines]
    return space.first_line.comment.value if space.first_line.comment else "", lines


def _noted(item: Item, comment: str, column: int) -> Item:
    """An entry with one more comment: at the end of its line, or above where that is too long."""
    line = f"    {' ' * column}{_code(item.element.key)}: {_code(item.element.value)},  # {comment}"
    if comment and (item.note or "\n" in comment or len(line) > WIDTH):
        return item._replace(above=[*item.above, *(f"# {one}" for one in comment.split("\n"))])
    return item._replace(note=f"# {comment}") if comment else item


def _in_a_line(items: Sequence[Item]) -> cst.Dict:
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    elements = [item.element.with_changes(comma=comma) for item in items]
    elements[-1:] = [one.with_changes(comma=cst.MaybeSentinel.DEFAULT) for one in elements[-1:]]
    return cst.Dict(elements)


def _laid_out(items: Sequence[Item], end: Sequence[str], column: int) -> cst.Dict:
    """A dict with a line for each entry, and its comments."""
    indent = cst.SimpleWhitespace(" " * column)

    def space(note: str, lines: Sequence[str], last: bool = False) -> cst.ParenthesizedWhitespace:
        first = cst.TrailingWhitespace()
        if note:
            first = cst.TrailingWhitespace(cst.SimpleWhitespace("  "), cst.Comment(note))
        rest = [cst.EmptyLine(True, indent, cst.Comment(line)) if line else cst.EmptyLine(False)
                for line in lines]  # fmt: skip
        close = cst.SimpleWhitespace(" " * (column - 4)) if last else indent
        return cst.ParenthesizedWhitespace(first, rest, True, close)

    after = [space(item.note, following.above) for item, following in pairwise(items)]
    after.append(space(items[-1].note, end, last=True))
    elements = [
        item.element.with_changes(comma=cst.Comma(whitespace_after=one))
        for item, one in zip(items, after, strict=True)
    ]
    return cst.Dict(elements, cst.LeftCurlyBrace(space("", items[0].above)))


# --- texts ----------------------------------------------------------------------------------------


def _literal(value: object) -> str:
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


def _opened(source: str, headline: str) -> str:
    """The file with another docstring: what the old one says of results is the baseline's."""
    safe = headline.replace("\\", "\\\\").replace('"""', "'''")
    text, module = f'"""{safe}\n"""\n', cst.parse_module(source)
    if module.get_docstring() is None:
        return f"{text}\n\n{source}"
    return module.with_changes(body=[cst.parse_statement(text), *module.body[1:]]).code
