"""TransferClassifier: transfer to a target task with classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from keras_transfer.estimators.supervised import SupervisedTransfer
from keras_transfer.inputs.labels import as_labels
from keras_transfer.inputs.targets import ClassTargets, LabelTargets, class_or_label_targets
from keras_transfer.parameters import NONE, Constraint, instance_of, one_of

__all__ = ["TransferClassifier"]


class TransferClassifier(ClassifierMixin, SupervisedTransfer):
    """Classify with a pretrained backbone and a recipe.

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
        Share of the training data to hold out for early stopping. ``"auto"`` holds out a fifth
        where every class has 50 examples and something trains in epochs; with fewer, a fixed number
        of epochs is trained, since a score on six pictures is noise. A head that is solved learns
        from all.
    scoring : str or callable, optional
        Of the validation, as in scikit-learn; by default balanced accuracy, of several labels F1
        averaged over them.
    target_score : float, optional
        Stop as soon as the validation score reaches it, and skip later stages. Holds out a fifth
        where ``validation="auto"`` would not; then that part only measures.
    time_budget : float, optional
        Seconds that a fit may take, compilation included.
    class_weight : "balanced", dict or list of dict, optional
        Weights of the classes in training, on top of ``sample_weight``; a list has one mapping for
        each column of an indicator matrix. ``"balanced"``: in inverse proportion to their number.
    calibration : "auto" or None, default="auto"
        ``"auto"``: divide the logits by the one temperature under which probabilities are as sure
        as they are right, on held-out examples, of an exact head out of fold, or of fine-tuning on
        the examples that the guard left out; it is folded into the head's weights. Answers stay
        the same. With none of these, as with ``validation=None``, nothing is changed.
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
    classes_ : numpy.ndarray of shape (n_classes,) or (n_labels, 2)
        After a fit on an indicator matrix 0 and 1 for each label.
    backbone_ : Backbone
    readout_ : ReadoutChoice
        Where the head reads, why, and what came next to it.
    stages_ : list of StageRecord
        What trained in each stage, and why it ended.
    history_ : dict of str to list
        One entry for each epoch: ``stage``, ``epoch``, ``loss``, ``accuracy``, ``learning_rate``,
        ``seconds``, and ``val_loss``, ``val_score`` where there is validation.
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
    temperature_ : float
        What the logits were divided by; 1 without calibration.
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
    >>> from keras_transfer import TransferClassifier
    >>> def backbone(input_shape):
    ...     return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(8, "relu")])
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(-2, 1, (30, 4)), rng.normal(2, 1, (30, 4))])
    >>> y = np.array(["low"] * 30 + ["high"] * 30)
    >>> clf = TransferClassifier(backbone, "structure", random_state=0).fit(X, y)
    >>> clf.predict(X[[0, -1]])
    array(['low', 'high'], dtype='<U4')
    """

    _constraints: Mapping[str, Constraint] = {
        **SupervisedTransfer._constraints,
        "class_weight": NONE
        | one_of("balanced")
        | instance_of((Mapping, list, tuple), "a mapping of class to weight"),
        "calibration": NONE | one_of("auto"),
    }

    def __init__(
        self,
        backbone: Any = "EfficientNetLite0",
        recipe: Any = "composite",
        *,
        readout: Any = "auto",
        modality: str | None = None,
        image_size: Any = None,
        batch_size: int = 32,
        validation: Any = "auto",
        scoring: Any = None,
        target_score: float | None = None,
        time_budget: float | None = None,
        class_weight: Any = None,
        calibration: str | None = "auto",
        guard: str | None = "warn",
        memory: Any = None,
        on_error: str = "raise",
        callbacks: Any = None,
        random_state: Any = None,
        verbose: Any = "auto",
    ):
        super().__init__(
            backbone,
            recipe,
            readout=readout,
            modality=modality,
            image_size=image_size,
            batch_size=batch_size,
            validation=validation,
            scoring=scoring,
            target_score=target_score,
            time_budget=time_budget,
            guard=guard,
            memory=memory,
            on_error=on_error,
            callbacks=callbacks,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight
        self.calibration = calibration

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _read_targets(self, y: Any, weights: np.ndarray | None) -> ClassTargets | LabelTargets:
        return class_or_label_targets(y)

    @property
    def classes_(self) -> Any:
        """Labels in the order of the outputs."""
        check_is_fitted(self, "backbone_")
        if isinstance(self._targets, LabelTargets):
            # A row for each label: what tells scikit-learn's scorers and cross_val_predict that
            # there are several outputs, also where these are two.
            return np.tile(np.arange(2), (self._targets.n_labels, 1))
        return self._targets.classes

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, or of each label.

        Parameters
        ----------
        X : array
            As in `fit`.

        Returns
        -------
        numpy.ndarray of shape (n, n_classes) or (n, n_labels)
            Float32, in the order of ``classes_``; those of classes sum to 1.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If X cannot be used, or its values lie in another range than in `fit`.
        """
        return self._run(X)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label; of an indicator matrix, what is more probable than not.

        Parameters
        ----------
        X : array
            As in `fit`.

        Returns
        -------
        numpy.ndarray of shape (n,) or (n, n_labels)
        """
        outputs = self._run(X)
        return self._targets.decode(outputs)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy, as scikit-learn's classifiers do, for labels of any kind.

        Parameters
        ----------
        X : array
            As in `fit`.
        y : array-like of shape (n,) or (n, n_labels), optional
            The true labels; one that `fit` did not see counts as not found. Of an indicator matrix
            all labels of a row must be right. Left out where X brings them.
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        float
        """
        X, y, sample_weight = self._read_scored(X, y, sample_weight)
        outputs = self._run(X)
        if isinstance(self._targets, LabelTargets):
            truth: Any = self._targets.encode(y).astype(np.int64)
            predicted = self._targets.decode(outputs)
        else:
            index = {label: number for number, label in enumerate(self.classes_.tolist())}
            truth = [index.get(label, -1) for label in as_labels(y).tolist()]
            predicted = outputs.argmax(axis=1)
        return float(accuracy_score(truth, predicted, sample_weight=sample_weight))

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits, from before the probabilities.

        Parameters
        ----------
        X : array
            As in `fit`.

        Returns
        -------
        numpy.ndarray of shape (n, n_classes), (n,) with two classes, or (n, n_labels)
            With two classes: positive where the second is more probable. Of labels: positive where
            one is more probable than not.
        """
        logits = self._run(X, "logits")
        is_binary = isinstance(self._targets, ClassTargets) and len(self.classes_) == 2
        return logits[:, 1] - logits[:, 0] if is_binary else logits
