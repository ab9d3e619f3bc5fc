"""Small networks of every kind that `torch.onnx.export` writes, for tests/state/onnx-networks.test.ts.

    python3 tests/golden/state/networks.py       Debian packages python3-torch, python3-onnx

Each network is a file in networks/; networks.json has what onnx.shape_inference knows of the axes of
each batch norm's input, and an input of the network with PyTorch's output.
"""

import importlib.util
import json
import pathlib

import onnx
import torch
from torch import nn

HERE = pathlib.Path(__file__).parent

spec = importlib.util.spec_from_file_location("make", HERE.parent / "make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


class Residual(nn.Module):
    """As ResNet: a sum of two branches; then rank 2."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6, eps=1e-3),
        )
        self.downsample = nn.Sequential(nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6))
        self.fc = nn.Linear(6, 5)
        self.head = nn.BatchNorm1d(5)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn(self.conv(x))))
        x = torch.relu(self.block(x) + self.downsample(x))
        return self.head(self.fc(x.mean((2, 3))))


class Mobile(nn.Module):
    """As MobileNet 3: depthwise convolutions, squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.squeeze = nn.Conv2d(8, 2, 1)
        self.excite = nn.Conv2d(2, 8, 1)
        self.project = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4))

    def forward(self, x):
        x = self.depthwise(self.stem(x))
        s = nn.functional.adaptive_avg_pool2d(x, 1)
        return self.project(x * nn.functional.hardsigmoid(self.excite(torch.relu(self.squeeze(s)))))


class Dense(nn.Module):
    """As DenseNet: norms first, behind concatenations; and two that a convolution follows at once."""

    def __init__(self):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(2)
        self.conv1 = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 4, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(9)
        self.conv3 = nn.Conv2d(9, 4, 3)
        self.norm4 = nn.BatchNorm2d(9)
        self.conv4 = nn.Conv2d(9, 2, 3, padding=1)

    def forward(self, x):
        x = torch.cat([x, self.conv1(torch.relu(self.norm1(x)))], 1)
        x = torch.cat([x, self.conv2(torch.relu(self.norm2(x)))], 1)
        return self.conv3(self.norm3(x)), self.conv4(self.norm4(x))


class Upward(nn.Module):
    """As U-Net: transposed convolutions, a skip connection."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(4, 6, 2, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        self.up = nn.Sequential(
            nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2, bias=False), nn.BatchNorm2d(4))
        self.norm = nn.BatchNorm2d(8)
        self.out = nn.ConvTranspose2d(8, 3, 3, padding=1)
        self.out_norm = nn.BatchNorm2d(3)

    def forward(self, x):
        skip = self.down(x)
        x = torch.cat([skip, self.up(self.deep(skip))], 1)
        return self.out_norm(self.out(torch.relu(self.norm(x))))


class Perceptron(nn.Module):
    """Linear layers with and without bias; a norm before one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4), nn.Tanh())
        self.last = nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3, bias=False))

    def forward(self, x):
        return self.last(self.second(self.first(x.view(x.size(0), -1))))


class Signal(nn.Module):
    """Of three axes: convolutions along one, then a norm of what was put in another shape."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(2, 4, 5, padding=2), nn.BatchNorm1d(4), nn.ELU())
        self.norm = nn.BatchNorm1d(3)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = self.conv(x).transpose(1, 2)
        x = torch.relu(self.norm(x.reshape(x.size(0), 3, -1)))
        return self.fc(x)


class Volume(nn.Module):
    """Of five axes, and of six, which no layout has a name for."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2), nn.ReLU())
        self.norm = nn.BatchNorm3d(2)

    def forward(self, x):
        x = self.conv(x).unsqueeze(2)
        return nn.functional.batch_norm(
            x, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)


