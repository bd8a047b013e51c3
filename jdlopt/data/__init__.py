"""Datasets: open one by name or path, split it, describe it, and scale its inputs."""

from jdlopt.data.dataset import Arrays, Dataset
from jdlopt.data.describe import describe, list_datasets
from jdlopt.data.inputs import Inputs, read_inputs, read_table_inputs
from jdlopt.data.preprocess import PreprocessFields
from jdlopt.data.source import DataFields, open_dataset

__all__ = [
    "Arrays",
    "DataFields",
    "Dataset",
    "Inputs",
    "PreprocessFields",
    "describe",
    "list_datasets",
    "open_dataset",
    "read_inputs",
    "read_table_inputs",
]
