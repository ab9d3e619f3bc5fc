"""Files as Keras writes them, for tests/state/keras-file.test.ts: `.keras`, `.h5` and weights alone.

Keras itself is no package of Debian, so h5py writes them to Keras' layout, as its sources have it:
keras/src/saving/saving_lib.py (`_save_state`, `_save_container_state`, `H5IOStore`) and
keras/src/legacy/saving/legacy_h5_format.py (`save_weights_to_hdf5_group`); tf.keras 2.12 to 2.15 by
tf_keras/saving/saving_lib.py.

    apt-get install python3-h5py
    /usr/bin/python3 tests/golden/state/keras-files.py
"""

import io
import json
import pathlib
import re
import zipfile

import h5py
import numpy as np

OUT = pathlib.Path(__file__).parent / "keras-files"
OUT.mkdir(exist_ok=True)


def untimed(properties):
    """No times in headers of version 2: the files are the same whenever they are made."""
    properties.set_obj_track_times(False)
    return properties


def create_group(parent, name):
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    created = untimed(h5py.h5p.create(h5py.h5p.GROUP_CREATE))
    path = name if isinstance(name, bytes) else name.encode()
    return h5py.Group(h5py.h5g.create(parent.id, path, links, created))


h5py.Group.create_group = create_group


def latest(path):
    """A file of the newest structures."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    created = untimed(h5py.h5p.create(h5py.h5p.FILE_CREATE))
    return h5py.File(h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, created, access))


WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")
RENORM = ("moving_stddev", "renorm_mean", "renorm_stddev")
expected = {}
seed = 0


def snake(name):
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def norm(name, channels=3, keras=3, kind="BatchNormalization", shape=None, **config):
    """A batch norm: its item in the JSON, and its weights in the order that Keras keeps them in."""
    global seed
    seed += 1
    random = np.random.default_rng(seed)
    config = {"axis": -1, "momentum": 0.99, "epsilon": 0.001, "center": True, "scale": True, **config}
    weights = {}
    for weight in WEIGHTS:
        values = random.standard_normal(channels).astype("f4")
        if weight == "moving_variance":
            values = np.abs(values) + np.float32(0.25)
        if not (weight == "gamma" and not config["scale"] or weight == "beta" and not config["center"]):
            weights[weight] = values
    if config.get("renorm"):
        for weight in RENORM:
            values = random.standard_normal(channels).astype("f4")
            weights[weight] = values if weight == "renorm_mean" else np.abs(values) + np.float32(0.25)
    return layer(kind, name, weights, keras, shape=shape, **config)


def layer(kind, name, weights=(), keras=3, shape=None, inside=None, **config):
    item = {"class_name": kind, "config": {"name": name, "trainable": True, **config}}
    if keras == 3:
        dtype = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}
        item["config"]["dtype"] = {**dtype, "registered_name": None}
        item |= {"module": "keras.layers", "registered_name": None}
        if shape:
            item["build_config"] = {"input_shape": shape}
    elif shape:
        item["config"]["batch_input_shape"] = shape
    item["config"] |= {"layers": [each["item"] for each in inside]} if inside is not None else {}
    return {"item": item, "name": name, "kind": kind, "weights": dict(weights), "inside": inside}


def dense(name, ins, outs, keras=3):
    weights = {"kernel": np.zeros((ins, outs), "f4"), "bias": np.zeros(outs, "f4")}
    return layer("Dense", name, weights, keras, units=outs)


def time_distributed(name, inner, keras=3):
    outer = layer("TimeDistributed", name, (), keras, layer=inner["item"])
    return outer | {"attributes": {"layer": inner}}


def model(kind, name, layers, keras=3):
    return layer(kind, name, (), keras, inside=layers)


# ---- Keras 3: .keras and .weights.h5 ----------------------------------------------------------------


def save_state(root, saved, path="", names=True, old=False, visited=None, dtype=None):
    """As `_save_state`: own arrays under `vars`, then those of what the layer holds."""
    visited = visited if visited is not None else set()
    if id(saved["item"]) in visited:
        return
    visited.add(id(saved["item"]))
    # Newer versions name every group, older tf.keras makes one for every layer, Keras 3.0 too.
    group = root.create_group(f"{path}/vars" if path else "vars")
    if names:
        group.attrs["name"] = saved["name"]
    for i, values in enumerate(saved["weights"].values()):
        if dtype == "bfloat16":
            bits = (np.ascontiguousarray(values).view("u4") >> 16).astype("u2")
            group.create_dataset(str(i), data=bits.view("V2")).attrs["dtype"] = "bfloat16"
        else:
            group[str(i)] = values.astype(dtype) if dtype else values
    for attribute, inner in saved.get("attributes", {}).items():
        save_state(root, inner, f"{path}/{attribute}", names, old, visited, dtype)
    if saved["inside"] is None:
        return
    used = {}
    container = saved["inside"]
    if saved["kind"] == "Sequential":
        container = [each for each in container if each["kind"] != "InputLayer"]
    if old:
        # tf.keras 2.12: `_layer_checkpoint_dependencies` has layers with weights twice.
        container = [each for each in container for _ in range(2 if each["weights"] else 1)]
    for each in container:
        name = snake(each["kind"])
        used[name] = used.get(name, -1) + 1
        if used[name]:
            name = f"{name}_{used[name]}"
        inner = "_layer_checkpoint_dependencies" if old else "layers"
        place = f"{path}/{inner}/{name}" if path else f"{inner}/{name}"
        save_state(root, each, place, names, old, visited, dtype)


def weights_of(saved, **options):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        save_state(file, saved, **options)
        # What an optimizer keeps: as many vectors of one length as a batch norm, if there are four.
        for i in range(4):
            file[f"optimizer/vars/{i}"] = np.zeros(3, "f4")
    return buffer.getvalue()


def keras(name, saved, layers, version="3.8.0", **options):
    config = saved["item"]
    with zipfile.ZipFile(OUT / name, "w") as archive:
        for entry, content in (
            ("metadata.json", json.dumps({"keras_version": version, "date_saved": "2025-01-01@00:00:00"})),
            ("config.json", json.dumps(config)),
            ("model.weights.h5", weights_of(saved, **options)),
        ):
            archive.writestr(zipfile.ZipInfo(entry), content)
    expect(name, layers)


def encode(values):
    import base64

    return "f32:" + base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def expect(file, layers):
    """By name in the file: what was written, and the options."""
    expected[file] = {
        name: {
            "weights": {w: encode(v) for w, v in each["weights"].items() if w != "moving_stddev"},
            "epsilon": each["item"]["config"]["epsilon"],
            "momentum": each["item"]["config"]["momentum"],
        }
        for name, each in layers.items()
    }


a = norm("bn_conv", shape=[None, 4, 4, 3], momentum=0.9)
b = norm("bn_head", 5, shape=[None, 5], scale=False, epsilon=0.01)
c = norm("bn_last", 5, shape=[None, 5], center=False, kind="SyncBatchNormalization")
d = norm("bn_first", 2, shape=[None, 2, 4, 4], axis=1)
stack = [
    layer("InputLayer", "input_layer", batch_shape=[None, 4, 4, 3]),
    a,
    layer("ReLU", "re_lu"),
    dense("dense", 3, 5),
    b,
    c,
    d,
]
keras("sequential.keras", model("Sequential", "sequential", stack), {n["name"]: n for n in stack if n in (a, b, c, d)})

# Keras 3.0, without names: counted by class within each container; names that occur twice; a layer in
# a wrapper; one that two models share, which is kept in the first; renorm, whose arrays follow.
left, right, own = norm("bn"), norm("bn", 4), norm("bn_own", renorm=True)
timed, timed_model, both = norm("bn_timed"), norm("bn_deep", 2), norm("bn_shared")
both["item"]["shared_object_id"] = 140735
parts = [
    layer("InputLayer", "input_layer", batch_shape=[None, 3]),
    norm("bn_0"),
    model("Functional", "left", [layer("InputLayer", "i"), left, both]),
    own,
    model("Functional", "right", [layer("InputLayer", "i"), right, both]),
    time_distributed("timed", timed),
    time_distributed("timed_model", model("Sequential", "deep", [timed_model])),
]
keras(
    "nested.keras",
    model("Functional", "functional", parts),
    {
        "bn_0": parts[1],
        "left/bn": left,
        "left/bn_shared": both,
        "bn_own": own,
        "right/bn": right,
        "right/bn_shared": both,
        "bn_timed": timed,
        "bn_deep": timed_model,
    },
    version="3.0.0",
    names=False,
)

old = [layer("InputLayer", "input_1"), norm("batch_normalization"), dense("dense", 3, 3), norm("batch_normalization_1")]
keras(
    "tf-2.12.keras",
    model("Functional", "model", old),
    {n["name"]: n for n in old if n["kind"] == "BatchNormalization"},
    version="2.12.0",
    names=False,
    old=True,
)

# A model of one's own: config.json knows nothing of what is in it. Attributes, and a list of layers.
inner = {"stem": norm("stem_bn"), "head": layer("Block", "block") | {"attributes": {"norm": norm("norm")}}}
blocks = [norm("batch_normalization_4", 2), norm("batch_normalization_5", 2, scale=False)]
mine = layer("MyModel", "my_model") | {"attributes": inner, "inside": None}
buffer = io.BytesIO()
with h5py.File(buffer, "w") as file:
    save_state(file, mine)
    for k, each in enumerate(blocks):
        save_state(file, each, f"blocks/batch_normalization{f'_{k}' if k else ''}")
with zipfile.ZipFile(OUT / "subclassed.keras", "w") as archive:
    archive.writestr(zipfile.ZipInfo("config.json"), json.dumps(mine["item"]))
    archive.writestr(zipfile.ZipInfo("model.weights.h5"), buffer.getvalue())
expect(
    "subclassed.keras",
    {each["name"]: each for each in (*blocks, inner["stem"], inner["head"]["attributes"]["norm"])},
)

alone = [norm("bn_a"), norm("bn_b", 4)]
for number, dtype in (("half", "f2"), ("double", "f8"), ("big", ">f4"), ("brain", "bfloat16")):
    file = f"{number}.weights.h5"
    for each in alone:
        for weight, values in each["weights"].items():
            # Values that all of these types have: no digits beyond the seventh.
            each["weights"][weight] = (np.ascontiguousarray(values).view("u4") & 0xFFFF0000).view("f4")
    (OUT / file).write_bytes(weights_of(model("Sequential", "sequential", alone), dtype=dtype))
    expect(file, {each["name"]: each for each in alone})
unnamed = [norm("first"), norm("second", scale=False), norm("third", scale=False, center=False)]
parts = [*unnamed, model("Functional", "f", [norm("fourth")])]
(OUT / "unnamed.weights.h5").write_bytes(weights_of(model("Sequential", "s", parts), names=False))
expect(
    "unnamed.weights.h5",
    {
        "batch_normalization": parts[0],
        "batch_normalization_1": parts[1],
        "batch_normalization_2": parts[2],
        "functional/batch_normalization": parts[3]["inside"][0],
    },
)

# Groups that hold each other, which HDF5 allows: there is no end to the paths in it.
with h5py.File(OUT / "ring.weights.h5", "w") as file:
    save_state(file, model("Sequential", "s", [unnamed[0]]), names=False)
    file["layers/batch_normalization/more"] = file["/"]
    file["more"] = file["layers"]
expect("ring.weights.h5", {"batch_normalization": unnamed[0]})

# ---- Keras 1 and 2: .h5 ------------------------------------------------------------------------------


def flattened(saved):
    """The layers with weights of a layer in order, each with what comes before the weight's name."""
    if saved["inside"] is not None:
        return [each for inner in saved["inside"] for each in flattened(inner)]
    if "attributes" in saved:
        inner = saved["attributes"]["layer"]
        if inner["inside"] is not None:
            return flattened(inner)
        return [(saved["name"], inner)]
    return [(saved["name"], saved)]


