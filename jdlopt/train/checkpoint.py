"""Checkpoints that survive: written aside, checksummed, renamed; damage is found and passed over.

A checkpoint is a folder ``step-N`` (all that a run needs to go on) or ``best-N`` (the parameters of
the best evaluation): an Orbax tree, ``meta.json``, and ``checksums.json`` over all its files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from jdlopt import writing
from jdlopt.errors import WorkdirError
from jdlopt.train import checksums, disk, processes, quiet
from jdlopt.train.state import NOT_SAVED, TrainState, Weights

TREE, META = "tree", "meta.json"
KEEP = 2
"""Newest checkpoints kept: if the last one is damaged, the one before it serves."""


LARGEST, MOST_COMPRESSED = 1 << 32, 100
"""Bytes of arrays that any checkpoint may have, and how many times its files a larger one."""
GO_ON = "Make room (or choose another --workdir), then run the same command to go on."


class AllDamagedError(WorkdirError):
    """There are checkpoints, and none of them can be gone on from."""


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged and was passed over."""


def steps(directory: Path, kind: str = "step") -> list[int]:
    """Returns the steps that have a finished checkpoint, oldest first."""
    if not directory.is_dir():
        return []
    matches = (re.fullmatch(rf"{kind}-(\d+)", entry.name) for entry in directory.iterdir())
    return sorted(int(match.group(1)) for match in matches if match)


def place(directory: Path, step: int, kind: str = "step") -> Path:
    """Returns the folder of one checkpoint."""
    return directory / f"{kind}-{step}"


def held(directory: Path) -> str:
    """Says what a run would go on from."""
    found = steps(directory)
    if not found:
        return "No checkpoint had been saved before."
    return f"The checkpoint before, {place(directory, found[-1])}, is intact."


def save(
    directory: Path,
    step: int,
    tree: PyTree,
    meta: Mapping[str, object],
    kind: str = "step",
) -> Path:
    """Writes a checkpoint as `begin` does, and waits for it."""
    return begin(directory, step, tree, meta, kind)(True)


def begin(
    directory: Path,
    step: int,
    tree: PyTree,
    meta: Mapping[str, object],
    kind: str = "step",
    needed: Callable[[], Collection[Path]] = tuple,
) -> Callable[[bool], Path]:
    """Begins to write a checkpoint beside its final name.

    Args:
      directory: the run's ``checkpoints`` folder.
      step: the step that it stands for.
      tree: a pytree of arrays, random keys as their data; of a CPU, `apart` from what is trained.
      meta: what JSON can hold.
      kind: ``step`` or ``best``.
      needed: older ones that must stay for now.

    Returns:
      What ends it, in any thread: it waits for the arrays to be written; then it renames the
      checkpoint and drops the oldest ones, or, with False, removes it. Every process has to call
      it. It returns the folder.

    Raises:
      WorkdirError: the disk is full or not writable; checkpoints made before are intact. So does
        what is returned.
    """
    final = place(directory, step, kind)
    aside = directory / f"{quiet.SAVING}{kind}-{step}"
    primary = jax.process_index() == 0
    said = json.dumps(meta)  # now: what it is made of may be counted on
    before = set(threading.enumerate())
    link = contextlib.ExitStack()
    with _removed_if_failed(aside, final, step), link:
        if primary:
            shutil.rmtree(aside, ignore_errors=True)
            writing.make_folder(directory)
            aside.mkdir()
        _together(f"aside-{kind}-{step}")
        there = link.enter_context(quiet.plainly_named(aside))
        link.enter_context(quiet.QUIET)
        with quiet.settled(before):
            # in a list, so that what failed is gone when those who report it are collected
            writer = [
                ocp.StandardCheckpointer(
                    multiprocessing_options=ocp.options.MultiprocessingOptions(
                        barrier_sync_key_prefix=f"{kind}-{step}"  # two may be written at a time
                    )
                )
            ]
            try:
                writer[0].save(there / TREE, tree)
            except Exception:
                with contextlib.suppress(Exception):
                    writer.pop().close()
                raise
        link = link.pop_all()

    def finish(keep: bool) -> Path:
        with _removed_if_failed(aside, final, step), link:
            with quiet.settled(before):
                writer.pop().close()
            if primary and not keep:
                shutil.rmtree(aside, ignore_errors=True)
            elif primary:
                (aside / META).write_text(said, encoding="utf-8")
                checksums.write(aside)
                writing.settle_all(aside)
                shutil.rmtree(final, ignore_errors=True)
                aside.rename(final)
                writing.settle(directory)  # before those that it replaces are dropped
                # no step checkpoint names this best one yet: those before it are still needed
                kept = KEEP + (kind == "best")
                for old in steps(directory, kind)[:-kept]:
                    if place(directory, old, kind) not in needed():
                        shutil.rmtree(place(directory, old, kind), ignore_errors=True)
        return final

    return finish


