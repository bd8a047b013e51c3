"""Data that come while a run trains: the same, whether threads, processes or hosts read them."""

from __future__ import annotations

import gc
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from jax._src.xla_bridge import backends_are_initialized  # nothing public tells it

from jdlopt.data import feed
from jdlopt.data.pools import ArrayPool
from jdlopt.errors import DataError
from jdlopt.train.loop import fit

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch" / "local.py"


def until(happened: Callable[[], object], seconds: float = 60) -> None:
    """Waits for what has to happen, a few milliseconds at a time."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


def alive(pids) -> list[int]:
    return [pid for pid in pids if _state(int(pid)) not in ("", "Z")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def group(leader: int) -> dict[int, str]:
    """The living processes of a process group, and the command of each."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.getpgid(int(entry.name)) == leader:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().decode()
        except OSError:  # it has ended meanwhile
            continue
    return {pid: command for pid, command in found.items() if alive([pid])}


def reading(leader: int) -> list[int]:
    """The processes of a group that Grain has started to read."""
    return [pid for pid, command in group(leader).items() if "spawn_main" in command]


def shared_memory() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").glob("psm_*")}


# --- how long the device waits --------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, 8)).astype(np.float32)
    path = tmp_path / "points.npz"
    np.savez(path, x_train=points, y_train=np.arange(600) % 3, x_test=points[:60], y_test=[0] * 60)
    return {
        "data": {"source": str(path), "batch_size": 16, "in_memory": False},
        "model": {"name": "mlp", "features": (16,)},
        "train": {"steps": 40, "eval_every": 40, "tensorboard": False},
        "mesh": {"data": 1},
    }


@pytest.mark.slow
def test_a_slow_reader_is_visible(config, tmp_path, monkeypatch):
    read = ArrayPool.read

    def slow(pool, indices):
        if indices is not None and len(indices) == config["data"]["batch_size"]:
            time.sleep(0.02 * len(indices))
        return read(pool, indices)

    monkeypatch.setattr(ArrayPool, "read", slow)
    seen = []
    record = fit(config, tmp_path / "run", seen.append).record
    assert record["data_wait_share"] > 0.5
    assert seen[-1].waiting > 0.5


@pytest.mark.slow
def test_a_fast_reader_is_not(config, tmp_path):
    config["data"]["batch_size"] = 256
    config["model"]["features"] = (1024, 1024)
    seen = []
    record = fit(config, tmp_path / "run", seen.append).record
    assert record["data_wait_share"] < 0.2
    assert seen[-1].waiting < 0.2


# --- worker processes -----------------------------------------------------------------------------


class Witness(list):
    """Records that tell which process reads them, and what jax is to that process."""

    def __getitem__(self, index):
        return np.array([os.getpid(), backends_are_initialized(), index]), np.int32(index)


class Jax(list):
    """Records whose reader makes use of jax."""

    def __getitem__(self, index):
        (device,) = jax.numpy.arange(3).devices()
        return np.array([device.platform == "cpu"]), np.int32(index)


def batches_of(records, workers, **more) -> Iterator[dict[str, np.ndarray]]:
    return feed.stream(records, seed=4, batch_size=3, first_step=5, workers=workers, **more)


def readers(read, batches=12) -> set[int]:
    return {int(pid) for b in itertools.islice(read, batches) for pid in b["inputs"][:, 0]}


@pytest.mark.slow
def test_workers_read_and_make_no_device():
    read = batches_of(Witness(range(20)), workers=2)
    found = np.concatenate([batch["inputs"] for batch in itertools.islice(read, 6)])
    read.close()
    assert len(set(found[:, 0])) == 2 and os.getpid() not in found[:, 0]
    assert not found[:, 1].any()
    np.testing.assert_array_equal(found[:, 2], feed.batch_examples(4, 5, 3, 20, steps=6).ravel())


