"""KerasHub presets as backbones: saved here, of tiny networks; nothing is downloaded."""

import os
import pickle
import random
import shutil
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import tiny
from sklearn.base import clone

import keras_transfer
from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    StructureTransfer,
    TransferClassifier,
    TransferEncoder,
    get_backbone,
)
from keras_transfer.backbones.kerashub import _read, find_class
from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    KerasTransferError,
    UnsafeFileError,
    WeightsNotFoundError,
)

models = keras_hub.models
SIZE = 32
SHAPE = (SIZE, SIZE, 3)
X, Y = tiny.pictures(n_per_class=8)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype("float32")
# Numbers of no meaning, another for each channel.
CONVERTER = {"scale": [0.01, 0.02, 0.03], "offset": [-1.0, 0.5, 0.25], "image_size": (SIZE, SIZE)}


def resnet(**options):
    """Two stacks of one block each."""
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 8],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        **{"block_type": "basic_block", **options},
    )


def vit(**options):
    """Two transformer blocks over 4 x 4 patches."""
    return models.ViTBackbone(
        image_shape=SHAPE,
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
        **options,
    )


def efficientnet(types, **options):
    """One block of each type."""
    n = len(types)
    return models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3] * n,
        stackwise_num_repeats=[1] * n,
        stackwise_input_filters=[8] * n,
        stackwise_output_filters=[8] * n,
        stackwise_expansion_ratios=[2] * n,
        stackwise_strides=[2] + [1] * (n - 1),
        stackwise_block_types=types,
        stackwise_squeeze_and_excite_ratios=[0.25] * n,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        **options,
    )


def mobilenet():
    """Three blocks, the first two with squeeze-and-excitation, and a last convolution."""
    return models.MobileNetBackbone(
        stackwise_expansion=[[16], [16]],
        stackwise_num_blocks=[1, 1],
        stackwise_num_filters=[[8], [8]],
        stackwise_kernel_size=[[3], [5]],
        stackwise_num_strides=[[2], [1]],
        stackwise_se_ratio=[[0.25], [None]],
        stackwise_activation=[["relu"], ["hard_swish"]],
        stackwise_padding=[[1], [2]],
        output_num_filters=16,
        input_num_filters=8,
        input_activation="hard_swish",
        output_activation="hard_swish",
        depthwise_filters=8,
        depthwise_stride=1,
        depthwise_residual=True,
        squeeze_and_excite=0.5,
        last_layer_filter=16,
    )


def cspnet():
    """Two stages; of a class that has no row."""
    return models.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 1],
        stackwise_strides=[2, 2],
        stackwise_num_filters=[8, 8],
        block_type="dark_block",
        stage_type="csp",
        bottle_ratio=[0.5, 1.0],
        block_ratio=[1.0, 0.5],
        expand_ratio=[2.0, 1.0],
        stem_padding="same",
    )


_DINO = {"patch_size": 8, "num_layers": 2, "hidden_dim": 8, "num_heads": 2, "intermediate_dim": 16}
_MIT = {
    "layerwise_depths": [1, 1],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [2, 1],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
    "hidden_dims": [8, 16],
}
# Backbone, its blocks, and of tokens whether the first stands for all.
CASES = {
    "ResNet": (resnet, ["stem", "stack0_block0", "stack1_block0"], False),
    "ResNetV2": (
        lambda: resnet(use_pre_activation=True, block_type="bottleneck_block"),
        ["stem", "stack0_block0", "stack1_block0"],
        False,
    ),
    "EfficientNet": (
        lambda: efficientnet(["v1", "v1"], stackwise_nores_option=[False, False]),
        ["stem", "block1a", "block2a", "top"],
        False,
    ),
    "EfficientNetV2": (
        lambda: efficientnet(["fused", "unfused", "cba"]),
        ["stem", "block1a", "block2a", "block3a", "top"],
        False,
    ),
    "VGG": (
        lambda: models.VGGBackbone(stackwise_num_repeats=[1, 2], stackwise_num_filters=[4, 8]),
        ["block1", "block2"],
        False,
    ),
    "DenseNet": (
        lambda: models.DenseNetBackbone(stackwise_num_repeats=[1, 2], growth_rate=4),
        ["stem", "stack1", "stack2"],
        False,
    ),
    "Xception": (
        lambda: models.XceptionBackbone(
            stackwise_conv_filters=[[4, 4], [8, 8], [8]], stackwise_pooling=[False, True, False]
        ),
        ["block1", "block2", "block3"],
        False,
    ),
    "MobileNet": (
        mobilenet,
        ["stem", "block_0_0", "block_1_0", "block_2_0", "block_3_0"],
        False,
    ),
    "HGNetV2": (
        lambda: models.HGNetV2Backbone(
            depths=[1, 1],
            embedding_size=8,
            hidden_sizes=[16, 16],
            stem_channels=[3, 8, 8],
            hidden_act="relu",
            use_learnable_affine_block=False,
            stackwise_stage_filters=[(8, 8, 16, 1, 1, 3), (16, 8, 16, 1, 1, 3)],
            apply_downsample=[False, True],
            use_lightweight_conv_block=[False, False],
        ),
        ["stem", "stage_0", "stage_1"],
        False,
    ),
    "MiT": (
        lambda: models.MiTBackbone(image_shape=SHAPE, **_MIT),
        ["stage_0", "stage_1"],
        False,
    ),
    "Swin": (
        lambda: models.SwinTransformerBackbone(
            image_shape=SHAPE, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4
        ),
        ["stem", "stage_0", "stage_1"],
        False,
    ),
    "ViT": (vit, ["stem", "block_1", "block_2"], True),
    "ViT without token and bias": (
        lambda: vit(use_class_token=False, use_patch_bias=False, layer_norm_epsilon=0.1),
        ["stem", "block_1", "block_2"],
        False,
    ),
    "DeiT": (
        lambda: models.DeiTBackbone(image_shape=SHAPE, **_DINO),
        ["stem", "block_1", "block_2"],
        True,
    ),
    "DINOv2": (
        lambda: models.DINOV2Backbone(
            image_shape=SHAPE, position_embedding_shape=SHAPE, num_register_tokens=2, **_DINO
        ),
        ["stem", "block_0", "block_1"],
        True,
    ),
    # No row: read from the graph.
    "CSPNet": (
        cspnet,
        [
            "csp_stem_conv_0",
            *(
                f"stage_{stage}_{part}"
                for stage in (0, 1)
                for part in (
                    "csp_conv_down_1",
                    "csp_conv_exp",
                    "block_0_dark_block_conv_1",
                    "csp_conv_transition",
                )
            ),
        ],
        False,
    ),
}


def scatter(network):
    """Give a network weights that are not those that it would be made with."""
    rng = np.random.default_rng(0)
    network.set_weights(
        [w + rng.uniform(0.0, 0.2, w.shape).astype(w.dtype) for w in network.get_weights()]
    )
    return network


def save(network, folder, **converter):
    """Save a preset, with an ImageConverter of its class."""
    network.save_to_preset(folder)
    if converter:
        kinds = set(keras.saving.get_custom_objects().values())
        (kind,) = (
            each
            for each in kinds
            if getattr(each, "backbone_cls", None) is type(network)
            and issubclass(each, keras_hub.layers.ImageConverter)
        )
        kind(**converter).save_to_preset(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(scatter(vit(dropout_rate=0.1)), tmp_path_factory.mktemp("vit"), **CONVERTER)


@pytest.fixture(scope="module")
def backbone(folder):
    return get_backbone(f"kerashub:{folder}")


def fit(backbone, recipe, **parameters):
    options = {"readout": "last", "random_state": 0, "guard": None, **parameters}
    return TransferClassifier(backbone, recipe, **options).fit(X, Y)


@pytest.mark.parametrize("family", CASES)
def test_computes_as_kerashub_does_and_tells_its_blocks(family, tmp_path):
    make, blocks, has_token = CASES[family]
    network = scatter(make())
    folder = save(network, tmp_path, **CONVERTER)
    converted = keras_hub.layers.ImageConverter.from_preset(folder)(PIXELS)
    whole = network(converted)
    expected = np.asarray(whole["stage2"] if isinstance(whole, dict) else whole)
    if has_token:
        expected = expected[:, 0]
    elif expected.ndim > 2:
        expected = expected.mean(axis=tuple(range(1, expected.ndim - 1)))
    encoder = TransferEncoder(f"kerashub:{folder}", readout="last")
    features = encoder.fit_transform(PIXELS)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())
    backbone = encoder.backbone_
    assert [block.name for block in backbone.list_blocks(SHAPE)] == blocks
    parameters = sum(block.parameters for block in backbone.list_blocks(SHAPE))
    assert parameters == network.count_params()


def test_describes_itself(folder, backbone):
    assert (backbone.modality, backbone.weights) == ("picture", "as given")
    assert backbone.resolve_shape() == SHAPE
    assert backbone.preprocessing.scale == tuple(CONVERTER["scale"])
    assert backbone.name == os.path.basename(folder)
    again = pickle.loads(pickle.dumps(backbone))
    assert again == backbone == get_backbone(f"kerashub:{folder}")
    assert clone(TransferClassifier(backbone)).backbone is backbone
    # What the activation store knows it by.
    assert again.source.identity() == backbone.source.identity() is not None


def test_another_preset_is_another_value(folder, backbone, tmp_path):
    other = save(scatter(vit()), tmp_path, **CONVERTER)
    assert get_backbone(f"kerashub:{other}").source.identity() != backbone.source.identity()
    # A folder that is written anew is read anew.
    first = get_backbone(f"kerashub:{other}")
    shutil.rmtree(other)
    save(scatter(vit()), other, **CONVERTER)
    assert get_backbone(f"kerashub:{other}") != first


def test_sizes_are_those_of_the_preset(tmp_path):
    folder = save(resnet(), tmp_path, image_size=(48, 40))
    backbone = get_backbone(f"kerashub:{folder}")
    assert (backbone.input_shape, backbone.default_shape) == (None, (48, 40, 3))
    assert get_backbone(f"kerashub:{folder}", input_shape=SHAPE).input_shape == SHAPE


def test_one_that_is_fixed_takes_no_other_size(folder):
    with pytest.raises(InvalidParameterError, match=r"expected \(32, 32, 3\).*\(64, 64, 3\)"):
        get_backbone(f"kerashub:{folder}", input_shape=(64, 64, 3))


def test_without_a_converter_pixels_pass_as_they_are(tmp_path):
    folder = save(resnet(), tmp_path)
    backbone = get_backbone(f"kerashub:{folder}")
    assert (backbone.preprocessing.scale, backbone.preprocessing.offset) == (1.0, 0.0)
    said = get_backbone(f"kerashub:{folder}", preprocessing="tf").preprocessing
    assert (said.scale, said.offset) == (1 / 127.5, -1.0)


def test_a_users_blocks_come_first(folder):
    backbone = get_backbone(
        f"kerashub:{folder}", blocks={"low": ["embedding", "block_1"], "high": "block_2"}
    )
    assert [block.name for block in backbone.list_blocks()] == ["low", "high"]
    with pytest.raises(InvalidParameterError, match=r"'block_7' matches no layer.*block_2"):
        get_backbone(f"kerashub:{folder}", blocks={"high": "block_7"}).list_blocks()


def test_random_weights_follow_the_seed(folder, backbone):
    fresh = get_backbone(f"kerashub:{folder}", weights=None)
    assert fresh.weights is None
    features = [
        TransferEncoder(each, readout="last", random_state=seed).fit_transform(PIXELS)
        for each, seed in ((fresh, 0), (fresh, 0), (fresh, 1), (backbone, 0))
    ]
    np.testing.assert_array_equal(features[0], features[1])
    assert not np.allclose(features[0], features[2], atol=1e-3)
    assert not np.allclose(features[0], features[3], atol=1e-3)


