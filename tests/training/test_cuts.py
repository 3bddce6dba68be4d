"""Where each stage reads what is frozen."""

import tiny

from keras_transfer import Stage
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.heads import Head
from keras_transfer.graph.readout import Readout
from keras_transfer.store.activation_store import Memory
from keras_transfer.training.cuts import plan_cuts
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.stored_outputs import StoredOutputs

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


def stage(*blocks, **options):
    return Stage("s", {**dict.fromkeys(blocks, 1e-3), "head": 1e-3}, 1, **options)


MEMORY = Memory()


def plan(*stages, memory=MEMORY, n_rows=10, augmented=False):
    backbone = tiny.settled(tiny.residual, SHAPE)
    network = LazyNetwork(Blueprint(backbone, Head("multiclass", 3), SHAPE, Readout(), 0))
    stored = None if memory is None else StoredOutputs(network, memory)
    return [(cut.nodes, cut.note) for cut in plan_cuts(network, stored, stages, n_rows, augmented)]


AT_READOUT = ("readout.0_unit1_conv_average",), "stored at readout"
AT_UNIT0 = ("unit0_conv.unit0_add",), "stored at unit0_conv"
WHOLE = (), "not stored: it trains from the input"


def test_the_boundary_moves_down_with_what_trains():
    stages = stage(), stage("unit1_conv"), stage("stem")
    assert plan(*stages) == [AT_READOUT, AT_UNIT0, WHOLE]


def test_what_an_earlier_stage_trained_is_not_what_was_stored():
    assert plan(stage("unit1_conv"), stage()) == [AT_UNIT0, AT_UNIT0]
    assert plan(stage("stem"), stage(), stage("unit1_conv")) == [WHOLE] * 3


def test_why_nothing_is_stored():
    ((nodes, note),) = plan(stage(), memory=None)
    assert (nodes, note) == ((), "not stored: memory=False")
    ((nodes, note),) = plan(stage(), augmented=True)
    assert nodes == ()
    assert note.endswith("n_views fixes them")
    assert plan(stage(solver="exact"), augmented=True) == [AT_READOUT]
    assert plan(stage(solver="exact"), stage(mix="cutmix"), augmented=True) == [
        AT_READOUT,
        ((), "not stored: cutmix makes new pictures in every step"),
    ]
    ((nodes, note),) = plan(stage(), n_rows=10**9)
    assert nodes == ()
    assert "1,000,000,000 rows of 16 bytes" in note
