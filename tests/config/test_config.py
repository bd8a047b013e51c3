"""Loading, overriding and checking configs."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jdlopt import config as configs
from jdlopt.cli import split_overrides
from jdlopt.config import Choice, Count, Field, Override, Positive, Rate, fields_of
from jdlopt.config.overrides import is_reserved
from jdlopt.errors import ConfigError


def part(
    data,
    *,
    rate: Rate = 0.1,
    width: Count = 3,
    sizes: tuple[int, ...] = (1, 2),
    activation: Annotated[str, Choice(("relu", "gelu"))] = "relu",
    clip: Positive | None = None,
    flag: bool = False,
):
    """A stand-in for a part."""


def checked(**values):
    problems: list[str] = []
    found = configs.check_section(values, dict(fields_of(part)), "part", problems)
    return found, problems


def test_defaults_come_from_the_signature():
    found, problems = checked()
    assert not problems
    assert found == {
        "rate": 0.1, "width": 3, "sizes": (1, 2), "activation": "relu", "clip": None, "flag": False,
    }  # fmt: skip


def test_an_int_serves_where_a_float_is_asked_for_and_becomes_one():
    found, problems = checked(clip=1)
    assert not problems and found["clip"] == 1.0 and type(found["clip"]) is float


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rat": 0.1}, ["part.rat", "unknown", "'rate'"]),
        ({"rate": 1.0}, ["part.rate", "[0, 1)", "1.0"]),
        ({"rate": -0.1}, ["part.rate", "[0, 1)"]),
        ({"rate": float("nan")}, ["part.rate", "finite"]),
        ({"rate": "high"}, ["part.rate", "float", "str", "'high'"]),
        ({"width": 2.5}, ["part.width", "int", "float 2.5"]),
        ({"width": 0}, ["part.width", "at least 1"]),
        ({"width": True}, ["part.width", "int", "bool"]),
        ({"sizes": (1, "a")}, ["part.sizes", "tuple of int"]),
        ({"activation": "rellu"}, ["part.activation", "'rellu'", "Did you mean 'relu'"]),
        ({"flag": 1}, ["part.flag", "bool", "int 1"]),
    ],
)
def test_what_is_wrong_is_said_in_words(values, words):
    _, problems = checked(**values)
    assert len(problems) == 1
    for word in words:
        assert word in problems[0]


def test_all_problems_come_in_one_message():
    _, problems = checked(rat=1, width=0, activation="x")
    with pytest.raises(ConfigError) as caught:
        configs.raise_problems(problems)
    message = str(caught.value)
    assert "3 problems" in message and all(key in message for key in ("rat", "width", "activation"))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("rate", "0.5", 0.5),
        ("rate", "0", 0.0),
        ("rate", "5e-1", 0.5),
        ("width", "7", 7),
        ("width", "1e3", 1000),
        ("sizes", "(3,4)", (3, 4)),
        ("sizes", "3,4", (3, 4)),
        ("sizes", "3", (3,)),
        ("sizes", "[3, 4]", (3, 4)),
        ("activation", "gelu", "gelu"),
        ("clip", "None", None),
        ("clip", "2", 2.0),
        ("flag", "true", True),
        ("flag", "False", False),
    ],
)
def test_overrides_are_read_as_their_keys_type(key, text, value):
    found, problems = checked(**{key: Override(text)})
    assert not problems
    assert found[key] == value and type(found[key]) is type(value)


def test_a_string_key_takes_a_number_as_text():
    problems: list[str] = []
    assert configs.check_value(Override("3"), Field((str,)), "data.target", problems) == "3"
    assert not problems


scalars = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=8),
)
keys = st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=6)
trees = st.recursive(
    scalars, lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=4), max_leaves=12
)


@given(st.dictionaries(keys, trees, max_size=5))
def test_a_saved_config_loads_as_it_was(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("saved") / "config.json"
    path.write_text(configs.dumps(tree))
    assert configs.to_dict(configs.load(path)) == configs.to_dict(tree)


@given(st.floats(0.001, 1), st.floats(0.001, 1), st.integers(1, 9), st.integers(1, 9))
def test_the_fingerprint_sees_structure_and_not_floats(rate, other, width, wider):
    def config(rate, width, seed):
        return {
            "seed": seed,
            "data": {"validation_fraction": 0.2, "augment": {}},
            "model": {"dropout_rate": rate, "width": width},
            "loss": {},
            "optim": {"schedule": {"end": rate}},
        }

    same = configs.fingerprint(config(other, width, 1))
    assert configs.fingerprint(config(rate, width, 0)) == same
    assert (configs.fingerprint(config(rate, wider, 0)) == same) == (wider == width)


def test_dropping_a_float_changes_the_structure():
    with_rate = {"model": {"dropout_rate": 0.1}, "data": {}}
    without = {"model": {"dropout_rate": None}, "data": {}}
    assert configs.fingerprint(with_rate) != configs.fingerprint(without)


def test_hyperparameters_are_the_floats_of_the_traced_sections():
    tree = {
        "seed": 1,
        "data": {"validation_fraction": 0.2, "augment": {"strength": 0.5}},
        "model": {"name": "mlp", "dropout_rate": 0.1, "sizes": (1, 2)},
        "loss": {"l1": None},
        "optim": {"learning_rate": 0.1, "schedule": {"end": 0.0, "warmup_steps": 3}},
        "train": {"x": 1.5},
    }
    assert configs.hyperparameters(tree) == {
        "model": {"dropout_rate": 0.1},
        "loss": {},
        "optim": {"learning_rate": 0.1, "schedule": {"end": 0.0}},
        "augment": {"strength": 0.5},
    }


def write(path, text):
    path.write_text(text)
    return path


def test_a_config_file_takes_an_argument(tmp_path):
    file = write(
        tmp_path / "c.py",
        "def get_config(size='small'):\n    return {'model': {'name': size}}\n",
    )
    assert configs.load(file).model.name == "small"
    assert configs.load(f"{file}:large").model.name == "large"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:\n", ["SyntaxError", "line 1"]),
        ("x = 1\n", ["get_config"]),
        ("def get_config():\n    return 3\n", ["int"]),
        ("def get_config():\n    y = 2\n    return {'a': undefined}\n", ["NameError", "line 3"]),
        ("import not_a_module_at_all\n", ["ModuleNotFoundError", "line 1"]),
    ],
)
def test_a_broken_config_file_names_its_line(tmp_path, text, words):
    file = write(tmp_path / "broken.py", text)
    with pytest.raises(ConfigError) as caught:
        configs.load(file)
    assert "broken.py" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_names_the_nearest(tmp_path):
    write(tmp_path / "mnist1d.py", "")
    with pytest.raises(ConfigError, match=r"mnist1d\.py"):
        configs.load(tmp_path / "mnist1.py")


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "\x00"])
def test_broken_json_is_an_error_for_people(tmp_path, text):
    file = write(tmp_path / "best.json", text)
    with pytest.raises(ConfigError, match=r"best\.json"):
        configs.load(file)


def test_json_lists_become_tuples(tmp_path):
    file = write(tmp_path / "c.json", json.dumps({"a": {"b": [1, 2]}}))
    assert configs.load(file).a.b == (1, 2)


def test_overriding_a_section_or_below_a_value_is_refused():
    with pytest.raises(ConfigError, match="is a section"):
        configs.override({"optim": {"name": "sgd"}}, {"optim": Override("adam")})
    with pytest.raises(ConfigError, match="not a section"):
        configs.override({"seed": 1}, {"seed.x": Override("1")})


def wide(*, width: Count = 3, depth: Count = 1):
    """Another part: `part`'s ``width``, and a key of its own."""


