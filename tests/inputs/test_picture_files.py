"""Picture files: read in parallel, kept or decoded when needed, each that is broken named."""

import os
import shutil
import threading
import warnings

import numpy as np
import pytest
import tensorflow as tf
import tiny
from PIL import Image, ImageFile

from keras_transfer.errors import DataError
from keras_transfer.inputs import picture_files
from keras_transfer.inputs.decoding import decode_picture
from keras_transfer.inputs.picture_files import (
    EncodedPictures,
    load_encoded,
    load_pillow,
    naming_broken_files,
)

SIZE = (12, 10)
X, Y = tiny.pictures(n_per_class=3)


@pytest.fixture
def paths(tmp_path):
    return tiny.write_folder(tmp_path, X, Y)


def decoded(contents):
    return decode_picture(tf.constant(contents), SIZE).numpy()


def test_paths_and_bytes_alike(paths):
    contents = [tiny.encode(pixels) for pixels in X]
    expected = np.stack([decoded(one) for one in contents])
    for items in (paths, contents, [*paths[:4], *contents[4:]], np.array(paths)):
        loaded = load_encoded(items, SIZE)
        np.testing.assert_array_equal(loaded.inputs, expected)
        np.testing.assert_array_equal(loaded.kept, np.arange(len(X)))
    assert load_encoded(paths, SIZE).names == tuple(paths)
    assert load_encoded(contents, SIZE).names[3] == "row 3"


def test_what_is_decoded_when_needed_is_the_same_to_the_bit(paths):
    kept = load_encoded(paths, SIZE, keep=True).inputs
    later = load_encoded(paths, SIZE, keep=False).inputs
    assert isinstance(later, EncodedPictures)
    np.testing.assert_array_equal(np.concatenate(list(later.batches(4))), kept)
    rows = np.array([5, 0, 2])
    some = later[rows]
    assert len(some) == 3
    np.testing.assert_array_equal(next(some.batches(8)), kept[rows])


def test_many_are_not_kept(paths, monkeypatch):
    one = SIZE[0] * SIZE[1] * 3 * 4
    monkeypatch.setattr(picture_files, "KEPT_BYTES", len(paths) * one)
    assert isinstance(load_encoded(paths, SIZE).inputs, np.ndarray)
    monkeypatch.setattr(picture_files, "KEPT_BYTES", len(paths) * one - 1)
    assert isinstance(load_encoded(paths, SIZE).inputs, EncodedPictures)


