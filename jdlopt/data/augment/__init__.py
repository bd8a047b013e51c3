"""Augmentation: pure functions of a random key, a batch and traced strengths, one in each file.

`AUGMENTATIONS` is what there is; `make_augment` puts together what a config asks for. What an entry
of the table says of itself is what the config's schema, the checks, the catalogue of techniques and
the pages know of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jdlopt import config as configs
from jdlopt.config import NonNegative, Range, Schema
from jdlopt.data.augment.audio.audio_shift import AUDIO_SHIFT
from jdlopt.data.augment.audio.background_noise import BACKGROUND_NOISE
from jdlopt.data.augment.audio.gain import GAIN
from jdlopt.data.augment.audio.spec_masks import SPEC_FREQUENCY_MASK, SPEC_TIME_MASK
from jdlopt.data.augment.audio.speed import SPEED
from jdlopt.data.augment.augmentation import Augmentation, Inputs, inputs_of, unmixable
from jdlopt.data.augment.image.blur import BLUR
from jdlopt.data.augment.image.brightness import BRIGHTNESS
from jdlopt.data.augment.image.contrast import CONTRAST
from jdlopt.data.augment.image.crop import CROP
from jdlopt.data.augment.image.cutout import CUTOUT
from jdlopt.data.augment.image.flip import FLIP, FLIP_VERTICAL
from jdlopt.data.augment.image.hue import HUE
from jdlopt.data.augment.image.noise import NOISE
from jdlopt.data.augment.image.posterize import POSTERIZE
from jdlopt.data.augment.image.rand_augment import RAND_AUGMENT
from jdlopt.data.augment.image.resized_crop import RESIZED_CROP
from jdlopt.data.augment.image.rotate import ROTATE
from jdlopt.data.augment.image.saturation import SATURATION
from jdlopt.data.augment.image.shear import SHEAR
from jdlopt.data.augment.image.shift import SHIFT
from jdlopt.data.augment.image.solarize import SOLARIZE
from jdlopt.data.augment.image.stretch import STRETCH
from jdlopt.data.augment.image.trivial_augment import TRIVIAL_AUGMENT
from jdlopt.data.augment.image.zoom import ZOOM
from jdlopt.data.augment.mix.cutmix import CUTMIX
from jdlopt.data.augment.mix.mixup import MIXUP
from jdlopt.data.augment.sequence.feature_mask import FEATURE_MASK
from jdlopt.data.augment.sequence.jitter import JITTER
from jdlopt.data.augment.sequence.scaling import SCALING
from jdlopt.data.augment.sequence.time_mask import TIME_MASK
from jdlopt.data.augment.sequence.time_shift import TIME_SHIFT
from jdlopt.data.augment.sequence.time_warp import TIME_WARP
from jdlopt.data.augment.text.synonyms import SYNONYMS
from jdlopt.data.augment.text.token_dropout import TOKEN_DROPOUT
from jdlopt.data.augment.text.token_swap import TOKEN_SWAP
from jdlopt.data.preprocess import PreprocessFields
from jdlopt.data.spec import DataSpec
from jdlopt.errors import ConfigError, listing

__all__ = [
    "AUGMENTATIONS",
    "AugmentFields",
    "Augmentation",
    "Inputs",
    "OwnFields",
    "find_own",
    "fitted",
    "fitting",
    "inputs_of",
    "problems",
    "schema",
    "unmixable",
]

AUGMENTATIONS: dict[str, Augmentation] = {
    one.name: one
    for one in (
        # geometry: composed into one map, in this order
        CROP, RESIZED_CROP, FLIP, FLIP_VERTICAL, ROTATE, SHIFT, ZOOM, SHEAR,
        # raw: before preprocessing
        BRIGHTNESS, CONTRAST, SATURATION, HUE, STRETCH, SOLARIZE, POSTERIZE, BLUR, NOISE,
        RAND_AUGMENT, TRIVIAL_AUGMENT, CUTOUT,
        AUDIO_SHIFT, SPEED, BACKGROUND_NOISE, GAIN,
        TOKEN_DROPOUT, TOKEN_SWAP, SYNONYMS,
        # features: after preprocessing
        SPEC_TIME_MASK, SPEC_FREQUENCY_MASK,
        JITTER, SCALING, TIME_SHIFT, TIME_WARP, TIME_MASK, FEATURE_MASK,
        # mix
        MIXUP, CUTMIX,
    )
}  # fmt: skip
"""Every augmentation by the name of its key in ``data.augment``, in the order of their use."""


@dataclass(frozen=True)
class AugmentFields:
    """The keys of ``data.augment`` that belong to no entry of `AUGMENTATIONS`.

    Attributes:
      alternating_flip: flip each image every other epoch, starting with a random half of them.
    """

    alternating_flip: bool = False


@dataclass(frozen=True)
class OwnFields:
    """The keys of each section of ``data.augment.own`` that all share.

    Attributes:
      name: one more of `AUGMENTATIONS`, or yours as ``package.module:name``: an `Augmentation`, or
        a function alone, which is called as ``(key, inputs, strength)`` on preprocessed inputs.
      strength: its strength.
    """

    name: str
    strength: NonNegative


def find_own(path: object, what: str) -> Augmentation:
    """Returns the augmentation that a name or ``package.module:name`` means.

    A function is taken as an entry of its own.

    Raises:
      ConfigError: there is none.
    """
    found = configs.find_part(path, AUGMENTATIONS, what, Augmentation)
    if isinstance(found, Augmentation):
        return found
    return Augmentation(name=getattr(found, "__name__", str(path)), apply=found)


def schema(section: object, problems: list[str]) -> Schema:
    """Returns every key that a ``data.augment`` section may have; notes unknown names in it.

    Args:
      section: as the user gave it; ``own`` says which augmentations of the user's there are.
      problems: messages are appended here.
    """
    keys: Schema = {name: part.strength_field() for name, part in AUGMENTATIONS.items()}
    for part in AUGMENTATIONS.values():
        keys.update(part.fields())
    own = section.get("own", {}) if isinstance(section, Mapping) else {}
    sections = own if isinstance(own, Mapping) else {}
    owns: Schema = {label: _own_schema(label, given, problems) for label, given in sections.items()}
    return {**keys, **configs.fields_of(AugmentFields), "own": owns}


def _own_schema(label: str, given: object, problems: list[str]) -> Schema:
    """Returns the keys of one section of ``data.augment.own``."""
    what = f"data.augment.own.{label}"
    shared = configs.fields_of(OwnFields)
    name = given.get("name") if isinstance(given, Mapping) else None
    if name is None:
        return dict(shared)
    try:
        part = find_own(configs.text_of(name), f"{what}.name")
        limit = Range(0.0, part.high)
        return {**shared, "strength": replace(shared["strength"], range=limit), **part.fields()}
    except ConfigError as error:
        problems.append(str(error))
    except (TypeError, ValueError, NameError, AttributeError) as error:
        problems.append(f"{what}.name {name!r}: its parameters can't be read: {error}.")
    anything = configs.Field((Any,), None)  # which other keys there may be is not known
    return dict.fromkeys((*shared, *(given if isinstance(given, Mapping) else ())), anything)


def fitting(inputs: Inputs) -> dict[str, Augmentation]:
    """Returns the augmentations that fit some inputs.

    Example:
      >>> list(fitting(Inputs((30,), "float32", "table")))[:3]
      ['jitter', 'scaling', 'time_shift']
    """
    return {name: part for name, part in AUGMENTATIONS.items() if part.misfit(inputs) is None}


def fitted(section: Mapping[str, Any], inputs: Inputs) -> dict[str, object]:
    """Returns a resolved ``data.augment`` without what does not fit some inputs."""
    unfit = [name for name, part in AUGMENTATIONS.items() if part.misfit(inputs) is not None]
    own = {
        label: given
        for label, given in section["own"].items()
        if find_own(given["name"], f"data.augment.own.{label}.name").misfit(inputs) is None
    }
    flips = section.get("alternating_flip", False) and "image" in inputs.kinds()
    return {**section, **dict.fromkeys(unfit), "own": own, "alternating_flip": flips}


def problems(section: Mapping[str, Any], spec: DataSpec, preprocess: PreprocessFields) -> list[str]:
    """Says in words which augmentations of a section can't be used on a dataset."""
    every = [inputs_of(spec, preprocess, one) for one in spec.named.values()]
    shapes = " and ".join(f"{one.dtype} inputs of shape {one.shape}" for one in every)
    shape = f"{shapes} of {spec.name!r}"
    asked = {name: part for name, part in AUGMENTATIONS.items() if section.get(name) is not None}
    for label, given in section.get("own", {}).items():
        where = f"own.{label}"
        asked[where] = find_own(given["name"], f"data.augment.{where}.name")
    found = []
    for name, part in asked.items():
        misfits = [why for one in every if (why := part.misfit(one)) is not None]
        own = name not in AUGMENTATIONS
        if unmixable(part, every):
            why = f"can't mix all {len(every)} inputs alike"
            found.append(f"data.augment.{name}: {why}: {shape}. Leave it out.")
        elif part.stage == "mix" and spec.positions:
            why = "mixes the targets of examples; these have a class at each position"
            found.append(f"data.augment.{name}: {why}. Leave it out.")
        elif spec.positions == 2 and part.stage == "geometry" and (own or len(every) > 1):
            why = "moves masks with their images as a key of its own, of one input"
            found.append(f"data.augment.{name}: {why}. Leave it out.")
        elif len(misfits) == len(every):
            fit = listing(dict.fromkeys(name for one in every for name in fitting(one)))
            found.append(f"data.augment.{name}: {misfits[0]}: {shape}. Those that fit: {fit}.")
        found += [
            f"data.augment.{name}: needs data.augment.{key}."
            for key in part.requires
            if section.get(key) is None
        ]
    if section.get("alternating_flip") and not any("image" in one.kinds() for one in every):
        found.append(f"data.augment.alternating_flip: is for images, not for {shape}.")
    return found
