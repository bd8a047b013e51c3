"""docs/studies.md says what studies do, and the configs' spaces can be searched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_docs import ROOT, blocks, prose, run_examples

from jdlopt import config as configs
from jdlopt.study import options, readings, space
from jdlopt.train.schema import schema_of

PAGE = ROOT / "docs/studies.md"
CONFIGS = sorted((ROOT / "configs").glob("*/*.py"))
SPACES = [path for path in CONFIGS if "def get_space" in path.read_text("utf-8")]


def firsts(heading: str) -> set[str]:
    """Returns the first column of the table under a heading, without its marks."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", prose(PAGE), re.MULTILINE | re.DOTALL)
    assert section is not None
    return set(re.findall(r"^\| `(\w[\w/.-]*)", section[1], re.MULTILINE))


def test_the_page_runs():
    names = run_examples(PAGE)
    assert names["options"].repeats == 2


def test_the_page_has_every_sampler_and_every_distribution():
    assert firsts("Samplers") == set(options.SAMPLERS)
    assert firsts("Spaces") == set(space.KINDS)


def test_the_page_has_every_reading():
    files = Path(readings.__file__).parent.glob("*.py")
    texts = [path.read_text("utf-8") for path in files]
    made = {name for text in texts for name in re.findall(r'\bmake\(\s*"(\w+)"', text)}
    assert len(made) > 5
    assert firsts("Readings") == made


def test_the_space_that_the_page_shows_is_one(tmp_path):
    [text] = [text for text in blocks(PAGE, "python") if text.startswith("# my_space.py")]
    path = tmp_path / "my_space.py"
    path.write_text(text, "utf-8")
    found = space.load(path)
    assert found["optim.momentum"].when == (("optim.name", ("momentum",)),)


def test_the_main_examples_have_spaces():
    names = {path.stem for path in SPACES}
    assert names >= {"mnist1d_cnn", "mnist1d_mlp", "digits_cnn", "own_csv", "wine_mlp"}


@pytest.mark.parametrize("path", SPACES, ids=lambda path: Path(path).stem)
def test_every_corner_of_a_configs_space_is_a_config(path):
    base, found = configs.load(str(path)), space.load(path)
    assert "scientific" in {one.role for one in found.values()}
    for params in space.probes(found):
        raw = configs.to_dict(configs.override(base, params))
        problems: list[str] = []
        configs.check_section(raw, schema_of(raw, problems), "", problems)
        assert problems == []
