"""Experiments as data: load a config, override, check against signatures, fingerprint, save."""

from jdlopt.config.checking import check_section, check_value, raise_problems, settled
from jdlopt.config.files import load
from jdlopt.config.overrides import References, override
from jdlopt.config.parts import Allowed, find_part, is_path, paths_in, refuse_code
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
    Choice,
    Count,
    Field,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Range,
    Rate,
    Required,
    Schema,
    field_of,
    fields_of,
)
from jdlopt.config.sections import Value, own_keys, section_of, shared_keys
from jdlopt.config.traced import TRACED_SECTIONS, fingerprint, hyperparameters, structure
from jdlopt.config.tree import AnyConfig, dumps, flat, to_dict, tuples
from jdlopt.config.values import Override, PartName

__all__ = [
    "TRACED_SECTIONS",
    "Allowed",
    "AnyConfig",
    "Choice",
    "Count",
    "Field",
    "Fraction",
    "Natural",
    "NonNegative",
    "Override",
    "PartName",
    "Positive",
    "Range",
    "Rate",
    "References",
    "Required",
    "Schema",
    "Value",
    "check_section",
    "check_value",
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
    "is_path",
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
    "to_dict",
    "tuples",
    "with_values",
]
