"""Seeded work leaves the random states of the process as they were."""

import random

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.training.random_state import isolated_seed


def draws():
    """Draw from everything that is random in the process."""
    return [
        random.random(),
        np.random.rand(),  # noqa: NPY002
        float(tf.random.uniform(())),
        float(keras.random.uniform(())),
        float(tf.random.get_global_generator().uniform(())),
    ]


def busy():
    layer = keras.layers.Dense(3)
    layer(keras.ops.ones((1, 2)))
    return [*draws(), *layer.get_weights()[0].ravel().tolist()]


def test_the_same_inside_and_untouched_outside():
    keras.utils.set_random_seed(5)
    tf.random.get_global_generator().reset_from_seed(5)
    expected = [draws(), draws()]

    keras.utils.set_random_seed(5)
    tf.random.get_global_generator().reset_from_seed(5)
    first = draws()
    with isolated_seed(1):
        one = busy()[:4]
    with isolated_seed(1):
        two = busy()[:4]
    with isolated_seed(2):
        three = busy()[:4]
    tf.random.get_global_generator().reset_from_seed(5)
    tf.random.get_global_generator().uniform(())
    assert [first, draws()] == expected
    assert one == two
    assert not set(one) & set(three)


def test_puts_back_the_states_after_an_error():
    random.seed(1)
    expected = random.random()
    random.seed(1)
    try:
        with isolated_seed(2):
            raise KeyError
    except KeyError:
        pass
    assert random.random() == expected


def test_a_process_that_never_seeded_stays_unseeded():
    """Two seedless draws after it differ: the process is not left with our seed."""
    import subprocess
    import sys

    code = (
        "import keras, numpy as np, tensorflow as tf\n"
        "from keras_transfer.training.random_state import isolated_seed\n"
        "with isolated_seed(3): keras.layers.Dense(2)(keras.ops.ones((1, 2)))\n"
        "print(float(tf.random.uniform(())), float(keras.random.uniform(())), np.random.rand())"
    )
    results = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    one, two = (done.stdout.split() for done in results)
    assert not set(one) & set(two)
