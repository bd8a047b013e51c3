"""What holds of the repository itself: its pins, its pages, what must not stand in its files."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINS = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")

# Split, so that this file does not hold what it looks for.
ADDRESSES = ["pypi" + r"\.org", "pythonhosted" + r"\.org", "index" + "-url", "find" + "-links"]
HOME_PATHS = [
    r"(^|[^[:alnum:]./])/" + folder + r"/[[:alnum:]]" for folder in ("home", "Users", "root")
]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return canonical(match[0])


def git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    listed = git("ls-files")
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def test_pins_are_names_and_versions_only():
    wrong = [
        line for line in PINS if not re.fullmatch(r"[a-z0-9][a-z0-9-]*==[A-Za-z0-9.!+]+", line)
    ]
    assert wrong == []
    assert sorted(set(PINS)) == PINS


def test_everything_that_make_installs_is_pinned():
    pinned = {name_of(line) for line in PINS}
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + extras["test"] + extras["peers"]
    assert [name for name in map(name_of, wanted) if name not in pinned] == []


def test_requirements_are_names_and_bounds_only():
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == {
        "tf",
        "plan",
        "gp",
        "postgresql",
        "bench",
        "peers",
        "test",
        "export",
        "serve",
        "wandb",
        "mlflow",
        "ray",
        "remote",
        "seq2seq",
        "xprof",
    }
    for requirement in sum(extras.values(), PROJECT["dependencies"]):
        name, _, where = requirement.partition("; ")
        assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z]+\])?(>=[0-9][A-Za-z0-9.]*)?", name), name
        # a machine that a package is not made for does without
        assert where == "" or where.startswith("sys_platform")


@pytest.mark.parametrize("pattern", [*ADDRESSES, *HOME_PATHS])
def test_no_tracked_file_holds(tracked, pattern):
    found = git("grep", "--line-number", "-I", "--extended-regexp", "-e", pattern)
    assert found.returncode == 1, found.stdout + found.stderr


def test_no_tracked_file_is_ignored(tracked):
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard").stdout == ""


def test_version_is_one():
    import jdlopt

    assert jdlopt.__version__ == PROJECT["version"]
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text("utf-8")


def code_of(page: str) -> list[str]:
    """Returns the lines of a page's code blocks and its inline code."""
    text = (ROOT / page).read_text("utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    lines = [*"\n".join(blocks).splitlines(), *indented, *re.findall(r"`([^`\n]+)`", text)]
    return [line.removeprefix("$ ") for line in lines]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_commands_of_a_page_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    commands = {
        word
        for line in code_of(page)
        if line.startswith("make ")
        for word in line.partition("#")[0].split()[1:]
        if re.fullmatch(r"[a-z-]+", word)
    }
    assert commands
    assert commands <= targets


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "launch/README.md"])
def test_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text("utf-8")
    named = re.findall(r"\b((?:configs|launch|tests|benchmarks|docs|jdlopt)/[\w./-]*\w/?)", text)
    assert [path for path in sorted(set(named)) if not (ROOT / path).exists()] == []


def test_continuous_integration_runs_what_readme_says():
    steps = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "make test " in steps
    assert "make test-slow " in steps
    assert any(re.match(r"make test\b", line) for line in code_of("README.md"))