@contextlib.contextmanager
def _removed_if_failed(aside: Path, final: Path, step: int) -> Iterator[None]:
    """Leaves nothing of a checkpoint that can't be written, and says why it can't."""
    try:
        yield
    except Exception as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, OSError) or disk.is_full(error):
            raise WorkdirError(
                f"{final}: the checkpoint of step {step} could not be saved: "
                f"{disk.reason(final, error)}. {held(final.parent)} {GO_ON}"
            ) from error
        raise


def apart(tree: PyTree) -> PyTree:
    """Returns arrays that stay as they are while training overwrites those given.

    On an accelerator they are those given: Orbax copies them to the host before it begins.
    """

    def copied(leaf: jax.Array) -> jax.Array:
        on_cpu = next(iter(leaf.devices())).platform == "cpu"
        return jax.device_put(leaf, leaf.sharding, may_alias=False) if on_cpu else leaf

    return jax.tree.map(copied, tree)


def saved(state: TrainState) -> dict[str, Any]:
    """Returns a state as a checkpoint holds it: a dict, the random key as its data."""
    kept = [field.name for field in dataclasses.fields(state) if field.name not in NOT_SAVED]
    fields = {name: getattr(state, name) for name in kept}
    if not state.loss_scale:
        del fields["loss_scale"]  # checkpoints from before there was one have no place for it
    return {**fields, "key": jax.random.key_data(state.key)}


def saved_shapes(state: TrainState) -> PyTree:
    """Returns the shapes of what `saved` makes of a state of which only shapes are known."""
    return jax.eval_shape(saved, state)


def best_of(weights: Weights) -> dict[str, PyTree]:
    """Returns what a checkpoint keeps of the weights that evaluated best."""
    return {"params": weights.params, "model_state": weights.model_state}


def unsaved(state: TrainState, tree: dict[str, Any]) -> TrainState:
    """Returns the state that `saved` made a tree of."""
    return state.replace(**{**tree, "key": jax.random.wrap_key_data(tree["key"])})


def _together(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def read_meta(folder: Path) -> dict[str, Any]:
    """Returns what was saved beside the arrays.

    Raises:
      OSError, ValueError: it can't be read, or says of no step.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{folder / META}: {error}") from error
    if not isinstance(meta, dict) or type(meta.get("step")) is not int:
        raise ValueError(f"{folder / META}: says of no step.")
    return meta


def read(folder: Path) -> Any:
    """Returns a checkpoint's arrays as they are, on one device, whatever model they are of.

    Raises:
      WorkdirError: the files are damaged.
    """
    found = checksums.damage_found_together(folder)
    if found:
        raise WorkdirError(f"{folder}: is damaged: {found}.")
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        with (
            quiet.QUIET,
            quiet.plainly_named(folder) as there,
            ocp.StandardCheckpointer() as orbax,
        ):
            stored = orbax.metadata(there / TREE).item_metadata.tree
            template = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), stored
            )
            _check_size(folder, template)
            return orbax.restore(there / TREE, template)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise WorkdirError(
            f"{folder}: can't be read: {' '.join(str(error).split())[:300]}."
        ) from error


def _check_size(folder: Path, template: PyTree) -> None:
    """Raises a `ValueError` where files say of arrays that they can't hold, however compressed."""
    said = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(template))
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if said > max(LARGEST, MOST_COMPRESSED * there):
        raise ValueError(f"it says of {said:,} bytes of arrays in {there:,} bytes of files")


