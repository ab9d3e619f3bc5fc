"""Files that other programs write, for tests/state: PyTorch's state_dict as safetensors, ONNX models.

    python3 tests/golden/state/make.py           Debian packages python3-torch, python3-onnx
    python3 tests/golden/state/make.py --check   loads what `npm run golden:check` wrote with ours

Debian has no safetensors for Python. Its container is written and read here by its published format
(https://huggingface.co/docs/safetensors): eight bytes of header length, a JSON header, the tensors;
in the order that its reference implementation writes, the widest types first, then by name.
"""

import argparse
import importlib.util
import json
import math
import pathlib
import struct

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
BUILD = HERE.parents[2] / "build" / "golden"

spec = importlib.util.spec_from_file_location("make", HERE.parent / "make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

# In the ascending order of the reference implementation.
TYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}
NAMES = {dtype: name for name, dtype in TYPES.items()}


def tensor_bytes(tensor):
    # NumPy has no bfloat16: its bits, as those of another type.
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.int16)
    return tensor.numpy().tobytes()


def write_safetensors(path, tensors, metadata={"format": "pt"}):
    rank = list(TYPES)
    ordered = sorted(tensors.items(), key=lambda item: (-rank.index(NAMES[item[1].dtype]), item[0]))
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, tensor in ordered:
        content = tensor_bytes(tensor)
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(f"{path.name}: {path.stat().st_size} bytes")


def read_safetensors(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])
    data = content[8 + length:]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype = TYPES[entry["dtype"]]
        values = torch.frombuffer(bytearray(data[begin:end]), dtype=dtype)
        tensors[name] = values.reshape(entry["shape"]).clone()
    return tensors