@pytest.mark.slow
def test_a_reader_that_uses_jax_is_kept_off_the_accelerator(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")  # what a worker inherits
    read = batches_of(Jax(range(20)), workers=1)
    assert next(read)["inputs"].all()
    read.close()


def stumble(read):
    for _ in read:
        raise ZeroDivisionError


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "dropped", "left by an error", "before it began"])
def test_no_worker_is_left_behind(how):
    kept = shared_memory()
    read = batches_of(Witness(range(20)), workers=2)
    pids = set() if how == "before it began" else readers(read)
    assert len(pids) == (0 if how == "before it began" else 2)
    if how == "left by an error":
        with pytest.raises(ZeroDivisionError):
            stumble(read)
    if how in ("closed", "before it began"):
        read.close()
    del read
    gc.collect()
    until(lambda: not alive(pids))
    until(lambda: not shared_memory() - kept)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_reading_with_a_reason():
    read = batches_of(Witness(range(20)), workers=2)
    pids = readers(read)
    os.kill(min(pids), signal.SIGKILL)
    with pytest.raises(DataError, match=r"data\.workers: .* exit code -9 .*memory"):
        readers(read, 1000)
    until(lambda: not alive(pids))


@pytest.mark.slow
def test_an_error_in_a_worker_is_the_one_of_a_thread():
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"example \d+ can't be read"):
            next(batches_of(Damaged(range(20)), workers=workers))


class Damaged(list):
    def __getitem__(self, index):
        raise DataError(f"example {index} can't be read")


UNGUARDED = """
import numpy as np
from jdlopt.data import feed
records = [(np.zeros(2), np.int32(0))] * 8
next(feed.stream(records, seed=0, batch_size=2, first_step=0, workers=1))
"""


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(runs, tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=runs.environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]


# --- the same run, whatever reads -----------------------------------------------------------------


def streamed(workers: int) -> tuple[str, ...]:
    return ("data.in_memory=False", f"data.workers={workers}", "train.steps_per_dispatch=1")


@pytest.fixture(scope="module")
def by_threads(runs, tmp_path_factory) -> Path:
    """The directory of a run whose data threads read."""
    workdir = tmp_path_factory.mktemp("streamed") / "threads"
    runs.train(workdir, *streamed(0))
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_nothing(runs, by_threads, tmp_path, workers):
    process = runs.start(tmp_path / "run", *streamed(workers), before=("setsid",))
    seen: set[int] = set()

    def ended() -> bool:
        seen.update(reading(process.pid))
        return process.poll() is not None

    until(ended, 180)
    errors = runs.finish(process)
    assert len(seen) == workers
    until(lambda: not group(process.pid))
    runs.assert_same(by_threads, tmp_path / "run")
    assert "leaked" not in errors and "Error" not in errors


