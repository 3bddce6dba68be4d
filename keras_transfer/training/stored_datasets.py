"""Datasets of the user's own, with what the frozen part gives in place of their inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_transfer.backbones.partition import Block
from keras_transfer.backbones.walk import is_graph
from keras_transfer.graph.mixing import build_mixing
from keras_transfer.graph.nodes import graph_of_model
from keras_transfer.inputs.examples import row_keys
from keras_transfer.store.activation_store import Memory
from keras_transfer.training.batches import SEEDS_OF_A_STAGE, mixed
from keras_transfer.training.cuts import Cut, plan_cuts
from keras_transfer.training.feed import Feed, Solvable
from keras_transfer.training.inference import Inference
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.stage import Stage
from keras_transfer.training.stored_outputs import StoredOutputs
from keras_transfer.training.validation import Validation

__all__ = ["feed_datasets", "through_store"]

# Inputs of a second epoch after which it is clear whether any comes again.
_TRIED = 64


def feed_datasets(
    model: Any,
    blocks: Sequence[Block],
    stages: Sequence[Stage],
    dataset: Any,
    held: Any,
    memory: Memory | None,
    *,
    n_examples: int,
    augmented: bool,
    task: str,
    seed: int,
    validate: Callable[[Any], Validation],
    sample: Any = None,
    n_batches: int = 0,
) -> list[Feed]:
    """Make the feeds of datasets of the user's own.

    Parameters
    ----------
    model : keras.Model
        Flat; its weights are as the first stage finds them.
    blocks : sequence of Block
    stages : sequence of Stage
    dataset, held : tf.data.Dataset
        Of (inputs, targets) or (inputs, targets, weights); ``held`` may be None.
    memory : Memory or None
    n_examples : int
        In the dataset, about.
    augmented : bool
        Whether the inputs are changed anew in every epoch.
    task : {"multiclass", "multilabel", "regression"}
    seed : int
        Of mixing.
    validate : callable
        Makes the validation of a held-out dataset.
    sample : tf.data.Dataset, optional
        Batches like the dataset's, for the range test of stages that ask for one; by default the
        dataset itself.
    n_batches : int, optional
        How many the dataset has, where it does not know.
    """
    sample = dataset if sample is None else sample
    stored = None
    cuts = [Cut((), "not stored: the inside of a subclassed model does not show") for _ in stages]
    if is_graph(model):
        network = LazyNetwork(graph_of_model(model, blocks))
        if memory is not None:
            stored = StoredOutputs(network, memory, f"dataset:{dataset.element_spec[0].dtype.name}")
        cuts = plan_cuts(network, stored, stages, n_examples, augmented)
    feeds = []
    for number, (cut, stage) in enumerate(zip(cuts, stages, strict=True)):
        data, tested, validation_data = dataset, sample, held
        if cut.nodes:
            assert stored is not None
            data = through_store(stored, dataset, cut.nodes, n_examples)
            tested = through_store(stored, sample, cut.nodes, n_examples)
            if held is not None:
                validation_data = through_store(stored, held, cut.nodes, n_examples)
        if stage.mix is not None:
            n_outputs = int(model.compute_output_shape(dataset.element_spec[0].shape)[-1])
            apart = SEEDS_OF_A_STAGE * number
            data, tested = (
                mixed(each, build_mixing(stage.mix, task, n_outputs, seed + apart))
                for each in (data, tested)
            )
        is_exact = stage.solver == "exact"
        feeds.append(
            Feed(
                None if is_exact else data,
                None if held is None else validate(validation_data),
                None,
                cut.nodes,
                functools.partial(_collect, data) if is_exact else None,
                cut.note,
                tested if stage.rate_test else None,
                n_batches,
            )
        )
    return feeds


def through_store(
    stored: StoredOutputs, dataset: Any, cut: tuple[str, ...], n_examples: int
) -> Any:
    """Put what the frozen part gives in place of a dataset's inputs.

    Parameters
    ----------
    stored : StoredOutputs
    dataset : tf.data.Dataset
        Of (inputs, ...).
    cut : tuple of str
    n_examples : int
        After so many and some more, of which most do not come again, nothing more is kept.

    Returns
    -------
    tf.data.Dataset
    """
    import tensorflow as tf

    shapes = stored.network.shapes(cut)
    seen = computed = computed_first = 0

    def count(n_rows: int) -> None:
        nonlocal computed
        computed += n_rows

    def look_up(inputs: np.ndarray) -> list[np.ndarray]:
        nonlocal seen, computed_first
        # Of those after the first epoch most were not there.
        later = seen - n_examples
        is_new = later > _TRIED and computed - computed_first > later / 2
        found = stored.activations(inputs, row_keys(inputs), [cut], advance=count, keep=not is_new)
        assert found is not None
        seen += len(inputs)
        if seen <= n_examples:
            computed_first = computed
        return found[0].arrays

    def read(inputs: Any, *rest: Any) -> tuple[Any, ...]:
        tensors = tf.numpy_function(look_up, [inputs], [tf.float32] * len(shapes))
        for tensor, shape in zip(tensors, shapes, strict=True):
            tensor.set_shape((None, *shape))
        return (tensors[0] if len(tensors) == 1 else tuple(tensors), *rest)

    return dataset.map(read).prefetch(tf.data.AUTOTUNE)


def _collect(dataset: Any, inference: Inference) -> Solvable:
    """Read all features of a dataset, in one pass."""
    features, targets, weights = [], [], []
    for inputs, given, *weight in dataset:
        features.append(inference(inputs, "features"))
        targets.append(np.asarray(given))
        weights.append(np.asarray(weight[0]) if weight else np.ones(len(given)))
    return Solvable(np.concatenate(features), np.concatenate(targets), np.concatenate(weights))
