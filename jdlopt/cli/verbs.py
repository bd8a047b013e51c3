"""The verbs of the command line: of each, its flags as a frozen dataclass and what runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from jdlopt.compress.options import CompressionOptions
from jdlopt.config import Choice, Range
from jdlopt.config.options import Flag
from jdlopt.evidence.options import AblationOptions, ComparisonOptions, ImprovementOptions
from jdlopt.starter.facts import TASKS
from jdlopt.study.options import Options as StudyOptions
from jdlopt.train.continuation import Continuation

SPLITS = ("train", "validation", "test")
CHECKPOINTS = ("best", "newest")
MOST_COPIES, MOST_EXAMPLES, MOST_EXAMPLES_TOGETHER, MOST_STEPS = 10_000, 64, 4096, 10_000
MOST_BEAMS = 1000

CONFIG = Flag("a config file (.py or .json), or a run's directory", "CONFIG")
RUN = Flag("a run's directory", "RUN", positional=True)
RUNS_CONFIG = Flag("a run's directory, whose config is taken; or a config file", "RUN",
                   positional=True)  # fmt: skip
SAME_AS_RUN = Flag("the same as RUN, in the words of before", "DIR")
CONFIG_FOR_RUN = Flag("the same as RUN", "RUN")
KEPT = Flag("where trainings are kept", "DIR")
REPORT = Flag("write no report.html", name="no-report")
CODE = Flag("import what records in the directory name by dotted path: it runs that code")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags that every verb has.

    Attributes:
      overrides: key → text of each ``--config.KEY=TEXT``.
    """

    changes_config: ClassVar[bool] = False
    """Whether ``--config.KEY=VALUE`` means something."""
    json: Annotated[bool, Flag("one JSON object on stdout")] = False
    debug: Annotated[bool, Flag("a traceback for every error")] = False
    overrides: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ConfigFlags(Flags):
    """Those of a verb that is about a config: a file's, or a run's."""

    changes_config: ClassVar[bool] = True
    run: Annotated[str | None, RUNS_CONFIG] = None
    config: Annotated[str | None, CONFIG] = None
    allow_code: Annotated[bool, CODE] = False


@dataclass(frozen=True, kw_only=True)
class TrainFlags(Flags):
    """Those of ``train``."""

    changes_config: ClassVar[bool] = True
    run: Annotated[
        str | None,
        Flag(
            "the run's directory, which goes on with its own config; or a config file",
            "RUN",
            positional=True,
        ),
    ] = None
    config: Annotated[
        str | None,
        Flag(
            "a config file (.py or .json), or another run's directory; by default RUN's own",
            "CONFIG",
        ),
    ] = None
    allow_code: Annotated[bool, CODE] = False
    workdir: Annotated[str | None, Flag("the run's directory: the same as RUN", "DIR")] = None
    print_config: Annotated[bool, Flag("show the resolved config only")] = False
    print_model: Annotated[bool, Flag("show the model's layers only")] = False
    find_batch_size: Annotated[
        bool, Flag("show the largest batch whose step fits the device only")
    ] = False
    memory: Annotated[
        str | None, Flag("of a device, such as 24GiB, for --find-batch-size", "SIZE")
    ] = None


@dataclass(frozen=True, kw_only=True)
class RunFlags(Flags):
    """Those of a verb that is about a run."""

    run: Annotated[str | None, RUN] = None
    config: Annotated[str | None, CONFIG_FOR_RUN] = None
    workdir: Annotated[str | None, SAME_AS_RUN] = None
    allow_code: Annotated[bool, CODE] = False


@dataclass(frozen=True, kw_only=True)
class WeightsFlags(RunFlags):
    """Those of a verb that takes a finished run's weights, or those of several as an ensemble."""

    ensemble: Annotated[
        tuple[str, ...],
        Flag("instead, the mean of several runs, or of a study's best k trials", "STUDY:k|DIR,DIR"),
    ] = ()
    checkpoint: Annotated[
        str, Choice(CHECKPOINTS), Flag("which parameters: best or newest", "NAME")
    ] = "best"