class Twice(nn.Module):
    """One convolution and its norm at two places, and the convolution at a third without it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.bn = nn.BatchNorm2d(2)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = torch.relu(self.bn(self.conv(x)))
        return self.conv(x)


NETWORKS = {
    "residual": (Residual, [2, 3, 12, 12], 9),
    "mobile": (Mobile, [2, 3, 6, 6], 14),
    "dense": (Dense, [2, 2, 5, 5], 11),
    "upward": (Upward, [2, 2, 6, 6], 12),
    "perceptron": (Perceptron, [3, 2, 3], 15),
    "signal": (Signal, [2, 2, 6], 13),
    "volume": (Volume, [2, 1, 3, 3, 3], 15),
    "twice": (Twice, [1, 2, 5, 5], 10),
}


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def randomize(model):
    """Norms whose numbers are all different from those at the start, and from each other."""
    for module in norms_of(model):
        module.running_mean.normal_(0, 0.5)
        module.running_var.uniform_(0.3, 2)
        if module.affine:
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5).mul_(torch.sign(torch.randn_like(module.weight)))
                module.bias.normal_(0, 0.5)


def inferred(model, strict=True):
    """What onnx.shape_inference knows of the number of axes of each batch norm's input."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=True).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in [*graph.value_info, *graph.input, *graph.output]
        if value.type.tensor_type.HasField("shape")
    }
    return [ranks.get(node.input[0]) for node in graph.node if node.op_type == "BatchNormalization"]


def operators():
    """A batch norm behind one operation each, and what onnx.shape_inference says of its input's axes."""
    from onnx import TensorProto, helper

    nodes, initializers, count = [], [], 0

    def integers(*values):
        name = f"i{len(initializers)}"
        initializers.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def floats(*shape):
        name = f"f{len(initializers)}"
        size = 1
        for n in shape:
            size *= n
        initializers.append(helper.make_tensor(name, TensorProto.FLOAT, shape, [1.0] * size))
        return name

    def after(kind, *inputs, outputs=1, **attributes):
        nonlocal count
        count += 1
        made = [f"{kind}.{count}.{i}" for i in range(outputs)]
        nodes.append(helper.make_node(kind, inputs, made, **attributes))
        return made[0]

    norms = [
        after("Squeeze", "x4s", integers(2)), after("Squeeze", "x4s", integers(2, 3)),
        after("Unsqueeze", "x2", integers(2, 3)), after("Flatten", "x4"),
        after("Reshape", "x4", integers(2, 3, -1)), after("Expand", "x2", integers(4, 1, 2, 3)),
        after("Expand", "x4s", integers(4, 5)),
        after("ReduceMean", "x4", axes=[2, 3]), after("ReduceMean", "x4", axes=[2, 3], keepdims=0),
        after("ReduceSum", "x4", integers(3), keepdims=0), after("ArgMax", "x4", axis=1, keepdims=0),
        after("MatMul", "x4", floats(5, 7)), after("MatMul", "x2", floats(3, 4)),
        after("MatMul", "x2", floats(4, 3, 6)), after("Gemm", "x2", floats(3, 4)),
        after("Gather", "x4", integers(0, 1), axis=1), after("Gather", "x2", floats(), axis=1),
        after("Add", "x4", floats(3, 1, 1)), after("Add", floats(5), "x4"), after("Mul", floats(4, 3), "x3s"),
        after("Sum", "x4", floats(5), "x4"), after("Max", floats(1, 1, 3), "x2"),
        after("Split", "x4", outputs=3, axis=1), after("Concat", "x3", "x3", axis=1),
        after("Transpose", "x3", perm=[0, 2, 1]), after("Tile", "x3", integers(1, 1, 2)),
        after("AveragePool", "x3", kernel_shape=[2]), after("MaxPool", "x4", kernel_shape=[2, 2]),
        after("GlobalAveragePool", "x4"), after("Conv", "x3", floats(3, 3, 1)),
        after("ConvTranspose", "x4", floats(3, 2, 1, 1)), after("Pad", "x3", integers(0, 0, 1, 0, 0, 1)),
        after("Dropout", "x4", outputs=2), after("Softmax", "x3"), after("Cast", "x2", to=1),
        after("PRelu", "x4", floats(3, 1, 1)), after("DepthToSpace", "x4b", blocksize=2),
        after("ConstantOfShape", integers(2, 3, 4)),
        after("Reshape", "x4", after(
            "Concat", integers(2), after("Unsqueeze", after("Size", "x2"), integers(0)), integers(1, -1),
            axis=0)),
        after("Reshape", "x4", after("Cast", after("Shape", "x3"), to=7)),
        after("Reshape", "x4", after("Gather", after("Shape", "x4"), integers(0, 1, 3))),
        after("TopK", "x4", integers(2), outputs=2), after("Resize", "x4", "", floats(4)),
    ]
    # Gather's second input has to be a whole number.
    for initializer in initializers:
        if len(initializer.dims) == 0:
            initializer.CopyFrom(helper.make_tensor(initializer.name, TensorProto.INT64, [], [1]))
    parameters = [floats(3) for _ in range(4)]
    inputs = {"x2": [2, 3], "x3": [2, 3, 4], "x4": [2, 3, 4, 5], "x3s": [2, 1, 3], "x4s": [2, 3, 1, 1],
              "x4b": [2, 12, 2, 2]}
    nodes += [helper.make_node("BatchNormalization", [name, *parameters], [f"{name}.y"])
              for name in norms]
    graph = helper.make_graph(
        nodes, "operators",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(f"{name}.y") for name in norms], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    path = HERE / "networks" / "operators.onnx"
    path.write_bytes(made.SerializeToString())
    print(f"networks/{path.name}: {path.stat().st_size} bytes")
    return dict(zip(norms, inferred(made, strict=False)))


