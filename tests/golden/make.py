"""Golden files: what PyTorch's BatchNorm modules, its update_bn and the ONNX package's own node
tests give.

Every PyTorch case is a training trajectory: forward, backward and one plain SGD step on gamma and
beta, several times, then the eval output and the eval gradient (running statistics held fixed) on
fresh data. It is computed twice from the same float32 data: by the float64 module, which is the
truth to compare with, and by the float32 module, which shows PyTorch's own rounding. Gamma and beta
of a step are float32 values shared by both.

    python3 tests/golden/make.py        Debian packages python3-torch, python3-onnx

Arrays are strings, "f32:" or "f64:" and the base64 of their little-endian bytes, so that every bit
survives. The data comes from NumPy's RandomState, whose stream is frozen, seeded by the name of the
case: a new case changes no other.
"""

import base64
import json
import pathlib
import re
import zlib

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
LEARNING_RATE = 0.05

MODULES = {
    "NC": torch.nn.BatchNorm1d,
    "NCL": torch.nn.BatchNorm1d,
    "NCHW": torch.nn.BatchNorm2d,
    "NCDHW": torch.nn.BatchNorm3d,
}


def ordinary(random, channels):
    """Every channel has its own mean and standard deviation, of the order of one."""
    return random.normal(0, 1, channels), random.uniform(0.3, 2, channels)


def large_mean(ratio):
    """|mean| / sigma = ratio in every channel, both signs of the mean."""

    def draw(random, channels):
        sigma = random.uniform(0.5, 2, channels)
        return ratio * sigma * random.choice([-1, 1], channels), sigma

    return draw


def constant_channel(random, channels):
    """The second channel holds one value only: its variance is zero."""
    mean, sigma = ordinary(random, channels)
    sigma[1] = 0
    return mean, sigma


def case(name, layout, shape, options=None, data=ordinary, gamma=None, eval_count=1, steps=4):
    return {
        "name": name,
        "layout": layout,
        "shape": shape,
        "eval_shape": [eval_count, *shape[1:]],
        "options": options or {},
        "data": data,
        "gamma": gamma,
        "steps": steps,
    }


CASES = {
    "batchnorm1d": [
        case("features, all defaults", "NC", [8, 5], eval_count=4),
        case("64 features, momentum 0.3, eps 1e-3", "NC", [3, 64],
             options={"momentum": 0.3, "eps": 1e-3}, steps=3),
        case("two examples, 17 features", "NC", [2, 17]),
        case("one feature, momentum 1", "NC", [9, 1], options={"momentum": 1.0}),
        case("features, cumulative average, not affine", "NC", [6, 7],
             options={"momentum": None, "affine": False}),
        case("a constant channel", "NC", [6, 5], data=constant_channel),
        case("gamma zero, negative, large", "NC", [5, 7], options={"momentum": 0.3},
             gamma=[0, -1.5, 1, -0.001, 40, 0, -7]),
        case("features, mean 100 sigma", "NC", [9, 5], options={"momentum": 0.5},
             data=large_mean(100)),
        case("features, mean 1e4 sigma", "NC", [12, 5], options={"momentum": None},
             data=large_mean(1e4)),
        case("sequences, all defaults", "NCL", [2, 7, 5], eval_count=3),
        case("sequences of 2, cumulative average", "NCL", [4, 3, 2], options={"momentum": None}),
        case("sequences of 1, eps 0.1", "NCL", [6, 5, 1], options={"eps": 0.1}),
    ],
    "batchnorm2d": [
        case("one 7x7 image, all defaults", "NCHW", [1, 3, 7, 7]),
        case("2x3 images, not affine", "NCHW", [2, 5, 2, 3], options={"affine": False}),
        case("one image, one channel, momentum 0.3", "NCHW", [1, 1, 7, 7],
             options={"momentum": 0.3}),
        case("1x1 images, 17 channels, cumulative average", "NCHW", [3, 17, 1, 1],
             options={"momentum": None}),
        case("2x3 images, gamma zero and negative, eps 1e-2", "NCHW", [3, 5, 2, 3],
             options={"eps": 1e-2}, gamma=[0, -2, 0.5, -0.25, 1]),
        case("a constant channel", "NCHW", [2, 3, 3, 3], data=constant_channel),
        case("images, mean 100 sigma", "NCHW", [2, 3, 2, 5], options={"momentum": 0.5},
             data=large_mean(100)),
        case("images, mean 1e4 sigma", "NCHW", [1, 3, 4, 7], options={"momentum": None},
             data=large_mean(1e4)),
    ],
    "batchnorm3d": [
        case("volumes, all defaults", "NCDHW", [2, 3, 2, 3, 2]),
        case("one volume, 17 channels, momentum 0.3", "NCDHW", [1, 17, 1, 1, 3],
             options={"momentum": 0.3}),
        case("volumes, not affine, cumulative average", "NCDHW", [3, 5, 1, 1, 2],
             options={"momentum": None, "affine": False}),
        case("volumes, mean 1e4 sigma", "NCDHW", [1, 3, 2, 2, 3], options={"momentum": None},
             data=large_mean(1e4)),
    ],
}