def restore(folder: Path, template: PyTree) -> Any:
    """Returns a checkpoint's arrays in the structure, dtypes and shardings of a template.

    Raises:
      WorkdirError: the files are damaged, or hold another structure.
    """
    found = checksums.damage_found_together(folder)
    if found:
        raise WorkdirError(f"{folder}: is damaged: {found}.")
    stored: dict[str, tuple[int, ...]] = {}
    expected = _shapes(template)
    try:
        with (
            quiet.QUIET,
            quiet.plainly_named(folder) as there,
            ocp.StandardCheckpointer() as orbax,
        ):
            stored = _shapes(orbax.metadata(there / TREE).item_metadata.tree)
            for name, shape in expected.items():
                if stored.get(name, shape) != shape:  # Orbax itself would say so in pages
                    raise ValueError(f"{name} has shape {stored[name]}, expected {shape}")
            return orbax.restore(there / TREE, template)
    except (ValueError, KeyError, TypeError, OSError) as error:
        absent = [name for name in expected if name not in stored] if stored else []
        reason = f"{absent[0]} is not in it" if absent else " ".join(str(error).split())[:300]
        raise WorkdirError(
            f"{folder}: doesn't hold this config's state: {reason}. Was {folder.parents[1]}/"
            "config.json or the model's code changed since?"
        ) from error


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def restore_newest(
    directory: Path, template: PyTree, with_best: bool = False
) -> tuple[Any, dict[str, Any]] | None:
    """Returns the newest checkpoint that is whole, with its meta; warns of each damaged one.

    Returns None if there is no checkpoint at all.

    Args:
      directory: the run's ``checkpoints`` folder.
      template: as for `restore`.
      with_best: whether the best checkpoint that it names must be whole too.

    Raises:
      AllDamagedError: there are checkpoints, and all are damaged.
    """
    passed_over: list[str] = []
    for step in reversed(_agreed_steps(directory)):
        folder = place(directory, step)
        try:
            found = restore(folder, template), read_meta(folder)
            if with_best:
                _check_best(directory, found[1]["best_saved"])
        except (WorkdirError, ValueError, OSError, KeyError, TypeError) as error:
            passed_over.append(str(error))
            continue
        for reason in passed_over:
            warnings.warn(
                f"checkpoint passed over: {reason} {folder} is used instead.",
                CheckpointWarning,
                stacklevel=2,
            )
        return found
    if passed_over:
        reasons = "\n".join(f"  {reason}" for reason in passed_over)
        raise AllDamagedError(
            f"{directory}: all {len(passed_over)} checkpoints are damaged or another model's; "
            "move them away to start from the beginning, or choose another --workdir:\n"
            f"{reasons}"
        )
    return None


def begin_anew(directory: Path, error: AllDamagedError) -> None:
    """Removes what is a study's own and not whole, and warns that it is trained once more."""
    reason = " ".join(str(error).splitlines()[1:]).strip()
    warnings.warn(
        f"{directory}: no checkpoint is whole, so its training begins anew: {reason}",
        CheckpointWarning,
        stacklevel=2,
    )
    shutil.rmtree(directory, ignore_errors=True)


def _agreed_steps(directory: Path) -> list[int]:
    """The steps that have a checkpoint, as the first process sees them, on all processes."""
    return cast(list[int], processes.all_say(steps(directory))[0])


def _check_best(directory: Path, step: int) -> None:
    folder = place(directory, step, "best")
    found = checksums.damage_found_together(folder) if step >= 0 else None
    if found:
        raise WorkdirError(f"{folder}: is damaged: {found}.")


def drop_after(directory: Path, step: int) -> None:
    """Removes what lies beyond the step that training goes on from, damaged or half written."""
    if jax.process_index() == 0 and directory.is_dir():
        for aside in directory.glob(f"{quiet.SAVING}*"):
            shutil.rmtree(aside, ignore_errors=True)
        for kind in ("step", "best"):
            for later in steps(directory, kind):
                if later > step:
                    shutil.rmtree(place(directory, later, kind), ignore_errors=True)
    _together(f"dropped-{step}")
