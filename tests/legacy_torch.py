"""Write files in torch's legacy format, without torch, for tests of the reader."""

import pickle
import struct

import numpy as np


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
