"""Dotted paths in the records of a directory are found wherever they stand, and need leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdlopt import config as configs
from jdlopt.config.parts import OF_DATA
from jdlopt.errors import ConfigError, WorkdirError

PATH = "canary.inner:Part"
NAMES = st.text("abcdefg_", min_size=1, max_size=6).filter(str.isidentifier)
LEAVES = st.none() | st.booleans() | st.floats(allow_nan=False) | NAMES
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
WRITTEN = st.sampled_from([PATH, f" {PATH}\n", f"validation/{PATH}", f"{PATH}:2"])


def planted(draw, tree, text):
    """Puts a text somewhere into a tree: as a value, an item, or a key."""
    if isinstance(tree, dict) and tree and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(tree)))
        return {**tree, name: planted(draw, tree[name], text)}
    if isinstance(tree, list) and tree and draw(st.booleans()):
        place = draw(st.integers(0, len(tree) - 1))
        return [*tree[:place], planted(draw, tree[place], text), *tree[place + 1 :]]
    if isinstance(tree, dict):
        return {**tree, text: 1} if draw(st.booleans()) else {**tree, "x": text}
    return [tree, text] if draw(st.booleans()) else text


@given(st.data(), st.dictionaries(NAMES, TREES, min_size=1, max_size=3), WRITTEN)
def test_a_path_is_found_wherever_it_stands(data, tree, text):
    configs.refuse_code(tree, Path("run/config.json"))
    hostile = planted(data.draw, tree, text)
    assert {path for _, path in configs.paths_in(hostile)} == {PATH}
    with pytest.raises(WorkdirError, match=r"canary\.inner:Part.*--allow-code.*allow_code=True"):
        configs.refuse_code(hostile, Path("run/config.json"))
    with pytest.raises(WorkdirError):
        configs.refuse_code(hostile, Path("run/config.json"), {"canary.inner:Other"})
    configs.refuse_code(hostile, Path("run/config.json"), {PATH})
    configs.refuse_code(hostile, Path("run/config.json"), True)


def test_each_of_several_paths_needs_leave():
    config = {"train": {"metrics": ["mine:f1", "theirs:f1", "mine:f1"]}}
    with pytest.raises(WorkdirError, match="theirs:f1"):
        configs.refuse_code(config, Path("config.json"), {"mine:f1"})


@pytest.mark.parametrize("key", sorted(OF_DATA))
def test_a_column_may_have_a_colon(key):
    section, _, name = key.partition(".")
    for value in ("sex:male", ["sex:male"], {"sex:male": "number"}):
        configs.refuse_code({section: {name: value}}, Path("config.json"))


@pytest.mark.parametrize(
    "name", ["canary-inner:Part", "canary:", ":Part", "a b:Part", "canary:a.b"]
)
def test_what_is_not_found_is_not_imported(name):
    assert configs.paths_in({"name": name}) == []
    with pytest.raises(ConfigError, match="is unknown"):
        configs.find_part(name, {"mlp": 1}, "model.name")


@pytest.mark.parametrize("name", ["__class__", "__init__", "__dict__", "__nothing__"])
def test_names_of_pythons_own_are_unknown_keys(name, tmp_path):
    file = tmp_path / "config.json"
    for config in ({name: 1}, {"model": {name: {"a": 1}}}, {"optim": {"schedule": {name: 1}}}):
        file.write_text(json.dumps(config))
        with pytest.raises(ConfigError, match=f"{name}: is unknown"):
            configs.load(file)
    with pytest.raises(ConfigError, match=f"model.{name}: is unknown"):
        configs.override({"model": {"name": "mlp"}}, {f"model.{name}": 1})
