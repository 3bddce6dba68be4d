"""Decode and resize a picture: the one function that training and serving share."""

from __future__ import annotations

from typing import Any

__all__ = ["decode_picture", "over_white", "resize_pictures"]


def decode_picture(contents: Any, size: tuple[int, int]) -> Any:
    """Decode the contents of a picture file and resize it, in TensorFlow operations alone.

    Parameters
    ----------
    contents : tensor of shape (), string
        A JPEG, PNG, BMP, GIF (its first frame) or WebP. Grey pictures are repeated over the
        channels, transparent ones put over white, of 16 bits the upper 8 are read. The orientation
        that EXIF data name is not applied: TensorFlow has no operation for it.
    size : (int, int)
        Height and width in pixels.

    Returns
    -------
    tensor of shape (*size, 3)
        Float32, RGB of 0..255.

    Raises
    ------
    tensorflow.errors.InvalidArgumentError
        If the contents are damaged, of another kind, or an animated WebP.
    """
    import tensorflow as tf

    # TensorFlow (2.21) writes all frames of an animated WebP into memory for one of them.
    animated = tf.debugging.assert_equal(
        _is_animated_webp(contents), False, "animated WebP: keep one frame"
    )
    # Eagerly the assertion has run, and is None.
    with tf.control_dependencies([] if animated is None else [animated]):
        pixels = tf.io.decode_image(contents, expand_animations=False)
    # The fourth channel of most BMPs is padding, not opacity.
    is_bitmap = tf.equal(tf.strings.substr(contents, 0, 2), b"BM")
    pixels = tf.cond(is_bitmap, lambda: pixels[..., :3], lambda: pixels)
    has_opacity = tf.equal(tf.shape(pixels)[-1] % 2, 0)
    # Whole numbers where nothing is mixed: resizing them directly takes a third of the time that
    # it takes to make floats of them first, and gives the same.
    resized = tf.cond(
        has_opacity,
        lambda: _resize_one(over_white(pixels), size),
        lambda: _resize_one(_as_rgb(pixels), size),
    )
    return tf.ensure_shape(resized, (*size, 3))


def resize_pictures(pixels: Any, size: tuple[int, int]) -> Any:
    """Resize RGB pictures.

    Parameters
    ----------
    pixels : tensor of shape (batch, height, width, 3)
        Float32 or uint8.
    size : (int, int)
        Height and width in pixels.

    Returns
    -------
    tensor of shape (batch, *size, 3)
        Float32. Bilinear, with antialiasing where it shrinks: without it, fine patterns of a large
        picture turn into noise.
    """
    import tensorflow as tf

    if tuple(pixels.shape[1:3]) == tuple(size):
        return pixels if pixels.dtype == tf.float32 else tf.cast(pixels, tf.float32)
    return tf.image.resize(pixels, size, method="bilinear", antialias=True)


def _resize_one(pixels: Any, size: tuple[int, int]) -> Any:
    return resize_pictures(pixels[None], size)[0]


def _as_rgb(pixels: Any) -> Any:
    """Repeat a single channel."""
    import tensorflow as tf

    repeats = tf.one_hot(tf.rank(pixels) - 1, tf.rank(pixels), 3 // tf.shape(pixels)[-1], 1)
    return tf.tile(pixels, repeats)


def over_white(pixels: Any) -> Any:
    """Put a picture of 0..255 with opacity, its last channel, over white; float32."""
    import tensorflow as tf

    # Not a division: in a graph TensorFlow turns that into this, with another last bit.
    opacity = tf.cast(pixels[..., -1:], tf.float32) * (1 / 255)
    return tf.cast(_as_rgb(pixels[..., :-1]), tf.float32) * opacity + 255 * (1 - opacity)


def _is_animated_webp(contents: Any) -> Any:
    """Read the flags of the extended header: RIFF size WEBP VP8X size flags."""
    import tensorflow as tf

    def animated() -> Any:
        flags = tf.io.decode_raw(tf.strings.substr(contents, 20, 1), tf.uint8)[0]
        return tf.equal(tf.bitwise.bitwise_and(flags, 2), 2)

    is_extended = tf.logical_and(
        tf.equal(tf.strings.substr(contents, 8, 8), b"WEBPVP8X"),
        tf.greater(tf.strings.length(contents), 20),
    )
    return tf.cond(is_extended, animated, lambda: tf.constant(False))
