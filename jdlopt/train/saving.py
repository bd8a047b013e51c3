"""What of a run is saved: its newest states and the parameters of its best evaluation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from jax.sharding import Mesh

from jdlopt.errors import WorkdirError
from jdlopt.train import checkpoint, log
from jdlopt.train.experiment import Experiment
from jdlopt.train.goodput import Account
from jdlopt.train.pending import Snapshot
from jdlopt.train.program import Dispatch
from jdlopt.train.remote import Sender
from jdlopt.train.state import TrainState
from jdlopt.train.tracker import Tracker


def platform_of(mesh: Mesh) -> str:
    """Returns the devices of a mesh in words: their kind and number."""
    return f"{mesh.devices.flat[0].device_kind} x {mesh.size}"


class Resumed(NamedTuple):
    """Where a run goes on: after ``step``; how it was dispatched, and where its time went."""

    state: TrainState
    step: int = 0
    dispatch: Dispatch | None = None
    account: Account | None = None


class Saving:
    """The checkpoints of a run, and when it was last saved.

    Args:
      workdir: the run's directory; None saves nothing.
      experiment: what is trained.
      mesh: the devices; a measured choice holds for their kind and number.
      sender: is told of each checkpoint that is written; in the first process.
    """

    def __init__(
        self,
        workdir: Path | None,
        experiment: Experiment,
        mesh: Mesh,
        sender: Sender | None = None,
    ):
        self._sender = sender
        self.folder = None if workdir is None else workdir / log.CHECKPOINTS
        self.experiment = experiment
        self._platform = platform_of(mesh)
        self._every = experiment.config.train.checkpoint_every
        self._seconds = experiment.config.train.checkpoint_seconds
        self._best_step = self._step = -1
        self._beside = ThreadPoolExecutor(1, "jdlopt-saving")
        self._written: Future[None] | None = None
        self._saved_at = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        """Counts the seconds to the next checkpoint from now on."""
        self._saved_at = time.perf_counter()

    def resume(self, state: TrainState, tracker: Tracker) -> Resumed:
        """Goes on from the newest whole checkpoint, if there is one.

        Args:
          state: what the run starts with otherwise.
          tracker: goes on, too.
        """
        resumed = Resumed(state)
        if self.folder is None:
            return resumed
        found = checkpoint.restore_newest(self.folder, checkpoint.saved(state), with_best=True)
        if found is not None:
            tree, meta = found
            self._best_step, self._step = meta["best_saved"], meta["step"]
            tracker.restore(meta["tracker"])
            resumed = Resumed(
                checkpoint.unsaved(state, tree),
                meta["step"],
                Dispatch(**meta["dispatch"]) if self._is_measured(meta) else None,
                _account_of(meta),
            )
        checkpoint.drop_after(self.folder, resumed.step)
        return resumed

    def _is_measured(self, meta: Mapping[str, object]) -> bool:
        """Says whether a checkpoint names how steps are best dispatched on these devices."""
        return meta["dispatch"] is not None and meta["platform"] == self._platform

    def is_due(self, step: int) -> bool:
        """Says whether the config asks for a checkpoint after this step."""
        return self.folder is not None and self._every is not None and step % self._every == 0

    def is_late(self) -> bool:
        """Says whether the config asks for a checkpoint by now, by this process's clock."""
        if self.folder is None or self._every is not None:
            return False
        return time.perf_counter() - self._saved_at >= self._seconds

    def save(
        self,
        state: TrainState,
        step: int,
        best: Snapshot | None,
        tracker: Tracker,
        dispatch: Dispatch | None,
        account: Account,
    ) -> None:
        """Begins to save a state that is known to be finite, and the best snapshot if it is new.

        Nothing given is needed any more when it returns; the files are written beside the training.
        What is saved is known at the next call, and by `wait`.

        Args:
          state: after ``step``.
          step: updates made.
          best: of the best evaluation, as far as it is in memory.
          tracker: what is known of the training.
          dispatch: how it was dispatched; None where that is not known.
          account: where its time went.

        Raises:
          WorkdirError: it can't be written; what was saved before is intact.
        """
        if self.folder is None or step == self._step:
            return
        self.wait()
        begun: list[Callable[[bool], object]] = []
        if best is not None and best.step != self._best_step:
            # the best before it stays until the newest checkpoint names this one
            named, tree = {"step": best.step}, checkpoint.best_of(best.weights)
            begun.append(
                checkpoint.begin(self.folder, best.step, tree, named, "best", self._needed)
            )
            self._best_step = best.step
        meta = {
            "step": step,
            "best_saved": self._best_step,
            "tracker": tracker.to_dict(),
            "goodput": account.to_dict(),
            "dispatch": None if dispatch is None else dispatch.to_dict(),
            "platform": self._platform,
        }
        tree = checkpoint.apart(checkpoint.saved(state))
        try:
            begun.append(checkpoint.begin(self.folder, step, tree, meta, "step", self._needed))
        except Exception:
            self._written = self._beside.submit(_finish, begun)
            raise
        self._written = self._beside.submit(self._write, begun, step, self._best_step)
        self._step = step
        self.start_clock()

    def _needed(self) -> Collection[Path]:
        return self._sender.needed() if self._sender else ()

    def _write(self, begun: Sequence[Callable[[bool], object]], step: int, best: int) -> None:
        _finish(begun)
        if self._sender:
            self._sender.send(step, best)

    def check(self) -> None:
        """Raises what `save` does if the last checkpoint could not be written, as far as known."""
        if self._written is not None and self._written.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the last checkpoint is written.

        Raises:
          WorkdirError: as `save`.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def close(self) -> None:
        """Waits for what is being written, whatever comes of it."""
        self._beside.shutdown()

    def best(self, known: Snapshot | None, state: TrainState) -> Snapshot:
        """Returns the best snapshot, from memory if it is known there, else from its checkpoint."""
        if known is not None:
            return known
        like = self.experiment.weights(state)
        if self.folder is None:
            return Snapshot(-1, like)
        place = checkpoint.place(self.folder, self._best_step, "best")
        tree = checkpoint.restore(place, checkpoint.best_of(like))
        return Snapshot(self._best_step, like.replace(**tree))

    def last_good(self) -> str:
        """Names the checkpoint that is left after a divergence."""
        if self.folder is None:
            return "The run has no workdir, so nothing of it is kept."
        with contextlib.suppress(WorkdirError):
            self.wait()
        kept = checkpoint.steps(self.folder)
        if not kept:
            return "No checkpoint had been saved before."
        return f"The last good checkpoint is {checkpoint.place(self.folder, kept[-1])}."


def _finish(begun: Sequence[Callable[[bool], object]]) -> None:
    """Ends checkpoints in order; one after another that failed is removed, since it may name it."""
    failed: Exception | None = None
    for finish in begun:
        try:
            finish(failed is None)
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _account_of(meta: Mapping[str, object]) -> Account | None:
    """Returns what a checkpoint says of the run's time; None if it says nothing."""
    try:
        return Account.from_dict(meta.get("goodput"))
    except ValueError:
        return None
