"""Recipe: a transfer mode with its settings; it builds the model and plans the stages."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sklearn.base import BaseEstimator, clone

from keras_transfer.backbones.partition import HEAD, Block, read_blocks
from keras_transfer.backbones.registry import get_backbone
from keras_transfer.errors import InvalidParameterError
from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.augmentation import AUGMENTATIONS, as_augmentation
from keras_transfer.graph.heads import Head
from keras_transfer.graph.readout import Readout, as_readout
from keras_transfer.parameters import (
    NONE,
    Constraint,
    check_parameters,
    integer,
    number,
    one_of,
    satisfying,
)
from keras_transfer.training.averaging import WISE
from keras_transfer.training.defaults import stage_defaults
from keras_transfer.training.freezing import freeze_for
from keras_transfer.training.optimizers import OPTIMIZERS, make_optimizer, plain_rate
from keras_transfer.training.run_result import RunResult
from keras_transfer.training.stage import CONSTRAINTS, SOLVERS, STEP_SETTINGS, Stage
from keras_transfer.training.train_blocks import TRAIN_BLOCKS, names_none

__all__ = ["Recipe"]


class Recipe(BaseEstimator, abc.ABC):
    """A transfer mode with its settings; it builds the model and plans the stages.

    The base of the three modes. Parameters are stored, nothing more, so that ``clone``,
    ``set_params`` and nested searches work as for any scikit-learn object.

    Parameters
    ----------
    train_blocks : int, "all", "auto", list of str or None, default=None
        Which blocks train: so many last ones, all, or those named; ``"auto"``, in an estimator:
        those that the target task pulls at most (`choose_blocks`). None is the mode's own choice.
    epochs : int, optional
        The most epochs of each stage; by default enough for a number of steps (`stage_defaults`).
    learning_rate : float or "auto", optional
        By default chosen with the number of examples. In composite transfer that of the stages
        after the head's. ``"auto"``: chosen at the start of each such stage, by a range test on
        its training batches of at most 71 steps, after which all is put back (`find_rate`).
    head_learning_rate : float, optional
        The head's own; by default `learning_rate`, and in the first stage of composite transfer
        chosen.
    layer_decay : float, optional
        From 0 to 1: the rate of each block that trains is that of the block above times this, since
        what lies lower serves more tasks as it is [1]_. By default all blocks train at one rate.
    optimizer : str or callable, default="adam"
        A Keras name, or a callable without arguments that returns an optimizer, whose own learning
        rate holds where none is given here. The rates that are chosen are chosen for Adam.
    dropout : float, default=0.0
        Dropout before the logits.
    augmentation : None, "all" or list of {"flip", "crop", "rotate", "colour"} or callable, \
            default=None
        Random changes of training pictures, one after the other, new in every epoch. A callable
        gets and returns float32 pictures of 0..255, (batch, height, width, 3), as tensors; what it
        draws with TensorFlow's random functions follows the seed of the fit.
    batch_norm : {"frozen", "affine", "train"}, optional
        What BatchNorm does in blocks that train; by default ``"affine"`` for pretrained blocks and
        ``"train"`` for random ones. In a frozen block it is always frozen.
    head_solver : {"auto", "exact", "gradient"}, default="auto"
        How a stage trains in which the head is alone. ``"exact"``: solved as the convex problem
        that it is, in a fraction of a second (`solve_head`). ``"gradient"``: in epochs. ``"auto"``:
        exact with head_penalty, and unless another setting speaks of epochs of the head:
        head_learning_rate, dropout, optimizer, augmentation without n_views; epochs,
        learning_rate, schedule, warm_up, weight_decay or average, where no other stage follows;
        label_smoothing, focal_gamma or mix, where no block trains.
    head_penalty : float, optional
        Of the exact head, on its squared weights: 1 / C of scikit-learn's ``LogisticRegression`` on
        features of about variance 1, alpha of its ``Ridge``. By default chosen by leaving each
        example out in turn.
    n_views : int, optional
        Take so many fixed views of each training picture, itself and random changes of it, in place
        of changes that are new in every epoch: what is frozen is then computed once for each view.
        An epoch sees them all.
    label_smoothing : float, default=0.0
        Of classes and labels, from 0 to below 1: the targets of a gradient stage leave so much
        open, spread evenly over all classes, or between yes and no [2]_. A validation is read
        without it.
    focal_gamma : float, optional
        Of classes and labels: the focal loss [3]_, in which each example counts by how much of it
        was not foreseen, to this power; 2 is the paper's, 0 and None the crossentropy.
    mix : {"mixup", "cutmix"}, optional
        Mix the training pictures of a batch with one another, after any augmentation, and their
        labels with them: a mean of two [4]_, or a rectangle of the one in the other [5]_. What is
        frozen is then computed in every step, also of fixed views. Exact heads never mix.
    schedule : {"constant", "cosine", "one_cycle"}, default="constant"
        How the rates move over the steps of each stage that is not solved: not; down to 0 as half
        a cosine [6]_; up from a 25th and then down so [7]_. The rates given are the highest.
    warm_up : float, optional
        Share of these steps in which the rates rise linearly, from 0 to 1; by default 0.3 for
        ``"one_cycle"``, else 0.
    weight_decay : float, optional
        Before each step kernels (no bias, nothing of BatchNorm) shrink by this times their rate,
        apart from the gradient [8]_. By default the optimizer's own: 0.004 for ``"adamw"``, which
        then shrinks all, else none.
    average : {None, "ema", "wise"}, default=None
        ``"ema"``: what is validated, and what each stage that is not solved ends with, is the
        exponential moving average of the weights, over about the last fifth of the steps so far
        [9]_. ``"wise"``, in composite transfer: weights between the start of fine-tuning and its
        end, at the share of the way that has the least loss on examples that they have not seen
        [10]_.

    References
    ----------
    .. [1] Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification" (2018,
       arXiv 1801.06146), for rates that fall from layer to layer.
    .. [2] Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016, arXiv
       1512.00567).
    .. [3] Lin et al., "Focal Loss for Dense Object Detection" (2017, arXiv 1708.02002).
    .. [4] Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018, arXiv 1710.09412).
    .. [5] Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
       Features" (2019, arXiv 1905.04899).
    .. [6] Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017,
       arXiv 1608.03983).
    .. [7] Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
       Learning Rates" (2018, arXiv 1708.07120).
    .. [8] Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019, arXiv 1711.05101).
    .. [9] Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992).
    .. [10] Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models" (2022, arXiv 2109.01903).
    """

    _constraints: Mapping[str, Constraint] = {
        "train_blocks": NONE | TRAIN_BLOCKS,
        "epochs": NONE | CONSTRAINTS["epochs"],
        "learning_rate": NONE | one_of("auto") | number(0, above=True),
        "head_learning_rate": NONE | number(0, above=True),
        "layer_decay": NONE | number(0, 1, above=True),
        "optimizer": one_of(*OPTIMIZERS) | Constraint("a callable without arguments", callable),
        "dropout": number(0, 0.95),
        "augmentation": NONE
        | satisfying(
            as_augmentation, f"'all', or one or more of {', '.join(AUGMENTATIONS)} and functions"
        ),
        "batch_norm": NONE | CONSTRAINTS["batch_norm"],
        "head_solver": one_of("auto", *SOLVERS),
        "head_penalty": CONSTRAINTS["penalty"],
        "n_views": NONE | integer(2),
        **{name: CONSTRAINTS[name] for name in STEP_SETTINGS},
    }

    # Whether the head is alone with a frozen network at first: an exact head then tells where to
    # read. Of one that is trained along with all blocks it tells nothing.
    chooses_readout = True

    def __init__(
        self,
        train_blocks: Any = None,
        epochs: int | None = None,
        learning_rate: float | str | None = None,
        head_learning_rate: float | None = None,
        layer_decay: float | None = None,
        optimizer: Any = "adam",
        dropout: float = 0.0,
        augmentation: Any = None,
        batch_norm: str | None = None,
        head_solver: str = "auto",
        head_penalty: float | None = None,
        n_views: int | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float | None = None,
        mix: str | None = None,
        schedule: str = "constant",
        warm_up: float | None = None,
        weight_decay: float | None = None,
        average: str | None = None,
    ):
        self.train_blocks = train_blocks
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.head_learning_rate = head_learning_rate
        self.layer_decay = layer_decay
        self.optimizer = optimizer
        self.dropout = dropout
        self.augmentation = augmentation
        self.batch_norm = batch_norm
        self.head_solver = head_solver
        self.head_penalty = head_penalty
        self.n_views = n_views
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.mix = mix
        self.schedule = schedule
        self.warm_up = warm_up
        self.weight_decay = weight_decay
        self.average = average

    def check(self) -> None:
        """Check the parameters.

        Raises
        ------
        InvalidParameterError
            With everything that is wrong.
        """
        check_parameters(type(self).__name__, self.get_params(deep=False), self._constraints)
        if self.n_views is not None and self.augmentation is None:
            raise InvalidParameterError(
                f"n_views: expected an augmentation that makes the views. Received: "
                f"n_views={self.n_views!r} with augmentation=None. Set augmentation='all'."
            )
        if self.head_solver == "exact" and self.augmentation is not None and self.n_views is None:
            raise InvalidParameterError(
                f"head_solver: expected 'gradient' or 'auto' where augmentation changes the "
                f"pictures in every epoch. Received: 'exact' with augmentation="
                f"{self.augmentation!r}. Set n_views=4 for fixed views, or head_solver='auto'."
            )
        if self.head_learning_rate is not None and self.tests_rate:
            raise InvalidParameterError(
                f"head_learning_rate: expected None with learning_rate='auto', which chooses the "
                f"head's, too. Received: {self.head_learning_rate!r}. Leave it out, or set "
                f"learning_rate."
            )
        if self.head_penalty is not None and self.head_solver == "gradient":
            raise InvalidParameterError(
                f"head_penalty: expected None with head_solver='gradient', which knows no penalty. "
                f"Received: {self.head_penalty!r}. Set head_solver='exact'."
            )
        is_exact = self.head_solver == "exact" or self.head_penalty is not None
        if is_exact and self._is_head_alone and (asked := self._asked_of_epochs()):
            raise InvalidParameterError(
                f"head_solver: expected 'gradient' or 'auto', and head_penalty=None, where only "
                f"the head trains and {' and '.join(asked)} {'is' if len(asked) == 1 else 'are'} "
                f"asked of its epochs. Received: {self.head_solver!r}, head_penalty="
                f"{self.head_penalty!r}. Leave them out, or train blocks."
            )

    def replace(self, **settings: Any) -> Self:
        """Return a copy with other settings.

        Parameters
        ----------
        **settings
            Parameters of the recipe.
        """
        return clone(self).set_params(**settings)

    def check_task(self, task: str, has_pictures: bool) -> None:
        """Check that the settings can be used for a task.

        Parameters
        ----------
        task : {"multiclass", "multilabel", "regression"}
        has_pictures : bool
            Whether the inputs are pictures.

        Raises
        ------
        InvalidParameterError
        """
        if task == "regression":
            for name, plain in (("label_smoothing", 0.0), ("focal_gamma", None)):
                if value := getattr(self, name):
                    raise InvalidParameterError(
                        f"{name}: expected {plain} for a regression, whose targets are no classes "
                        f"or labels. Received: {value!r}. Leave it out."
                    )
        if as_augmentation(self.augmentation) and not has_pictures:
            raise InvalidParameterError(
                f"augmentation: expected None where X holds no pictures. Received: "
                f"{self.augmentation!r}, which changes pictures. Leave it out."
            )
        if self.mix is not None and not has_pictures:
            raise InvalidParameterError(
                f"mix: expected None where X holds no pictures. Received: {self.mix!r}, which "
                f"mixes pictures. Leave it out."
            )

    def build(
        self,
        backbone: Any,
        outputs: int,
        *,
        task: str = "multiclass",
        input_shape: Sequence[int] | None = None,
        readout: str | Readout = "last",
    ) -> Any:
        """Build the model for existing Keras code.

        Parameters
        ----------
        backbone : str, Backbone, keras.Model or callable
            As for `get_backbone`.
        outputs : int
            Number of classes, labels or numbers.
        task : {"multiclass", "multilabel", "regression"}, default="multiclass"
            What the head answers: the probability of each class, of each label, or numbers.
        input_shape : sequence of int, optional
            Shape of one input, such as ``(96, 96, 3)``; by default the backbone's own.
        readout : str or Readout, default="last"
            What the head reads.

        Returns
        -------
        keras.Model
            A plain, flat, functional model, ``trainable`` set for the first stage. Reads RGB
            pixels of 0..255 (or features); gives probabilities, or numbers.

        Examples
        --------
        >>> from keras_transfer import StructureTransfer, get_backbone
        >>> backbone = get_backbone("MobileNetV2", weights=None, input_shape=(32, 32, 3))
        >>> model = StructureTransfer().build(backbone, outputs=5)
        >>> [weight.path for weight in model.trainable_weights]
        ['head.logits/kernel', 'head.logits/bias']
        """
        self.check()
        model = Assembly(
            get_backbone(backbone),
            Head(task, outputs, self.dropout),
            input_shape=input_shape,
            readout=as_readout(readout),
        ).build()
        blocks = read_blocks(model)
        # Which blocks train does not depend on the number of examples.
        with freeze_for(model, blocks, self.stages(blocks, n_examples=1)[0]):
            pass
        return model

    @abc.abstractmethod
    def plan(self, blocks: Sequence[Block]) -> list[tuple[str, Sequence[str]]]:
        """Name the stages, and the blocks that train in each beside the head.

        Parameters
        ----------
        blocks : sequence of Block
            The model's blocks, the head last.

        Returns
        -------
        list of (str, sequence of str)
            Block names input side first; none where the head trains alone.
        """

    def stages(
        self,
        blocks: Sequence[Block],
        n_examples: int,
        *,
        batch_size: int = 32,
        pretrained: bool = True,
    ) -> list[Stage]:
        """Plan the stages, with all that they take.

        Parameters
        ----------
        blocks : sequence of Block
            The model's blocks, the head last.
        n_examples : int
            Training examples; what is left open depends on it.
        batch_size : int, default=32
        pretrained : bool, default=True
            Whether the blocks start from a source task's weights.

        Returns
        -------
        list of Stage
        """
        planned = self.plan(blocks)
        return [
            self._stage(name, trained, n_examples, batch_size, pretrained, len(planned) == 1)
            for name, trained in planned
        ]

    def fit(
        self,
        model: Any,
        dataset: Any,
        *,
        validation_data: Any = None,
        task: str | None = None,
        blocks: Mapping[str, Sequence[str]] | None = None,
        target_score: float | None = None,
        time_budget: float | None = None,
        pretrained: bool | None = None,
        memory: Any = None,
        callbacks: Sequence[Any] = (),
        random_state: int = 0,
        verbose: bool | str = "auto",
    ) -> RunResult:
        """Run the stages on a model and a dataset of one's own.

        Parameters
        ----------
        model : keras.Model
            From `build`, in this process or reloaded, or any with one output.
        dataset : tf.data.Dataset
            Finite batches of (inputs, targets) or (inputs, targets, weights): class indices, rows
            of 0 and 1, or numbers. The range test of ``learning_rate="auto"`` reads it once more,
            by which the order of a shuffled one moves on.
        validation_data : tf.data.Dataset, optional
            The same, held out, in any order: stages then stop early and keep their best weights.
        task : {"multiclass", "multilabel", "regression"}, optional
            For a foreign model: what it answers; by default the probability of each class.
        blocks : mapping of str to sequence of str, optional
            For a foreign model: each block's layers, by name or regular expression, input side
            first, the last one named ``"head"``.
        target_score : float, optional
            Stop when the accuracy (for numbers R2) on the validation data reaches it.
        time_budget : float, optional
            Seconds after which to stop.
        pretrained : bool, optional
            Whether the blocks start from a source task's weights; by default told by the BatchNorm
            statistics, where there are any, and else assumed.
        memory : None, False, str, path or Memory, default=None
            Where the outputs of what is frozen are kept, by the content of each input, so that it
            is computed in the first epoch only: by default in this process; in a folder, for other
            processes and later ones too; with ``False`` nowhere. Where no input comes again, as
            with changes of one's own in the dataset, they are not kept.
        callbacks : sequence of keras.callbacks.Callback
            Called in every stage, with ``val_loss`` and ``val_score`` in the logs of an epoch.
        random_state : int, default=0
            Seed of dropout and augmentation.
        verbose : {"auto", True, False}
            Whether to show progress; ``"auto"``: in a terminal or notebook.

        Returns
        -------
        RunResult
            ``history``, ``records`` (what each stage did) and ``score``.
        """
        from keras_transfer.fitting.own_model import fit_own_model

        return fit_own_model(
            self,
            model,
            dataset,
            validation_data=validation_data,
            task=task,
            blocks=blocks,
            target_score=target_score,
            time_budget=time_budget,
            pretrained=pretrained,
            memory=memory,
            callbacks=callbacks,
            random_state=random_state,
            verbose=verbose,
        )

    def classifier(self, backbone: Any = "EfficientNetLite0", **parameters: Any) -> Any:
        """Make a `TransferClassifier` with this recipe.

        Parameters
        ----------
        backbone : str, Backbone or callable
        **parameters
            Of `TransferClassifier`.

        Returns
        -------
        TransferClassifier
        """
        from keras_transfer.estimators.classifier import TransferClassifier

        return TransferClassifier(backbone, self, **parameters)

    def regressor(self, backbone: Any = "EfficientNetLite0", **parameters: Any) -> Any:
        """Make a `TransferRegressor` with this recipe.

        Parameters
        ----------
        backbone : str, Backbone or callable
        **parameters
            Of `TransferRegressor`.

        Returns
        -------
        TransferRegressor
        """
        from keras_transfer.estimators.regressor import TransferRegressor

        return TransferRegressor(backbone, self, **parameters)

    def _stage(
        self,
        name: str,
        trained: Sequence[str],
        n_examples: int,
        batch_size: int,
        pretrained: bool,
        only_stage: bool,
    ) -> Stage:
        """Make a stage of blocks and the head; what was left open is chosen here."""
        chosen = stage_defaults(
            n_examples,
            batch_size=batch_size,
            trains_backbone=bool(trained),
            pretrained=pretrained,
        )
        # A rate that the user gave with an optimizer is not to be replaced by one chosen for Adam.
        own = plain_rate(make_optimizer(self.optimizer)) if callable(self.optimizer) else None
        rate = own or chosen.learning_rate
        # In a stage of the head before others learning_rate is not meant: it is that of the blocks.
        is_meant = bool(trained) or only_stage
        if is_meant and self.learning_rate and not isinstance(self.learning_rate, str):
            rate = self.learning_rate
        if not trained and self._solves_head(only_stage):
            return Stage(name, {HEAD: rate}, 1, solver="exact", penalty=self.head_penalty)
        decay = 1.0 if self.layer_decay is None else self.layer_decay
        rates = {block: rate * decay**depth for depth, block in enumerate(reversed(trained))}
        settings = {name: getattr(self, name) for name in STEP_SETTINGS}
        if self.average == WISE:  # of the whole of fine-tuning, when it is done
            settings["average"] = None
        return Stage(
            name=name,
            learning_rates={
                **{block: rates[block] for block in trained},
                HEAD: self.head_learning_rate or rate,
            },
            epochs=self.epochs or chosen.epochs,
            batch_norm=self.batch_norm or chosen.batch_norm,
            batch_norm_momentum=chosen.batch_norm_momentum,
            optimizer=self.optimizer,
            **settings,
            rate_test=is_meant and self.tests_rate,
        )

    @property
    def tests_rate(self) -> bool:
        """Whether a range test is to choose the learning rates."""
        return isinstance(self.learning_rate, str)

    def for_foreign_head(self) -> Recipe:
        """Return the recipe for a head that is not ours, which may be anything."""
        if self.head_solver == "exact" or self.head_penalty is not None:
            raise InvalidParameterError(
                f"head_solver: expected 'auto' or 'gradient' for a model with a head of one's own, "
                f"which need not be linear. Received: {self.head_solver!r}, "
                f"head_penalty={self.head_penalty!r}. Or make the model with build()."
            )
        return self.replace(head_solver="gradient")

    def _solves_head(self, only_stage: bool) -> bool:
        """Say whether a stage in which the head is alone is solved."""
        if self.head_solver != "auto" or self.head_penalty is not None:
            return self.head_solver != "gradient"
        own: list[Any] = [self.head_learning_rate, self.dropout or None]
        if only_stage:
            own += [self.epochs, self.learning_rate, self.warm_up, self.weight_decay, self.average]
            own += [None if self.schedule == "constant" else self.schedule]
        if self._is_head_alone:  # else the blocks' stages do what is asked
            own += self._asked_of_epochs()
        is_changing = self.augmentation is not None and self.n_views is None
        return (
            self.optimizer == "adam" and not is_changing and all(setting is None for setting in own)
        )

    @property
    def is_solved(self) -> bool:
        """Whether all that it trains is solved: no held-out example could steer it."""
        return self._is_head_alone and self._solves_head(only_stage=True)

    @property
    def _is_head_alone(self) -> bool:
        """Whether no stage trains blocks."""
        return names_none(self.train_blocks)

    def _asked_of_epochs(self) -> list[str]:
        """Name the settings that only a stage with epochs can follow."""
        names = ("label_smoothing", "focal_gamma", "mix")
        return [name for name in names if getattr(self, name)]
