"""Headers: what is refused before anything is decoded, and what EXIF data say."""

import io
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tiny
from PIL import Image

from keras_transfer.inputs.headers import display_name, find_header_problem, read_contents

RGB = np.random.default_rng(0).integers(0, 256, (10, 20, 3), dtype=np.uint8)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def huge_png(side=20_000):
    """A black PNG of 400 million pixels in some 40 kB, written row by row."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    deflate = zlib.compressobj(9)
    rows = [deflate.compress(bytes(1 + side // 8)) for _ in range(side)]
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    content = b"".join([*rows, deflate.flush()])
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", content), chunk(b"IEND", b"")]
    )


FINE = {
    "PNG": tiny.encode(RGB),
    "JPEG": tiny.encode(RGB, "JPEG"),
    "CMYK": tiny.encode(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "palette": tiny.encode(Image.fromarray(RGB).quantize(8)),
    "16 bits": tiny.encode(np.zeros((3, 3), np.uint16)),
    "GIF": tiny.encode(Image.fromarray(RGB).quantize(8), "GIF"),
    "WebP": tiny.encode(RGB, "WEBP"),
    "BMP": tiny.encode(RGB, "BMP"),
    "one pixel": tiny.encode(RGB[:1, :1]),
}


@pytest.mark.parametrize("contents", FINE.values(), ids=FINE)
def test_what_is_let_through(contents):
    assert find_header_problem(contents) == (None, False)


REFUSED = {
    "empty": (b"", "an empty file"),
    "text": (b"plain text in a .jpg", "no picture"),
    "a broken header": (tiny.encode(RGB)[:12], "no picture|damaged header"),
    "TIFF": (tiny.encode(RGB, "TIFF"), "a TIFF file; save it as PNG"),
    "animated WebP": (
        tiny.encode(RGB, "WEBP", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())]),
        "an animated WebP",
    ),
    "palette BMP": (tiny.encode(Image.fromarray(RGB).quantize(8), "BMP"), "a BMP with a palette"),
}


@pytest.mark.parametrize(("contents", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(contents, problem):
    found, _ = find_header_problem(contents)
    assert re.match(problem, found)


def test_a_header_that_pillow_stumbles_over():
    contents = bytearray(FINE["BMP"])
    contents[14] = 3  # the size of its header, which tells the kind
    problem = "a damaged header (Unsupported BMP header type (3))"
    assert find_header_problem(bytes(contents)) == (problem, False)


def test_a_picture_too_large_is_refused_without_decoding_it():
    contents = huge_png()
    tracemalloc.start()
    problem, _ = find_header_problem(contents)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problem.startswith("too large to be safe (Image size (400000000 pixels)")
    assert peak < 10 << 20


def test_the_bound_is_pillows(monkeypatch):
    contents = tiny.encode(RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 199)
    assert "too large" in find_header_problem(contents)[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    assert find_header_problem(contents)[0] is None


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize(("orientation", "expected"), [(1, False), (3, True), (6, True)])
def test_orientation(kind, orientation, expected):
    contents = tiny.encode(RGB, kind, **turned(orientation))
    assert find_header_problem(contents) == (None, expected)


def test_reading(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(FINE["PNG"])
    assert read_contents(str(path)) == (FINE["PNG"], None)
    assert read_contents(FINE["PNG"]) == (FINE["PNG"], None)
    assert read_contents(str(tmp_path / "none.png")) == (b"", "no such file or directory")
    assert read_contents(str(tmp_path)) == (b"", "is a directory")
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert read_contents(str(loop))[1].startswith("too many levels of symbolic links")
    assert "null" in read_contents("a\0b.png")[1]


def test_names():
    assert display_name("a/b.png", 3) == "a/b.png"
    assert display_name(io.BytesIO(b"").getvalue(), 3) == "row 3"
