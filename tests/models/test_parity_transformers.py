"""Transformers against Hugging Face's, with the same random weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.models import make_model
from jdlopt.models.generate import generate
from jdlopt.models.transformer import TransformerDecoder, TransformerEncoder

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENS = np.array([[7, 3, 9, 12, 5, 2], [4, 8, 6, 0, 0, 0], [11, 1, 0, 0, 0, 0]])


def weights(module):
    """A PyTorch module's parameters by name, moved so that none is constant."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    module.eval()
    return {name: jnp.asarray(value.detach().numpy()) for name, value in module.named_parameters()}


def dense(found, name):
    return {"kernel": found[f"{name}.weight"].T, "bias": found[f"{name}.bias"]}


def norm(found, name):
    return {"scale": found[f"{name}.weight"], "bias": found[f"{name}.bias"]}


def table(found, name):
    return {"embedding": found[f"{name}.weight"]}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def bert_layer(found, index):
    name = f"encoder.layer.{index}"
    attention = {
        ours: dense(found, f"{name}.attention.self.{ours}") for ours in ("query", "key", "value")
    }
    return {
        "attention": attention | {"out": dense(found, f"{name}.attention.output.dense")},
        "norm_0": norm(found, f"{name}.attention.output.LayerNorm"),
        "mlp": {
            "up": dense(found, f"{name}.intermediate.dense"),
            "down": dense(found, f"{name}.output.dense"),
        },
        "norm_1": norm(found, f"{name}.output.LayerNorm"),
    }


def test_bert():
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=10,
    )
    bert = transformers.BertModel(config)
    found = weights(bert)
    params = {
        "embeddings": {
            "tokens": table(found, "embeddings.word_embeddings"),
            "positions": table(found, "embeddings.position_embeddings"),
            "types": table(found, "embeddings.token_type_embeddings"),
            "norm": norm(found, "embeddings.LayerNorm"),
        },
        "pooler": dense(found, "pooler.dense"),
        **{f"layer_{index}": bert_layer(found, index) for index in range(3)},
    }
    encoder = TransformerEncoder(
        num_outputs=1,
        features=24,
        num_layers=3,
        num_heads=4,
        mlp_features=40,
        max_positions=10,
        num_types=2,
        pooling="cls",
        num_tokens=20,
    )
    types = jnp.array([[0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0]])
    with torch.no_grad():
        theirs = bert(
            torch.tensor(TOKENS),
            attention_mask=torch.tensor(TOKENS != 0),
            token_type_ids=torch.tensor(types),
        )
    states = encoder.apply({"params": params}, jnp.asarray(TOKENS), types=types, method="states")
    real = TOKENS != 0
    np.testing.assert_allclose(states[real], theirs.last_hidden_state.numpy()[real], atol=1e-4)
    pooled = encoder.apply({"params": params}, jnp.asarray(TOKENS), types=types, method="encode")
    np.testing.assert_allclose(pooled, theirs.pooler_output.numpy(), atol=1e-4)

    section = {
        "name": "transformer_encoder",
        "features": 24,
        "num_layers": 3,
        "num_heads": 4,
        "mlp_features": 40,
        "max_positions": 10,
        "num_types": 2,
        "pooling": "cls",
    }
    ours, _ = make_model(section, 5, tokens=20).init(jax.random.key(0), jnp.asarray(TOKENS), {})
    head = ours.pop("head")
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, params)
    assert count(ours) == sum(p.numel() for p in bert.parameters())
    assert count(head) == 24 * 5 + 5


