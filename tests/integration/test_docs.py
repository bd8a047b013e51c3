"""The pages say what the code does: the reference is new, links lead somewhere, commands parse."""

from __future__ import annotations

import doctest
import functools
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from jdlopt import config as configs
from jdlopt import losses, models, optim
from jdlopt.cli import parser, split_overrides
from jdlopt.train.schema import schema_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILES = ("py", "md", "json", "csv", "onnx", "stablehlo", "tflite", "safetensors")
"""Endings of files that are named as keys are."""
SECTION_KEY = re.compile(r"(?:data|model|loss|optim|train|mesh)(?:\.[a-z_0-9]+)+")


def page_id(page: Path) -> str:
    return page.name


def blocks(page: Path, *languages: str) -> list[str]:
    """Returns a page's fenced blocks in some languages."""
    found = FENCE.findall(page.read_text("utf-8"))
    return [text for language, text in found if language in languages]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def commands(page: Path) -> list[list[str]]:
    """Returns the words behind `jdlopt` in each command of a page, however it is started."""
    shown = "\n".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    lines = [line for line in shown if line.startswith("$ ")]  # the others are what is printed
    lines += "\n".join(blocks(page, "")).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)  # a variable of the environment
        if words[:1] == ["jdlopt"]:
            found.append(words[1:])
        elif words[:2] == ["python", "launch/local.py"]:
            found.append(words[words.index("--") + 1 :])
        elif words[:1] == ["sbatch"]:
            script = next(n for n, word in enumerate(words) if word.startswith("launch/slurm/"))
            found.append(words[script + 1 :])
    return found


@functools.cache
def make(name: str) -> Any:
    """The script of docs/ that makes a page."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def own_parts(monkeypatch, tmp_path):
    """A working directory with the modules that the pages show, each named in its first line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(page: Path) -> None:
        for text in blocks(page, "python"):
            name = re.match(r"# ([\w/]+\.py)\n", text)
            if name:
                Path(name[1]).write_text(text, "utf-8")
        for module in set(sys.modules) - before:  # another page may have a module of this name
            if module.startswith("my_"):
                del sys.modules[module]

    (tmp_path / "configs").symlink_to(ROOT / "configs")
    yield write
    for module in set(sys.modules) - before:
        if module.startswith("my_"):
            del sys.modules[module]


@pytest.mark.parametrize(
    "name", ["make_reference", pytest.param("make_models", marks=pytest.mark.slow)]
)
def test_made_pages_are_up_to_date(name):
    assert make(name).main(["--check"]) == 0


@pytest.mark.parametrize(
    "name", ["make_reference", pytest.param("make_models", marks=pytest.mark.slow)]
)
def test_check_finds_an_old_page(name, tmp_path, monkeypatch, capsys):
    module = make(name)
    old = tmp_path / "page.md"
    old.write_text("# Page\n", "utf-8")
    monkeypatch.setattr(module, "PAGE", old)
    assert module.main(["--check"]) == 1
    assert f"{name}.py" in capsys.readouterr().err
    assert module.main([]) == 0
    assert module.main(["--check"]) == 0


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_pages_have_commands():
    assert {page.name for page in PAGES if commands(page)} >= {
        "README.md",
        "config.md",
        "data.md",
        "training.md",
    }


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_parse_and_their_keys_are_known(page, own_parts):
    own_parts(page)
    for words in commands(page):
        rest, overrides = split_overrides(words)
        flags = parser().parse_args(rest)
        if getattr(flags, "config", None) in (None, "FILE"):
            assert set(overrides) <= known_keys(), words  # of the run's own config
            continue
        if flags.config.startswith("runs/"):
            continue  # what an earlier command leaves
        problems: list[str] = []
        texts = {key: configs.Override(text) for key, text in overrides.items()}
        raw = configs.to_dict(configs.override(configs.load(flags.config), texts))
        configs.check_section(raw, schema_of(raw, problems), "", problems)
        assert problems == [], words


def known_keys() -> set[str]:
    """Returns every key that a config can have with some bundled part."""
    found: set[str] = set()
    for section, parts in (
        ("model", models.MODELS),
        ("loss", losses.LOSSES),
        ("optim", optim.OPTIMIZERS),
        ("optim.schedule", optim.SCHEDULES),
        ("optim.average", optim.AVERAGES),
    ):
        for name in parts:
            raw = {"model": {"name": "mlp"}, "optim": {"groups": {"body": {"params": ()}}}}
            chosen = configs.override(raw, {f"{section}.name": name})
            problems: list[str] = []
            schema = schema_of(chosen.to_dict(), problems)
            assert problems == []
            found |= set(configs.flat(schema))
    return (
        found
        | {key.rpartition(".")[0] for key in found}
        | {"data.augment", "data.columns", "data.augment.own", "optim.groups"}
    )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_keys_in_the_text_are_known(page):
    named = {
        match[0]
        for code in re.findall(r"`([^`\n]+)`", prose(page))
        if (match := SECTION_KEY.match(code)) and match[0].rpartition(".")[2] not in FILES
    }
    assert named <= known_keys()


@pytest.mark.slow
def test_the_python_page_runs(own_parts, monkeypatch, tmp_path):
    page = ROOT / "docs/python.md"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "datasets"))
    own_parts(page)
    names = run_examples(page)
    record = names["run"].record
    text = (ROOT / "docs/training.md").read_text("utf-8")
    rows = re.search(r"^## `result.json`$(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert rows is not None
    firsts = re.findall(r"^\| (`.*?) \|", rows[1], re.MULTILINE)
    documented = {key for first in firsts for key in re.findall(r"`(\w+)`", first)}
    assert documented == {*record, "diverged", "remote"}


@pytest.mark.parametrize("name", ["data.md", "your-data.md"])
def test_the_pages_on_data_run(name):
    run_examples(ROOT / "docs" / name)


def run_examples(page: Path) -> dict[str, Any]:
    """Runs a page's console examples as one session; returns its names."""
    text = "\n".join(blocks(page, "pycon"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    report: list[str] = []
    runner.run(test, out=report.append, clear_globs=False)
    assert runner.tries > 0
    assert runner.failures == 0, "".join(report)
    return test.globs
