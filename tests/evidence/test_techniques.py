"""The catalogue: every change resolves on every shipped config that it applies to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jdlopt import cli
from jdlopt import config as configs
from jdlopt.data.augment import AUGMENTATIONS
from jdlopt.errors import UserError
from jdlopt.evidence import techniques
from jdlopt.evidence.sides import side_of
from jdlopt.optim.average import AVERAGES
from jdlopt.optim.optimizers import OPTIMIZERS
from jdlopt.optim.schedules import SCHEDULES

FILES = [
    "tabular/iris_mlp",
    pytest.param("image/digits_cnn", marks=pytest.mark.slow),
    pytest.param("sequence/mnist1d_mlp", marks=pytest.mark.slow),
    pytest.param("sequence/mnist1d_gru", marks=pytest.mark.slow),
    pytest.param("tabular/diabetes_mlp", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=FILES)
def shipped(request):
    raw = configs.override(configs.load(f"configs/{request.param}.py"), {"mesh.data": 1})
    side = side_of(raw)
    return side, techniques.facts_of(side.config, side.dataset)


def test_every_change_resolves_and_changes_something(shipped) -> None:
    side, facts = shipped
    found = techniques.applicable(side.config, facts)
    assert len(found) > 25
    for one in found:
        for change in techniques.change(one.name, side.config, facts):
            changed = side_of(side.raw, change, like=side)
            assert changed.config != side.config, one.name
            flat = configs.flat(changed.config)
            for key, value in change.items():
                assert flat.get(key) == value, (one.name, key)
            assert all(key in flat for key in one.nuisance), one.name


def test_what_does_not_apply_says_why(shipped) -> None:
    side, facts = shipped
    for one in techniques.TECHNIQUES.values():
        reason = techniques.why_not(one, side.config, facts)
        if reason is not None:
            assert reason.endswith("."), one.name
            with pytest.raises(UserError, match="can't be used on this config"):
                techniques.change(one.name, side.config, facts)


def test_every_part_has_an_entry() -> None:
    known = set(techniques.TECHNIQUES)
    assert set(AUGMENTATIONS) <= known
    assert {f"optimizer_{name}" for name in OPTIMIZERS} <= known
    assert {f"schedule_{name}" for name in SCHEDULES} <= known
    assert {f"average_{name}" for name in AVERAGES if name != "none"} <= known


def test_entries_are_well_formed() -> None:
    for one in techniques.TECHNIQUES.values():
        assert one.group in techniques.GROUPS and set(one.aims) <= set(techniques.AIMS)
        assert one.aims and 0 <= one.prior <= 1 and one.summary.endswith(".") and one.source


def test_what_regularises_can_be_taken_away_again(shipped) -> None:
    side, facts = shipped
    key = "model.dropout_rate"
    asked = {key: 0.4, "optim.name": "adamw", "optim.weight_decay": 0.1}
    config = side_of(side.raw, asked, like=side).config
    assert techniques.change("less_dropout", config, facts) == ({key: None}, {key: 0.2})
    off, weaker = techniques.change("less_weight_decay", config, facts)
    assert off["optim.weight_decay"] is None and weaker["optim.weight_decay"] == 0.01
    for change in (off, weaker):
        changed = side_of(config, change, like=side).config
        assert changed.optim.weight_decay == change["optim.weight_decay"]
    plain = side_of(side.raw, {key: None}, like=side).config
    reason = techniques.why_not(techniques.find("less_dropout"), plain, facts)
    assert reason is not None and "nothing to take away" in reason


def test_weights_fix_the_structure_that_they_are_of(shipped) -> None:
    side, facts = shipped
    config = side.config
    model = replace(config.model, pretrained="runs/first")
    names = {one.name for one in techniques.applicable(replace(config, model=model), facts)}
    groups = {techniques.find(name).group for name in names}
    assert "structure" not in groups
    assert not names & {"pca", "embed_categories", "piecewise_linear", "tabm"}
    assert {"freeze_body", "layer_decay", "adapters"} <= names


def test_widths_of_single_layers_are_scaled_with_the_others_and_fix_the_depth() -> None:
    section = {"name": "tcn", "features": (16, 24), "block_features": (8, 40)}
    sliced, plain = {"model": section}, {"model": {**section, "block_features": None}}
    (half,) = techniques.TECHNIQUES["narrower"].changes(sliced, None)
    assert half == {"model.features": (8, 12), "model.block_features": (4, 20)}
    for name in ("deeper", "shallower"):
        assert techniques.TECHNIQUES[name].changes(plain, None)
        assert not techniques.TECHNIQUES[name].changes(sliced, None)


def test_transfer_needs_something_to_transfer(shipped) -> None:
    side, facts = shipped
    names = {one.name for one in techniques.applicable(side.config, facts)}
    assert "freeze_body" not in names and "adapters" not in names


def test_colours_are_changed_where_there_are_colours() -> None:
    raw = configs.load("configs/image/digits_cnn.py")
    side = side_of(configs.override(raw, {"mesh.data": 1}))
    facts = techniques.facts_of(side.config, side.dataset)
    colours = {"saturation", "hue"}
    grey = {one.name for one in techniques.applicable(side.config, facts)}
    assert "brightness" in grey and not colours & grey
    (only,) = facts.inputs.values()
    coloured = facts._replace(inputs={"input": only._replace(shape=(*only.shape[:2], 3))})
    assert colours <= {one.name for one in techniques.applicable(side.config, coloured)}


def test_an_unknown_name_has_a_nearest_one() -> None:
    with pytest.raises(UserError, match="Did you mean 'label_smoothing'"):
        techniques.find("label_smothing")


def test_the_command_line_lists_them(capsys) -> None:
    assert cli.main(["techniques", "--json", "--group=regularisation"]) == 0
    found = json.loads(capsys.readouterr().out)["techniques"]
    assert "dropout" in [one["name"] for one in found]
    file = "configs/tabular/iris_mlp.py"
    assert cli.main(["techniques", f"--config={file}", "--json"]) == 0
    rows = {one["name"]: one for one in json.loads(capsys.readouterr().out)["techniques"]}
    assert rows["dropout"]["changes"][0] == {"model.dropout_rate": 0.2}
    assert "image" in rows["equalize"]["why_not"]
    assert cli.main(["techniques", "--group=regularization"]) == 2
    assert "Did you mean 'regularisation'" in capsys.readouterr().err


def test_the_page_is_up_to_date() -> None:
    import runpy

    module = runpy.run_path("docs/make_techniques.py")
    assert Path("docs/techniques.md").read_text(encoding="utf-8") == module["page"]()
