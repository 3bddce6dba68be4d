"""Compiled functions are shared by models of one structure, and change no result."""

import threading

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import Stage, get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.training import compiled
from keras_transfer.training.batches import shuffled_batches
from keras_transfer.training.compiled import Snapshot, borrow, copy_state, forward_for
from keras_transfer.training.inference import Inference
from keras_transfer.training.random_state import isolated_seed

pytestmark = pytest.mark.usefixtures("empty_pool")

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X, Y = tiny.pictures()
X, Y = X.astype("float32"), np.unique(Y, return_inverse=True)[1]
STAGES = [
    Stage("head", {"head": 1e-2}, epochs=2),
    Stage("blocks", {"unit1_conv": 1e-3, "head": 1e-2}, epochs=2, batch_norm="train"),
    Stage("sgd", {"stem": 1e-3, "head": 1e-3}, epochs=1, optimizer="sgd"),
]


def make(seed=0, build=tiny.residual, **options):
    with isolated_seed(seed):
        return tiny.classifier(get_backbone(build), 3, input_shape=SHAPE, **options)


def train(model, stages=STAGES, shared=True):
    with isolated_seed(0):
        data = shuffled_batches((X, Y, np.ones(len(X), "float32")), 8, 0)
        return tiny.run_stages(model, read_blocks(model), stages, data, shared=shared)


def traces():
    return [len(network._trainers) for network in compiled._pool.values()]


