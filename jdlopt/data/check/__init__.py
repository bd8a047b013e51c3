"""What is wrong with a dataset, said before anything is trained on it."""

from jdlopt.data.check.finding import SEVERITIES, Finding, Part
from jdlopt.data.check.source import Check, check_source, check_table_file

__all__ = ["SEVERITIES", "Check", "Finding", "Part", "check_source", "check_table_file"]
