"""What is frozen is computed once for each input, whoever asks; and what is read is right."""

import time

import numpy as np
import pytest
import tiny

from keras_transfer import get_backbone
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.heads import Head
from keras_transfer.graph.nodes import graph_of_model
from keras_transfer.graph.readout import Readout
from keras_transfer.inputs.examples import row_keys
from keras_transfer.store.activation_store import Memory, open_store
from keras_transfer.training import stored_outputs
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.stored_outputs import StoredOutputs

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X = np.random.default_rng(0).uniform(0, 255, (9, *SHAPE)).astype("float32")
KEYS = row_keys(X)


@pytest.fixture
def memory(tmp_path):
    return Memory(folder=tmp_path / "store")


def make(memory, source=None, build=tiny.residual, **options):
    backbone = source or tiny.settled(build, SHAPE)
    blueprint = Blueprint(backbone, Head("multiclass", 3), SHAPE, Readout(), 0)
    return StoredOutputs(LazyNetwork(blueprint, open_store(memory)), memory, **options)


def cut(stored, *trained):
    return stored.network.boundary(trained).cut


def arrays(stored, inputs=X, keys=None, cuts=None, **options):
    keys = row_keys(inputs) if keys is None else keys
    found = stored.activations(inputs, keys, [cut(stored)] if cuts is None else cuts, **options)
    return [each.arrays for each in found]


def test_each_input_is_computed_once(memory, computed):
    stored = make(memory)
    ((first,),) = arrays(stored)
    assert computed == [9]
    order = np.array([4, 4, 0, 8])
    ((again,),) = arrays(make(memory), X[order])  # another network, permuted, one twice
    np.testing.assert_array_equal(again, first[order])
    assert computed == [9]
    more = np.concatenate([X[:2], X[:1] + 1])
    arrays(stored, more)
    assert computed == [9, 1]


def test_several_cuts_take_one_pass(memory, computed):
    stored = make(memory)
    cuts = [cut(stored), cut(stored, "unit1_conv")]
    (low,), (high,) = arrays(stored, cuts=cuts)
    assert computed == [9]
    assert low.shape[1:] != high.shape[1:]
    arrays(stored, cuts=cuts[::-1])
    assert computed == [9]


def changed_weight():
    backbone = tiny.settled(tiny.residual, SHAPE)
    model = backbone.load(SHAPE)
    weights = model.get_layer("unit1_conv").get_weights()
    weights[0][0, 0, 0, 0] += 1e-3
    model.get_layer("unit1_conv").set_weights(weights)
    return get_backbone(model)


MISSES = {
    "a weight": lambda memory: make(memory, changed_weight()),
    "another reader": lambda memory: make(memory, reader="size 32"),
    "not folded": lambda memory: make(Memory(folder=memory.folder, exact=True)),
    "another dtype": lambda memory: make(Memory(folder=memory.folder, dtype="float16")),
}


@pytest.mark.parametrize("other", MISSES.values(), ids=MISSES)
def test_what_is_different_misses(other, memory, computed):
    arrays(make(memory))
    arrays(other(memory))
    assert computed == [9, 9]


def test_what_was_dropped_from_the_store_is_computed_again(memory, computed):
    stored = make(memory)
    (found,) = stored.activations(X, KEYS, [cut(stored)])
    expected = found.take(np.arange(9))[0].copy()
    (found,) = stored.activations(X, KEYS, [cut(stored)])  # read later
    open_store(memory).clear()
    np.testing.assert_array_equal(found.take(np.arange(9))[0], expected)
    assert computed == [9, 9]


def test_what_is_not_kept_stays_for_as_long_as_it_is_needed(memory, computed):
    stored = make(memory)
    (expected,) = arrays(make(Memory()))[0]
    ((found,),) = arrays(stored, X[[0, 3, 3]], keep=False)
    np.testing.assert_array_equal(found, expected[[0, 3, 3]])
    assert open_store(memory).info().rows == 0
    arrays(stored, X[:2])
    ((found,),) = arrays(stored, X[:4], keep=False)  # some from the store, some not
    np.testing.assert_array_equal(found, expected[:4])
    arrays(stored, X[:4])
    assert computed[1:] == [2, 2, 2, 2]


def test_a_deadline_ends_a_pass_that_would_last_longer(memory):
    many = np.random.default_rng(0).uniform(0, 255, (400, *SHAPE)).astype("float32")
    stored = make(memory)
    late = {"deadline": time.monotonic() - 1}
    assert stored.activations(many, row_keys(many), [cut(stored)], **late) is None
    kept = open_store(memory).info().rows
    assert 0 < kept < 400
    assert stored.activations(many, row_keys(many), [cut(stored)], deadline=time.monotonic() + 600)


def test_the_progress_counts_what_is_computed(memory):
    stored, seen = make(memory), []
    stored.activations(X[:3], KEYS[:3], [cut(stored)], advance=seen.append)
    stored.activations(X, KEYS, [cut(stored)], advance=seen.append)
    assert sum(seen) == 9


def test_room(tmp_path):
    stored = make(Memory(folder=tmp_path, size_limit=1 << 20))
    assert stored.lacks_room(10, cut(stored)) == ""
    assert "1,000,000 rows of 16 bytes" in stored.lacks_room(1_000_000, cut(stored))
    half = make(Memory(folder=tmp_path, size_limit=1 << 20, dtype="float16"))
    assert half.lacks_room(100_000, cut(half)) == ""
    assert stored.lacks_room(100_000, cut(stored)) != ""


def test_frozen_parts_stay_compiled_within_bounds(monkeypatch, memory):
    monkeypatch.setattr(stored_outputs, "_frozen_parts", type(stored_outputs._frozen_parts)())
    monkeypatch.setattr(stored_outputs, "_KEPT_BYTES", 5_000)
    for seed in range(9):
        stored = make(memory, tiny.settled(tiny.residual, SHAPE, seed))
        arrays(stored)
    kept = stored_outputs._frozen_parts.values()
    assert 1 <= len(kept) < 9
    assert sum(part.n_bytes for part in kept) <= 5_000


def test_a_graph_of_a_model_reads_what_its_blueprint_kept(memory, computed):
    """The whole model, loaded or pickled, finds what the fit stored."""
    stored = make(memory)
    expected = arrays(stored)
    model = stored.network.build_whole(None)
    again = StoredOutputs(LazyNetwork(graph_of_model(model, [])), memory)
    np.testing.assert_array_equal(arrays(again, cuts=[cut(stored)])[0][0], expected[0][0])
    assert computed == [9]
