"""Where to read is chosen on the training data, in one pass of the backbone."""

import dataclasses
import functools
import time

import keras
import numpy as np
import pytest
import tiny

import keras_transfer
from keras_transfer import (
    CompositeTransfer,
    Memory,
    ParameterTransfer,
    Readout,
    StructureTransfer,
    TransferClassifier,
    TransferEncoder,
    TransferRegressor,
    get_backbone,
)
from keras_transfer.choosing import out_of_fold
from keras_transfer.choosing import readout_choice as module
from keras_transfer.choosing.readout_choice import candidate_readouts, choose_readout
from keras_transfer.choosing.trial import Trial
from keras_transfer.errors import DataError, InvalidParameterError, UnknownNameError
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.training.frozen import FrozenPart
from keras_transfer.training.lazy_network import LazyNetwork

pytestmark = pytest.mark.usefixtures("empty_store")

SHAPE = (16, 16, 3)


def tower(input_shape):
    """Six convolutions of which the first four keep their size; the last two see little layout."""
    x = inputs = keras.Input(input_shape)
    for number, strides in enumerate((1, 2, 1, 2, 2, 2)):
        x = keras.layers.Conv2D(4, 3, strides, padding="same", name=f"conv{number}")(x)
        x = keras.layers.BatchNormalization(name=f"bn{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    return keras.Model(inputs, x, name="tower")


@functools.cache
def backbone(build=tower):
    return tiny.settled(build, SHAPE)


def dots(n=48, seed=0, bright=255):
    """Pictures of noise with a bright dot in one of the four corners: the class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    X = rng.integers(0, 100, (n, *SHAPE))
    for picture, corner in zip(X, y, strict=True):
        row, column = 8 * (corner // 2) + 3, 8 * (corner % 2) + 3
        picture[row : row + 3, column : column + 3] = bright
    return X.astype(np.uint8), y


X, Y = dots()
NEW_X, NEW_Y = dots(seed=1)


def make(kind=TransferClassifier, recipe="structure", source=None, **parameters):
    options = {"validation": None, "guard": None, "random_state": 0, **parameters}
    return kind(source or backbone(), recipe, **options)


# === What is chosen ===


def test_layout_is_kept_where_it_tells():
    clf = make().fit(X, Y)
    last = make(readout="last").fit(X, Y)
    assert any(pooling != "average" for pooling in clf.readout_.readout.pooling)
    assert clf.score(NEW_X, NEW_Y) > 0.95
    assert clf.score(NEW_X, NEW_Y) > last.score(NEW_X, NEW_Y) + 0.2


def test_blocks_above_are_left_out():
    clf = make().fit(X, Y)
    choice = clf.readout_
    deepest = choice.readout.blocks[-1]
    last = make(readout="last").fit(X, Y).readout_
    assert choice.left_out > 0
    assert choice.parameters + choice.left_out == last.parameters
    blocks = {layer.name.partition(".")[0] for layer in clf.model_.layers}
    assert deepest in blocks
    assert not blocks & {f"conv{n}" for n in range(int(deepest[-1]) + 1, 6)}


def test_of_one_block_the_last_is_read_at_once(computed):
    def one(input_shape):
        return keras.Sequential(
            [
                keras.Input(input_shape),
                keras.layers.Conv2D(4, 3, 4, padding="same", activation="relu", name="only"),
                keras.layers.GlobalAveragePooling2D(name="pool"),
            ]
        )

    clf = make(source=backbone(one)).fit(X, Y)
    assert clf.readout_.readout == Readout("only")
    assert clf.readout_.reason == "the last block: no other can be read"
    assert clf.readout_.ranking == ()
    assert computed == [len(X)]  # for the head; none to compare


def test_the_ranking_tells_what_came_next():
    choice = make().fit(X, Y).readout_
    losses = [each.loss for each in choice.ranking]
    assert losses == sorted(losses)
    chosen = next(each for each in choice.ranking if each.readout == choice.readout)
    assert chosen.loss <= losses[0] + choice.ranking[0].standard_error + chosen.standard_error
    text = str(choice)
    assert f"{chosen.loss:.3g} ± {chosen.standard_error:.2g}" in text
    assert "% left out above it" in text


def test_the_least_deep_within_a_standard_error(monkeypatch):
    depth = {}
    faint, labels = dots(bright=120)  # else a readout is as good as another
    for errors in (0, 1000):
        monkeypatch.setattr(module, "_STANDARD_ERRORS", errors)
        choice = make().fit(faint, labels).readout_
        depth[errors] = max(choice.readout.blocks)
        losses = {each.readout: each.loss for each in choice.ranking}
        if errors == 0:
            assert losses[choice.readout] == min(losses.values())
    assert depth[1000] == "conv2"  # half of the blocks: the least deep that is tried
    assert depth[1000] < depth[0]


def test_the_same_seed_chooses_alike():
    choices = [make(memory=memory).fit(X, Y).readout_ for memory in (False, Memory(exact=True))]
    assert dataclasses.replace(choices[0], seconds=0) == dataclasses.replace(choices[1], seconds=0)


def test_stages_train_what_lies_below():
    recipe = CompositeTransfer(train_blocks=1, epochs=1)
    clf = make(recipe=recipe).fit(X, Y)
    blocks = [row.block for row in clf.stages_[1].rows if row.trained]
    assert blocks == [clf.readout_.readout.blocks[-1], "head"]


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("blocks", [5, ["conv0", "conv4"]])
def test_blocks_that_are_to_train_are_there(blocks, parts, monkeypatch):
    monkeypatch.setattr(module, "_PARTS", parts)
    monkeypatch.setattr(module, "_STANDARD_ERRORS", 1000)  # else the least deep
    clf = make(recipe=StructureTransfer(train_blocks=blocks, epochs=1)).fit(X, Y)
    assert clf.readout_.readout.blocks[-1] >= "conv4"
    trained = [row.block for row in clf.stages_[0].rows if row.trained]
    assert "conv4" in trained
    assert len(trained) >= 3


def test_a_block_that_is_not_there():
    with pytest.raises(UnknownNameError, match=r"train_blocks.*conv9"):
        make(recipe=StructureTransfer(train_blocks=["conv9"])).fit(X, Y)
    with pytest.raises(InvalidParameterError, match=r"train_blocks: expected at most 6"):
        make(recipe=StructureTransfer(train_blocks=7)).fit(X, Y)


def test_nothing_is_computed_for_blocks_that_are_not_there(computed):
    for blocks in (7, ["conv9"]):
        with pytest.raises(InvalidParameterError):
            make(recipe=StructureTransfer(train_blocks=blocks)).fit(X, Y)
    assert computed == []


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_other_tasks(kind):
    if kind == "labels":
        clf, y, new = make(), *(np.stack([y % 2, y // 2], axis=1) for y in (Y, NEW_Y))
    else:
        clf, y, new = make(TransferRegressor), 50.0 * (Y % 2) + 7, 50.0 * (NEW_Y % 2) + 7
    clf.fit(X, y)
    assert any(pooling != "average" for pooling in clf.readout_.readout.pooling)
    assert clf.score(NEW_X, new) > 0.9


def test_groups_are_not_parted():
    # Each voice has a colour of its own: what tells the voice again must not be chosen.
    rng = np.random.default_rng(0)
    voices = np.arange(48) // 4
    X = dots()[0].astype(float) * 0.7
    X[..., :] += rng.uniform(0, 70, (12, 3))[voices][:, np.newaxis, np.newaxis]
    y = rng.permutation(np.arange(12) % 2)[voices]  # nothing to learn but who it is
    own = make().fit(X.astype(np.uint8), y).readout_.ranking[0].loss
    grouped = make().fit(X.astype(np.uint8), y, groups=voices).readout_.ranking[0].loss
    assert own < 0.5 < grouped


# === In one pass ===


def test_each_picture_passes_once(computed):
    clf = make().fit(X, Y)
    assert sum(computed) == len(X)
    make(readout=clf.readout_.readout).fit(X[::-1], Y[::-1])
    make(readout=Readout("conv1", (2, 2))).fit(X, Y)
    make().fit(X[8:40], Y[8:40])
    clf.predict(X)
    assert sum(computed) == len(X)


def test_a_joined_one_is_kept_too(computed, tmp_path):
    clf = make(memory=str(tmp_path)).fit(X, Y)
    assert len(clf.readout_.readout.blocks) == 2
    assert sum(computed) == len(X)
    np.testing.assert_allclose(
        clf.predict_proba(X), clf.model_.predict(X.astype("f"), verbose=0), atol=1e-5
    )


def test_of_many_a_part_tells(computed, monkeypatch):
    monkeypatch.setattr(out_of_fold, "_ENOUGH", 20)
    clf = make().fit(X, Y)
    # A third of the 48 first, then all as far as was chosen.
    assert 12 <= computed[0] <= 20
    assert sum(computed) <= len(X) + 20
    assert clf.score(NEW_X, NEW_Y) > 0.9


# === No choice ===


def test_parameter_transfer_reads_the_last():
    choice = make(recipe=ParameterTransfer(epochs=1)).fit(X, Y).readout_
    assert choice.readout == Readout("conv5")
    assert choice.reason == "the last block: all is trained along"


def test_random_weights_read_the_last():
    clf = make(source=tower).fit(X, Y)
    assert clf.readout_.readout == Readout("conv5")
    assert clf.readout_.reason == "the last block: its weights are random"


def test_one_example_of_each_class(recwarn):
    choice = make().fit(X[:4], Y[:4]).readout_
    assert choice.readout == Readout("conv5")
    assert choice.reason == "the last block: one example of each class"


def test_one_group():
    choice = make().fit(X, Y, groups=np.zeros(48)).readout_
    assert choice.reason == "the last block: one group only"


def test_what_is_given_is_read():
    choice = make(readout="conv3").fit(X, Y).readout_
    assert (choice.readout, choice.reason) == (Readout("conv3"), "given")
    assert str(choice) == "conv3, given"


def test_a_pass_that_is_too_long(monkeypatch):
    run = FrozenPart.on_inputs

    def slowly(self, inputs):
        for outputs in run(self, inputs):
            time.sleep(0.1)
            yield outputs

    monkeypatch.setattr(FrozenPart, "on_inputs", slowly)
    many = np.arange(320)
    pictures = np.random.default_rng(0).uniform(0, 255, (320, *SHAPE)).astype("f")
    trial = Trial(
        pictures, [b"%16d" % row for row in many], many % 2, "multiclass", 2, np.ones(320)
    )
    choice = choose_readout(
        Blueprint(backbone(), None, SHAPE, Readout(), 0), trial, deadline=time.monotonic() + 0.4
    )
    assert choice.readout == Readout("conv5")
    assert choice.reason == "the last block: one pass takes longer than the time budget"


# === Candidates ===


def nodes(build, shape=SHAPE):
    network = LazyNetwork(Blueprint(get_backbone(build(shape)), None, shape, Readout(), 0))
    return network.outline.nodes


def test_candidates():
    found = candidate_readouts(nodes(tower))
    assert found[0] == Readout("conv0")
    assert [each.pooling[0] for each in found if each.blocks == ("conv3",)] == [
        "average",
        (2, 2),
        (4, 4),
    ]
    assert [each.pooling[0] for each in found if each.blocks == ("conv5",)] == ["average"]


def test_a_block_of_two_outputs_is_left_out():
    def forked(shape):
        inputs = keras.Input(shape)
        a = keras.layers.Conv2D(4, 3, strides=4, name="fork_a")(inputs)
        b = keras.layers.Conv2D(4, 3, strides=4, name="fork_b")(inputs)
        x = keras.layers.Add(name="join")([a, b])
        return keras.Model(inputs, keras.layers.Conv2D(4, 2, name="end")(x), name="forked")

    source = get_backbone(forked(SHAPE), blocks={"fork": "fork_.*", "join": "join", "end": "end"})
    network = LazyNetwork(Blueprint(source, None, SHAPE, Readout(), 0))
    assert {each.blocks[0] for each in candidate_readouts(network.outline.nodes)} == {"join", "end"}


def test_a_deep_network_is_tried_at_some_depths(monkeypatch):
    monkeypatch.setattr(module, "_MOST_BLOCKS", 3)
    blocks = list(dict.fromkeys(each.blocks[0] for each in candidate_readouts(nodes(tower))))
    assert blocks == ["conv0", "conv2", "conv5"]


def test_vectors_have_no_grids():
    found = candidate_readouts(nodes(tiny.dense, (5,)))
    assert found == [Readout("low"), Readout("high")]


# === Saved, encoded ===


def test_the_choice_is_saved(tmp_path):
    clf = make().fit(X, Y)
    clf.save(tmp_path / "clf.keras_transfer")
    loaded = keras_transfer.load(tmp_path / "clf.keras_transfer")
    assert loaded.readout_ == clf.readout_
    np.testing.assert_allclose(loaded.predict_proba(X), clf.predict_proba(X), atol=1e-5)


def test_an_encoder_chooses_by_y(computed):
    encoder = TransferEncoder(backbone(), random_state=0)
    features = encoder.fit_transform(X, Y)
    assert encoder.readout_.ranking
    assert sum(computed) == len(X)
    assert features.shape[1] == len(encoder.get_feature_names_out())
    head = make(readout=encoder.readout_.readout).fit(X, Y)
    assert head.score(NEW_X, NEW_Y) > 0.95
    assert encoder.fit(X, 1.5 * Y).readout_.ranking  # numbers
    assert encoder.fit(X).readout_.readout == Readout("conv5")
    with pytest.raises(DataError, match="y: expected 48 entries"):
        encoder.fit(X, Y[:7])


def test_a_search_can_take_it():
    assert make(recipe=StructureTransfer()).get_params()["readout"] == "auto"
