"""The next token of texts end to end: learnt, measured, continued, shown; and a GPT-2's weights."""

from __future__ import annotations

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jdlopt.cli import main
from jdlopt.data import text
from jdlopt.data.coding import PAD
from jdlopt.data.text_cleaning import clean
from jdlopt.data.vocabulary import END_ID
from jdlopt.errors import ConfigError
from jdlopt.tasks import TASKS
from jdlopt.train import serve
from jdlopt.train.continuation import Continuation
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit

TEXTS = [f"{who} has {count} {what}s, and {who} eats one {what}."
         for who in ("Ann", "Bob", "Cleo", "Dan") for count in range(2, 8)
         for what in ("apple", "pear", "plum")]  # fmt: skip


def config(folder, **model):
    """Returns a config of short texts, which are written to a folder."""
    (folder / "made.txt").write_text("\n".join(TEXTS), "utf-8")
    return {
        "data": {
            "source": str(folder / "made.txt"), "task": "next_token", "batch_size": 8,
            "text": {"tokenizer": "bpe", "vocab_size": 320, "max_tokens": 24},
        },
        "model": {
            "name": "transformer_decoder", "features": 32, "num_layers": 1, "num_heads": 2,
            "max_positions": 128, **model,
        },
        "optim": {"name": "adam", "learning_rate": 0.01},
        "train": {"epochs": 8, "tensorboard": False},
        "mesh": {"data": 1},
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return fit(config(folder), folder / "run")


def opened(run):
    """The data of a run."""
    return Experiment.build(serve.run_config(run.workdir)).data


def log_shares(run, tokens):
    """The log-probability of each token after each position of rows."""
    found = run.experiment.predict(run.weights, jnp.asarray(tokens))
    return scipy.special.log_softmax(np.asarray(found.outputs, np.float64), axis=-1)


@pytest.mark.slow
def test_metrics_are_exact_over_a_split(run):
    assert run.record["best"]["metric"] == TASKS["next_token"].monitor
    inputs, targets = opened(run).read("test")
    real = targets != PAD
    nats = -np.take_along_axis(log_shares(run, inputs), np.maximum(targets, 0)[..., None], 2)
    nats = nats[..., 0][real].sum()
    assert run.metrics["test/perplexity"] == pytest.approx(math.exp(nats / real.sum()), rel=1e-5)
    state = run.experiment.spec.input.text.state
    stream = targets[real]
    held = np.split(stream, np.flatnonzero(stream == END_ID) + 1)[:-1]
    texts = [text.decode(state, one[None, :-1])[0] for one in held]
    assert set(texts) <= {clean(one, lowercase=True) for one in TEXTS} and len(texts) == 15
    size = sum(len(one.encode()) + 1 for one in texts)
    bits = nats / (size * math.log(2))
    assert run.metrics["test/bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    assert bits < 2.5 and run.metrics["test/token_accuracy"] > 0.4


@pytest.mark.slow
def test_texts_are_continued(run, tmp_path, capsys):
    (tmp_path / "begun.txt").write_text("Ann has 3 pears\n\nBob\n", "utf-8")
    words = ["predict", str(run.workdir), f"--input={tmp_path / 'begun.txt'}", "--json"]

    def said(*more):
        assert main([*words, *more]) == 0
        return json.loads(capsys.readouterr().out)

    best = said("--temperature=0", "--new-tokens=12")
    assert best["text"] == ["Ann has 3 pears", "", "Bob"] and len(best["prediction"]) == 3
    state = run.experiment.spec.input.text.state
    tokens = [END_ID, *text.tokens_of(state, ["Ann has 3 pears"])[0]]
    start = len(tokens)
    while len(tokens) < start + 12:
        row = np.zeros((1, 32), np.int32)
        row[0, : len(tokens)] = tokens
        tokens.append(int(log_shares(run, row)[0, len(tokens) - 1, 1:].argmax()) + 1)
        if tokens[-1] == END_ID:
            break
    whole = text.decode(state, np.array([[one for one in tokens[1:] if one != END_ID]], np.int32))[
        0
    ]
    assert f"ann has 3 pears{best['prediction'][0]}" == whole
    assert said("--seed=1") == said("--seed=1") != said("--seed=2")
    given = run.predict(["Bob"], continuation=Continuation(12, temperature=0.0))
    assert given.labels == best["prediction"][2:]
    assert main([*words, "--new-tokens=128"]) == 2
    assert "--new-tokens: 128 is too many for model.max_positions=128" in capsys.readouterr().err


@pytest.mark.slow
def test_the_report_continues_validation_texts(run):
    assert main(["report", str(run.workdir)]) == 0
    page = (run.workdir / "report.html").read_text("utf-8")
    assert "Continued texts" in page and "likeliest" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [{"name": "transformer_encoder"}, {"name": "gru", "bidirectional": True}]
)
def test_models_that_see_what_they_are_to_predict_are_refused(model, tmp_path):
    raw = config(tmp_path)
    raw["model"] = model
    with pytest.raises(ConfigError, match=r"model.name: .* sees the tokens that it is to predict"):
        Experiment.build(raw)


@pytest.mark.slow
def test_a_gpt2_has_the_loss_that_transformers_computes(tmp_path):
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    state = text.fit({"tokenizer": "bpe", "vocab_size": 320, "lowercase": False}, TEXTS)
    spec = json.loads(state.tokenizer)
    vocab = [one for one in spec["model"]["vocab"] if one not in ("[PAD]", "[UNK]")]
    spec["model"]["vocab"] = {one: place for place, one in enumerate(vocab)}
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    size = tokenizer.get_vocab_size()
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": size}
    theirs = hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, initializer_range=0.3)).eval()
    theirs.save_pretrained(tmp_path / "gpt2")
    tokenizer.save(str(tmp_path / "gpt2" / "tokenizer.json"))
    raw = config(tmp_path, num_layers=2, max_positions=64, pretrained=str(tmp_path / "gpt2"))
    raw["data"]["text"] = {
        "tokenizer": str(tmp_path / "gpt2" / "tokenizer.json"),
        "lowercase": False,
        "max_tokens": 24,
    }
    raw["train"] = {"steps": 1, "tensorboard": False}
    raw["optim"] = {"name": "sgd", "learning_rate": 1e-9}
    run = fit(raw, tmp_path / "run")
    inputs, targets = opened(run).read("test")
    own = run.experiment.spec.input.text
    ids = tokenizer.get_vocab()
    rows = np.array([ids.get(token, -1) for token in own.state.tokens])
    nats = 0.0
    for row, target in zip(inputs, targets, strict=True):
        real = target != PAD
        with torch.no_grad():
            logits = theirs(torch.tensor(rows[row[real]][None])).logits[0]
        nats += float(torch.nn.functional.cross_entropy(
            logits, torch.tensor(rows[target[real]]), reduction="sum"
        ))  # fmt: skip
    count = int((targets != PAD).sum())
    assert run.metrics["test/perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-4)