class Network(torch.nn.Module):
    """Convolution, batch norm, twice, then linear and a batch norm without parameters."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(2, 4, 3, padding=1)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.block = torch.nn.Sequential(
            torch.nn.Conv2d(4, 6, 2), torch.nn.BatchNorm2d(6, eps=1e-3, momentum=0.3)
        )
        self.fc = torch.nn.Linear(6 * 4 * 4, 5)
        self.head = torch.nn.BatchNorm1d(5, affine=False)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.block(x))
        return self.head(self.fc(x.flatten(1)))

    def norms(self):
        return {name: module for name, module in self.named_modules()
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)}


def network():
    """The network, trained for some steps on seeded data so that nothing is at its start."""
    torch.manual_seed(20)
    model = Network().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(7):
        optimizer.zero_grad()
        loss = model(1 + 2 * torch.randn(8, 2, 5, 5)).pow(3).mean()
        loss.backward()
        optimizer.step()
    return model


def passes(model, training):
    """What each batch norm takes and gives, forward and backward."""
    model.train(training)
    seen = {}
    hooks = []
    for name, module in model.norms().items():
        def hook(module, inputs, output, name=name):
            inputs[0].retain_grad()
            output.retain_grad()
            seen[name] = (inputs[0], output)
        hooks.append(module.register_forward_hook(hook))
    model.zero_grad()
    x = (1 + 2 * torch.randn(3, 2, 5, 5)).requires_grad_()
    model(x).pow(2).sum().backward()
    for hook in hooks:
        hook.remove()
    results = {}
    for name, module in model.norms().items():
        x, y = seen[name]
        result = {
            "shape": list(x.shape),
            **golden.encode_all({"x": x.detach().numpy(), "y": y.detach().numpy()}),
        }
        if training:
            gradient = lambda p: None if p is None else p.grad.numpy()
            result.update(golden.encode_all({
                "dy": y.grad.numpy(),
                "dx": x.grad.numpy(),
                "dgamma": gradient(module.weight),
                "dbeta": gradient(module.bias),
                **golden.running(module),
            }))
            result["batchesTracked"] = module.num_batches_tracked.item()
        results[name] = result
    return results


def make_torch():
    model = network()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_safetensors(HERE / "network.safetensors", state)
    prefixes = tuple(f"{name}." for name in model.norms())
    write_safetensors(
        HERE / "norms.safetensors",
        {name: tensor for name, tensor in state.items() if name.startswith(prefixes)},
    )
    write_safetensors(
        HERE / "old.safetensors",
        {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")},
        metadata=None,
    )
    bare = {name[4:]: tensor for name, tensor in state.items() if name.startswith("bn1.")}
    write_safetensors(HERE / "bare.safetensors", bare)
    for kind in ("F16", "BF16", "F64"):
        cast = lambda t: t.to(TYPES[kind]) if t.is_floating_point() else t
        write_safetensors(
            HERE / f"network-{kind.lower()}.safetensors",
            {name: cast(tensor) for name, tensor in state.items()},
        )

    # What PyTorch gives in float32 with the weights of each file, on the same data.
    evaluations = {}
    for name in ("network", "network-f16", "network-bf16", "network-f64"):
        model.load_state_dict(read_safetensors(HERE / f"{name}.safetensors"))
        torch.manual_seed(21)
        evaluations[name] = passes(model, training=False)
    model.load_state_dict(state)
    torch.manual_seed(22)
    step = passes(model, training=True)
    options = {
        name: {"eps": module.eps, "momentum": module.momentum}
        for name, module in model.norms().items()
    }
    write_json("network.json", {
        "madeWith": f"PyTorch {torch.__version__}",
        "options": options,
        "evaluations": evaluations,
        "step": step,
    })


def write_json(name, value):
    path = HERE / name
    path.write_text(json.dumps(value, indent=1) + "\n")
    print(f"{name}: {path.stat().st_size} bytes")


# ---- ONNX -------------------------------------------------------------------------------------


def onnx_models():
    """Models by name: how the same two layers are kept in files of different ages."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.RandomState(30)
    channels = 3
    arrays = {
        layer: {
            "scale": random.normal(1, 0.5, channels).astype(np.float32),
            "bias": random.normal(0, 0.5, channels).astype(np.float32),
            "mean": random.normal(0, 2, channels).astype(np.float32),
            "var": random.uniform(0.2, 3, channels).astype(np.float32),
        }
        for layer in ("a", "b")
    }

    def tensor(layer, name, kind, dtype):
        values = arrays[layer][name]
        full = f"{layer}.{name}"
        if kind == "raw" and dtype == TensorProto.FLOAT:
            return numpy_helper.from_array(values, full)
        if dtype == TensorProto.BFLOAT16:
            return helper.make_tensor(full, dtype, [channels], values)
        types = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16,
                 TensorProto.DOUBLE: np.float64}
        if kind == "raw":
            return numpy_helper.from_array(values.astype(types[dtype]), full)
        return helper.make_tensor(full, dtype, [channels], values.astype(types[dtype]))

    def model(opset, kind="raw", dtype=TensorProto.FLOAT, inputs=False, attributes={}, outputs=(),
              named=True, value_info=True, constants=False, identity=False, shared=False, ir=None,
              momentum=0.75):
        nodes, initializers, shape = [], [], ["N", channels, 4, 5]
        for i, layer in enumerate(("a", "b")):
            names = [f"{layer}.{name}" for name in ("scale", "bias", "mean", "var")]
            tensors = [tensor(layer, name, kind, dtype) for name in ("scale", "bias", "mean", "var")]
            if constants:
                nodes += [helper.make_node("Constant", [], [name], value=value)
                          for name, value in zip(names, tensors)]
            else:
                initializers += tensors
            if identity and layer == "b":
                nodes.append(helper.make_node("Identity", ["b.scale"], ["b.scale.alias"]))
                names[0] = "b.scale.alias"
            if shared and layer == "b":
                names[2] = "a.mean"
                initializers.pop(-2)
            nodes.append(helper.make_node(
                "BatchNormalization", ["x" if i == 0 else "h", *names],
                ["y" if i else "h", *[f"{layer}.{name}" for name in outputs]],
                name=f"norm_{layer}" if named else "",
                epsilon=1e-3, momentum=momentum, **attributes))
        fed = [helper.make_tensor_value_info("x", dtype, shape)]
        if inputs:
            fed += [helper.make_tensor_value_info(t.name, dtype, [channels]) for t in initializers]
        hidden = [helper.make_tensor_value_info("h", dtype, shape)] if value_info else []
        out = helper.make_tensor_value_info("y", dtype, shape)
        graph = helper.make_graph(nodes, "norms", fed, [out], initializers, value_info=hidden)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)],
                                 producer_name="golden")
        if ir:
            made.ir_version = ir
        return made

    training = ("mean_out", "var_out")
    models = {
        "opset7": model(7, kind="data", inputs=True, attributes={"spatial": 1}, ir=3),
        "opset9": model(9, kind="data", value_info=False),
        "opset14": model(14, attributes={"training_mode": 0}),
        "opset15": model(15, named=False),
        "opset15-training": model(15, attributes={"training_mode": 1}, outputs=training),
        "opset9-training": model(9, outputs=("m", "v", "sm", "sv")),
        "opset15-float16": model(15, dtype=TensorProto.FLOAT16),
        "opset15-float16-data": model(15, kind="data", dtype=TensorProto.FLOAT16),
        "opset15-bfloat16": model(15, dtype=TensorProto.BFLOAT16),
        "opset15-double": model(15, dtype=TensorProto.DOUBLE),
        "opset15-double-data": model(15, kind="data", dtype=TensorProto.DOUBLE),
        "opset15-constants": model(15, constants=True),
        "opset15-identity": model(15, identity=True),
        "opset15-shared": model(15, shared=True),
        "opset6": model(6, inputs=True, ir=3),
    }
    # BatchNormalization by position instead of by channel, as opset 7 could.
    models["opset7-spatial0"] = model(7, attributes={"spatial": 0}, inputs=True, ir=3)
    # At test time, as opset 6 said it.
    models["opset6-is-test"] = model(6, attributes={"is_test": 1}, inputs=True, ir=3)
    # PyTorch writes this momentum for a cumulative average.
    models["opset15-momentum1"] = model(15, momentum=1.0)
    for name, made in models.items():
        if name not in ("opset7-spatial0", "opset6", "opset6-is-test", "opset15-bfloat16"):
            onnx.checker.check_model(made, full_check="training" not in name)

    # Tensors in a file beside the model.
    external, weights = model(15), b""
    for initializer in external.graph.initializer:
        data = initializer.raw_data
        onnx.external_data_helper.set_external_data(
            initializer, "weights.bin", offset=len(weights), length=len(data))
        weights += data
        initializer.ClearField("raw_data")
    models["opset15-external"] = external

    x = random.normal(0, 2, [2, channels, 4, 5]).astype(np.float32)
    y = x.astype(np.float64)
    for layer in ("a", "b"):
        along = lambda name: arrays[layer][name].astype(np.float64).reshape(1, channels, 1, 1)
        y = (y - along("mean")) / np.sqrt(along("var") + np.float32(1e-3)) * along("scale")
        y += along("bias")
    return models, weights, arrays, x, y