def save_list(group, name, data, limit):
    """As `save_attributes_to_hdf5_group`, whose limit is 64512 bytes."""
    array = np.asarray(data)
    parts = 1
    while any(part.nbytes > limit for part in np.array_split(array, parts)):
        parts += 1
    if parts == 1:
        group.attrs[name] = data
        return
    for i, part in enumerate(np.array_split(array, parts)):
        group.attrs[f"{name}{i}"] = part


def save_weights(group, saved, suffix=":0", limit=64512):
    save_list(group, "layer_names", [each["name"].encode() for each in saved["inside"]], limit)
    group.attrs["backend"] = b"tensorflow"
    group.attrs["keras_version"] = b"2.12.0"
    for each in sorted(saved["inside"], key=lambda one: one["name"]):
        own = group.create_group(each["name"])
        trained, others, used = [], [], {}
        for prefix, inner in flattened(each):
            for weight, values in inner["weights"].items():
                moving = weight.startswith(("moving_", "renorm_"))
                # As TensorFlow's Graph.unique_name.
                stem = f"{prefix}/{weight}" if prefix else weight
                number = f"_{used[stem]}" if stem in used else ""
                used[stem] = used.get(stem, 0) + 1
                (others if moving else trained).append((f"{stem}{number}{suffix}", values))
        names = [name.encode() for name, _ in trained + others]
        save_list(own, "weight_names", names, limit)
        for name, values in trained + others:
            own.create_dataset(name, values.shape, dtype=values.dtype)[:] = values
    if not suffix:  # Keras 3
        save_list(group.create_group("top_level_model_weights"), "weight_names", [], limit)


