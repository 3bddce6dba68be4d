"""Which blocks to train, told by the gradients that the target task sends down."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.backbones.partition import (
    HEAD,
    LOGITS,
    STANDARDISED,
    Block,
    layers_by_block,
)
from keras_transfer.choosing.trial import Trial
from keras_transfer.graph.heads import TASKS, trained_output
from keras_transfer.training.boundary import Boundary
from keras_transfer.training.exact_head import solve_head
from keras_transfer.training.inference import as_batches
from keras_transfer.training.lazy_network import LazyNetwork

__all__ = ["BlockChoice", "choose_blocks"]

# Blocks with at least this share of the strongest signal train.
_STRONG = 0.5
_BATCH = 32


@dataclass(frozen=True)
class BlockChoice:
    """Which blocks train, and why.

    Attributes
    ----------
    names : tuple of str
        Input side first.
    signal : tuple of (str, float)
        For each block the norm of its gradient over that of its weights.
    reason : str
        Where nothing could be told: why not.
    """

    names: tuple[str, ...]
    signal: tuple[tuple[str, float], ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"all blocks: {self.reason}"
        most = max(value for _, value in self.signal)
        shown = ", ".join(f"{name} {value / most:.2f}" for name, value in self.signal)
        return f"{', '.join(self.names)}; relative gradient norms, the strongest 1: {shown}"


def choose_blocks(
    network: LazyNetwork, trial: Trial, blocks: Sequence[Block], deadline: float | None = None
) -> BlockChoice:
    """Choose the blocks whose weights the target task pulls at most, for their size.

    An exact head is solved on the pretrained network, and its loss on the training examples is
    differentiated. What trains is each block whose gradient, relative to its weights, is at least
    half of the strongest: where the target differs from the source in its input, as drawings do
    from photographs, that is low down, and where it differs in its classes, high up.

    Parameters
    ----------
    network : LazyNetwork
        The model's.
    trial : Trial
    blocks : sequence of Block
        The model's, the head among them.
    deadline : float, optional
        On the clock of ``time.monotonic``; where it passes, all blocks are chosen.

    Returns
    -------
    BlockChoice

    References
    ----------
    Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts" (2023, arXiv
    2210.11466), whose Auto-RGN weighs each layer's rate by the same ratio.
    """
    names = tuple(block.name for block in blocks if block.name != HEAD)
    cut = network.boundary().cut
    if not names or not cut:
        return BlockChoice(names, reason="no block has weights")
    if network.is_random:
        return BlockChoice(names, reason="the weights are random")
    if trial.why_not:
        return BlockChoice(names, reason=trial.why_not)
    found = trial.activations(network, [cut], trial.rows, deadline=deadline)
    if found is None:
        return BlockChoice(names, reason="no time to look at their gradients")
    targets, weights = trial.targets[trial.rows], trial.weights[trial.rows]
    head = solve_head(
        found[0].arrays[0], targets, trial.task, n_outputs=trial.n_outputs, weights=weights
    )
    model = network.build_part(Boundary((), frozenset(), ""))
    layer = STANDARDISED if trial.task == "regression" else LOGITS
    logits = model.get_layer(layer)
    first = logits.get_weights()  # the layers of a foreign model are there once
    logits.set_weights([head.kernel, head.bias])
    is_all = len(trial.rows) == len(trial.targets)
    inputs = trial.inputs if is_all else trial.inputs[trial.rows]
    try:
        signal = _signal(model, blocks, trial.task, inputs, targets, weights, deadline)
    finally:
        logits.set_weights(first)
    if signal is None:
        return BlockChoice(names, reason="no time to look at their gradients")
    most = max(signal.values())
    if not most > 0:
        return BlockChoice(names, reason="no gradient reaches them")
    kept = tuple(name for name in names if signal[name] >= _STRONG * most)
    return BlockChoice(kept, tuple(signal.items()))


def _signal(
    model: Any,
    blocks: Sequence[Block],
    task: str,
    inputs: Any,
    targets: np.ndarray,
    weights: np.ndarray,
    deadline: float | None,
) -> dict[str, float] | None:
    """Return the norm of each block's gradient over that of its weights; None if it is late."""
    import keras
    import tensorflow as tf

    whole = keras.Model(model.inputs, trained_output(model))
    losses = keras.losses.get(TASKS[task].loss)
    held: dict[str, list[Any]] = {block.name: [] for block in blocks if block.name != HEAD}
    for layer, name in layers_by_block(model, blocks):
        if name in held:
            held[name] += [
                weight
                for weight in layer.weights
                # Statistics and the states of random generators have no gradient.
                if not weight.path.endswith(
                    ("moving_mean", "moving_variance", "seed_generator_state")
                )
                and weight.dtype.startswith("float")
            ]
    flat = [weight for each in held.values() for weight in each]
    total = [np.zeros(weight.shape) for weight in flat]
    reached: set[int] = set()
    start = 0
    for batch, n_rows in as_batches(inputs, _BATCH):
        if deadline is not None and time.monotonic() > deadline:
            return None
        rows = slice(start, start + n_rows)
        start += n_rows
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in flat])
            outputs = whole(tf.cast(batch, "float32")[:n_rows], training=False)
            each = losses(targets[rows].reshape(n_rows, -1), outputs)
            loss = tf.reduce_sum(tf.reshape(each, [-1]) * weights[rows].astype(np.float32))
        gradients = tape.gradient(loss, [weight.value for weight in flat])
        for weight, sum_, gradient in zip(flat, total, gradients, strict=True):
            if gradient is not None:
                sum_ += gradient.numpy()
                reached.add(id(weight))
    norms = {id(weight): np.square(sum_).sum() for weight, sum_ in zip(flat, total, strict=True)}
    signal = {}
    for name, of_block in held.items():
        # Statistics such as those of a Normalization are no size that a gradient is relative to.
        size = sum(
            float(np.square(weight.numpy()).sum()) for weight in of_block if id(weight) in reached
        )
        pull = sum(float(norms[id(weight)]) for weight in of_block)
        signal[name] = float(np.sqrt(pull / size)) if size else 0.0
    return signal
