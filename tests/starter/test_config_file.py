"""The written file: it loads to the values that it was given, and runs none of the data's text."""

from __future__ import annotations

import ast
from pathlib import Path

import libcst
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt import config as configs
from jdlopt.config.tree import nested_columns
from jdlopt.starter import config_file
from jdlopt.starter.choose import choose
from jdlopt.starter.facts import Choice, Chosen, Facts, Search, sections
from jdlopt.starter.table_source import nameable

ANY_TEXT = st.one_of(
    st.text(st.characters(), max_size=30),  # surrogates and controls among them
    st.sampled_from(
        [
            '"',
            "'",
            '"""',
            "\\",
            "a\nimport os",
            "#",
            "x\r",
            "\x0c",
            "\u2028b",
            "\udce9",
            "{0}",
            "%s",
        ]
    ),
    st.text("'\"\\\n\r#{}%\u2028 x", max_size=8),
)
CHOSEN = choose(Facts("table", rows=100, task="classification", outputs=3, numbers=2))


def written(choices: list[Choice], found: list[tuple[str, str]] | None = None) -> str:
    return config_file.text(choices, CHOSEN, found or [], [])


def loaded(text: str, folder: Path) -> dict[str, object]:
    path = folder / "config.py"
    path.write_text(text, "utf-8")
    return configs.to_dict(configs.load(path))


@settings(max_examples=150)
@given(names=st.lists(ANY_TEXT, max_size=4), one=ANY_TEXT, why=ANY_TEXT)
def test_any_names_load_to_the_same_values_and_none_is_code(names, one, why):
    choices = [
        Choice("data.source", one, why),
        Choice("data.target", one, f"{why}\n  {one}"),
        Choice("data.ignore", tuple(names), f"left out: {names}"),
        Choice("data.ignore", (*names, one), why, on=False),
        Choice("data.columns", nested_columns(nameable(dict.fromkeys(names, "text"))), why),
        Choice("data.group", one, why, on=False),
        Choice("data.text.stop_words", one, why, on=False),
        *CHOSEN.choices,
    ]
    text = written(choices, [(one, why), (why, one)])
    assert libcst.parse_module(text).code == text
    module = ast.parse(text)
    called = {ast.unparse(node.func) for node in ast.walk(module) if isinstance(node, ast.Call)}
    assert called <= {"ConfigDict", "choice", "uniform", "log_uniform"}
    names_in = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    assert names_in <= {"ConfigDict", "Space", "choice", "uniform", "log_uniform", "config"}
    place: dict[str, object] = {}
    exec(compile(module, "config.py", "exec"), place)
    assert configs.to_dict(place["get_config"]()) == configs.to_dict(sections(choices))


def test_a_file_reads_well(tmp_path):
    columns = tuple(f"a column of a long name, number {place}" for place in range(4))
    choices = [
        Choice("data.source", "birds.csv", "the table"),
        Choice("data.ignore", columns, "left out: they say nothing\n  at all"),
        Choice("data.group", "nest", "Keep them together:", on=False),
        Choice("data.augment.flip", 0.5, on=False),
        Choice("model.name", "mlp"),
    ]
    chosen = Chosen((), (Search("optim.learning_rate", "log_uniform", (1e-4, 1e-2)),), "How fast?")
    text = config_file.text(choices, chosen, [("rows", "12")], [("jdlopt train", "train it:")])
    assert (
        text.partition("def get_config")[2]
        == '''() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "birds.csv",  # the table
            # left out: they say nothing
            #   at all
            "ignore": (
                "a column of a long name, number 0",
                "a column of a long name, number 1",
                "a column of a long name, number 2",
                "a column of a long name, number 3",
            ),
            # Keep them together:
            # "group": "nest",
            # "augment": {"flip": 0.5},
        }
    )
    config.model = ConfigDict(
        {
            "name": "mlp",
        }
    )
    return config


def get_space() -> Space:
    """How fast?"""
    return {
        "optim.learning_rate": log_uniform(0.0001, 0.01, role="nuisance"),
    }
'''
    )
    assert "# Found:\n#   rows  12\n" in text and "#   train it:\n#     jdlopt train\n" in text
    assert loaded(text, tmp_path) == configs.to_dict(sections(choices))


def test_lines_are_no_longer_than_a_hundred_signs():
    found = [("look at", "many words " * 40)]
    why = "what there is to say of it " * 20
    text = written([Choice("data.source", "a.csv", why), *CHOSEN.choices], found)
    assert max(map(len, text.splitlines())) <= config_file.WIDTH


def test_what_is_no_value_of_a_config_is_refused():
    with pytest.raises(TypeError, match="set is no value"):
        config_file.literal({"a"} - set())
