"""A study that goes on by its directory alone: config, space and options from ``study.json``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import config as configs
from jdlopt.errors import UserError, WorkdirError
from jdlopt.study import schema
from jdlopt.study import space as spaces
from jdlopt.study.enqueue import BASE, ENQUEUED
from jdlopt.study.options import Options

STUDY = "study.json"
BASE_CONFIG, LIMIT, STORED = "base_config", "limit", "storage"
"""What ``study.json`` calls the config that trials are changes of, None where it has keys that
follow others; how many trials there were to be; and where else than in the directory they are."""


class Resumed(NamedTuple):
    """What `jdlopt.study.tune.tune` is called with, to go on."""

    config: dict[str, Any]
    space: spaces.Space
    options: Options


def is_study(place: str | Path) -> bool:
    """Says whether a path is a study's directory."""
    return (Path(place) / STUDY).is_file()


def resumed(place: Path, options: Options, allow_code: configs.Allowed = False) -> Resumed:
    """Returns what a study in a directory goes on with.

    Args:
      place: the directory.
      options: how much more, and where; of what makes a study another one, the directory's count.
      allow_code: which dotted paths in its config may be imported.

    Raises:
      WorkdirError: ``study.json`` can't be read or names code that is not allowed.
      UserError: only its config file can go on with it, or an option is not the study's.
    """
    path = place / STUDY
    study = schema.read_study(place)
    config = study.get(BASE_CONFIG)
    if config is None:
        raise UserError(
            f"{path} does not hold the config that its trials are changes of: it was written "
            "before studies kept theirs, or has keys that follow others. Name the config file: "
            f"jdlopt tune --config=FILE --workdir={place}."
        )
    if not isinstance(config, dict):
        raise schema.not_as_written(path, f"{BASE_CONFIG}: {config!r:.60}")
    configs.refuse_code(config, path, allow_code)
    changes = _kept(study, options)
    names = tuple(one["name"] for one in study["objectives"])
    monitored = len(names) == 1 and names[0].startswith("validation/")
    if not monitored or configs.flat(config).get("train.monitor") is not None:
        changes["objectives"] = names
    points = [one for one in study.get("enqueued") or () if isinstance(one, dict)]
    asked = [one["values"] for one in points if one.get("origin") == ENQUEUED and one.get("values")]
    changes["enqueue"] = (*asked, *options.enqueue)
    changes["base"] = any(one.get("origin") == BASE for one in points)
    limit = study.get(LIMIT)
    if options.is_limited_by_default and type(limit) is int and limit > 0:
        changes["trials"] = limit
    try:
        found = options.replaced(**changes)
        found.check()
    except (TypeError, ValueError) as error:
        raise WorkdirError(f"{path}: is not as jdlopt writes it: {error}.") from error
    return Resumed(config, spaces.from_json(study["space"]), found)


def _kept(study: dict[str, Any], options: Options) -> dict[str, Any]:
    """The options that make a study another one, as it has them."""
    defaults = {one.name: one.default for one in fields(Options)}
    found = {}
    for name, given in options.definition().items():
        found[name] = study.get(name, defaults[name])
        if given not in (defaults[name], found[name]):
            raise UserError(
                f"--{name}: {given!r} is not the study's, {found[name]!r}. Leave it out to go on, "
                "or choose another --workdir."
            )
    return found