def assert_same(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_sharing_changes_nothing(dropout):
    """Trained alone, on a fresh network, and on one that others used before: equal to the bit."""
    alone, fresh, reused, other = (make(seed, dropout=dropout) for seed in (0, 0, 0, 5))
    expected = train(alone, shared=False).history["loss"]
    assert train(fresh).history["loss"] == expected
    train(other)
    assert train(reused).history["loss"] == expected
    assert_same(fresh, alone)
    assert_same(reused, alone)
    assert traces() == [3]
    for model in (alone, fresh, reused):
        paths = [weight.path for weight in model.trainable_weights]
        assert {path.partition(".")[0] for path in paths} == {"stem", "head"}


def test_a_rate_is_no_new_trace():
    train(make(), [Stage("head", {"head": 1e-2}, epochs=1)])
    slow = make()
    before = slow.get_layer("head.logits").get_weights()[0]
    train(slow, [Stage("head", {"head": 1e-5}, epochs=1)])
    step = np.abs(slow.get_layer("head.logits").get_weights()[0] - before).max()
    assert 0 < step < 1e-4
    both = {"unit1_conv": 1e-4, "head": 1e-2}
    train(make(), [Stage("both", both, epochs=1)])
    train(make(), [Stage("both", {name: rate / 2 for name, rate in both.items()}, epochs=1)])
    assert traces() == [2]


def test_what_is_compiled_in_is_a_new_trace():
    stage = Stage("s", {"unit1_conv": 1e-3, "head": 1e-3}, epochs=1)
    others = [
        Stage("s", {"unit0_conv": 1e-3, "head": 1e-3}, epochs=1),
        Stage("s", {"unit1_conv": 1e-3, "head": 1e-2}, epochs=1),
        Stage("s", stage.learning_rates, epochs=1, batch_norm="affine"),
        Stage(
            "s", stage.learning_rates, epochs=1, optimizer=lambda: keras.optimizers.Adam(1.0, 0.5)
        ),
    ]
    for given in (stage, *others):
        train(make(), [given])
    assert traces() == [5]


def slow_adam():
    return keras.optimizers.Adam(beta_1=0.5)


def test_an_optimizer_of_the_users_own_is_made_anew():
    class Mine(keras.optimizers.SGD):
        pass

    train(make(), [Stage("s", {"head": 1e-2}, epochs=1, optimizer=Mine)])
    assert traces() == [0]


def test_one_forward_pass_for_all_and_no_mixing_of_weights():
    models = [make(seed) for seed in range(3)]
    asked = [Inference(model) for model in models]
    expected = [model.predict(X, verbose=0) for model in models]
    for _ in range(2):
        for inference, answer in zip(asked, expected, strict=True):
            np.testing.assert_allclose(inference.on_inputs(X, 8), answer, atol=1e-6)
    assert len(compiled._pool) == 1
    (network,) = compiled._pool.values()
    assert network._forwards[()][0].experimental_get_tracing_count() == 1


def test_other_structures_have_their_own():
    keys = [
        compiled._structure(model)
        for model in (
            make(),
            make(build=tiny.cnn),
            make(dropout=0.1),
            make(readout=None),
            tiny.classifier(get_backbone(tiny.residual), 4, input_shape=SHAPE),
        )
    ]
    assert len(set(keys)) == 4
    assert keys[0] == keys[3]


def test_constants_that_weights_do_not_show_are_part_of_the_structure():
    """A Normalization computes with what it derived from its weights, not with these."""

    def normalised(scale):
        layer = keras.layers.Normalization(name="norm")
        layer.adapt(np.full((4, 5), scale) * np.arange(4)[:, None])
        return keras.Sequential([keras.Input((5,)), layer, keras.layers.Dense(4, name="low")])

    keys, V = [], tiny.vectors()[0].astype("float32")
    for scale in (1.0, 50.0):
        model = tiny.classifier(get_backbone(normalised(scale)), 2)
        expected = model.predict(V, verbose=0)
        np.testing.assert_allclose(Inference(model).on_inputs(V, 8), expected, atol=1e-6)
        keys.append(compiled._structure(model))
    assert keys[0] != keys[1]


def test_layers_of_the_users_own_are_not_shared():
    """A class can be defined anew under its name, in a notebook, and do something else."""

    def define(factor):
        @keras.saving.register_keras_serializable("test_compiled")
        class Scale(keras.layers.Layer):
            def call(self, x):
                return x * factor

        def build(shape):
            return keras.Sequential([keras.Input(shape), Scale(), keras.layers.Dense(4, name="d")])

        return build

    V = tiny.vectors()[0].astype("float32")
    for factor in (1.0, -3.0):
        model = tiny.classifier(get_backbone(define(factor)), 2, input_shape=(5,))
        assert compiled._structure(model) is None
        assert forward_for(model).network is model
        expected = model.predict(V, verbose=0)
        np.testing.assert_allclose(Inference(model).on_inputs(V, 8), expected, atol=1e-6)


def test_a_function_of_the_users_own_is_not_shared():
    def build(shape):
        return keras.Sequential([keras.Input(shape), keras.layers.Dense(4, activation=square)])

    @keras.saving.register_keras_serializable("test_compiled")
    def square(x):
        return x * x

    model = tiny.classifier(get_backbone(build), 2, input_shape=(5,))
    assert compiled._structure(model) is None


def test_a_network_in_use_is_left_alone():
    one, two = make(), make()
    with borrow(one) as first, borrow(two) as second:
        assert first.network is not one
        assert second.network is two
    with borrow(two) as third:
        assert third is first


def test_threads_train_to_the_same_weights():
    models = [make(), make()]
    alone = make()
    train(alone, STAGES[:1])
    threads = [threading.Thread(target=train, args=(m, STAGES[:1])) for m in models]
    for thread in threads[:1]:
        thread.start()
        thread.join()
    train(models[1], STAGES[:1])
    for model in models:
        assert_same(model, alone)


def test_a_failure_leaves_the_model_as_it_was():
    model, before = make(), make()

    def fail():
        with borrow(model) as network:
            kernel = network.network.get_layer("head.logits").kernel
            kernel.assign(kernel + 1)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert_same(model, before)
    with borrow(model) as network:  # free again, with the model's weights
        assert_same(network.network, before)


def test_few_structures_are_kept():
    for n_classes in range(2, 9):
        forward_for(tiny.classifier(get_backbone(tiny.dense), n_classes, input_shape=(3,)))
    assert len(compiled._pool) == compiled._KEPT_STRUCTURES


def test_clearing_the_session_does_not_matter():
    """As users of Keras do between fits, for the sake of memory."""
    one, two = make(dropout=0.3), make(dropout=0.3)
    expected = train(one).history["loss"]
    inference = Inference(one)
    before = inference.on_inputs(X, 8)
    keras.utils.clear_session(free_memory=True)
    np.testing.assert_array_equal(inference.on_inputs(X, 8), before)
    assert train(two).history["loss"] == expected
    assert_same(one, two)
    keras.utils.clear_session()
    three = make(dropout=0.3)
    assert train(three).history["loss"] == expected
    assert_same(three, two)


def test_copy_state_takes_the_random_generators_along():
    source, target = make(0, dropout=0.5), make(1, dropout=0.5)
    copy_state(source, target)
    states = [
        [v.numpy().tolist() for layer in m.layers for v in layer.variables]
        for m in (source, target)
    ]
    assert states[0] == states[1]
    assert any("seed" in v.path for layer in source.layers for v in layer.variables)


def test_a_snapshot_notices_and_undoes_changes():
    model, same = make(dropout=0.5), make(dropout=0.5)
    snapshot = Snapshot(model)
    kernel = model.get_layer("head.logits").kernel
    variance = model.get_layer("unit1_conv.unit1_bn").moving_variance
    seed = next(v for layer in model.layers for v in layer.variables if "seed" in v.path)
    for variable in (kernel, variance, seed):
        assert not snapshot.differs(variable)
        variable.assign(variable + 1)
        assert snapshot.differs(variable)
    kernel.assign(kernel * np.nan)
    snapshot.restore()
    for one, other in zip(model.layers, same.layers, strict=True):
        for a, b in zip(one.variables, other.variables, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_trainer_that_is_forgotten_is_made_anew():
    train(make(), STAGES[:2])
    (network,) = compiled._pool.values()
    key = next(iter(network._trainers))
    network.forget(key)
    network.forget(None)
    assert traces() == [1]
    train(make(), STAGES[:2])
    assert traces() == [2]