def test_vit():
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        image_size=12,
        patch_size=4,
        layer_norm_eps=1e-6,
        num_labels=5,
    )
    vit = transformers.ViTForImageClassification(config)
    found = weights(vit)

    def layer(index):
        name = f"vit.layers.{index}"
        sides = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
        return {
            "attention": {
                ours: dense(found, f"{name}.attention.{theirs}") for ours, theirs in sides.items()
            },
            "norm_0": norm(found, f"{name}.layernorm_before"),
            "mlp": {
                "up": dense(found, f"{name}.mlp.fc1"),
                "down": dense(found, f"{name}.mlp.fc2"),
            },
            "norm_1": norm(found, f"{name}.layernorm_after"),
        }

    patches = found["vit.embeddings.patch_embeddings.projection.weight"]
    params = {
        "embeddings": {
            "patches": {
                "kernel": patches.transpose(2, 3, 1, 0).reshape(-1, 24),
                "bias": found["vit.embeddings.patch_embeddings.projection.bias"],
            },
            "class_token": found["vit.embeddings.cls_token"].reshape(24),
            "positions": {"embedding": found["vit.embeddings.position_embeddings"][0]},
        },
        **{f"layer_{index}": layer(index) for index in range(2)},
        "norm": norm(found, "vit.layernorm"),
        "head": {"outputs": dense(found, "classifier")},
    }
    section = {
        "name": "vit",
        "features": 24,
        "num_layers": 2,
        "num_heads": 4,
        "mlp_features": 40,
        "patch_size": 4,
    }
    model = make_model(section, 5)
    images = jax.random.normal(jax.random.key(0), (3, 12, 12, 3))
    ours, _ = model.init(jax.random.key(1), images, {})
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, params)
    assert count(ours) == sum(p.numel() for p in vit.parameters())
    with torch.no_grad():
        theirs = vit(torch.tensor(np.asarray(images).transpose(0, 3, 1, 2))).logits.numpy()
    outputs, _ = model.apply(params, {}, images, {}, key=None, train=False)
    np.testing.assert_allclose(outputs, theirs, atol=1e-4)


def test_gpt2():
    config = transformers.GPT2Config(
        vocab_size=20,
        n_positions=16,
        n_embd=24,
        n_layer=3,
        n_head=4,
        bos_token_id=1,
        eos_token_id=1,
    )
    gpt = transformers.GPT2LMHeadModel(config)
    found = weights(gpt)

    def linear(name):  # GPT-2's matrices are (inputs, outputs) already
        return {"kernel": found[f"{name}.weight"], "bias": found[f"{name}.bias"]}

    def layer(index):
        name = f"transformer.h.{index}"
        whole = linear(f"{name}.attn.c_attn")
        parts = {key: jnp.split(leaf, 3, axis=-1) for key, leaf in whole.items()}
        attention = {
            ours: {key: leaves[place] for key, leaves in parts.items()}
            for place, ours in enumerate(("query", "key", "value"))
        }
        return {
            "norm_0": norm(found, f"{name}.ln_1"),
            "attention": attention | {"out": linear(f"{name}.attn.c_proj")},
            "norm_1": norm(found, f"{name}.ln_2"),
            "mlp": {"up": linear(f"{name}.mlp.c_fc"), "down": linear(f"{name}.mlp.c_proj")},
        }

    params = {
        "embeddings": {
            "tokens": table(found, "transformer.wte"),
            "positions": table(found, "transformer.wpe"),
        },
        **{f"layer_{index}": layer(index) for index in range(3)},
        "norm": norm(found, "transformer.ln_f"),
    }
    decoder = TransformerDecoder(
        num_outputs=1, features=24, num_layers=3, num_heads=4, max_positions=16, num_tokens=20
    )
    assert count(params) == sum(p.numel() for p in gpt.parameters())
    ours = decoder.apply({"params": params}, jnp.asarray(TOKENS), method="logits")
    with torch.no_grad():
        theirs = gpt(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)

    tokens = generate(params, jnp.asarray(TOKENS), jax.random.key(0), 0.0, model=decoder, count=10)
    for row, prompt in zip(tokens, TOKENS, strict=True):
        prompt = torch.tensor(prompt[prompt != 0])[None]
        whole = gpt.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=10,
            min_new_tokens=10,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        np.testing.assert_array_equal(row, whole[0, prompt.shape[1] :])