PARTS = {"one": part, "wide": wide}


def resolved(raw):
    """Returns the section ``a.b`` with the keys of the part that it names, and what is wrong."""
    raw = configs.to_dict(raw)
    section = raw["a"]["b"]
    name = getattr(section["name"], "text", section["name"])
    schema = {"name": Field((str,)), **configs.fields_of(PARTS[name])}
    problems: list[str] = []
    return configs.check_section(raw, {"a": {"b": schema}}, "", problems)["a"]["b"], problems


@pytest.mark.parametrize("name", ["wide", Override("wide")])
def test_keys_of_a_part_that_is_replaced_are_left_out_with_a_warning(name):
    raw = {"a": {"b": {"name": "one", "rate": 0.2, "sizes": (1,), "width": 7}}}
    with pytest.warns(UserWarning, match=r"a.b.name: the config's rate, sizes are .* fit 'wide'"):
        found, problems = resolved(configs.override(raw, {"a.b.name": name}))
    assert (found, problems) == ({"name": "wide", "width": 7, "depth": 1}, [])
    assert type(found["name"]) is str


@pytest.mark.parametrize("steps", [1, 2])
def test_a_key_that_is_set_itself_is_never_left_out(steps):
    raw = {"a": {"b": {"name": "one", "rate": 0.2}}}
    changes = [("a.b.name", "wide"), ("a.b.rate", 0.3), ("a.b.depth", 2)]
    if steps == 1:
        changed = configs.override(raw, dict(reversed(changes)))
    else:
        changed = configs.override(configs.override(raw, dict(changes[:1])), dict(changes[1:]))
    found, problems = resolved(changed)
    assert found["depth"] == 2 and len(problems) == 1 and "a.b.rate: is unknown" in problems[0]


