"""A resolved config as dataclasses: it says the same as its nested dicts."""

import dataclasses
import json

import pytest

from jdlopt import config as configs
from jdlopt import losses, models, optim
from jdlopt.errors import ConfigError
from jdlopt.train.schema import Config, schema_of

BASE = {"data": {"source": "iris"}, "model": {"name": "mlp"}}
PARTS = [
    *({"model": {"name": name}} for name in models.MODELS),
    *({"loss": {"name": name}} for name in losses.LOSSES),
    *({"optim": {"name": name}} for name in optim.OPTIMIZERS),
    *({"optim": {"schedule": {"name": name}}} for name in optim.SCHEDULES),
    *({"optim": {"average": {"name": name}}} for name in optim.AVERAGES),
]
GROUPS = {
    "head": {"params": ("head",), "layer_decay": 0.5},
    "body": {"params": ("layer",), "name": "momentum", "momentum": 0.8},
}


def checked(raw):
    problems: list[str] = []
    values = configs.check_section(raw, schema_of(raw, problems), "", problems)
    assert not [problem for problem in problems if "missing" not in problem]
    return values


@pytest.mark.parametrize("part", PARTS, ids=lambda part: str(part))
def test_a_config_of_every_part_says_what_its_dicts_say(part):
    values = checked({**BASE, **part})
    config = Config.from_dict(values)
    assert json.dumps(config.to_dict()) == json.dumps(values)
    assert configs.fingerprint(config) == configs.fingerprint(values)
    assert configs.hyperparameters(config) == configs.hyperparameters(values)
    assert Config.from_dict(json.loads(configs.dumps(config))) == config


def test_a_group_without_a_name_and_one_with_its_own_optimizer():
    values = checked({**BASE, "optim": {"name": "adamw", "groups": GROUPS}})
    config = Config.from_dict(values)
    assert config.optim.weight_decay == values["optim"]["weight_decay"]
    assert config.optim.groups["head"].layer_decay == 0.5
    assert config.optim.groups["body"].options == {"momentum": 0.8}
    assert json.dumps(config.to_dict()) == json.dumps(values)


def test_a_part_s_own_keys_are_a_mapping_and_shared_ones_are_typed():
    config = Config.from_dict(
        checked({**BASE, "data": {"source": "iris", "augment": {"mixup": 1}}})
    )
    assert config.model.options["features"] == checked(BASE)["model"]["features"]
    assert (config.train.patience, config.data.batch_size, config.mesh.fsdp) == (None, 100, 1)
    assert config.data.augment["mixup"] == 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]


def test_what_a_saved_config_lacks_has_its_default():
    config = Config.from_dict(BASE)
    assert config.data.preprocess.missing == "none"
    assert config.optim == optim.OptimFields()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({**BASE, "train": {"patiense": 3}}, r"train\.patiense: is unknown\. Did you mean"),
        ({**BASE, "tranin": {}}, r"tranin: is unknown\. Did you mean 'train'"),
        ({"data": {}, "model": {"name": "mlp"}}, r"data\.source: is missing"),
    ],
)
def test_a_key_that_no_section_has_or_lacks_is_named(values, says):
    with pytest.raises(ConfigError, match=says):
        Config.from_dict(values)