BATCHES = """
import sys
import jax
import numpy as np
from jax.experimental import multihost_utils
from jdlopt import mesh as meshes
from jdlopt.data import feed, open_dataset
from jdlopt.train import processes

SIZE = 16

def main(source, folder, workers):
    processes.join()
    records = open_dataset({"source": source, "validation_fraction": 0.2}).records("train")
    sharding = meshes.batch_sharding(meshes.make_mesh(meshes.MeshFields(data=-1, fsdp=1)))
    rows = meshes.local_rows(sharding, SIZE)
    asked = []
    pool = type(records.pool)
    read = pool.read

    def noting(self, indices):
        asked.append(indices)
        return read(self, indices)

    pool.read = read if workers else noting
    batches = feed.prefetched(
        feed.stream(
            records, seed=5, batch_size=SIZE, first_step=7, rows=rows, workers=workers, threads=1
        ),
        sharding,
        SIZE,
    )
    whole = {"inputs": [], "targets": []}
    for step in range(20):
        for name, values in next(batches).items():
            assert len(values.addressable_shards[0].data) == SIZE // jax.device_count()
            whole[name].append(multihost_utils.process_allgather(values, tiled=True))
    batches.close()
    index = jax.process_index()
    np.savez(f"{folder}/{index}.npz", rows=rows, asked=np.array(asked), **whole)

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 1), (4, 0)])
def test_processes_put_together_the_batches_of_one(runs, tmp_path, processes, workers):
    from jdlopt.data import open_dataset

    script = tmp_path / "batches.py"
    script.write_text(BATCHES)
    source = str(runs.folder / "blobs.npz")
    command = [sys.executable, str(LAUNCH), f"--processes={processes}", "--devices-per-process=1"]
    process = subprocess.Popen(
        [*command, "--", source, str(tmp_path), str(workers)],
        env=runs.environment(JDLOPT=shlex.join([sys.executable, str(script)])),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    runs.finish(process)
    records = open_dataset({"source": source, "validation_fraction": 0.2}).records("train")
    order = feed.batch_examples(5, 7, 16, len(records), steps=20)
    inputs = np.stack([np.stack([records[i][0] for i in batch]) for batch in order])
    targets = np.array([[records[i][1] for i in batch] for batch in order])
    share = 16 // processes
    for index in range(processes):
        with np.load(tmp_path / f"{index}.npz") as found:
            np.testing.assert_array_equal(found["inputs"], inputs)
            np.testing.assert_array_equal(found["targets"], targets)
            np.testing.assert_array_equal(found["rows"], np.arange(share) + index * share)
            if not workers:  # it read its rows and no others
                mine = records.indices[order[:, found["rows"]]]
                assert len(found["asked"]) >= 20
                np.testing.assert_array_equal(found["asked"][:20], mine)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "workers"), [(2, 1), (4, 0)])
def test_a_streamed_run_of_several_processes_is_that_of_one(
    runs, by_threads, tmp_path, processes, workers
):
    command = [sys.executable, str(LAUNCH), f"--processes={processes}", "--devices-per-process=1"]
    process = subprocess.Popen(
        [*command, "--", *runs.words(tmp_path / "run", *streamed(workers))],
        env=runs.environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    runs.finish(process)
    assert len(runs.result(tmp_path / "run")["devices"]) == processes
    for ours, theirs in zip(runs.curve(by_threads), runs.curve(tmp_path / "run"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


# --- runs that are stopped ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "when"), [(signal.SIGINT, "training"), (signal.SIGTERM, "workers start")]
)
def test_a_signal_to_all_of_a_run_stops_it_and_it_goes_on(runs, by_threads, tmp_path, number, when):
    workdir = tmp_path / "run"
    process = runs.start(workdir, *streamed(2), before=("setsid",))
    if when == "training":
        runs.wait(process, lambda: runs.newest(workdir) >= 12)
    else:
        runs.wait(process, lambda: reading(process.pid))
    os.killpg(process.pid, number)  # as a terminal's Ctrl-C, and a job scheduler, does
    errors = runs.finish(process, expect=130)
    assert "interrupted at step" in errors and "Error" not in errors
    until(lambda: not group(process.pid))
    stopped = runs.result(workdir)
    assert stopped["status"] == "interrupted" and stopped["steps"] == runs.newest(workdir) < 48
    runs.train(workdir, *streamed(1))
    runs.assert_same(by_threads, workdir)


@pytest.mark.slow
def test_workers_end_with_a_run_that_is_killed(runs, by_threads, tmp_path):
    kept = shared_memory()
    workdir = tmp_path / "run"
    process = runs.start(workdir, *streamed(2), before=("setsid",))
    runs.wait(process, lambda: runs.newest(workdir) >= 12)
    assert len(reading(process.pid)) == 2
    process.kill()
    until(lambda: not group(process.pid))
    process.communicate()
    until(lambda: not shared_memory() - kept)
    runs.train(workdir, *streamed(2))
    runs.assert_same(by_threads, workdir)