def tapped():
    """What comes into each norm of the first network, for data of another mean and spread."""
    torch.manual_seed(60)
    model = Residual()
    randomize(model)
    model.eval()
    seen = []
    for module in norms_of(model):
        module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    torch.manual_seed(70)
    with torch.no_grad():
        model(1.5 + 0.5 * torch.randn(4, 3, 12, 12))
    graph = onnx.load(HERE / "networks" / "residual.onnx").graph
    names = [node.input[0] for node in graph.node if node.op_type == "BatchNormalization"]
    return {
        name: {"dims": list(x.shape), "data": [round(v, 4) for v in x.flatten().tolist()]}
        for name, x in zip(names, seen, strict=True)
    }


def main():
    torch.set_num_threads(1)
    (HERE / "networks").mkdir(exist_ok=True)
    expected = {}
    for seed, (name, (kind, shape, opset)) in enumerate(NETWORKS.items()):
        torch.manual_seed(60 + seed)
        model = kind()
        randomize(model)
        model.eval()
        x = torch.randn(shape)
        path = HERE / "networks" / f"{name}.onnx"
        # Keeps batch norms as they are, for test time.
        torch.onnx.export(
            model, x, str(path), opset_version=opset, training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False, input_names=["x"], dynamic_axes={"x": {0: "N"}})
        made = onnx.load(path)
        onnx.checker.check_model(made)
        assert len(made.graph.value_info) == 0
        with torch.no_grad():
            outputs = model(x)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        expected[name] = {
            "ranks": inferred(made),
            "shape": shape,
            **golden.encode_all({"x": x.numpy()}),
            "outputs": [
                {"shape": list(y.shape), **golden.encode_all({"y": y.numpy()})} for y in outputs
            ],
        }
        print(f"networks/{path.name}: {path.stat().st_size} bytes, {expected[name]['ranks']}")
    path = HERE / "networks" / "tapped.json"
    path.write_text(json.dumps(tapped()) + "\n")
    print(f"networks/{path.name}: {path.stat().st_size} bytes")
    path = HERE / "networks.json"
    about = {"madeWith": f"PyTorch {torch.__version__}, onnx {onnx.__version__}"}
    path.write_text(json.dumps({**about, "networks": expected, "operators": operators()}, indent=1) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
