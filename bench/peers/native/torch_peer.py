"""Batch normalization by PyTorch, as a child process of the benchmark.

Reads one command a line, answers one line, as onednn.cpp describes; FORMAT is nc, nchw or nhwc
(PyTorch's channels_last). Gradients come from the operator that autograd itself calls.
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


def open_case(op, layout, n, c, h, w, epsilon, directory):
    n, c, h, w, epsilon = int(n), int(c), int(h), int(w), float(epsilon)
    x = image(directory, "x", layout, n, c, h, w)
    gamma, beta, mean, variance = (
        load(directory, name, (c,)) for name in ("gamma", "beta", "mean", "variance")
    )

    def in_memory_order(tensor):
        return tensor.permute(0, 2, 3, 1) if layout == "nhwc" else tensor

    if op == "infer":

        def call():
            return torch.batch_norm(
                x, gamma, beta, mean, variance, False, 0.1, epsilon, False
            )

        store(directory, "y", in_memory_order(call()))
        return call
    if op == "train":

        def call():
            return torch.batch_norm(
                x, gamma, beta, mean, variance, True, 0.1, epsilon, False
            )

        store(directory, "y", in_memory_order(call()))
        return call

    dy = image(directory, "dy", layout, n, c, h, w)
    _, saved_mean, saved_invstd = torch.native_batch_norm(
        x, gamma, beta, mean, variance, True, 0.1, epsilon
    )

    def call():
        return torch.ops.aten.native_batch_norm_backward(
            dy, x, gamma, mean, variance, saved_mean, saved_invstd, True, epsilon,
            [True, True, True],
        )

    dx, dgamma, dbeta = call()
    store(directory, "dx", in_memory_order(dx))
    store(directory, "dgamma", dgamma)
    store(directory, "dbeta", dbeta)
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
                current = open_case(*words[1:9])
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