def legacy(name, saved, layers, config=True, **options):
    with h5py.File(OUT / name, "w") as file:
        if config:
            file.attrs["model_config"] = json.dumps(saved["item"]).encode()
            file.attrs["training_config"] = json.dumps({"loss": "mse"}).encode()
            save_weights(file.create_group("model_weights"), saved, **options)
            file.create_group("optimizer_weights").attrs["weight_names"] = [b"iter:0"]
        else:
            save_weights(file, saved, **options)
    expect(name, layers)


left, right, timed, deep = norm("bn", keras=2), norm("bn", 4, keras=2), norm("inner", keras=2), norm("deep", 2, keras=2)
first, slash = norm("bn_0", keras=2, shape=[None, 4, 4, 3], axis=[3]), norm("conv1/bn", keras=2)
parts = [
    layer("InputLayer", "input_1", (), 2, batch_input_shape=[None, 3]),
    first,
    slash,
    model("Functional", "left", [left, dense("d", 3, 3, 2)], 2),
    model("Sequential", "right", [right, model("Sequential", "inside", [deep], 2)], 2),
    time_distributed("timed", timed, 2),
]
layers = {"bn_0": first, "conv1/bn": slash, "left/bn": left, "right/bn": right, "deep": deep, "inner": timed}
legacy("functional.h5", model("Functional", "model", parts, 2), layers)
# The same in Keras 3, whose names have no number at their ends; lists in parts.
legacy("divided.h5", model("Functional", "model", parts, 2), layers, suffix="", limit=40)
legacy(
    "weights.h5",
    model("Functional", "model", parts, 2),
    {"bn_0": first, "conv1/bn": slash, "left": left, "bn": right, "deep": deep, "timed": timed},
    config=False,
)
(OUT / "config.json").write_text(json.dumps(model("Functional", "model", parts, 2)["item"]) + "\n")