def encode(array):
    """float32 stays float32, anything else becomes float64."""
    kind = "f32" if array.dtype == np.float32 else "f64"
    data = np.ascontiguousarray(array, "<f4" if kind == "f32" else "<f8").tobytes()
    return f"{kind}:{base64.b64encode(data).decode()}"


def encode_all(arrays):
    return {name: None if array is None else encode(array) for name, array in arrays.items()}


def draw(random, shape, mean, sigma):
    """float32 data of the given shape; mean and sigma belong to axis 1."""
    along = [1, -1] + [1] * (len(shape) - 2)
    x = mean.reshape(along) + sigma.reshape(along) * random.normal(size=shape)
    return x.astype(np.float32)


def set_parameters(module, gamma, beta):
    if module.affine:
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(gamma))
            module.bias.copy_(torch.from_numpy(beta))


def gradients(module, x, dy):
    """y, dx, dgamma, dbeta by PyTorch's autograd, in the module's own precision."""
    dtype = module.running_mean.dtype
    x = torch.from_numpy(x).to(dtype).requires_grad_()
    module.zero_grad()
    y = module(x)
    y.backward(torch.from_numpy(dy).to(dtype))
    return {
        "y": y.detach().numpy(),
        "dx": x.grad.numpy(),
        "dgamma": module.weight.grad.numpy() if module.affine else None,
        "dbeta": module.bias.grad.numpy() if module.affine else None,
    }


def running(module):
    return {
        "runningMean": module.running_mean.numpy(),
        "runningVariance": module.running_var.numpy(),
    }


def trajectory(case):
    random = np.random.RandomState(zlib.crc32(f"{case['layout']} {case['name']}".encode()))
    channels = case["shape"][1]
    layer = MODULES[case["layout"]]
    narrow = layer(channels, **case["options"]).train()
    wide = layer(channels, **case["options"], dtype=torch.float64).train()

    mean, sigma = case["data"](random, channels)
    gamma = random.normal(1, 0.5, channels)
    beta = random.normal(0, 0.5, channels).astype(np.float32)
    gamma = np.array(gamma if case["gamma"] is None else case["gamma"]).astype(np.float32)

    def step(shape):
        x = draw(random, shape, mean, sigma)
        dy = random.normal(size=shape).astype(np.float32)
        set_parameters(narrow, gamma, beta)
        set_parameters(wide, gamma, beta)
        given = {"x": x, "dy": dy}
        if wide.affine:
            given.update(gamma=gamma, beta=beta)
        return given, gradients(narrow, x, dy), gradients(wide, x, dy)

    steps = []
    for _ in range(case["steps"]):
        given, float32, float64 = step(case["shape"])
        steps.append({
            "shape": case["shape"],
            **encode_all(given),
            "batchesTracked": wide.num_batches_tracked.item(),
            "float32": encode_all({**float32, **running(narrow)}),
            "float64": encode_all({**float64, **running(wide)}),
        })
        if wide.affine:
            gamma = (gamma - LEARNING_RATE * float64["dgamma"]).astype(np.float32)
            beta = (beta - LEARNING_RATE * float64["dbeta"]).astype(np.float32)
        mean = mean + 0.25 * sigma * random.normal(size=channels)

    narrow.eval()
    wide.eval()
    given, float32, float64 = step(case["eval_shape"])
    return {
        "name": case["name"],
        "layout": case["layout"],
        "channels": channels,
        "options": case["options"],
        "steps": steps,
        "eval": {
            "shape": case["eval_shape"],
            **encode_all(given),
            "float32": encode_all(float32),
            "float64": encode_all(float64),
        },
    }


