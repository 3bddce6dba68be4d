"""The one decode-and-resize function: every format, in training and in a served graph."""

import numpy as np
import pytest
import tensorflow as tf
import tiny
from PIL import Image

from keras_transfer.inputs.decoding import decode_picture, over_white, resize_pictures

rng = np.random.default_rng(0)
RGB = rng.integers(0, 256, (10, 20, 3), dtype=np.uint8)
RGBA = np.dstack([RGB, rng.integers(0, 256, (10, 20), dtype=np.uint8)])
GREY = RGB[..., 0]
DEEP = rng.integers(0, 65536, (10, 20)).astype(np.uint16)
PALETTE = Image.fromarray(RGB).quantize(16)


def decode(contents, size=(10, 20)):
    return decode_picture(tf.constant(contents), size).numpy()


def over(pixels, opacity):
    opacity = opacity[..., np.newaxis] / np.float32(255)
    return pixels.astype(np.float32) * opacity + 255 * (1 - opacity)


TRANSPARENT = PALETTE.copy()
TRANSPARENT.info["transparency"] = 3
HIDDEN = np.asarray(PALETTE) == 3
# Kind of file -> contents, pixels.
LOSSLESS = {
    "PNG": (tiny.encode(RGB), RGB),
    "grey PNG": (tiny.encode(GREY), np.stack([GREY] * 3, -1)),
    "PNG with opacity": (tiny.encode(RGBA), over(RGB, RGBA[..., 3])),
    "grey PNG with opacity": (
        tiny.encode(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(RGBA[..., 3])])),
        over(np.stack([GREY] * 3, -1), RGBA[..., 3]),
    ),
    "palette PNG": (tiny.encode(PALETTE), np.asarray(PALETTE.convert("RGB"))),
    "palette PNG with a transparent colour": (
        tiny.encode(PALETTE, transparency=3),
        np.where(HIDDEN[..., None], 255, np.asarray(PALETTE.convert("RGB"))),
    ),
    "16-bit PNG": (tiny.encode(DEEP), np.stack([DEEP >> 8] * 3, -1)),
    "1-bit PNG": (
        tiny.encode(Image.fromarray(GREY > 127)),
        np.stack([(GREY > 127) * 255] * 3, -1),
    ),
    "BMP": (tiny.encode(RGB, "BMP"), RGB),
    "grey BMP": (tiny.encode(GREY, "BMP"), np.stack([GREY] * 3, -1)),
    "32-bit BMP": (tiny.encode(RGBA, "BMP"), RGB),  # the fourth channel of most is padding
    "GIF": (tiny.encode(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB"))),
    "animated GIF": (
        tiny.encode(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]),
        np.asarray(PALETTE.convert("RGB")),
    ),
    "WebP": (tiny.encode(RGB, "WEBP", lossless=True), RGB),
    "WebP with opacity": (
        tiny.encode(RGBA, "WEBP", lossless=True, exact=True),
        over(RGB, RGBA[..., 3]),
    ),
}


@pytest.mark.parametrize(("contents", "pixels"), LOSSLESS.values(), ids=LOSSLESS)
def test_every_kind_of_file(contents, pixels):
    decoded = decode(contents)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, pixels, atol=1e-4)
    small = decode(contents, (4, 6))
    expected = resize_pictures(np.asarray(pixels, np.float32)[np.newaxis], (4, 6))[0]
    np.testing.assert_allclose(small, expected, atol=1e-3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg(mode):
    smooth = Image.fromarray(RGB[:4, :4]).resize((64, 64), Image.Resampling.BICUBIC).convert(mode)
    contents = tiny.encode(smooth, "JPEG", quality=95)
    decoded = decode(contents, (64, 64))
    np.testing.assert_allclose(decoded, np.asarray(smooth.convert("RGB")), atol=24)
    assert np.abs(decoded - np.asarray(smooth.convert("RGB"))).mean() < 3


def test_an_array_and_its_file_give_the_same_to_the_bit():
    """Also where whole numbers are resized, without making floats of them first."""
    for size in [(10, 20), (5, 5), (32, 16)]:
        as_array = np.asarray(resize_pictures(RGB.astype(np.float32)[np.newaxis], size)[0])
        np.testing.assert_array_equal(decode(tiny.encode(RGB), size), as_array)


def test_one_pixel():
    decoded = decode(tiny.encode(np.full((1, 1, 3), 77, np.uint8)), (8, 8))
    np.testing.assert_allclose(decoded, 77, rtol=1e-6)


def test_in_a_graph_of_unknown_contents(tmp_path):
    """As it stands in a tf.data pipeline, and in a SavedModel that needs no Python of ours."""

    class Served(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
        def serve(self, contents):
            spec = tf.TensorSpec((6, 7, 3), tf.float32)
            return tf.map_fn(
                lambda one: decode_picture(one, (6, 7)), contents, fn_output_signature=spec
            )

    tf.saved_model.save(Served(), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    contents = [contents for contents, _ in LOSSLESS.values()]
    served = loaded.serve(tf.constant(contents)).numpy()
    for row, one in enumerate(contents):
        np.testing.assert_array_equal(served[row], decode(one, (6, 7)))


@pytest.mark.parametrize("trained_in_a_graph", [False, True])
def test_an_animated_webp_is_refused(trained_in_a_graph):
    """TensorFlow 2.21 would write past the end of its memory."""
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    contents = tiny.encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    run = tf.function(decode_picture) if trained_in_a_graph else decode_picture
    with pytest.raises(tf.errors.InvalidArgumentError, match="animated WebP"):
        run(tf.constant(contents), (4, 4))


@pytest.mark.parametrize("contents", [b"", b"RIFF", b"plain text", b"RIFF    WEBPVP8X"], ids=repr)
def test_what_is_no_picture(contents):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_picture(tf.constant(contents), (4, 4))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
def test_truncated(kind):
    contents = tiny.encode(RGB, kind)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_picture(tf.constant(contents[: len(contents) // 2]), (4, 4))


def test_over_white():
    np.testing.assert_allclose(over_white(RGBA), over(RGB, RGBA[..., 3]), atol=1e-4)
