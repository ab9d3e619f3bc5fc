"""Files of torch.save, for tests/state: tests/golden/state/torch.

    python3 tests/golden/state/make-torch.py           Debian package python3-torch

The network and its training are those of make.py. Each file is loaded again by PyTorch, and what its
batch norms then give in eval mode is kept beside it, in torch.json.
"""

import collections
import importlib.util
import json
import pathlib
import sys

import torch
from torch.nn.utils import prune

HERE = pathlib.Path(__file__).parent
OUT = HERE / "torch"


def module_of(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    # Pickles name classes by their module, which has to be found when they are loaded.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


state = module_of("networks", HERE / "make.py")
SHAPES = {"bn1": [2, 4, 3, 1], "block.1": [2, 6, 1, 3], "head": [5, 5]}
NORM = torch.nn.modules.batchnorm._BatchNorm


def strided(tensors):
    """The same numbers as views: every second value of a row, a column, part of a longer one; expanded."""
    views = collections.OrderedDict()
    for i, (name, tensor) in enumerate(tensors.items()):
        if tensor.dim() == 0:
            views[name] = torch.stack([tensor - 1, tensor])[1]
            continue
        if i % 3 == 0:
            view = torch.stack([tensor, tensor + 100], -1)[..., 0]
        elif i % 3 == 1:
            view = torch.cat([tensor + 100, tensor])[tensor.shape[0]:]
        else:
            view = tensor.clone()
            view.note = "a tensor with attributes"
        assert torch.equal(view, tensor)
        views[name] = view
    weight = views["block.0.weight"].transpose(0, 1).contiguous().transpose(0, 1)
    views["block.0.weight"] = weight
    views["bn1.bias"] = torch.full([1], 0.25).expand(4)
    return views


def pruned():
    model = state.network()
    for name, kept in (("bn1", 0.5), ("block.1", 0.7)):
        module = model.get_submodule(name)
        prune.l1_unstructured(module, "weight", amount=1 - kept)
    prune.l1_unstructured(model.bn1, "bias", amount=1)
    return model


def saved():
    """What each file holds, how it is saved, and the model that PyTorch makes of it again."""
    model = state.network()
    tensors = model.state_dict()

    def from_dict(loaded):
        fresh = state.Network()
        fresh.load_state_dict(loaded)
        return fresh

    def from_pruned(loaded):
        fresh = state.Network()
        for name, tensor in (("bn1", "weight"), ("block.1", "weight"), ("bn1", "bias")):
            prune.identity(fresh.get_submodule(name), tensor)
        fresh.load_state_dict(loaded)
        return fresh

    half = collections.OrderedDict(
        (name, t.half() if t.is_floating_point() else t) for name, t in tensors.items())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 2, 5, 5)).sum().backward()
    optimizer.step()
    tensors = {name: t.clone() for name, t in state.network().state_dict().items()}
    model.load_state_dict(tensors)
    tensors = model.state_dict()
    checkpoint = {
        "epoch": 7,
        "state_dict": tensors,
        "optimizer": optimizer.state_dict(),
        "hyper_parameters": {"lr": 0.1, "name": "ünïcode", "sizes": (2, 4, 6), "seed": 2**70},
        "losses": [0.5, 0.25],
        "classes": {"cat", "dog"},
        "path": pathlib.PurePosixPath("/data/cats"),
        "done": True,
    }
    other = state.network()
    with torch.no_grad():
        for buffer in other.buffers():
            buffer.add_(1)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    bare = torch.nn.BatchNorm1d(3, eps=0.125, momentum=None)
    bare(torch.arange(12.0).reshape(4, 3) ** 2)
    sequence = torch.nn.Sequential(torch.nn.BatchNorm3d(2, eps=0.25, momentum=0.0, affine=False))
    sequence(torch.arange(16.0).reshape(2, 2, 1, 2, 2) ** 2)

    row = {"_use_new_zipfile_serialization": False}
    return {
        "state-dict": (tensors, {}, from_dict),
        "state-dict-protocol-4": (tensors, {"pickle_protocol": 4}, from_dict),
        "state-dict-protocol-5": (tensors, {"pickle_protocol": 5}, from_dict),
        "state-dict-row": (tensors, row, from_dict),
        "checkpoint": (checkpoint, {}, lambda loaded: from_dict(loaded["state_dict"])),
        "checkpoint-row": (checkpoint, row, lambda loaded: from_dict(loaded["state_dict"])),
        "several": (
            {"model": other, "ema": {"model": model, "updates": 3}, "pair": [tensors, 1]},
            {},
            lambda loaded: loaded["ema"]["model"],
        ),
        "module": (model, {}, lambda loaded: loaded),
        "module-row": (sequence, row, lambda loaded: loaded),
        "bare": (bare, {}, lambda loaded: loaded),
        "parallel": (
            torch.nn.DataParallel(model).state_dict(),
            {},
            lambda loaded: from_dict({name[7:]: tensor for name, tensor in loaded.items()}),
        ),
        "averaged": (
            averaged.state_dict(),
            {},
            lambda loaded: from_dict({n[7:]: t for n, t in loaded.items() if n != "n_averaged"}),
        ),
        "half": (half, {}, from_dict),
        "views": (strided(tensors), {}, from_dict),
        "views-row": (strided(tensors), row, from_dict),
        "pruned": (pruned().state_dict(), {}, from_pruned),
        "pruned-module": (pruned(), {}, lambda loaded: loaded),
    }


def shape_of(name, module):
    channels = module.num_features
    if name in SHAPES:
        return SHAPES[name]
    return [3, channels] if isinstance(module, torch.nn.BatchNorm1d) else [2, channels, 1, 2, 1]


def main():
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    golden = {"madeWith": f"PyTorch {torch.__version__}", "files": {}}
    for file, (value, options, again) in saved().items():
        path = OUT / f"{file}.pt"
        torch.save(value, path, **options)
        print(f"{path.name}: {path.stat().st_size} bytes")
        model = again(torch.load(path)).eval()
        torch.manual_seed(23)
        norms = {}
        for name, module in model.named_modules():
            if not isinstance(module, NORM):
                continue
            shape = shape_of(name, module)
            x = 1 + 2 * torch.randn(shape)
            norms[name] = {
                "shape": shape,
                **state.golden.encode_all({"x": x.numpy(), "y": module(x).detach().numpy()}),
                "eps": module.eps,
                "momentum": module.momentum,
                "batchesTracked": module.num_batches_tracked.item(),
            }
        golden["files"][file] = norms
    (OUT / "torch.json").write_text(json.dumps(golden, indent=1) + "\n")

    script = torch.jit.script(torch.nn.BatchNorm1d(1).eval())
    torch.jit.save(script, str(OUT / "script.pt"))


if __name__ == "__main__":
    main()
