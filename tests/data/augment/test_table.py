"""The table of augmentations: what an entry says is what the schema and the catalogue know."""

from __future__ import annotations

from jdlopt import config as configs
from jdlopt.data.augment import AUGMENTATIONS, schema
from jdlopt.data.augment.augmentation import Inputs
from jdlopt.evidence.techniques import TECHNIQUES


def test_an_entry_says_all_that_others_know_of_it():
    keys = schema({}, [])
    for name, part in AUGMENTATIONS.items():
        assert part.name == name and part.fits and part.first and part.source and part.strength
        assert 0 <= part.prior <= 1
        problems: list[str] = []
        for strength in part.first:
            configs.check_value(strength, keys[name], name, problems)
        assert problems == [] and set(part.requires) <= set(part.fields())
        technique = TECHNIQUES[name]
        assert (technique.prior, technique.source) == (part.prior, part.source)
        assert part.strength in technique.summary
        for key, field in part.fields().items():  # a key that several have means the same to all
            assert keys[key] == field, (name, key)
    moved = [part.stage for part in AUGMENTATIONS.values()]
    assert sorted(moved, key=["geometry", "raw", "features", "mix"].index) == moved


def test_kinds_of_inputs_say_what_fits():
    sound = Inputs((800,), "float32", "audio", features=True)
    assert AUGMENTATIONS["spec_time_mask"].misfit(sound) is None
    assert AUGMENTATIONS["spec_time_mask"].misfit(sound._replace(features=False)) == "does not fit"
    floats = Inputs((8, 8, 3), "float32", "image")
    assert "uint8" in str(AUGMENTATIONS["hue"].misfit(floats))
    assert AUGMENTATIONS["hue"].misfit(floats._replace(dtype="uint8")) is None