# ---- what is refused ---------------------------------------------------------------------------------

REFUSED = OUT / "refused"
REFUSED.mkdir(exist_ok=True)
vector = np.arange(3, dtype="f4")


def refused(name, make, opened=lambda path: h5py.File(path, "w")):
    """A file of weights alone whose first array, the mean of one layer, `make` adds to a group."""
    with opened(REFUSED / name) as file:
        file.attrs["layer_names"] = [b"bn"]
        group = file.create_group("bn")
        group.attrs["weight_names"] = [b"moving_mean:0", b"moving_variance:0"]
        group["moving_variance:0"] = vector
        make(group)


def virtual(group):
    space = h5py.h5s.create_simple((3,))
    created = untimed(h5py.h5p.create(h5py.h5p.DATASET_CREATE))
    created.set_virtual(space, b".", b"/bn/moving_variance:0", space)
    h5py.h5d.create(group.id, b"moving_mean:0", h5py.h5t.NATIVE_FLOAT, space, created)


def numbers(group):
    """Two norms and one gamma: which of the norms it belongs to is not said."""
    names = [f"moving_{of}{number}:0" for number in ("", "_1") for of in ("mean", "variance")]
    group.attrs["weight_names"] = [name.encode() for name in ("gamma:0", *names)]
    for name in ("gamma:0", *(name for name in names if name != "moving_variance:0")):
        group[name] = vector


def link(to):
    return lambda group: group.__setitem__("moving_mean:0", to)


def array(**options):
    return lambda group: group.create_dataset("moving_mean:0", **options)


refused("external-data.h5", array(shape=(3,), dtype="f4", external=[("other.bin", 0, 12)]))
refused("external-link.h5", link(h5py.ExternalLink("other.h5", "/bn/moving_mean:0")))
refused("soft-link.h5", link(h5py.SoftLink("/bn/moving_variance:0")))
refused("virtual.h5", virtual)
refused("huge.h5", array(shape=(2**40,), dtype="f4"))
refused("gzip.h5", array(data=vector, chunks=(3,), compression="gzip"))
refused("integers.h5", array(data=np.arange(3)))
refused("matrix.h5", array(data=np.zeros((3, 1), "f4")))
refused("numbers.h5", numbers)
refused("other-length.h5", array(data=np.zeros(4, "f4")))
refused("nothing.h5", array(data=h5py.Empty("f4")))


