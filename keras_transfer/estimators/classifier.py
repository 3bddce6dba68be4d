"""TransferClassifier: transfer to a target task with classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from keras_transfer.errors import InvalidParameterError, InvalidTypeError
from keras_transfer.estimators.base import BaseTransfer, check_lengths
from keras_transfer.estimators.scoring import classification_score
from keras_transfer.graph.heads import LOGITS
from keras_transfer.inputs.labels import as_labels, encode_labels, find_classes
from keras_transfer.inputs.splits import has_enough, hold_out
from keras_transfer.training.inference import Inference

__all__ = ["TransferClassifier"]

# Share held out where there are enough examples, or where a target score asks for a validation.
HELD_OUT = 0.2


class TransferClassifier(ClassifierMixin, BaseTransfer):
    """Classify with a pretrained backbone and a recipe.

    Parameters
    ----------
    backbone : str, Backbone or callable, default="EfficientNetLite0"
        The pretrained model: a name (`list_backbones`), what `get_backbone` returns, or a function
        ``(input_shape) -> keras.Model``.
    recipe : {"parameter", "structure", "composite"} or Recipe, default="composite"
        The transfer mode; an instance where its settings are to be set or searched.
    readout : "last", str or Readout, default="last"
        Which block outputs the head reads, and how they are pooled.
    modality : {"picture", "features"}, optional
        By default the backbone's, or told by the shape of X.
    image_size : int or (int, int), optional
        Height and width in pixels that pictures are resized to; by default the backbone's own.
    batch_size : int, default=32
    validation : "auto", float or None, default="auto"
        Share of the training data to hold out for early stopping. ``"auto"`` holds out a fifth
        where every class has 20 examples, and trains a fixed number of epochs on fewer: a score on
        six pictures is noise.
    scoring : str or callable, optional
        Of the validation, as in scikit-learn; by default balanced accuracy.
    target_score : float, optional
        Stop as soon as the validation score reaches it, and skip later stages. Holds out a fifth
        where ``validation="auto"`` would not; then that part only measures.
    time_budget : float, optional
        Seconds that a fit may take, compilation included.
    random_state : int, RandomState or None, default=None
        The same seed and data give the same weights.
    verbose : {"auto", True, False}, default="auto"
        Progress and what trains in each stage, on standard error; ``"auto"``: in a terminal or
        notebook.

    Attributes
    ----------
    model_ : keras.Model
        The trained model: plain, flat, functional, layers named ``block.layer``.
    classes_ : numpy.ndarray of shape (n_classes,)
    backbone_ : Backbone
    stages_ : list of StageRecord
        What trained in each stage, and why it ended.
    history_ : dict of str to list
        One entry for each epoch: ``stage``, ``epoch``, ``loss``, ``accuracy``, ``learning_rate``,
        ``seconds``, and ``val_loss``, ``val_score`` where there is validation.
    n_iter_ : int
        Epochs over all stages.
    validation_score_ : float
        Of the weights that were kept; NaN without validation.
    pixel_range_ : (float, float)
        For pictures: the values that stand for black and white.
    n_features_in_ : int
        For features.

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

    def __init__(
        self,
        backbone: Any = "EfficientNetLite0",
        recipe: Any = "composite",
        *,
        readout: Any = "last",
        modality: str | None = None,
        image_size: Any = None,
        batch_size: int = 32,
        validation: Any = "auto",
        scoring: Any = None,
        target_score: float | None = None,
        time_budget: float | None = None,
        random_state: Any = None,
        verbose: Any = "auto",
    ):
        self.backbone = backbone
        self.recipe = recipe
        self.readout = readout
        self.modality = modality
        self.image_size = image_size
        self.batch_size = batch_size
        self.validation = validation
        self.scoring = scoring
        self.target_score = target_score
        self.time_budget = time_budget
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, *, validation_data: Any = None) -> TransferClassifier:
        """Transfer to the task that X and y show.

        Parameters
        ----------
        X : array of shape (n, h, w), (n, h, w, c) or (n, n_features)
            Pictures, grey, RGB or RGBA, of 0..1, -1..1, 0..255 or 0..65535; or features.
        y : array-like of shape (n,)
            Labels of any hashable kind.
        validation_data : (X, y), optional
            Held-out data; then none is split off.

        Returns
        -------
        TransferClassifier
            Itself. If fitting fails, an earlier fit stays usable.

        Raises
        ------
        DataError
            If X or y cannot be used.
        InvalidParameterError
            If a parameter cannot.
        """
        self._check_parameters()
        check_lengths(X, y)
        classes = find_classes(y)
        targets = encode_labels(y, classes)
        score = classification_score(self.scoring, classes)
        held = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise InvalidTypeError(
                    f"validation_data: expected a pair (X, y). Received: "
                    f"{type(validation_data).__name__}."
                )
            X_held, y_held = validation_data
            check_lengths(X_held, y_held, "validation_data")
            held = (X_held, encode_labels(y_held, classes))

        def split(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
            fraction = self.validation
            if fraction == "auto":
                wanted = has_enough(targets) or self.target_score is not None
                fraction = HELD_OUT if wanted else None
            return None if fraction is None else hold_out(targets, fraction, rng)

        if self.target_score is not None and self.validation is None and held is None:
            raise InvalidParameterError(
                f"target_score: expected a validation to measure it on. Received: "
                f"target_score={self.target_score!r} with validation=None. Pass validation='auto', "
                f"a share, or validation_data."
            )
        fitted = self._fit_model(X, len(classes), targets, held, split, score)
        fitted["classes_"] = classes
        self._set_fitted(fitted)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : array
            As in `fit`.

        Returns
        -------
        numpy.ndarray of shape (n, n_classes)
            Float32, in the order of ``classes_``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If X cannot be used, or its values lie in another range than in `fit`.
        """
        return self._run(X)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label.

        Parameters
        ----------
        X : array
            As in `fit`.

        Returns
        -------
        numpy.ndarray of shape (n,)
        """
        outputs = self._run(X)
        return self.classes_[outputs.argmax(axis=1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, as scikit-learn's classifiers do, for labels of any kind.

        Parameters
        ----------
        X : array
            As in `fit`.
        y : array-like of shape (n,)
            The true labels; one that `fit` did not see counts as not found.
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        float
        """
        check_lengths(X, y)
        predicted = self._run(X).argmax(axis=1)
        index = {label: number for number, label in enumerate(self.classes_.tolist())}
        truth = [index.get(label, -1) for label in as_labels(y).tolist()]
        return float(accuracy_score(truth, predicted, sample_weight=sample_weight))

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits, from before the probabilities.

        Parameters
        ----------
        X : array
            As in `fit`.

        Returns
        -------
        numpy.ndarray of shape (n, n_classes), or (n,) with two classes
            With two classes: positive where the second is more probable.
        """
        check_is_fitted(self, "model_")
        import keras

        if getattr(self, "_logits", None) is None:
            logits_model = keras.Model(self.model_.input, self.model_.get_layer(LOGITS).output)
            self._logits = Inference(logits_model)
        logits = self._logits.on_array(self._reader.prepare(X), self.batch_size)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits
