"""TransferRegressor: transfer to a target task with numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from keras_transfer.errors import DataError
from keras_transfer.estimators.supervised import SupervisedTransfer
from keras_transfer.inputs.targets import NumberTargets

__all__ = ["TransferRegressor"]


class TransferRegressor(RegressorMixin, SupervisedTransfer):
    """Predict one number or several with a pretrained backbone and a recipe.

    Numbers are standardised for training and brought back to their units inside the graph, so that
    ``model_``, and what is saved, answers in the units of y.

    Parameters
    ----------
    backbone : str, Backbone or callable, default="EfficientNetLite0"
        The pretrained model: a name (`list_backbones`), what `get_backbone` returns, or a function
        ``(input_shape) -> keras.Model``.
    recipe : {"parameter", "structure", "composite"} or Recipe, default="composite"
        The transfer mode; an instance where its settings are to be set or searched.
    readout : "auto", "last", str or Readout, default="auto"
        Which block outputs the head reads, and how they are pooled; the blocks above are left out.
        ``"auto"``: chosen on the training data, by how well an exact head answers for examples that
        it has not seen; the last block where the backbone's weights are random, and in parameter
        transfer.
    modality : {"picture", "features"}, optional
        By default the backbone's, or told by the shape of X.
    image_size : int or (int, int), optional
        Height and width in pixels that pictures are resized to; by default the backbone's own.
    batch_size : int, default=32
    validation : "auto", float or None, default="auto"
        Share of the training data to hold out for early stopping. ``"auto"`` holds out a fifth of
        100 examples or more where something trains in epochs, and trains a fixed number of epochs
        on fewer. A head that is solved learns from all.
    scoring : str or callable, optional
        Of the validation, as in scikit-learn; by default R2.
    target_score : float, optional
        Stop as soon as the validation score reaches it, and skip later stages. Holds out a fifth
        where ``validation="auto"`` would not; then that part only measures.
    time_budget : float, optional
        Seconds that a fit may take, compilation included.
    guard : "warn", "best" or None, default="warn"
        On the training data, an exact head on the pretrained network is compared with one on the
        raw inputs (16 x 16 pixels), and on the network with random weights; and fine-tuning after
        a head's stage with its own starting point, on what is held out, or on a quarter that a
        second training leaves out where ``validation="auto"`` finds too few to hold any out.
        ``"warn"``: say so where the source, or fine-tuning, does not help; ``"best"``: then take
        what is better.
    memory : None, False, str, path or Memory, default=None
        Where the outputs of what is frozen are kept, so that each picture passes it once, over all
        epochs, stages, folds and candidates: by default in this process, up to 8 GiB; in a folder,
        for other processes and later ones too; with ``False`` nowhere.
    on_error : {"raise", "skip"}, default="raise"
        What `fit` does about picture files that cannot be read: one error that names them, or a
        warning, and training on the others; ``data_report_`` lists what was skipped.
    callbacks : list, optional
        Callables without arguments that return a Keras callback, or callbacks, of which each fit
        uses a fresh copy. They find ``val_loss`` and ``val_score`` in the logs of an epoch.
    random_state : int, RandomState or None, default=None
        The same seed and data give the same weights.
    verbose : {"auto", True, False}, default="auto"
        Progress and what trains in each stage, on standard error; ``"auto"``: in a terminal or
        notebook.

    Attributes
    ----------
    model_ : keras.Model
        The trained model: plain, flat, functional, layers named ``block.layer``.
    backbone_ : Backbone
    readout_ : ReadoutChoice
        Where the head reads, why, and what came next to it.
    stages_ : list of StageRecord
        What trained in each stage, and why it ended.
    history_ : dict of str to list
        One entry for each epoch: ``stage``, ``epoch``, ``loss`` (of standardised numbers),
        ``learning_rate``, ``seconds``, and ``val_loss``, ``val_score`` where there is validation.
    n_iter_ : int
        Epochs over all stages.
    guard_ : SourceCheck or None
        How the source compares; None where its weights are random, or nothing can be told.
    train_blocks_ : BlockChoice or None
        Which blocks ``train_blocks="auto"`` chose, and by what; None where it was not asked to.
    fine_tuning_ : FineTuningCheck or None
        What fine-tuning after a head's stage does for examples that it has not seen. None where
        nobody asks (``guard=None``, and no wise average), or nothing can be told: without such a
        stage or such examples, of random weights, or when the time was up.
    validation_score_ : float
        On held-out examples, of the weights that were kept. Where ``validation="auto"`` holds none
        out: of exact heads on the pretrained network, each solved without the examples that it
        answers for. NaN where nothing can be told.
    validation_standard_error_ : float
        By how much the score would differ on other examples of the same kind.
    data_report_ : DataReport
        What a look at the data found: class counts, copies, labels that look wrong, files that
        were skipped. What is to be done about it was said as warnings.
    pixel_range_ : (float, float)
        For pictures: the values that stand for black and white.
    n_features_in_, feature_names_in_ : int, numpy.ndarray of str
        For features; the names where X was a table that has some.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> from keras_transfer import ParameterTransfer, TransferRegressor
    >>> def backbone(input_shape):
    ...     return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(8, "relu")])
    >>> X = np.random.default_rng(0).normal(size=(80, 3))
    >>> y = 500 + 100 * X[:, 0]
    >>> recipe = ParameterTransfer(epochs=40, learning_rate=1e-2)
    >>> TransferRegressor(backbone, recipe, random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _read_targets(self, y: Any, weights: np.ndarray | None) -> NumberTargets:
        return NumberTargets.from_data(y, weights)

    def _read_labels(self, y: np.ndarray) -> np.ndarray:
        if y.dtype.kind not in "OU":
            return y
        numbers = np.empty(len(y))
        for row, text in enumerate(y.tolist()):
            try:
                numbers[row] = float(text)
            except ValueError:
                raise DataError(
                    f"y: expected numbers. Received in row {row} of {len(y)}: {text!r}. For labels "
                    f"use TransferClassifier."
                ) from None
        return numbers

    def predict(self, X: Any) -> np.ndarray:
        """Return the numbers, in the units of y.

        Parameters
        ----------
        X : array
            As in `fit`.

        Returns
        -------
        numpy.ndarray of shape (n,) or (n, n_outputs)
            Float64, in the shape that y had.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If X cannot be used, or its values lie in another range than in `fit`.
        """
        outputs = self._run(X)
        return self._targets.decode(outputs)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return R2, as scikit-learn's regressors do.

        Parameters
        ----------
        X : array
            As in `fit`.
        y : array-like of shape (n,) or (n, n_outputs), optional
            Left out where X brings it.
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        float
        """
        X, y, sample_weight = self._read_scored(X, y, sample_weight)
        return float(r2_score(y, self.predict(X), sample_weight=sample_weight))
