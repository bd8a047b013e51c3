"""Every key that a config may have: the fields of each section, and of the parts that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from jdlopt import config as configs
from jdlopt import losses, models, optim
from jdlopt.config import Choice, Count, Field, Natural, Range, Schema, section_of
from jdlopt.data import augment, preprocess
from jdlopt.data.arrays import is_own, own_schema
from jdlopt.data.fields import DataFields
from jdlopt.data.mixed import KINDS
from jdlopt.data.target_texts import TargetTextFields
from jdlopt.data.text import TextFields
from jdlopt.errors import ConfigError, listing
from jdlopt.losses import DistillFields, LossFields
from jdlopt.mesh import MeshFields
from jdlopt.models import ModelFields
from jdlopt.models.pretrained.architecture import Architecture, architecture_of
from jdlopt.models.quantization import QuantizeFields
from jdlopt.optim import OptimFields

MOST_STEPS = 2**31 - 1
"""Steps are counted in int32."""
AUTO, HANG_SECONDS = "auto", 300.0
"""How long any dispatch may take in a run of several processes."""
SECTIONS = ("seed", "data", "model", "loss", "optim", "train", "mesh")


@dataclass(frozen=True)
class TrainFields:
    """The ``train`` section.

    Attributes:
      epochs: passes over the training split; 20 if ``steps`` is not given either.
      steps: updates; instead of ``epochs``.
      eval_every: steps between evaluations on the validation split; an epoch by default.
      log_every: steps between logged lines; as ``eval_every`` by default.
      monitor: the metric that says which evaluation is best, such as ``validation/accuracy``.
      patience: stop after so many evaluations without a better one.
      metrics: what evaluations during training measure beside the loss; by the task by default.
      eval_batch_size: examples in one dispatch of an evaluation.
      steps_per_dispatch: 1 calls the step from Python, k runs k steps in one compiled loop;
        measured and chosen by default.
      checkpoint_every: steps between checkpoints; by default they go by ``checkpoint_seconds``.
      checkpoint_seconds: least time between two checkpoints.
      evaluate_test: whether the best checkpoint is evaluated on the test split at the end.
      hang_seconds: after how many seconds, and 20 times its median, a dispatch or an evaluation
        hangs: the process ends with exit code 124 and leaves its stack traces. ``auto``:
        300 in a run of several processes, and no limit in one of one process. None: no limit.
      remote: a URL (``s3://…``, ``gs://…``) or path where a copy of the run is kept, and from which
        it goes on in a directory that has no checkpoint.
      cache_features: whether what a frozen body makes of each example is computed once, in
        evaluation mode, and the head alone is trained on that. All else must be frozen.
      loggers: where values are logged beside ``metrics.jsonl``: any of ``tensorboard``, ``csv``,
        ``wandb``, ``mlflow``, or ``package.module:name``, a function of yours that returns a
        `jdlopt.train.loggers.logger.Logger`. If None, what ``tensorboard`` says.
      tensorboard: whether TensorBoard files are written, where ``loggers`` does not say.
    """

    epochs: Count | None = None
    steps: Annotated[int, Range(1, MOST_STEPS)] | None = None
    eval_every: Count | None = None
    log_every: Count | None = None
    monitor: str | None = None
    patience: Count | None = None
    metrics: tuple[str, ...] = ()
    eval_batch_size: Count = 1024
    steps_per_dispatch: Count | None = None
    checkpoint_every: Count | None = None
    checkpoint_seconds: Natural = 30
    evaluate_test: bool = True
    hang_seconds: Annotated[int, Range(1)] | Annotated[str, Choice((AUTO,))] | None = AUTO
    remote: str | None = None
    cache_features: bool = False
    loggers: tuple[str, ...] | None = None
    tensorboard: bool = True

    @property
    def used_loggers(self) -> tuple[str, ...]:
        """The names of all loggers."""
        if self.loggers is not None:
            return self.loggers
        return ("tensorboard",) if self.tensorboard else ()

    def hangs_after(self, processes: int) -> float | None:
        """Returns the seconds that ``hang_seconds`` means; None if nothing is watched."""
        if isinstance(self.hang_seconds, str):
            return HANG_SECONDS if processes > 1 else None
        return self.hang_seconds


@dataclass(frozen=True)
class Config:
    """A resolved config: every default filled in, every value checked.

    Attributes:
      seed: what parameters, dropout, augmentation and the order of examples are drawn from.
      data, model, loss, optim, train, mesh: the sections.

    Example:
      >>> from dataclasses import replace
      >>> config = Config.from_dict({"data": {"source": "iris"}, "model": {"name": "mlp"}})
      >>> replace(config, train=replace(config.train, patience=3)).to_dict()["train"]["patience"]
      3
    """

    data: DataFields
    model: ModelFields
    seed: int = 0
    loss: LossFields = field(default_factory=LossFields)
    optim: OptimFields = field(default_factory=OptimFields)
    train: TrainFields = field(default_factory=TrainFields)
    mesh: MeshFields = field(default_factory=MeshFields)

    @staticmethod
    def from_dict(checked: Mapping[str, Any]) -> Config:
        """Returns the config of nested dicts such as ``config.json`` holds; they were checked.

        Raises:
          ConfigError: a key is unknown or missing.
        """
        return section_of(Config, configs.to_dict(checked))

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts, as ``config.json`` holds them; which `from_dict` takes."""
        values = configs.to_dict(self)
        return {section: values[section] for section in SECTIONS}


def _part_schema(
    values: Any,
    section: str,
    table: Mapping[str, Any],
    shared: Schema,
    problems: list[str],
    without: tuple[str, ...] = (),
) -> Schema:
    """The keys of a section whose ``name`` chooses a part: the shared ones and the part's own."""
    values = values if isinstance(values, Mapping) else {}
    name_field = shared.get("name", Field((str,)))
    name = configs.text_of(values.get("name", name_field.default))
    schema: Schema = {**shared, "name": Field((str,), name_field.default)}
    try:
        if name is configs.Required:
            raise ConfigError(f"{section}.name: is missing; choose one of {listing(table)}.")
        part = configs.find_part(name, table, f"{section}.name")
        own = {} if part is None else configs.fields_of(part, without=without)
        return {**schema, **own}
    except ConfigError as error:
        problems.append(str(error))
    except (TypeError, ValueError, NameError, AttributeError) as error:
        problems.append(f"{section}.name {name!r}: its parameters can't be read: {error}.")
    anything = Field((Any,), None)  # which other keys there may be is not known
    return {**dict.fromkeys(values, anything), **shared, "name": anything}


def _groups_schema(groups: Any, problems: list[str]) -> Schema:
    """The keys of each of the freely named groups in ``optim.groups``."""
    shared = configs.fields_of(optim.GroupFields)
    schema: Schema = {}
    for name, values in groups.items() if isinstance(groups, Mapping) else ():
        named = isinstance(values, Mapping) and values.get("name") is not None
        section = f"optim.groups.{name}"
        schema[name] = (
            _part_schema(values, section, optim.OPTIMIZERS, shared, problems) if named else shared
        )
    return schema


def begins_with(raw: Mapping[str, Any], problems: list[str]) -> Architecture | None:
    """Returns what ``model.pretrained`` says of its model, if it is a folder that says so."""
    section = raw.get("model")
    place = section.get("pretrained") if isinstance(section, Mapping) else None
    try:
        return architecture_of(configs.text_of(place))
    except ConfigError as error:
        problems.append(str(error))
        return None


def _as_there(schema: Schema, given: object, found: Architecture | None) -> Schema:
    """The keys of a ``model`` section, what weights ask for as the defaults of its own."""
    given = given if isinstance(given, Mapping) else {}
    name = configs.text_of(given.get("name", schema["name"].default))
    if found is None or name != found.name:
        return schema

    def fits(key: str) -> bool:
        wrong: list[str] = []
        configs.check_value(found.keys[key], schema[key], key, wrong)
        return not wrong

    known = {key for key in found.keys if isinstance(schema.get(key), Field) and fits(key)}
    return {
        key: replace(field, default=found.keys[key]) if key in known else field
        for key, field in schema.items()
    }


def _low_rank_schema(model: object, found: Architecture | None) -> Schema:
    """The keys of ``model.low_rank``: those of weights to start from are the defaults."""
    given = model if isinstance(model, Mapping) else {}
    own = given.get("low_rank")
    ranks = own.get("ranks") if isinstance(own, Mapping) else None
    alike = found is not None and configs.text_of(given.get("name", found.name)) == found.name
    there = found.keys.get("low_rank", {}) if found is not None and alike else {}
    known = there.get("ranks", {})
    return {
        **{
            key: replace(field, default=there.get(key, field.default))
            for key, field in configs.fields_of(models.LowRankFields).items()
        },
        "ranks": {
            path: Field((int,), known.get(path, configs.Required), Range(1))
            for path in {**known, **(ranks if isinstance(ranks, Mapping) else {})}
        },
    }


def data_schema(section: object, problems: list[str], found: Architecture | None = None) -> Schema:
    """Returns every key that a ``data`` section may have; notes unknown parts of the user's own.

    Args:
      section: as given.
      problems: messages are appended here.
      found: what the weights to start from say; a run's ``fit_on`` is that run by default.
    """
    given = section if isinstance(section, Mapping) else {}
    source = configs.text_of(given.get("source"))
    columns = given.get("columns")
    columns = columns if isinstance(columns, Mapping) else {}
    own: Schema = {}
    if is_own(source):
        try:
            own = own_schema(str(source), configs.shared_keys(DataFields))
        except ConfigError as error:
            problems.append(str(error))
            own = dict.fromkeys(given, Field((Any,), None))  # which keys it has is not known
    fields = configs.fields_of(DataFields)
    if found is not None and found.is_run:
        fields["fit_on"] = replace(fields["fit_on"], default=str(found.file.parent))
    return {
        **own,
        **fields,
        "columns": dict.fromkeys(columns, Field((str,), choice=configs.Choice(KINDS))),
        "text": configs.fields_of(TextFields),
        "target_text": configs.fields_of(TargetTextFields),
        "preprocess": configs.fields_of(preprocess.PreprocessFields),
        "augment": augment.schema(given.get("augment"), problems),
    }


def schema_of(raw: Mapping[str, Any], problems: list[str]) -> Schema:
    """Returns every key that a config of these parts may have; notes unknown parts."""
    optim_raw = raw.get("optim", {})
    optim_raw = optim_raw if isinstance(optim_raw, Mapping) else {}
    shared_optim = {
        **configs.fields_of(OptimFields),
        "schedule": _part_schema(
            optim_raw.get("schedule"),
            "optim.schedule",
            optim.SCHEDULES,
            configs.fields_of(optim.ScheduleFields),
            problems,
        ),
        "average": _part_schema(
            optim_raw.get("average"),
            "optim.average",
            optim.AVERAGES,
            configs.fields_of(optim.AverageFields),
            problems,
        ),
        "groups": _groups_schema(optim_raw.get("groups"), problems),
    }
    distill = configs.OptionalSection(configs.fields_of(DistillFields), switch="teacher")
    shared_loss: Schema = {**configs.fields_of(LossFields), "distill": distill}
    found = begins_with(raw, problems)
    shared = configs.fields_of(ModelFields)
    if found is not None and found.name in models.MODELS:
        shared["name"] = replace(shared["name"], default=found.name)
    model = _part_schema(
        raw.get("model"),
        "model",
        models.MODELS,
        {
            **shared,
            "quantize": configs.fields_of(QuantizeFields),
            "prune": configs.fields_of(models.PruneFields),
            "low_rank": _low_rank_schema(raw.get("model"), found),
        },
        problems,
        without=models.FILLED_IN,
    )
    return {
        "seed": Field((int,), 0, Range(0, configs.LARGEST_SEED)),
        "data": data_schema(raw.get("data"), problems, found),
        "model": _as_there(model, raw.get("model"), found),
        "loss": _part_schema(raw.get("loss"), "loss", losses.LOSSES, shared_loss, problems),
        "optim": _part_schema(raw.get("optim"), "optim", optim.OPTIMIZERS, shared_optim, problems),
        "train": configs.fields_of(TrainFields),
        "mesh": configs.fields_of(MeshFields),
    }


def resolve_data(raw: configs.AnyConfig) -> DataFields:
    """Returns the resolved ``data`` section alone, whatever the other sections hold.

    Raises:
      ConfigError: everything that is wrong with the section.
    """
    problems: list[str] = []
    plain = configs.to_dict(raw)
    section, found = plain.get("data", {}), begins_with(plain, problems)
    schema = data_schema(section, problems, found)
    checked = configs.check_section(section, schema, "data", problems)
    configs.raise_problems(problems)
    return section_of(DataFields, checked, "data")
