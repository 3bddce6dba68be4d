"""Examples, and what tells their content."""

import numpy as np

from keras_transfer.inputs.examples import Examples, row_keys
from keras_transfer.inputs.pictures import PictureInput
from keras_transfer.inputs.reader import Loaded

X = np.arange(12.0, dtype="float32").reshape(4, 3)


def test_keys_tell_content():
    keys = row_keys(X)
    assert len(set(keys)) == 4
    assert all(len(key) == 16 for key in keys)
    assert row_keys(X[::-1].copy()) == keys[::-1]
    changed = X.copy()
    changed[1, 2] += 1e-3
    assert [one == other for one, other in zip(row_keys(changed), keys, strict=True)] == [
        True,
        False,
        True,
        True,
    ]


def test_known_digests_are_taken():
    digests = [bytes([row]) * 16 for row in range(4)]
    assert row_keys(X, digests) == digests
    examples = Examples.from_loaded(Loaded(X, np.arange(4), digests=tuple(digests)), X[:, 0], None)
    assert examples[np.array([2, 0])].keys() == [digests[2], digests[0]]
    plain = Examples.from_loaded(Loaded(X, np.arange(4)), X[:, 0], None)
    assert plain.keys() == row_keys(X)


def test_the_type_of_a_picture_is_part_of_its_digest():
    """The same bytes as signed and unsigned numbers are other pictures."""
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    reader = PictureInput((4, 4), (0.0, 255.0))
    assert reader.load(pictures).digests != reader.load(pictures.astype(np.int8)).digests