def same(group):
    """Many names for one array: as layers they would be many times as large as the file."""
    group["moving_mean:0"] = np.zeros(1000, "f4")
    for i in range(9):
        other = group.file.create_group(f"bn{i}")
        other.attrs["weight_names"] = [b"moving_mean:0", b"moving_variance:0"]
        other["moving_mean:0"] = other["moving_variance:0"] = group["moving_mean:0"]
    del group["moving_variance:0"]
    group["moving_variance:0"] = group["moving_mean:0"]
    group.file.attrs["layer_names"] = [b"bn", *(f"bn{i}".encode() for i in range(9))]


def many(group):
    group["moving_mean:0"] = vector
    for i in range(9):
        group.create_group(f"g{i}")
        group.attrs[f"a{i}"] = i


refused("dense.h5", many, latest)
refused("same.h5", same)


# Headers of version 2 and links in messages: read as well, if there are few of them.
with latest(OUT / "latest.h5") as file:
    each = norm("bn", keras=2)
    file.attrs["model_config"] = json.dumps(model("Sequential", "s", [each], 2)["item"]).encode()
    save_weights(file.create_group("model_weights"), model("Sequential", "s", [each], 2))
expect("latest.h5", {"bn": each})

# Layers of which the config says nothing: those in a layer of one's own, and one of a subclass.
block, other = model("ResBlock", "rb", [norm("rb/bn1", keras=2), norm("rb/bn2", 2, keras=2)], 2), norm("bn", 4, keras=2)
del block["item"]["config"]["layers"]
frozen = norm("frozen", keras=2, kind="FrozenBatchNorm", scale=False)
blocks = {"rb/bn1": block["inside"][0], "rb/bn2": block["inside"][1], "bn": other, "frozen": frozen}
legacy("custom.h5", model("Sequential", "s", [block, other, frozen], 2), blocks)

# Keras 1.2 (keras/layers/normalization.py, build; keras/engine/topology.py, save_weights_to_hdf5_group).
OLD = {"gamma": "gamma", "beta": "beta", "moving_mean": "running_mean", "moving_variance": "running_std"}


def keras_1(name, saved, config=True):
    with h5py.File(OUT / name, "w") as file:
        if config:
            file.attrs["model_config"] = json.dumps(saved["item"]).encode()
        group = file.create_group("model_weights") if config else file
        group.attrs["layer_names"] = [each["name"].encode() for each in saved["inside"]]
        for each in saved["inside"]:
            own = group.create_group(each["name"])
            arrays = {f"{each['name']}_{OLD[weight]}:0": each["weights"][weight] for weight in OLD}
            own.attrs["weight_names"] = [array.encode() for array in arrays]
            for array, values in arrays.items():
                own[array] = values
    expect(name, {each["name"]: each for each in saved["inside"]})


first, second = norm("bn", keras=2, mode=0), norm("batchnormalization_2", 4, keras=2, mode=0)
keras_1("keras-1.h5", model("Model", "m", [first, second], 2))
keras_1("keras-1.weights.h5", model("Model", "m", [first, second], 2), config=False)

# Layers of one's own that build norms in the scope of their own name, or in none: numbers make the names unique.
twins = [norm("rb", keras=2), norm("rb", 2, keras=2), norm("rb", keras=2)]
plain = [norm("plain", 2, keras=2, scale=False), norm("plain", keras=2, scale=False)]
bare = [norm("", keras=2, center=False), norm("", 4, keras=2, center=False)]
owners = {"rb": twins, "plain": plain, "bare": bare}
parts = [*(model("Block", name, norms, 2) for name, norms in owners.items()), other]
numbered = {f"{name}/{i}" if i else name: each for name, norms in owners.items() for i, each in enumerate(norms)}
numbered["bn"] = other
legacy("numbered.weights.h5", model("Sequential", "s", parts, 2), numbered, config=False)
for block in parts[:-1]:
    del block["item"]["config"]["layers"]
legacy("custom-numbered.h5", model("Sequential", "s", parts, 2), numbered, suffix="")

# Numbers that go on from group to group: in each there is only one array of a kind.
with h5py.File(OUT / "counted.weights.h5", "w") as file:
    counted = {"first": norm("first", keras=2, scale=False), "second": norm("second", 4, keras=2)}
    file.attrs["layer_names"] = [name.encode() for name in counted]
    used = {}
    for name, each in counted.items():
        own, names = file.create_group(name), []
        for weight, values in each["weights"].items():
            names.append(f"{weight}_{used[weight]}:0" if weight in used else f"{weight}:0")
            used[weight] = used.get(weight, 0) + 1
            own[names[-1]] = values
        own.attrs["weight_names"] = [each.encode() for each in names]
expect("counted.weights.h5", counted)

(OUT.parent / "keras-files.json").write_text(json.dumps(expected, indent=1) + "\n")
