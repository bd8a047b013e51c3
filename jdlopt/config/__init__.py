"""Experiments as data: load a config, override, check against signatures, fingerprint, save."""

from typing import TYPE_CHECKING

from jdlopt.config.checking import check_section, check_value, raise_problems, settled
from jdlopt.config.files import load
from jdlopt.config.overrides import References, override
from jdlopt.config.parts import Allowed, code_in, find_part, paths_in, refuse_code
from jdlopt.config.python_file import (
    execute,
    explained,
    folders_for_workers,
    make_importable,
    make_importable_again,
    split_argument,
)
from jdlopt.config.references import with_values
from jdlopt.config.schema import (
    LARGEST_SEED,
    Choice,
    Count,
    Field,
    Natural,
    OptionalSection,
    Range,
    Required,
    Schema,
    Seed,
    field_of,
    fields_of,
)
from jdlopt.config.sections import Value, own_keys, section_of, shared_keys
from jdlopt.config.traced import TRACED_SECTIONS, fingerprint, hyperparameters, structure
from jdlopt.config.tree import AnyConfig, dumps, flat, to_dict, tuples
from jdlopt.config.values import Override, PartName, text_of

if TYPE_CHECKING:
    from jdlopt.config.scalars import Fraction, NonNegative, Positive, Rate, Scalar

__all__ = [
    "LARGEST_SEED",
    "TRACED_SECTIONS",
    "Allowed",
    "AnyConfig",
    "Choice",
    "Count",
    "Field",
    "Fraction",
    "Natural",
    "NonNegative",
    "OptionalSection",
    "Override",
    "PartName",
    "Positive",
    "Range",
    "Rate",
    "References",
    "Required",
    "Scalar",
    "Schema",
    "Seed",
    "Value",
    "check_section",
    "check_value",
    "code_in",
    "dumps",
    "execute",
    "explained",
    "field_of",
    "fields_of",
    "find_part",
    "fingerprint",
    "flat",
    "folders_for_workers",
    "hyperparameters",
    "load",
    "make_importable",
    "make_importable_again",
    "override",
    "own_keys",
    "paths_in",
    "raise_problems",
    "refuse_code",
    "section_of",
    "settled",
    "shared_keys",
    "split_argument",
    "structure",
    "text_of",
    "to_dict",
    "tuples",
    "with_values",
]


def __getattr__(name: str) -> object:
    """Loads a type of traced hyperparameters, which needs jax; no verb's help does."""
    if name not in ("Fraction", "NonNegative", "Positive", "Rate", "Scalar"):
        raise AttributeError(f"module 'jdlopt.config' has no attribute {name!r}")
    from jdlopt.config import scalars

    return getattr(scalars, name)