def make_onnx():
    import onnx

    models, weights, arrays, x, y = onnx_models()
    (HERE / "opset15-external.bin").write_bytes(weights)
    for name, model in models.items():
        path = HERE / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        print(f"{path.name}: {path.stat().st_size} bytes")
    write_json("models.json", {
        "madeWith": f"onnx {onnx.__version__}",
        "shape": list(x.shape),
        "layers": {layer: golden.encode_all(values) for layer, values in arrays.items()},
        **golden.encode_all({"x": x, "y": y}),
    })


# ---- what ours wrote --------------------------------------------------------------------------


def check():
    """PyTorch and ONNX load what `npm run golden:check` wrote, and find what it says is in there."""
    expected = json.loads((BUILD / "expected.json").read_text())
    for name, layers in expected["torch"].items():
        model = Network()
        missing, unexpected = model.load_state_dict(
            read_safetensors(BUILD / f"{name}.safetensors"), strict="norms" not in name)
        assert not unexpected, unexpected
        for layer, values in layers.items():
            module = model.norms()[layer]
            found = {"gamma": module.weight, "beta": module.bias, **golden.running(module)}
            for key, value in values.items():
                if key == "batchesSeen":
                    assert module.num_batches_tracked.item() == value, (name, layer)
                elif value is None:
                    assert found[key] is None, (name, layer, key)
                else:
                    actual = torch.as_tensor(found[key]).detach().numpy()
                    wanted = np.array(value, np.float64).astype(np.float32)
                    np.testing.assert_array_equal(actual, wanted, f"{name} {layer} {key}")
        model.eval()(torch.randn(2, 2, 5, 5))
        print(f"{name}.safetensors: PyTorch {torch.__version__} loads it, {len(layers)} layers equal")

    import onnx
    from onnx import numpy_helper

    for name, layers in expected["onnx"].items():
        model = onnx.load(BUILD / f"{name}.onnx")
        onnx.checker.check_model(model, full_check=True)
        tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        aliases = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Identity"}
        nodes = {n.name: n for n in model.graph.node if n.op_type == "BatchNormalization"}
        for layer, values in layers.items():
            for key, tensor in zip(("gamma", "beta", "runningMean", "runningVariance"),
                                   nodes[layer].input[1:]):
                wanted = np.array(values[key], np.float64).astype(np.float32)
                found = tensors[aliases.get(tensor, tensor)]
                np.testing.assert_array_equal(found, wanted, f"{name} {layer} {key}")
            (epsilon,) = [a.f for a in nodes[layer].attribute if a.name == "epsilon"]
            assert math.isclose(epsilon, values["epsilon"], rel_tol=1e-7)
        print(f"{name}.onnx: onnx {onnx.__version__} checks and loads it, {len(layers)} nodes equal")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if parser.parse_args().check:
        check()
    else:
        make_torch()
        make_onnx()


if __name__ == "__main__":
    main()
