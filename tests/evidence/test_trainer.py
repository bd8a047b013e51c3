"""What a comparison's directory keeps of trainings, whatever has become of the file."""

import json
import warnings
import zlib

import numpy as np
import pytest
from fake import FakeProcesses, trained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jdlopt.errors import UserError
from jdlopt.evidence.sides import side_of
from jdlopt.evidence.trainer import Trainer, TrainingsWarning, Wanted, key_of
from jdlopt.executor.executor import Executor
from jdlopt.executor.messages import Failed
from jdlopt.train import weights_file
from jdlopt.train.state import Weights

CONFIG = {"optim": {"learning_rate": 0.1}}
HELD = {
    "seed": 0, "status": "done", "reason": None, "metrics": {"validation/loss": 0.5}, "steps": 9,
    "n_params": 3, "step_seconds": 0.1, "rows": [{"step": 9, "validation/loss": 0.5}],
}  # fmt: skip
WRONG = [None, [], {}, "x", True, -1.5, float("nan"), 10**400, 2**70, [[]], {"a": "b"}, {"a": []}]


def line(held):
    text = json.dumps(held, sort_keys=True)
    return json.dumps({"crc32": zlib.crc32(text.encode()), "training": held})


def known(folder, text):
    (folder / "trainings").mkdir(exist_ok=True)
    (folder / "trainings" / f"{key_of(CONFIG)}.jsonl").write_text(text)
    with Trainer(folder) as trainer:
        return trainer.known(CONFIG)


def test_a_line_of_what_failed_counts_as_none(tmp_path):
    failed = {**HELD, "status": "failed", "reason": "the disk was full", "metrics": {}}
    assert list(known(tmp_path, f"{line(failed)}\n{line({**HELD, 'seed': 1})}\n")) == [1]


@pytest.mark.parametrize("kind", ["wrong input", "environment"])
def test_what_failed_is_not_written_down_and_tried_again_by_the_next_call(
    tmp_path, monkeypatch, kind
):
    processes, config = FakeProcesses(), side_of(BASE).config
    processes.reply = lambda request: Failed(request.task, kind, "the file was gone")
    monkeypatch.setattr(Executor, "start", lambda *_: Executor(processes, 1))
    with Trainer(tmp_path, workers=1) as trainer:
        if kind == "environment":
            with pytest.raises(UserError, match="the file was gone"):
                trainer.train([(config, [1])])
        else:
            for _ in range(2):  # in one call it is tried once
                assert trainer.train([(config, [1])])[key_of(config)][1].status == "failed"
            assert len(processes.sent) == 1
    assert not list((tmp_path / "trainings").iterdir())
    processes.reply = trained
    with Trainer(tmp_path, workers=1) as trainer:
        assert trainer.train([(config, [1])])[key_of(config)][1].status == "done"
    assert len(list((tmp_path / "trainings").glob("*.jsonl"))) == 1


def test_a_metric_that_was_no_number_is_none_when_it_is_read(tmp_path):
    found = known(tmp_path, line({**HELD, "metrics": {"validation/roc_auc": None}}) + "\n")
    assert str(found[0].metrics["validation/roc_auc"]) == "nan"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(list(HELD)), wrong=st.sampled_from([*WRONG, ...]))
def test_a_line_with_anything_anywhere_is_a_training_or_none(tmp_path, key, wrong):
    held = {**HELD, key: wrong}
    if wrong is ...:
        del held[key]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingsWarning)
        found = known(tmp_path, f"{line(HELD)}\n{line({**held, 'seed': held.get('seed')})}\n")
    assert all(isinstance(seed, int) and one.metrics is not None for seed, one in found.items())
    assert 0 in found


@pytest.mark.parametrize("text", ["[]", "3", "[" * 10**5, "{", '{"training": 3}', "\0", "null"])
def test_what_is_no_line_is_told(tmp_path, text):
    with pytest.warns(TrainingsWarning, match="line 2 is damaged"):
        assert list(known(tmp_path, f"{line(HELD)}\n{text}\n")) == [0]


BASE = {
    "data": {"source": "iris", "batch_size": 32},
    "model": {"name": "mlp", "features": (4,)},
    "optim": {"name": "sgd", "learning_rate": 1e-30},
    "train": {"epochs": 1},
}


def test_each_trial_starts_from_its_own_weights_and_they_are_kept(tmp_path):
    config = side_of(BASE).config
    with Trainer(tmp_path, workers=1) as trainer:
        first = [Wanted(config, seed, keep=True) for seed in (1, 2)]
        before = trainer.train_wanted(first)[first[0].key]
        files = [trainer.weights_of(one.key, one.seed) for one in first]
        drawn = [weights_file.read(path)[0] for path in files]
        assert not np.array_equal(*(one["head/dense_0/kernel"] for one in drawn))
        # so small a rate keeps what a training starts from, under seeds that would draw others
        on = [Wanted(config, seed + 10, path, "a start", True) for seed, path in zip((1, 2), files)]
        after = trainer.train_wanted(on)[on[0].key]
        for one, start in zip(on, drawn):
            kept = weights_file.read(trainer.weights_of(one.key, one.seed))[0]
            assert all(np.allclose(kept[name], start[name], 0, 1e-20) for name in start)
        losses = [[t.metrics["validation/loss"] for t in one.values()] for one in (before, after)]
        assert losses[0] == losses[1]
        assert trainer.trained == 4
        files[0].write_bytes(files[0].read_bytes()[:-1] + b"?")
        trainer.train_wanted([*first, *on])
        assert trainer.trained == 5  # that of the damaged file alone


def test_kept_weights_come_back_with_their_shapes(tmp_path):
    weights = Weights({"kernel": np.ones((2, 3), np.float32)}, {"high": np.float32(2)}, {})
    weights_file.save(tmp_path / "one.safetensors", weights)
    found = weights_file.load(tmp_path / "one.safetensors", weights)
    assert found.model_state["high"].shape == () and found.params["kernel"].shape == (2, 3)