def update_bn_case(name, layout, shape, counts, momentum=0.1):
    """update_bn of batch norm, ReLU, batch norm, both trained before, on batches of `counts`."""
    random = np.random.RandomState(zlib.crc32(f"{layout} {name}".encode()))
    channels = shape[0]
    mean, sigma = ordinary(random, channels)
    models = {}
    for dtype in (torch.float32, torch.float64):
        norms = [MODULES[layout](channels, momentum=momentum, dtype=dtype) for _ in range(2)]
        models[dtype] = torch.nn.Sequential(norms[0], torch.nn.ReLU(), norms[1]).train()

    def norms(model):
        return [model[0], model[2]]

    def batch(count):
        return draw(random, [count, *shape], mean, sigma)

    parameters = [
        {"gamma": random.normal(1, 0.5, channels).astype(np.float32),
         "beta": random.normal(0, 0.5, channels).astype(np.float32)}
        for _ in range(2)
    ]
    # What update_bn must forget.
    before = [batch(4), batch(7)]
    batches = [batch(count) for count in counts]
    results = {}
    for dtype, model in models.items():
        for module, given in zip(norms(model), parameters):
            set_parameters(module, given["gamma"], given["beta"])
        with torch.no_grad():
            for x in before:
                model(torch.from_numpy(x).to(dtype))
        torch.optim.swa_utils.update_bn([torch.from_numpy(x).to(dtype) for x in batches], model)
        assert all(module.momentum == momentum for module in norms(model))
        results[dtype] = [encode_all(running(module)) for module in norms(model)]

    return {
        "name": name,
        "layout": layout,
        "channels": channels,
        "momentum": momentum,
        "parameters": [encode_all(given) for given in parameters],
        "before": [{"shape": list(x.shape), "x": encode(x)} for x in before],
        "batches": [{"shape": list(x.shape), "x": encode(x)} for x in batches],
        "batchesTracked": norms(models[torch.float64])[1].num_batches_tracked.item(),
        "layers": [
            {"float32": float32, "float64": float64}
            for float32, float64 in zip(results[torch.float32], results[torch.float64])
        ],
    }


def update_bn_cases():
    return [
        update_bn_case("features, equal batches", "NC", [5], [8, 8, 8, 8]),
        update_bn_case("17 features, unequal batches", "NC", [17], [2, 9, 3, 30, 5, 2]),
        update_bn_case("sequences, one batch", "NCL", [3, 4], [6]),
        update_bn_case("images, momentum 0.3", "NCHW", [4, 3, 2], [5, 1, 3], momentum=0.3),
        update_bn_case("features, cumulative already", "NC", [3], [4, 12, 5], momentum=None),
    ]


def onnx_cases():
    """The node tests of the ONNX package itself; importing their module draws them, with seed 0."""
    from onnx.backend.test.case import node
    from onnx.backend.test.case.node import batchnorm  # noqa: F401

    tests = [test for test in node._NodeTestCases if test.name.startswith("test_batchnorm_")]
    names = ["x", "scale", "bias", "inputMean", "inputVariance"]
    outputs = ["y", "outputMean", "outputVariance"]
    made = []
    for test in sorted(tests, key=lambda test: test.name):
        (given, expected), = test.data_sets
        attributes = {
            # The file format keeps float32: 0.01 comes back as 0.009999999776.
            attribute.name: attribute.i or round(attribute.f, 7)
            for attribute in test.model.graph.node[0].attribute
        }
        made.append({
            "name": test.name,
            "attributes": attributes,
            "shape": list(given[0].shape),
            **encode_all(dict(zip(names, given))),
            "expected": encode_all(dict(zip(outputs, expected))),
        })
    return made


def write(name, made_with, cases):
    text = json.dumps({"madeWith": made_with, "cases": cases}, indent=2)
    # A shape on one line, as the formatter wants it.
    text = re.sub(r"\[\s+(\d[\d,\s]*\d|\d)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    path = HERE / f"{name}.json"
    path.write_text(text + "\n")
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, cases in CASES.items():
        write(name, f"PyTorch {torch.__version__}", [trajectory(case) for case in cases])

    write("updatebn", f"PyTorch {torch.__version__}", update_bn_cases())

    import onnx

    write("onnx", f"onnx {onnx.__version__}", onnx_cases())


if __name__ == "__main__":
    main()
