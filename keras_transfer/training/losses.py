"""Losses: what a stage that trains in epochs brings down, and the accuracy that it shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_transfer.graph.heads import METRIC, TASKS
from keras_transfer.training.stage import Stage

__all__ = ["build_loss", "build_metrics"]


def build_loss(task: str, stage: Stage | None = None) -> str | Callable[[Any, Any], Any]:
    """Make the loss of a task, as a stage asks for it.

    Parameters
    ----------
    task : {"multiclass", "multilabel", "regression"}
    stage : Stage, optional
        Of the gradient solver; by default one that asks for nothing.

    Returns
    -------
    str or callable
        Keras's name of the standard loss of the task, where that is all that is asked for. Else a
        function of targets and float32 probabilities of shape ``(batch, n_outputs)`` that returns
        float32 losses of shape ``(batch,)``. Targets of ``"multiclass"`` are class indices of shape
        ``(batch,)`` or ``(batch, 1)``, or the shares of the classes, ``(batch, n_outputs)``; of
        ``"multilabel"`` numbers of 0..1, ``(batch, n_outputs)``.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016, arXiv
    1512.00567), for label smoothing. Lin et al., "Focal Loss for Dense Object Detection" (2017,
    arXiv 1708.02002).
    """
    if task == "regression" or stage is None:
        return TASKS[task].loss
    if not (stage.label_smoothing or stage.focal_gamma):
        # Mixed classes are shares, which the loss of class indices does not read.
        is_soft = task == "multiclass" and stage.mix is not None
        return "categorical_crossentropy" if is_soft else TASKS[task].loss
    make = _of_classes if task == "multiclass" else _of_labels
    return make(float(stage.label_smoothing), float(stage.focal_gamma or 0.0))


def build_metrics(task: str, stage: Stage | None = None) -> list[Any]:
    """Make the metrics of a task that read the targets of a stage.

    Parameters
    ----------
    task : {"multiclass", "multilabel", "regression"}
    stage : Stage, optional
        By default one that does not mix.

    Returns
    -------
    list of keras.metrics.Metric
        The accuracy, or nothing: of a regression the loss says all. Of mixed examples it is that of
        the class with the largest share, and of the labels with a share of more than one half.
    """
    import keras

    name = TASKS[task].metric
    if name is None:
        return []
    if stage is None or stage.mix is None:
        metric = keras.metrics.get(name)
    elif task == "multiclass":
        metric = keras.metrics.CategoricalAccuracy()
    else:
        metric = keras.metrics.MeanMetricWrapper(_soft_label_accuracy)
    metric.name = METRIC
    return [metric]


def _of_classes(label_smoothing: float, focal_gamma: float) -> Callable[[Any, Any], Any]:
    import keras

    def loss(targets: Any, outputs: Any) -> Any:
        n_classes = outputs.shape[-1]
        if len(targets.shape) < 2 or targets.shape[-1] == 1:
            indices = keras.ops.cast(keras.ops.reshape(targets, (-1,)), "int32")
            targets = keras.ops.one_hot(indices, n_classes, dtype=outputs.dtype)
        if not focal_gamma:  # of the logits that Keras finds, so that no probability is cut off
            return keras.losses.categorical_crossentropy(
                targets, outputs, label_smoothing=label_smoothing
            )
        return keras.losses.categorical_focal_crossentropy(
            targets,
            outputs,
            # The paper's weight of classes is class_weight here; Keras's 0.25 of all classes alike
            # would be another learning rate.
            alpha=1.0,
            gamma=focal_gamma,
            label_smoothing=label_smoothing,
        )

    return loss


def _of_labels(label_smoothing: float, focal_gamma: float) -> Callable[[Any, Any], Any]:
    import keras

    def loss(targets: Any, outputs: Any) -> Any:
        if not focal_gamma:
            return keras.losses.binary_crossentropy(
                targets, outputs, label_smoothing=label_smoothing
            )
        # Keras keeps the classes from 0 and 1 but not the labels: the gradient of a sure one is
        # NaN for a gamma below 1.
        tiny = keras.config.epsilon()
        return keras.losses.binary_focal_crossentropy(
            targets,
            keras.ops.clip(outputs, tiny, 1 - tiny),
            gamma=focal_gamma,
            label_smoothing=label_smoothing,
        )

    return loss


def _soft_label_accuracy(targets: Any, outputs: Any) -> Any:
    import keras

    return keras.metrics.binary_accuracy(targets > 0.5, outputs)
