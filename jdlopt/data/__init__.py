"""Datasets: open one by name or path, split it, describe it, and scale its inputs."""

from jdlopt.data.dataset import Dataset
from jdlopt.data.describe import describe, list_datasets
from jdlopt.data.fields import DataFields
from jdlopt.data.inputs import Inputs, read_inputs
from jdlopt.data.pools import Arrays
from jdlopt.data.preprocess import PreprocessFields
from jdlopt.data.source import open_dataset

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
]
