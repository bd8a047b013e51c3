"""The parser of the command line, made from the classes of flags that `jdlopt.cli.verbs` lists."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

from jdlopt import __version__
from jdlopt.cli.verbs import FAMILIES, VERBS, Flags, Verb
from jdlopt.config import Required
from jdlopt.config.options import (
    Option,
    nested_options,
    option_problems,
    options_of,
    raise_option_problems,
    read_options,
    takes_several,
)
from jdlopt.errors import UserError, nearest

EPILOG = """\
What a verb is about is given as RUN or as --config=CONFIG: a run's directory, or where a config is
enough, a config file (FILE.py[:ARG] or FILE.json). What it makes goes to --workdir=DIR.
Set a config's keys with --config.KEY=VALUE, such as --config.optim.learning_rate=0.01.
Exit codes: 0 done; 1 a defect of jdlopt; 2 the input is wrong; 3 training diverged;
130 interrupted, and resumable with the same command.
"""


class _Parser(argparse.ArgumentParser):
    """Answers a wrong flag in one line, like any other wrong input."""

    words: Sequence[str] = ()

    def parse_known_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
    ) -> tuple[argparse.Namespace, list[str]]:
        self.words = list(args or ())  # a verb's parser gets here with the words behind the verb
        found, rest = super().parse_known_args(args, namespace)
        # a word behind a flag: argparse takes optional positional ones for left out before it
        left = [
            one.dest for one in self._get_positional_actions() if getattr(found, one.dest) is None
        ]
        while rest and left and not rest[0].startswith("-"):
            setattr(found, left.pop(0), rest.pop(0))
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        bad = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        hint = nearest(bad.group(1), re.findall(r"[\w-]+", bad.group(2))) if bad else ""
        flags = [word.partition("=")[0] for word in self.words if word.startswith("--")]
        for flag in flags if not bad else ():
            if flag not in self._option_string_actions:
                close = nearest(flag, self._option_string_actions)
                hint += f" {flag} is unknown.{close}"
        raise UserError(f"{message}.{hint} ({self.prog} --help lists what there is.)")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all verbs; what it gives is text, which `read_flags` reads."""
    top = _Parser(
        prog="jdlopt",
        description="Makes deep-learning models better, and proves it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"jdlopt {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    families = {}
    for words, verb in VERBS.items():
        family, _, last = words.rpartition(" ")
        if family and family not in families:
            what = FAMILIES[family]
            inner = verbs.add_parser(family, help=what, description=what)
            families[family] = inner.add_subparsers(dest="what", metavar="WHAT", required=True)
        made = (families[family] if family else verbs).add_parser(
            last,
            help=verb.summary,
            description=verb.summary,
            epilog=EPILOG,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(words=words)
        _add(made, verb.flags)
    return top


def _add(parser: argparse.ArgumentParser, kind: type[Flags]) -> None:
    """Adds the flags of a class, and those of the options in it."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    nested = nested_options(kind).values()
    for option in (*options_of(kind), *(one for inner in nested for one in options_of(inner))):
        title = option.flag.group
        if title is not None and title not in groups:
            groups[title] = parser.add_argument_group(title)
        place = parser if title is None else groups[title]
        required = option.field.default is Required
        if option.flag.positional:
            place.add_argument(
                option.name,
                metavar=option.flag.metavar,
                nargs=None if required else "?",
                help=_help(option),
            )
        elif option.is_switch:
            place.add_argument(
                option.spelt,
                dest=option.name,
                action="store_const",
                const=True,
                help=_help(option),
            )
        else:
            place.add_argument(
                option.spelt,
                dest=option.name,
                action="append" if takes_several(option) else "store",
                metavar=option.flag.metavar,
                required=required,
                help=_help(option),
            )


def _help(option: Option) -> str:
    default = option.flag.shown
    if default is None and isinstance(option.field.default, int | float | str):
        default = None if option.is_switch else str(option.field.default)
    text = option.flag.help + ("" if default is None else f" (default: {default})")
    return text.replace("%", "%%")


def read_flags(found: argparse.Namespace, overrides: Mapping[str, str]) -> tuple[Verb, Flags]:
    """Returns the verb of parsed words, and its flags, checked one by one.

    Raises:
      UserError: what is wrong with them, all of it in one message; or overrides of a config where
        there is none.
    """
    verb = VERBS[found.words]
    if overrides and not verb.takes_config:
        raise UserError(
            f"--config.{next(iter(overrides))}: {found.words} takes no config"
            + (": the run's own is used." if hasattr(found, "run") else ".")
        )
    flags: Flags = read_options(verb.flags, vars(found), overrides=overrides)
    raise_option_problems(option_problems(flags))
    return verb, flags
