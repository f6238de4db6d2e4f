import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reprise.nn import FlattenChannelsLast, TinyVGG, capture, load_tfjs_weights, multiply_adds, parameters

PARAMETERS = {"conv_1_1": 280, "conv_1_2": 910, "conv_2_1": 910, "conv_2_2": 910, "output": 16_910}
MULTIPLY_ADDS = {
    "conv_1_1": 1_037_880, "conv_1_2": 3_240_000, "conv_2_1": 705_600, "conv_2_2": 608_400, "output": 16_900,
}  # fmt: skip
SHAPES = {
    "conv_1_1": (10, 62, 62), "relu_1_1": (10, 62, 62), "conv_1_2": (10, 60, 60), "relu_1_2": (10, 60, 60),
    "max_pool_1": (10, 30, 30), "conv_2_1": (10, 28, 28), "relu_2_1": (10, 28, 28), "conv_2_2": (10, 26, 26),
    "relu_2_2": (10, 26, 26), "max_pool_2": (10, 13, 13), "flatten": (1690,), "output": (10,),
}  # fmt: skip


def test_the_published_table():
    with torch.device("meta"):
        model = TinyVGG()
    assert [name for name, _ in model.named_children()] == list(SHAPES)
    with capture(model, *SHAPES) as outputs:
        model(torch.empty(1, 3, 64, 64, device="meta"))
    assert {name: tuple(output.shape[1:]) for name, output in zip(SHAPES, outputs, strict=True)} == SHAPES
    counts = {name: parameters(layer) for name, layer in model.named_children() if parameters(layer)}
    assert counts == PARAMETERS and parameters(model) == 19_920
    inputs = dict(zip(SHAPES, [torch.empty(1, 3, 64, 64, device="meta"), *outputs[:-1]], strict=True))
    work = {name: multiply_adds(layer, inputs[name]) for name, layer in model.named_children()}
    assert {name: amount for name, amount in work.items() if amount} == MULTIPLY_ADDS
    assert multiply_adds(model, (1, 3, 64, 64)) == 5_608_780


@pytest.mark.parametrize(("size", "channels", "count"), [(32, 3, 5_520), (28, 1, 4_440), (16, 1, None)])
def test_other_sizes(size, channels, count):
    model = TinyVGG(size, channels)
    assert count is None or parameters(model) == count
    assert model(torch.rand(2, channels, size, size)).shape == (2, 10)


def test_equals_the_formula():
    model, x = TinyVGG(20, 2, filters=3, classes=4), torch.rand(2, 2, 20, 20)
    maps = F.relu(model.conv_1_2(F.relu(model.conv_1_1(x))))
    maps = F.max_pool2d(maps, 2)
    maps = F.max_pool2d(F.relu(model.conv_2_2(F.relu(model.conv_2_1(maps)))), 2)
    rows = torch.stack([maps[:, :, i, j] for i in range(2) for j in range(2)], 1).flatten(1)
    torch.testing.assert_close(model(x), rows @ model.output.weight.T + model.output.bias)


def test_the_order_of_flattening_matters():
    published, plain, x = TinyVGG(), TinyVGG(flatten="channels_first"), torch.rand(1, 3, 64, 64)
    plain.load_state_dict(published.state_dict())
    assert not torch.allclose(published(x), plain(x), atol=1e-3)
    weight = published.output.weight.detach()  # the same weights, told the other order, give the same logits
    plain.output.weight.data = weight.reshape(10, 13, 13, 10).permute(0, 3, 1, 2).reshape(10, -1)
    torch.testing.assert_close(published(x), plain(x))


def test_flatten_is_row_column_channel():
    maps = torch.arange(24).reshape(1, 2, 3, 4)
    flat = FlattenChannelsLast()(maps)
    assert all(flat[0, (i * 4 + j) * 2 + c] == maps[0, c, i, j] for c in range(2) for i in range(3) for j in range(4))


def test_initialisation():
    torch.manual_seed(0)
    model = TinyVGG()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert (weight == 0).all()
        else:
            fan = weight[0].numel() + len(weight) * weight[0][0].numel()
            bound = (6 / fan) ** 0.5
            assert 0.9 * bound < weight.abs().max() <= bound


def as_tfjs(model, folder):
    """The two files of TensorFlow.js, written by hand."""
    size = model.input_shape[1]
    weights, data = [], b""
    for name, layer in model.named_children():
        for key, weight in layer.named_parameters():
            values = weight.detach().numpy()
            values = np.einsum("oihw->hwio", values) if values.ndim == 4 else values.T
            kind = {"weight": "kernel", "bias": "bias"}[key]
            weights.append({"name": f"{name}/{kind}", "shape": list(values.shape), "dtype": "float32"})
            data += np.ascontiguousarray(values, "<f4").tobytes()
    layers = [{"class_name": "Conv2D", "config": {"batch_input_shape": [None, size, size, model.input_shape[0]]}}]
    content = {
        "modelTopology": {"model_config": {"config": {"layers": layers}}},
        "weightsManifest": [{"paths": ["group1-shard1of1.bin"], "weights": weights}],
    }
    (folder / "model.json").write_text(json.dumps(content))
    (folder / "weights.bin").write_bytes(data)
    return folder / "weights.bin", folder / "model.json"


@pytest.mark.parametrize("arguments", [(), (20, 1, 4, 3)])
def test_weights_of_tensorflow_js(arguments, tmp_path):
    model = TinyVGG(*arguments)
    for bias in (weight for name, weight in model.named_parameters() if name.endswith("bias")):
        torch.nn.init.normal_(bias)
    binary, topology = as_tfjs(model, tmp_path)
    assert binary.stat().st_size == 4 * parameters(model)
    loaded = load_tfjs_weights(binary, topology)
    assert {name: value.tolist() for name, value in loaded.state_dict().items()} == {
        name: value.tolist() for name, value in model.state_dict().items()
    }
    x = torch.rand(2, *model.input_shape)
    assert torch.equal(loaded(x), model(x)) and not loaded.training


def test_other_files_are_refused(tmp_path):
    binary, topology = as_tfjs(TinyVGG(16, 1, 2, 2), tmp_path)
    content = json.loads(topology.read_text())
    binary.write_bytes(binary.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"holds 139 numbers, where .* lists 140"):
        load_tfjs_weights(binary, topology)
    manifest = content["weightsManifest"][0]["weights"]
    for change, message in [
        (lambda: manifest[0].update(dtype="uint8"), "keeps weights as uint8"),
        (lambda: manifest[0].update(dtype="float32", shape=[5, 5, 1, 2]), r"conv_1_1/kernel is \(5, 5, 1, 2\)"),
        (manifest.clear, "no model.json of a Tiny VGG"),
    ]:
        change()
        topology.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            load_tfjs_weights(binary, topology)
    topology.write_text("not JSON")
    with pytest.raises(ValueError, match="is no model"):
        load_tfjs_weights(binary, topology)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TinyVGG(15), "at least 16 pixels"),
        (lambda: TinyVGG(filters=0), "at least 1"),
        (lambda: TinyVGG(flatten="hwc"), "channels_last"),
        (lambda: TinyVGG()(torch.rand(1, 3, 32, 32)), r"\(N, 3, 64, 64\), not \(1, 3, 32, 32\)"),
        (lambda: TinyVGG()(torch.rand(3, 64, 64)), r"not \(3, 64, 64\)"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