@dataclass(frozen=True, kw_only=True)
class ModelFlags(WeightsFlags):
    """Those of a verb that asks a finished run's model."""

    tta: Annotated[
        int,
        Range(0, MOST_COPIES),
        Flag("average over N augmented copies of each example, too", "N"),
    ] = 0
    threshold: Annotated[
        str | None,
        Flag("predict the positive class, or a label, above this (by default the run's)", "P"),
    ] = None
    positive: Annotated[str | None, Flag("the positive class of two, by its name", "CLASS")] = None
    beam_width: Annotated[
        int | None,
        Range(1, MOST_BEAMS),
        Flag("of texts that are written or heard: look at the N best at each step", "N"),
    ] = None
    length_penalty: Annotated[
        float | None,
        Range(0),
        Flag("of a beam: what the length counts, 0 for short texts, 1 for the mean", "P"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class EvalFlags(ModelFlags):
    """Those of ``eval``."""

    split: Annotated[str, Choice(SPLITS), Flag("which data: train, validation or test", "NAME")] = (
        "validation"
    )
    changed_data: Annotated[
        str, Choice(("refuse", "ok")), Flag("data that are not those of training", "WHAT")
    ] = "refuse"


@dataclass(frozen=True, kw_only=True)
class PredictFlags(ModelFlags):
    """Those of ``predict``."""

    bundle: Annotated[
        str | None, Flag("instead of RUN, a bundle that `jdlopt export` made", "DIR")
    ] = None
    input: Annotated[str, Flag("what to predict for", "PATH")]
    output: Annotated[
        str | None,
        Flag("a .csv or .npz, or a folder for masks; by default a table on stdout", "FILE"),
    ] = None
    all_classes: Annotated[
        bool, Flag("every class's probability, even of more than 1,000 classes")
    ] = False
    with_inputs: Annotated[
        bool, Flag("write the input's columns, or its files, beside the predictions")
    ] = False
    embeddings: Annotated[
        bool, Flag("instead, write embeddings, or what the model's head is given, to a .npz")
    ] = False
    continuation: Continuation


@dataclass(frozen=True, kw_only=True)
class ExportFlags(WeightsFlags):
    """Those of ``export``."""

    format: Annotated[
        str, Flag("onnx, stablehlo, litert, saved_model, safetensors or bundle", "NAME")
    ]
    out: Annotated[
        str | None,
        Flag(
            "the directory of the file, or the bundle; by default export, or bundle, in the run's",
            "DIR",
        ),
    ] = None
    int8: Annotated[
        bool, Flag("of onnx, or a bundle: in 8 bits, calibrated on training examples")
    ] = False


@dataclass(frozen=True, kw_only=True)
class TuneFlags(ConfigFlags):
    """Those of ``tune``."""

    run: Annotated[
        str | None,
        Flag(
            "the study's directory, which goes on; or a config file, or a run's directory",
            "STUDY",
            positional=True,
        ),
    ] = None
    config: Annotated[
        str | None, Flag("a config file, with get_space(); or a run's directory", "CONFIG")
    ] = None
    space: Annotated[str | None, Flag("a file with get_space(), or JSON", "FILE")] = None
    workdir: Annotated[
        str | None, Flag("the study's directory; STUDY itself where that is given", "DIR")
    ] = None
    options: StudyOptions
    report: Annotated[bool, REPORT] = True


@dataclass(frozen=True, kw_only=True)
class CompareFlags(Flags):
    """Those of ``compare``; overrides are for both configs."""

    changes_config: ClassVar[bool] = True
    a: Annotated[
        str | None,
        Flag("a config file or a run's directory: the baseline", "A", positional=True),
    ] = None
    b: Annotated[
        str | None, Flag("another, or +NAME[:N],...: A with techniques", "B", positional=True)
    ] = None
    config: Annotated[str | None, Flag("the same as A", "A")] = None
    allow_code: Annotated[bool, CODE] = False
    workdir: Annotated[str, KEPT]
    options: ComparisonOptions
    space: Annotated[str | None, Flag("the nuisance keys, as get_space()", "FILE")] = None
    report: Annotated[bool, REPORT] = True


@dataclass(frozen=True, kw_only=True)
class AblateFlags(ConfigFlags):
    """Those of ``ablate``."""

    techniques: Annotated[tuple[str, ...], Flag("names of the catalogue, NAME[:N]", "A,B,C")]
    workdir: Annotated[str, KEPT]
    options: AblationOptions
    space: Annotated[str | None, Flag("the nuisance keys, as get_space()", "FILE")] = None
    report: Annotated[bool, REPORT] = True


@dataclass(frozen=True, kw_only=True)
class ImproveFlags(ConfigFlags):
    """Those of ``improve``."""

    workdir: Annotated[str, Flag("where all of it is kept", "DIR")]
    options: ImprovementOptions
    report: Annotated[bool, REPORT] = True


@dataclass(frozen=True, kw_only=True)
class CompressFlags(RunFlags):
    """Those of ``compress``."""

    out: Annotated[
        str | None, Flag("where all of it is kept", "DIR", shown="compressed in RUN")
    ] = None
    options: CompressionOptions
    report: Annotated[bool, Flag("write no compress.html", name="no-report")] = True


@dataclass(frozen=True, kw_only=True)
class PlanFlags(ConfigFlags):
    """Those of ``plan``."""

    topology: Annotated[str, Flag("a chip and the size of a slice: v5e:4x4, H100:8", "NAME")]
    slices: Annotated[int, Range(1), Flag("how many such slices", "N")] = 1
    price: Annotated[
        float | None, Flag("dollars for a chip-hour, for the cost to the end", "DOLLARS")
    ] = None
    workdir: Annotated[str | None, Flag("write plan.html and plan.json in it", "DIR")] = None
    search: Annotated[
        bool, Flag("find the fastest mesh, remat, accumulate and batch that fit the machine")
    ] = False
    same_batch: Annotated[bool, Flag("with --search: keep data.batch_size")] = False
    out: Annotated[
        str | None, Flag("with --search: write the config that was found, as JSON", "FILE")
    ] = None


@dataclass(frozen=True, kw_only=True)
class TechniquesFlags(ConfigFlags):
    """Those of ``techniques``; without a config it lists them."""

    config: Annotated[
        str | None,
        Flag("a config file or a run's directory: say what each would change", "CONFIG"),
    ] = None
    group: Annotated[str | None, Flag("data, structure, optimisation, ...", "NAME")] = None
    aim: Annotated[str | None, Flag("accuracy, generalisation, speed, ...", "NAME")] = None


@dataclass(frozen=True, kw_only=True)
class DiagnoseFlags(RunFlags):
    """Those of ``diagnose``."""

    lr_range: Annotated[
        bool,
        Flag("run the learning-rate range test however long it takes (by default if it is short)"),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ProfileFlags(ConfigFlags):
    """Those of ``profile``."""

    run: Annotated[str | None, Flag("a run's directory; or a config file", "RUN",
                                    positional=True)] = None  # fmt: skip
    steps: Annotated[
        int | None,
        Range(1, MOST_STEPS),
        Flag("trace so many steps; by default what takes about two seconds", "N"),
    ] = None
    workdir: Annotated[
        str | None,
        Flag("where the trace and profile.json are kept; by default RUN's directory", "DIR"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ReportFlags(RunFlags):
    """Those of ``report``."""

    run: Annotated[
        str | None,
        Flag("the directory of a run, a study, a comparison, ...", "RUN", positional=True),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ListFlags(Flags):
    """Those of ``data list``."""

    data_dir: Annotated[
        str | None, Flag("where prepared TFDS datasets lie", "DIR", name="data_dir")
    ] = None


@dataclass(frozen=True, kw_only=True)
class CheckFlags(Flags):
    """Those of ``data check``."""

    changes_config: ClassVar[bool] = True
    file: Annotated[
        str | None,
        Flag("a file, folder or dataset's name; or a run's directory", "FILE", positional=True),
    ] = None
    config: Annotated[
        str | None, Flag("a config file or a run's directory, instead of FILE", "CONFIG")
    ] = None
    allow_code: Annotated[bool, CODE] = False
    target: Annotated[str | None, Flag("what FILE is to predict", "COLUMN")] = None
    ignore: Annotated[tuple[str, ...], Flag("columns of FILE to leave out", "A,B")] = ()
    task: Annotated[str | None, Flag("of FILE, as data.task of a config", "NAME")] = None
    workdir: Annotated[str | None, Flag("write data_check.html in it", "DIR")] = None
    without_test: Annotated[bool, Flag("don't look for near-duplicates of test examples")] = False


@dataclass(frozen=True, kw_only=True)
class DescribeFlags(ConfigFlags):
    """Those of ``data describe``."""

    all: Annotated[bool, Flag("every column and class, however many")] = False


@dataclass(frozen=True, kw_only=True)
class ShowFlags(ConfigFlags):
    """Those of ``data show``."""

    output: Annotated[str, Flag("the picture", "FILE.png")]
    examples: Annotated[int, Range(1, MOST_EXAMPLES), Flag("rows", "N")] = 8
    all: Annotated[bool, Flag("every augmentation that fits")] = False
    seed: Annotated[int, Range(0), Flag("of the augmentations' draws", "N")] = 0


@dataclass(frozen=True, kw_only=True)
class InitFlags(Flags):
    """Those of ``init``."""

    source: Annotated[str, Flag("a file, folder or dataset's name", "SOURCE", positional=True)]
    target: Annotated[str | None, Flag("the column to predict, or several: A,B", "COLUMN")] = None
    task: Annotated[
        str | None,
        Choice(TASKS),
        Flag("classification, multilabel or regression; by default the targets tell", "NAME"),
    ] = None
    out: Annotated[str, Flag("the config file, which must not be there", "FILE.py")] = "config.py"


@dataclass(frozen=True, kw_only=True)
class ServeFlags(Flags):
    """Those of ``serve``."""

    bundle: Annotated[str, Flag("what `jdlopt export` made", "DIR")]
    host: Annotated[str, Flag("the address to listen at", "ADDRESS")] = "127.0.0.1"
    port: Annotated[int, Range(0, 65535), Flag("the port; 0 takes a free one", "N")] = 8000
    max_batch: Annotated[
        int, Range(1, MOST_EXAMPLES_TOGETHER), Flag("examples computed together", "N")
    ] = 64
    max_wait_ms: Annotated[
        float, Range(0, 1000), Flag("how long a request waits for others to join it", "MS")
    ] = 0.0


@dataclass(frozen=True)
class Verb:
    """One verb.

    Attributes:
      run: the function that runs it, ``module:name`` of this package.
      summary: what it does, in a sentence.
      flags: the class of what it takes.
    """

    run: str
    summary: str
    flags: type[Flags]

    @property
    def takes_config(self) -> bool:
        """Whether ``--config.KEY=VALUE`` means something."""
        return self.flags.changes_config


VERBS = {
    "init": Verb("init:init", "Write a first config for your own data, with comments.", InitFlags),
    "train": Verb("run:train", "Train one config, or go on with its run.", TrainFlags),
    "eval": Verb("predict:evaluate", "Evaluate a run's checkpoint on a split.", EvalFlags),
    "predict": Verb(
        "predict:predict", "Predict for a CSV, Parquet or NPZ file or image folder.", PredictFlags
    ),
    "serve": Verb("serve:serve", "Answer requests with a bundle, over HTTP.", ServeFlags),
    "tune": Verb(
        "study:tune", "Search a space around a config; its trials train together.", TuneFlags
    ),
    "compare": Verb(
        "evidence:compare", "Say whether config B beats config A, and at what cost.", CompareFlags
    ),
    "ablate": Verb(
        "evidence:ablate", "Measure techniques alone, and left out from all.", AblateFlags
    ),
    "improve": Verb(
        "evidence:improve", "Make a config better by itself, step by step.", ImproveFlags
    ),
    "compress": Verb(
        "compress:compress",
        "Make a finished run smaller or faster, within a margin of loss.",
        CompressFlags,
    ),
    "plan": Verb(
        "plan:plan",
        "Say what a training takes on TPUs that need not be here: compile it for them.",
        PlanFlags,
    ),
    "techniques": Verb("techniques:listed", "List what may make a config better.", TechniquesFlags),
    "diagnose": Verb(
        "diagnose:diagnose", "Say what holds a run back, and what to try.", DiagnoseFlags
    ),
    "profile": Verb(
        "profile:profile", "Trace a few training steps, and say where the time goes.", ProfileFlags
    ),
    "export": Verb(
        "export:export", "Write a finished run's model for another runtime.", ExportFlags
    ),
    "report": Verb("study:report", "Write the report of a directory again.", ReportFlags),
    "data list": Verb("data:listed", "List the datasets that are here.", ListFlags),
    "data describe": Verb(
        "data:described", "Describe a config's dataset: splits, classes, values.", DescribeFlags
    ),
    "data check": Verb("data:checked", "Look for problems in a dataset or a file.", CheckFlags),
    "data show": Verb(
        "data:shown", "Draw training examples raw, preprocessed and augmented.", ShowFlags
    ),
}
"""Every verb by its words; help lists them in this order."""

FAMILIES = {"data": "List, describe, check or show datasets."}
"""The first words that several verbs share."""
