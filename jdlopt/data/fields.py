"""The keys of a config's ``data`` section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from jdlopt.config import Choice, Count, Natural, Range, Seed, Value, own_keys
from jdlopt.data.damage import ON_BAD, ON_MISSING
from jdlopt.data.preprocess.recipe import PreprocessFields
from jdlopt.data.sampling import SAMPLING
from jdlopt.data.target_texts import TargetTextFields
from jdlopt.data.text import TextFields

Share = Annotated[float, Range(0, 1, low_open=True, high_open=True)]
Seconds = Annotated[float, Range(0, low_open=True)]
BOTH = "train_and_validation"
TRAINED_ON = ("train", BOTH)
COLUMN_KEYS = (
    "target",
    "ignore",
    "id",
    "group",
    "time",
    "weight",
    "split_by",
    "text_column",
    "categorical",
    "columns",
)
"""The keys that name a table's columns or a TFDS dataset's features."""


@dataclass(frozen=True)
class DataFields:
    """The ``data`` section of a config.

    Attributes:
      source: a bundled dataset's name, a file (.csv, .tsv, .parquet, .jsonl, .npz, .conll; of
        ``task='seq2seq'`` also one of lines), a folder of images (with masks or without), sounds or
        texts, a TFDS name such as ``mnist`` or ``name/config:1.0.0``, or ``package.module:name``, a
        function of yours that returns arrays. A path that looks like a name is written with ``./``
        before it.
      validation_source, test_source: of a table, the files that hold these splits; their columns
        are found by name. What is not named is taken out of ``source``.
      target: the column or feature to predict, or several of them: numbers, or labels that are 0
        or 1. A TFDS dataset knows its own; a folder's ``labels.csv`` has them in all its columns.
        Where ``source`` is a file of lines, the file of their targets, a line each.
      label_delimiter: what stands between the labels of an example where one text holds them, such
        as ``|``; an empty text holds none.
      text_column: the column or feature of texts that is then the only input, as tokens; see
        ``data.text``. A TFDS dataset whose input is a text needs none. Of a CoNLL file, the number
        of the column of words; ``target`` is that of the tags.
      task: ``classification`` (one class an example), ``multilabel`` (any number of labels),
        ``regression`` (one number or several), ``token_classification`` (a tag for each word),
        ``segmentation`` (a class at each pixel), ``seq2seq`` (a text to be written from another),
        ``transcription`` (what is said in a sound), ``next_token`` (what comes next in texts),
        ``pairs`` (which of two inputs belong together), or ``package.module:TASK``, a
        `jdlopt.tasks.Task` of your own. ``auto`` infers one of the first three from the targets,
        and takes a folder of images with masks for ``segmentation``.
      beam_width: of ``transcription``; how many beginnings of a text are followed when outputs are
        decoded for predictions and reports; 1 takes the likeliest class of each step, as ``wer``
        and ``cer`` always do.
      positive: of two classes, the one that ``precision``, ``recall`` and ``f1`` are of; the later
        in the order of the class names if None.
      threshold: of two classes, the positive one is predicted where its probability is above this;
        the likelier one if None. Of labels, each is predicted above this, or above its own of
        several, in the order of the labels; above 0.5 if None. All metrics of what is predicted
        follow it; ``train/accuracy``, of training batches, does not.
      id: the column that names each example; it is no input, and predictions carry it.
      batch_size: examples in a training step, over all devices.
      sampling: how an epoch is drawn from the training split: ``uniform`` shows each example once,
        ``balanced`` gives each class the same share, ``weighted`` each example a share in
        proportion to its ``weight``.
      weight: the column or feature that holds these weights; it is no input.
      validation_fraction: the validation split's share of the examples that are not test, where
        the source has no validation split.
      test_fraction: the test split's share of all examples, where the source has no test split.
      train_on: which examples are trained on: ``train``; or ``train_and_validation``, for the last
        training of a config that has been chosen. Metrics of validation are then of examples that
        were trained on and choose nothing: the weights are those of the last step, and whatever
        chooses by validation refuses the config.
      folds: train and validation are one of so many folds of the examples that are not test, as
        scikit-learn's (Stratified)KFold makes them, shuffled by ``split_seed``; instead of
        ``validation_fraction``. Categories and vocabulary are then taken from all folds, so that
        their inputs are coded alike.
      fold: which of the folds is the validation split.
      split_seed: equal seeds give equal splits.
      stratify: give each split every class's share, and every label's by iterative stratification.
      stratify_bins: for a regression, give each split the same share of so many quantile bins of
        the target (fewer, where they would hold too few examples); None splits without.
      group: the column or feature that says what belongs together (a patient, a place): no group
        is in two splits, the fractions are of groups, and folds are scikit-learn's
        (Stratified)GroupKFold. It is no input.
      split_by: the column or feature whose hash, with ``split_seed``, says which split an example
        is in, whatever other examples there are: one that is added moves none, and equal keys are
        in one split. The fractions and folds are expected shares of the keys, and nothing is
        stratified. ``path`` takes the path of each file of a folder. It is no input.
      time: the column or feature that says when: train is the earliest, then comes validation, and
        test is the latest. It is no input.
      missing_values: the words of a table that stand for missing values, beside an empty cell;
        ``()`` has none. If None, those of pandas in a CSV (``NA``, ``None``, ``nan``, ``null``, …;
        the first two are categories among other words), and none in files that have missing values
        of their own.
      decimal: the decimal sign of numbers in texts, ``.`` or ``,``; the other may stand between
        thousands. If None it is guessed column by column, and said.
      on_bad: what becomes of an example that can't be used (a row with too many columns, a cell
        that is no number, an infinite value, an image or sound that can't be decoded): ``error``
        names it; ``skip`` leaves it out and counts it.
      data_dir: where datasets are prepared; ``$TFDS_DATA_DIR`` or the user's cache if None.
      ignore: columns or features that are left out.
      categorical: columns of a table that hold numbers and mean categories, such as a postcode.
      columns: what columns of a table hold, by name: ``number``, ``category``, ``text``, or paths
        of an ``image`` or ``sound`` from the table's folder. Each of the last three is an input of
        its own beside the numbers and categories, as ``model.name='fusion'`` takes them. What is
        not said is guessed, which ``jdlopt data describe`` tells.
      missing_inputs: what becomes of a row of such a table that lacks one of several inputs: its
        text, its image or sound, or all its numbers and categories. ``refuse`` names it; ``mask``
        has a model that can (``fusion``) leave out what is missing.
      image_size: (height, width) that images are resized to.
      sample_rate: samples a second that sounds are resampled to; None keeps the one they all have.
      seconds: the length that sounds are cut or padded to; None keeps the one they all have. With
        transcripts none is cut, and None takes the longest.
      in_memory: keep the training split in device memory (True) or stream it (False); None decides
        by size.
      workers: processes that read a streamed split ahead; with 0, threads do.
      fit_on: what categories, vocabulary and preprocessing are learnt from: ``train``, the training
        split; or a run's directory, whose own are kept, as its weights expect them. Where
        ``model.pretrained`` is a run, that run by default.
      text, target_text, preprocess: the sections of these names.
      augment: the strength of each augmentation, None for those that are off, and their options.
      options: the keys of a source of the user's own.
    """

    source: str
    validation_source: str | None = None
    test_source: str | None = None
    target: str | tuple[str, ...] | None = None
    label_delimiter: str | None = None
    text_column: str | None = None
    task: str = "auto"
    beam_width: Count = 1
    positive: str | int | bool | None = None
    threshold: float | tuple[float, ...] | None = None
    id: str | None = None
    batch_size: Count = 100
    sampling: Annotated[str, Choice(SAMPLING)] = "uniform"
    weight: str | None = None
    validation_fraction: Share = 0.1
    test_fraction: Share = 0.2
    train_on: Annotated[str, Choice(TRAINED_ON)] = "train"
    folds: Annotated[int, Range(2)] | None = None
    fold: Natural = 0
    split_seed: Seed = 0
    stratify: bool = True
    stratify_bins: Annotated[int, Range(2)] | None = None
    group: str | None = None
    split_by: str | None = None
    time: str | None = None
    missing_values: tuple[str, ...] | None = None
    decimal: Annotated[str, Choice((".", ","))] | None = None
    on_bad: Annotated[str, Choice(ON_BAD)] = "error"
    missing_inputs: Annotated[str, Choice(ON_MISSING)] = "refuse"
    data_dir: str | None = None
    ignore: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    image_size: tuple[int, ...] | None = None
    sample_rate: Count | None = None
    seconds: Seconds | None = None
    in_memory: bool | None = None
    workers: Natural = 0
    fit_on: str = "train"
    columns: Mapping[str, str] = field(default_factory=dict)
    text: TextFields = field(default_factory=TextFields)
    target_text: TargetTextFields = field(default_factory=TargetTextFields)
    preprocess: PreprocessFields = field(default_factory=PreprocessFields)
    augment: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Value] = own_keys()

    @property
    def unused(self) -> tuple[str, ...]:
        """The columns or features that are no input and decide on nothing."""
        return self.ignore if self.id is None else (*self.ignore, self.id)