def test_files_are_found_from_another_folder(paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load_encoded([os.path.relpath(path) for path in paths], SIZE, keep=False)
    monkeypatch.chdir("/")
    assert len(next(loaded.inputs.batches(99))) == len(paths)


@pytest.mark.parametrize("name", ["Käse 猫.png", "a b'c.png", "\udcff.png"], ids=ascii)
@pytest.mark.parametrize("keep", [True, False])
def test_any_file_name(name, keep, tmp_path):
    path = os.fsencode(tmp_path / name)
    with open(path, "wb") as file:
        file.write(tiny.encode(X[0]))
    loaded = load_encoded([os.fsdecode(path)], SIZE, keep=keep)
    inputs = loaded.inputs if keep else next(loaded.inputs.batches(1))
    np.testing.assert_array_equal(inputs[0], decoded(tiny.encode(X[0])))


def test_equal_contents_have_equal_digests(paths):
    shutil.copy(paths[0], paths[5])
    digests = load_encoded(paths, SIZE).digests
    assert digests[0] == digests[5]
    assert len(set(digests)) == len(paths) - 1


def test_progress_is_told_of_every_file(paths):
    threads, calls = set(), []
    load_encoded(paths, SIZE, advance=lambda: (calls.append(1), threads.add(threading.get_ident())))
    assert len(calls) == len(paths)
    assert threading.get_ident() not in threads  # ahead of, and beside, whoever waits


# === What cannot be read ===


def broken(folder):
    """One of each: path, and what is said of it."""
    contents = tiny.encode(Image.fromarray(X[0]).resize((64, 64)), "JPEG")
    loop, missing = folder / "loop.jpg", folder / "missing.jpg"
    loop.symlink_to(loop)
    files = {
        "truncated.jpg": (contents[: len(contents) // 2], "a damaged or truncated picture"),
        "text.jpg": (b"a text file", "no picture"),
        "empty.jpg": (b"", "an empty file"),
        "picture.tiff": (tiny.encode(X[0], "TIFF"), "a TIFF file"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    said = {str(folder / name): problem for name, (_, problem) in files.items()}
    return {
        **said,
        str(missing): "no such file",
        str(loop): "too many levels",
        str(folder): "is a directory",
    }


@pytest.mark.parametrize("keep", [True, False])
def test_each_that_is_broken_is_named(keep, paths, tmp_path):
    for path, problem in broken(tmp_path).items():
        with pytest.raises(DataError, match=r"^X: expected pictures that can be read") as e:
            load_encoded([*paths, path], SIZE, keep=keep)
        assert f"{path}: {problem}" in str(e.value)
        assert "{{" not in str(e.value)  # TensorFlow's own words for where


@pytest.mark.parametrize("keep", [True, False])
def test_the_others_are_kept(keep, paths, tmp_path):
    bad = broken(tmp_path)
    items = [*paths[:2], *bad, *paths[2:]]
    loaded = load_encoded(items, SIZE, on_error="skip", keep=keep)
    assert [items[row] for row in loaded.kept] == paths
    assert [name for name, _ in loaded.skipped] == list(bad)
    assert all(reason.startswith(bad[name]) for name, reason in loaded.skipped)
    inputs = loaded.inputs if keep else np.concatenate(list(loaded.inputs.batches(4)))
    np.testing.assert_array_equal(inputs, load_encoded(paths, SIZE).inputs)
    assert len(loaded.names) == len(loaded.digests) == len(paths)


def test_many_broken_ones_are_counted(tmp_path):
    items = [str(tmp_path / f"{number}.png") for number in range(9)]
    with pytest.raises(DataError, match=r"9 of 9 that cannot: .*0\.png.*and 4 more\. Mend"):
        load_encoded(items, SIZE)


def test_none_is_left(tmp_path):
    with pytest.raises(DataError, match=r"1 of 1|no\.png: no such file"):
        load_encoded([str(tmp_path / "no.png")], SIZE, on_error="skip")


def test_a_file_that_breaks_later_is_named(paths):
    later = load_encoded(paths, SIZE, keep=False).inputs
    os.remove(paths[4])
    with (
        pytest.raises(DataError, match=r"004\.png: no such file"),
        naming_broken_files(None, later),
    ):
        list(later.batches(2))
    with pytest.raises(ZeroDivisionError), naming_broken_files(later[[0, 1]]):
        1 / 0  # noqa: B018


def test_turned_pictures_are_counted_and_left_as_they_are():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright, lying = (tiny.encode(X[0], "JPEG", **o) for o in ({}, {"exif": exif}))
    loaded = load_encoded([upright, lying], SIZE)
    assert loaded.n_oriented == 1
    np.testing.assert_array_equal(loaded.inputs[0], loaded.inputs[1])


# === Pillow pictures ===


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK"])
def test_a_pillow_picture_is_what_its_file_is(mode):
    picture = Image.fromarray(X[0]).convert(mode)
    kind = {"CMYK": "TIFF"}.get(mode, "PNG")
    reread = picture.convert("RGB") if mode == "CMYK" else picture
    assert kind in ("PNG", "TIFF")
    np.testing.assert_allclose(
        load_pillow([picture], SIZE).inputs[0], decoded(tiny.encode(reread)), atol=1e-4
    )


def test_a_deep_pillow_picture():
    deep = np.linspace(0, 65535, 120).reshape(12, 10).astype(np.uint16)
    picture = Image.fromarray(deep)
    expected = decoded(tiny.encode(deep))
    np.testing.assert_array_equal(load_pillow([picture], SIZE).inputs[0], expected)
    assert expected.max() == 255
    assert 100 < expected.mean() < 155  # Pillow's own conversion is all but white


def test_a_pillow_picture_whose_file_is_damaged(tmp_path):
    path = tmp_path / "cut.png"
    contents = tiny.encode(X[0])
    path.write_bytes(contents[: len(contents) // 2])
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    with Image.open(path) as cut:
        with pytest.raises(DataError, match=r"cut\.png: a damaged"):
            load_pillow([Image.fromarray(X[0]), cut], SIZE)
        loaded = load_pillow([cut, Image.fromarray(X[0])], SIZE, on_error="skip")
    assert loaded.kept.tolist() == [1]
    assert len(loaded.inputs) == 1


def test_reading_leaves_the_users_warning_filters_alone(tmp_path):
    paths = []
    for number in range(64):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("P", (20, 20), number).save(paths[-1], transparency=b"\x10\x20")
    shown = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", DeprecationWarning)
        warnings.showwarning = lambda message, *_, **__: shown.append(str(message))
        filters, show = list(warnings.filters), warnings.showwarning
        for _ in range(5):
            load_encoded(paths, (8, 8))
        assert list(warnings.filters) == filters
        assert warnings.showwarning is show
        warnings.warn("still seen", DeprecationWarning, stacklevel=1)
    assert shown == ["still seen"]