def test_reading_one_draws_nothing(folder):
    random.seed(0)
    expected = random.random()
    for weights in ({}, {"weights": None}):
        _read.cache_clear()
        random.seed(0)
        get_backbone(f"kerashub:{folder}", **weights)
        assert random.random() == expected


# === Training ===


EVERY = {"stem", "block_1", "block_2"}
# A mode, and the blocks that it moves.
MODES = {
    "parameter": (ParameterTransfer(epochs=1, learning_rate=1e-2), EVERY),
    "head": (StructureTransfer(), set()),
    "one block": (StructureTransfer(["block_1"], epochs=1, learning_rate=1e-2), {"block_1"}),
    "composite": (CompositeTransfer(2, epochs=1, learning_rate=1e-2), {"block_1", "block_2"}),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_block_by_block(backbone, mode):
    recipe, expected = MODES[mode]
    clf = fit(backbone, recipe, validation=None)
    start = TransferEncoder(backbone, readout="last").fit(X).model_
    moved = set()
    for layer in start.layers:
        now = clf.model_.get_layer(layer.name) if layer.weights else layer
        if not all(map(np.array_equal, layer.get_weights(), now.get_weights())):
            moved.add(layer.name.partition(".")[0])
    assert moved == expected


def test_statistics_inside_a_composite_layer_follow_the_policy(tmp_path):
    backbone = get_backbone(f"kerashub:{save(scatter(mobilenet()), tmp_path, **CONVERTER)}")

    def statistics(policy):
        recipe = StructureTransfer(1, epochs=1, learning_rate=1e-2, batch_norm=policy)
        layer = fit(backbone, recipe, validation=None).model_.get_layer("block_3_0.block_3_0")
        return [w.numpy() for w in layer.weights if "moving" in w.path]

    frozen, trained = statistics("frozen"), statistics("train")
    assert len(frozen) > 0
    assert all(map(np.array_equal, frozen, statistics("affine")))
    assert not any(map(np.array_equal, frozen, trained))


def test_dropout_inside_a_block_is_active_in_training_alone(tmp_path):
    folder = save(scatter(vit(dropout_rate=0.5)), tmp_path, **CONVERTER)
    network = get_backbone(f"kerashub:{folder}").load()
    still, again = np.asarray(network(PIXELS)), np.asarray(network(PIXELS))
    np.testing.assert_array_equal(still, again)
    assert not np.allclose(still, np.asarray(network(PIXELS, training=True)), atol=1e-3)


def test_each_block_can_be_read(backbone):
    encoder = TransferEncoder(backbone, readout="block_1").fit(X)
    assert encoder.transform(X).shape == (len(X), 8)
    assert not any(layer.name.startswith("block_2") for layer in encoder.model_.layers)


# === Travelling ===


@pytest.fixture(scope="module")
def travelled(tmp_path_factory):
    """A fitted classifier in each form, and what it gives; its preset is gone."""
    folder = tmp_path_factory.mktemp("travelled")
    save(scatter(vit()), folder / "preset", **CONVERTER)
    recipe = StructureTransfer(1, epochs=2, learning_rate=1e-2)
    clf = fit(f"kerashub:{folder / 'preset'}", recipe)
    clf.save(folder / "clf.keras_transfer")
    (folder / "clf.pickle").write_bytes(pickle.dumps(clf))
    clf.model_.save(folder / "model.keras")
    clf.model_.export(folder / "served", verbose=False)
    np.save(folder / "X.npy", X)
    shutil.rmtree(folder / "preset")
    return folder, clf.predict_proba(X)


RUN = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
LOADED = {
    "pickled": "pickle.loads(open('clf.pickle', 'rb').read())",
    "saved": "keras_transfer.load('clf.keras_transfer')",
}


@pytest.mark.parametrize("way", LOADED)
def test_needs_no_preset_in_another_process(travelled, way):
    folder, expected = travelled
    code = f"""
import pickle
import numpy as np, keras_transfer
clf = {LOADED[way]}
X = np.load("X.npy")
np.save("{way}.npy", clf.predict_proba(X))
blocks = [block.name for block in keras_transfer.get_backbone(clf).list_blocks()]
assert blocks == ["stem", "block_1", "block_2"], blocks
clf.save("again.keras_transfer", overwrite=True)
again = keras_transfer.load("again.keras_transfer")
np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), atol=1e-6)
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=RUN, check=True)
    np.testing.assert_allclose(np.load(folder / f"{way}.npy"), expected, atol=1e-5)


def test_what_is_served_needs_nothing_of_ours(travelled):
    folder, expected = travelled
    served = tf.saved_model.load(str(folder / "served"))
    pictures = tf.image.resize(X, (SIZE, SIZE), antialias=True)
    np.testing.assert_allclose(served.serve(pictures), expected, atol=1e-5)


def test_a_keras_file_is_a_source_again(travelled):
    again = get_backbone(str(travelled[0] / "model.keras"))
    assert [block.name for block in again.list_blocks()] == ["stem", "block_1", "block_2"]


@pytest.mark.parametrize(
    "act",
    [
        "keras_transfer.load('clf.keras_transfer')",
        "keras_transfer.get_backbone('model.keras')",
        "keras_transfer.get_backbone('kerashub:resnet_18_imagenet')",
    ],
)
def test_without_the_extra_the_message_names_it(travelled, act):
    code = f"""
import sys
sys.modules["keras_hub"] = None  # as if it were not installed
import keras_transfer
try:
    {act}
except ImportError as error:
    assert "Run: pip install 'keras-transfer[kerashub]'" in str(error), error
else:
    raise AssertionError("nothing was raised")
"""
    subprocess.run([sys.executable, "-c", code], cwd=travelled[0], env=RUN, check=True)


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "keras_hub.src.utils.preset_utils:get_file",
        "keras_hub.src.models.bert.bert_tokenizer:BertTokenizer",
        "keras_hub.src.models.vit.vit_image_converter:ViTImageConverter",
        "keras_hub.src.models.vit.vit_backbone:ViTBackbone",
        "keras_hub.src.models.vit.vit_backbone:Backbone",
        "keras.src.layers.core.lambda_layer:Lambda",
        "keras.src.export.tfsm_layer:TFSMLayer",
        "keras.src.layers.preprocessing.string_lookup:StringLookup",
        "keras.src.layers.normalization.layer_normalization:nothing",
    ],
)
def test_a_file_may_name_layers_alone(path):
    with pytest.raises(UnsafeFileError, match=f"Received: '{path}'"):
        find_class(path)


def test_a_layer_that_is_not_there_tells_the_version():
    with pytest.raises(FileFormatError, match=rf"keras-hub {keras_hub.__version__}.*gone"):
        find_class("keras_hub.src.models.gone:Gone")


# === What it does not read ===


class Nested(models.Backbone):
    """A model of one's own, with a model inside that holds a layer of KerasHub."""

    def __init__(self, **kwargs):
        from keras_hub.src.models.mobilenet.mobilenet_backbone import DepthwiseConvBlock

        inner = keras.Input((None, None, 4))
        block = DepthwiseConvBlock(4, 8, name="deep")(inner)
        inside = keras.Model(inner, keras.layers.ReLU(name="ends")(block), name="inside")
        inputs = keras.Input((None, None, 3))
        x = inside(keras.layers.Conv2D(4, 3, name="first")(inputs))
        super().__init__(inputs, keras.layers.Conv2D(8, 1, name="last")(x), **kwargs)


class Odd(models.Backbone):
    """One whose layer does not keep what it was made with."""

    def __init__(self, **kwargs):
        from keras_hub.src.models.mit.mit_layers import HierarchicalTransformerEncoder

        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Reshape((64, 3))(inputs)
        x = HierarchicalTransformerEncoder(3, 1, layer_norm_epsilon=100.0, name="odd")(x)
        super().__init__(inputs, keras.layers.Reshape((8, 8, 3))(x), **kwargs)


class NestedConverter(keras_hub.layers.ImageConverter):
    backbone_cls = Nested


class OddConverter(keras_hub.layers.ImageConverter):
    backbone_cls = Odd


for kind in (Nested, Odd, NestedConverter, OddConverter):
    keras.saving.register_keras_serializable("test_kerashub")(kind)


def test_models_inside_a_model(tmp_path):
    network = scatter(Nested())
    backbone = get_backbone(f"kerashub:{save(network, tmp_path, **CONVERTER)}")
    assert [block.name for block in backbone.list_blocks(SHAPE)] == ["first", "deep_0", "last"]
    np.testing.assert_array_equal(backbone.load(SHAPE)(PIXELS), network(PIXELS))


def text():
    return models.BertBackbone(
        vocabulary_size=20, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=8
    )


REFUSED = {
    "text": (text, r"expected a preset of a backbone for pictures.*Text and audio"),
    "not kept": (Odd, r"Odd: .*compute otherwise"),
    "arguments": (
        lambda: models.DINOV3Backbone(image_shape=SHAPE, **_DINO),
        r"layers that can be built anew. Received: DINOV3Backbone",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case, tmp_path):
    make, message = REFUSED[case]
    folder = save(make(), tmp_path)
    with pytest.raises(InvalidParameterError, match=message):
        get_backbone(f"kerashub:{folder}")


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("no preset")
    with pytest.raises(FileFormatError, match=r"folder that save_to_preset.*notes\.txt"):
        get_backbone(f"kerashub:{tmp_path}")


def test_a_folder_without_weights(tmp_path):
    folder = save(resnet(), tmp_path)
    os.remove(tmp_path / "model.weights.h5")
    with pytest.raises(FileFormatError, match=r"expected a KerasHub preset.*weights"):
        get_backbone(f"kerashub:{folder}")
    assert get_backbone(f"kerashub:{folder}", weights=None).weights is None


# What KerasHub knows it would download; the proxy is one where nobody answers.
@pytest.mark.parametrize("name", ["resnet_18_imagenet", "no_such_preset", ""])
def test_without_a_network_the_message_names_the_folder_way(name, monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(WeightsNotFoundError, match=r"folder"):
        get_backbone(f"kerashub:{name}")


@pytest.mark.parametrize(
    "options",
    [{"weights": "imagenet"}, {"modality": "features"}, {"signature": "serving_default"}],
    ids=lambda options: next(iter(options)),
)
def test_options_that_are_none_of_a_presets(folder, options):
    with pytest.raises(KerasTransferError, match=next(iter(options))):
        get_backbone(f"kerashub:{folder}", **options)


def test_a_saved_file_that_names_other_code_is_refused(travelled, tmp_path):
    import zipfile

    bad = tmp_path / "bad.keras_transfer"
    with (
        zipfile.ZipFile(travelled[0] / "clf.keras_transfer") as good,
        zipfile.ZipFile(bad, "w") as out,
    ):
        for each in good.namelist():
            if each != "model.keras":
                out.writestr(each, good.read(each))
                continue
            (tmp_path / "inner").write_bytes(good.read(each))
            with (
                zipfile.ZipFile(tmp_path / "inner") as inner,
                zipfile.ZipFile(tmp_path / "changed", "w") as changed,
            ):
                for part in inner.namelist():
                    content = inner.read(part)
                    if part == "config.json":
                        content = content.replace(
                            b"keras_hub.src.models.vit.vit_layers:ViTEncoderBlock", b"os:system"
                        )
                        assert b"os:system" in content
                    changed.writestr(part, content)
            out.writestr(each, (tmp_path / "changed").read_bytes())
    with pytest.raises(UnsafeFileError, match=r"bad\.keras_transfer: .*os:system"):
        keras_transfer.load(bad)
