"""The commands of pages: a shell takes them as they are, and jdlopt knows every flag of them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from samples import a_comparison, an_effect

from jdlopt.cli import split_overrides
from jdlopt.cli.flags import parser, read_flags
from jdlopt.report import commands

NAMES = ("plain", "with space", "it's", 'a"b', "$HOME `id`; rm *", "-dash", "größe", "a\nb\t\\",
         os.fsdecode(b"no\xff utf"), "right\u202eleft")  # fmt: skip
CONFIG = {"data": {"source": "wine"}, "model": {"name": "mlp"}, "train": {"epochs": 8}}


STUDY = {"best": 3, "config": CONFIG, "trials": [{}] * 4, "limit": 9, "status": "done",
         "storage": ["journal:/a b/j", "mine"]}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_reads_a_name_as_it_was(name):
    told = commands.quoted(name)
    assert told.isprintable()  # nothing in it can hide, or turn what one sees
    found = subprocess.run(["bash", "-c", f"printf %s {told}"], capture_output=True, check=True)
    assert found.stdout == os.fsencode(name)


def every(folder: Path) -> list[commands.Command]:
    """Commands of each kind of page about a directory."""
    for name in ("a.json", "b.json", "improved.py", "best_config.json"):
        (folder / name).write_text("{}")
    (folder / "trials/0003").mkdir(parents=True)
    (folder / "trials/0003/result.json").write_text("{}")
    own = {**CONFIG, "model": {"name": "mine:Net"}}
    findings = [{"techniques": ["dropout", "own/mine:technique:2"]}]
    undecided = {**a_comparison(), "effect": {**an_effect(-1, 2), "seeds_needed": 40}}
    lines = ["data.ignore=('a', \"b'c\")", "loss.label_smoothing=0.1"]
    return [
        *commands.of_run(folder, own, None),
        *commands.of_run(folder, CONFIG, {"status": "done"}),
        *commands.of_run(folder, CONFIG, {"status": "diverged"}),
        *commands.of_diagnosis(folder, CONFIG, findings),
        *commands.of_study(folder, {**STUDY, "config": own, "base_config": own}),
        *commands.of_study(folder, {**STUDY, "status": "interrupted", "base_config": CONFIG}),
        *commands.of_study(folder, {**STUDY, "base_config": None}),
        *commands.of_comparison(folder, undecided | {"tuning": None}),
        *commands.of_comparison(folder, {"decision": "adopt"}),
        *commands.of_improvement(folder),
        *commands.of_check(str(folder / "a.json"), ("x", "y"), lines, None),
        *commands.of_check("wine", None, lines, "configs/a.py:b c"),
    ]


@pytest.mark.parametrize("name", ["run", "it's a $run"])
def test_jdlopt_knows_every_verb_and_flag_of_them(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    made = every(folder)
    verbs = set()
    for one in made:
        program, *words = shlex.split(one.text)
        words, overrides = split_overrides(words)
        verb, flags = read_flags(parser().parse_args(words), overrides)
        verbs.add(verb.run)
        assert program == "jdlopt" and one.words
        for where in (getattr(flags, name, None) for name in ("run", "workdir")):
            assert where is None or where == "runs/checked" or str(folder) in where
    assert len(verbs) >= 7


def test_a_run_that_names_code_asks_for_leave_to_run_it(tmp_path):
    own = {**CONFIG, "model": {"name": "mine:Net"}}
    with_code = [one.text for one in commands.of_run(tmp_path, own, {"status": "done"})]
    assert all("--allow-code" in one for one in with_code if "--config=" not in one)
    without = [one.text for one in commands.of_run(tmp_path, CONFIG, {"status": "done"})]
    assert not any("--allow-code" in one for one in without)


def test_lines_of_a_check_reach_the_config_as_they_are(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    line = "data.ignore=('a', \"b'c\")"
    again, _ = commands.of_check("wine", None, [line, line], str(tmp_path / "c.json"))
    _, overrides = split_overrides(shlex.split(again.text))
    assert overrides == {"data.ignore": "('a', \"b'c\")"}


def test_where_a_relative_source_lies_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert commands.where({"data": {"source": "x.csv"}}) == str(tmp_path)
    for source in ("wine", str(tmp_path / "x.csv"), "a" * 5000, "a\0b", ""):
        assert commands.where({"data": {"source": source}}) == ""
