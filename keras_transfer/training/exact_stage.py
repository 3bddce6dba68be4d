"""A stage that is solved: the exact head, put into the network."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.backbones.partition import FEATURES, LOGITS, STANDARDISED
from keras_transfer.graph.heads import METRIC
from keras_transfer.training.exact_head import HeadSolution, solve_head
from keras_transfer.training.feed import Solvable
from keras_transfer.training.stage import Stage

__all__ = ["solve_stage"]


def solve_stage(network: Any, stage: Stage, task: str, data: Solvable) -> dict[str, float]:
    """Solve the head of a network and put it in.

    Parameters
    ----------
    network : keras.Model
        With a head of ours.
    stage : Stage
    task : {"multiclass", "multilabel", "regression"}
    data : Solvable

    Returns
    -------
    dict of str to float
        The figures of the one epoch: ``"loss"`` and, of a classifier, ``"accuracy"``.
    """
    features = np.asarray(data.features, np.float32)
    if task == "regression":
        scale, offset = network.get_layer(FEATURES).get_weights()
        features = features * scale + offset
    head = network.get_layer(STANDARDISED if task == "regression" else LOGITS)
    targets = data.targets.reshape(-1) if task == "multiclass" else data.targets

    def solve(rows: slice, penalty: float | None) -> HeadSolution:
        return solve_head(
            features[rows],
            targets[rows],
            task,
            n_outputs=head.units,
            weights=data.weights[rows],
            penalty=penalty,
        )

    penalty = stage.penalty
    if penalty is None and data.n_first is not None:
        penalty = solve(slice(data.n_first), None).penalty
    solution = solve(slice(None), penalty)
    head.set_weights([solution.kernel, solution.bias])
    logs = {"loss": solution.loss}
    scores = features @ solution.kernel + solution.bias
    if task == "multiclass":
        logs[METRIC] = float(np.mean(scores.argmax(axis=1) == targets))
    elif task == "multilabel":
        logs[METRIC] = float(np.mean((scores > 0) == (targets > 0)))
    return logs
