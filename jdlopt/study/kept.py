"""The best trials of a study that are kept as runs, for whoever predicts with several of them."""

from __future__ import annotations

from pathlib import Path

from jdlopt.errors import WorkdirError, listing
from jdlopt.study import records, schema
from jdlopt.study.setup import STUDY, TRIALS
from jdlopt.train.loggers.logger import FINAL
from jdlopt.train.result import read_result


def runs_of(name: str) -> list[Path]:
    """Returns the directories of runs that a word of ``--ensemble`` means.

    Args:
      name: a run's directory; ``STUDY:k``, the best k trials of a study; or a study's directory,
        all that it keeps as runs.

    Raises:
      WorkdirError: it is none of these, the study does not keep so many, or its record is not as
        jdlopt writes it.
    """
    place, colon, count = name.rpartition(":")
    if not (colon and count.isdigit()) or Path(name).exists():
        place, count = name, ""
    path = Path(place)
    if not (path / STUDY).is_file():
        if count:
            raise WorkdirError(
                f"--ensemble: {place} holds no study: there is no {STUDY}. STUDY:{count} names the "
                "directory that `jdlopt tune` was given."
            )
        return [path]
    study = schema.read_study(path)
    order = records.best(study["trials"], study["objectives"])
    folders = {number: path / TRIALS / f"{number:04d}" for number in order}
    there = {number: folder for number, folder in folders.items() if _is_kept(folder)}
    if not count:
        if not there:
            raise WorkdirError(f"--ensemble: {path} keeps no trial as a run. {_remedy(3)}")
        return list(there.values())
    wanted = order[: int(count)]
    if len(wanted) < int(count) or not wanted:
        raise WorkdirError(
            f"--ensemble: {name}: the study in {path} has {len(order)} finished trials."
        )
    missing = [number for number in wanted if number not in there]
    if missing:
        raise WorkdirError(
            f"--ensemble: {name}: of the best {count} trials, {listing(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not kept as runs in {path / TRIALS}. "
            f"{_remedy(int(count))}"
        )
    return [there[number] for number in wanted]


def _remedy(count: int) -> str:
    return (
        f"The command that searched, `jdlopt tune`, trains them with --keep={count}; it searches "
        "no further."
    )


def _is_kept(folder: Path) -> bool:
    """Whether a trial's run is there and has ended well."""
    if not folder.is_dir():
        return False
    found = read_result(folder)
    return found is not None and found["status"] in FINAL
