"""Batch normalization by PyTorch, as a child process of the benchmark.

Reads one command a line, answers one line, as onednn.cpp describes; FORMAT is nc, nchw or nhwc
(PyTorch's channels_last). Gradients come from the operators that autograd itself calls. AFTER says what follows
batch norm: none, relu, add (a residual z, then a ReLU), or the latter two in place, relu_ and add_.
"""

import os
import sys
import time

import numpy
import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.set_grad_enabled(False)


def load(directory, name, shape):
    values = numpy.fromfile(f"{directory}/{name}.f32", dtype=numpy.float32)
    return torch.from_numpy(values).reshape(shape)


def store(directory, name, tensor):
    tensor.contiguous().numpy().tofile(f"{directory}/{name}.f32")


def image(directory, name, layout, n, c, h, w):
    """A tensor of logical shape [N, C, H, W] (or [N, C]) in the memory order that layout names."""
    if layout == "nc":
        return load(directory, name, (n, c))
    if layout == "nchw":
        return load(directory, name, (n, c, h, w))
    return load(directory, name, (n, h, w, c)).permute(0, 3, 1, 2)


def following(after, z):
    """What follows batch norm, as a function of its result."""
    return {
        "none": lambda y: y,
        "relu": torch.relu,
        "relu_": torch.relu_,
        "add": lambda y: torch.relu(y + z),
        "add_": lambda y: y.add_(z).relu_(),
    }[after]


def open_case(op, layout, n, c, h, w, epsilon, directory, after):
    n, c, h, w, epsilon = int(n), int(c), int(h), int(w), float(epsilon)
    x = image(directory, "x", layout, n, c, h, w)
    gamma, beta, mean, variance = (
        load(directory, name, (c,)) for name in ("gamma", "beta", "mean", "variance")
    )

    residual = after.startswith("add")
    z = image(directory, "z", layout, n, c, h, w) if residual else None
    follow = following(after, z)

    def in_memory_order(tensor):
        return tensor.permute(0, 2, 3, 1) if layout == "nhwc" else tensor

    if op in ("infer", "train"):
        training = op == "train"

        def call():
            return follow(
                torch.batch_norm(
                    x, gamma, beta, mean, variance, training, 0.1, epsilon, False
                )
            )

        store(directory, "y", in_memory_order(call()))
        return call

    dy = image(directory, "dy", layout, n, c, h, w)
    normalized, saved_mean, saved_invstd = torch.native_batch_norm(
        x, gamma, beta, mean, variance, True, 0.1, epsilon
    )
    y = follow(normalized)

    def call():
        # The gradient of a ReLU is 0 where its result is; that of the residual is the same tensor.
        g = dy if after == "none" else torch.ops.aten.threshold_backward(dy, y, 0)
        of_norm = torch.ops.aten.native_batch_norm_backward(
            g, x, gamma, mean, variance, saved_mean, saved_invstd, True, epsilon,
            [True, True, True],
        )
        return (*of_norm, g)

    dx, dgamma, dbeta, dadd = call()
    store(directory, "dx", in_memory_order(dx))
    store(directory, "dgamma", dgamma)
    store(directory, "dbeta", dbeta)
    if residual:
        store(directory, "dadd", in_memory_order(dadd))
    return call


def milliseconds(call, calls):
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) * 1e3


def main():
    current = None
    print("PyTorch", torch.__version__, flush=True)
    for line in sys.stdin:
        words = line.split()
        try:
            if words[0] == "open":
                current = None
                current = open_case(*words[1:10])
                print("ok", flush=True)
            elif words[0] == "run":
                print("ok", f"{milliseconds(current, int(words[1])):.6g}", flush=True)
            elif words[0] == "close":
                current = None
                print("ok", flush=True)
            else:
                raise ValueError(f"unknown command: {line.strip()}")
        except Exception as error:  # reported to the benchmark, which says which case failed
            print("error", " ".join(str(error).split()), flush=True)


main()