def test_naming_the_same_part_again_leaves_nothing_out():
    raw = {"a": {"b": {"name": "wide", "rate": 0.2}}}
    for name in ("wide", Override("wide")):
        assert "a.b.rate: is unknown" in resolved(configs.override(raw, {"a.b.name": name}))[1][0]
    twice = configs.override(raw, {"a.b.name": "one"})
    assert resolved(configs.override(twice, {"a.b.name": "one"}))[0]["rate"] == 0.2


def test_a_value_that_is_of_another_type_in_the_new_part_is_left_out():
    raw = {"a": {"b": {"name": "one", "width": (2, 3)}}}  # as another part may have it
    with pytest.warns(UserWarning, match="config's width are"):
        assert resolved(configs.override(raw, {"a.b.name": "wide"}))[0]["width"] == 3


@pytest.mark.parametrize(
    ("name", "word"),
    [("mlpp", "'mlp'"), ("no_such_module:X", "importing"), ("json:dumpss", "'dumps'")],
)
def test_an_unknown_part_names_the_nearest(name, word):
    with pytest.raises(ConfigError, match=word):
        configs.find_part(name, {"mlp": part}, "model.name")


def test_a_dotted_path_brings_a_part():
    assert configs.find_part("json:dumps", {}, "model.name") is json.dumps


def test_a_settled_config_is_plain_values_and_resolves_to_the_same():
    schema = {"b": {"name": Field((str,)), **configs.fields_of(part)}, "n": Field((int,), 0)}
    texts = {"b.name": Override("one"), "b.rate": Override("3e-1"), "n": Override("4")}
    raw = {"b": {"name": "old", "sizes": [3], "depth": 2}, "n": 1}
    changed = configs.to_dict(configs.override(raw, texts))
    with pytest.warns(UserWarning, match="config's depth are"):
        settled = configs.settled(changed, schema)
    assert settled == {"b": {"name": "one", "sizes": (3,), "rate": 0.3}, "n": 4}
    assert json.loads(json.dumps(settled)) == {**settled, "b": {**settled["b"], "sizes": [3]}}
    with pytest.warns(UserWarning, match="config's depth are"):
        expected = configs.check_section(changed, schema, "", [])
    assert configs.check_section(settled, schema, "", []) == expected


NAMES = st.text(st.characters(codec="utf-8") | st.sampled_from(".= '\""), min_size=1, max_size=8)


@given(NAMES.filter(lambda name: not any(map(is_reserved, name.split(".")))))
def test_a_columns_name_is_whole_whatever_signs_it_holds(name):
    words, overrides = split_overrides([f"--config.data.columns.{name}=text"])
    assert not words and overrides == {f"data.columns.{name}": "text"}
    assume(not f"{name}.".startswith("other."))
    given = configs.override({"data": {"columns": {"other": "image"}}}, overrides)
    assert configs.to_dict(given)["data"]["columns"] == {"other": "image", name: "text"}
    again = configs.override(configs.to_dict(given), {f"data.columns.{name}": "number"})
    assert configs.to_dict(again)["data"]["columns"] == {"other": "image", name: "number"}
    assert configs.flat(again)[f"data.columns.{name}"] == "number"


def test_columns_that_begin_as_another_one_are_refused():
    for columns in ({"a": "text", "a.b": "text"}, {"a.b": "text", "a": "text"}):
        with pytest.raises(ConfigError, match=r"data\.columns: 'a(\.b)?' can't be named beside"):
            configs.override({"data": {"columns": columns}}, {})
