"""Feeding: what is frozen computed once, for the stages of a fit and a look at the data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_transfer.graph.augmentation import build_augmentation
from keras_transfer.graph.mixing import build_mixing
from keras_transfer.graph.views import PictureViews
from keras_transfer.inputs.examples import Examples
from keras_transfer.training.activations import Activations
from keras_transfer.training.batches import SEEDS_OF_A_STAGE, shuffled_batches
from keras_transfer.training.boundary import Boundary
from keras_transfer.training.cuts import Cut, plan_cuts
from keras_transfer.training.feed import Feed, Solvable
from keras_transfer.training.inference import Inference
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.progress import Silent
from keras_transfer.training.stage import Stage
from keras_transfer.training.stored_outputs import StoredOutputs
from keras_transfer.training.validation import Validation

__all__ = ["Feeder"]

# Batches that a forecast reads.
_SAMPLED = 5


class Feeder:
    """Computes what is frozen, once, for the stages of a fit and for a look at the data.

    Parameters
    ----------
    network : LazyNetwork
    stored : StoredOutputs or None
    stages : sequence of Stage
    train : Examples
    held : Examples or None
        Held out.
    batch_size : int
        Of pictures, where the whole network runs.
    augmentation : sequence of str or callable
        As `as_augmentation` returns it.
    n_views : int, optional
        Of each picture, fixed, in place of changes that are new in every epoch.
    model : keras.Model, optional
        That of another feeder for the same stages, to be trained in place of one of its own.
    """

    def __init__(
        self,
        network: LazyNetwork,
        stored: StoredOutputs | None,
        stages: Sequence[Stage],
        train: Examples,
        held: Examples | None,
        *,
        batch_size: int,
        augmentation: Sequence[Any] = (),
        n_views: int | None = None,
        model: Any = None,
    ):
        self._network, self._stored, self._stages = network, stored, stages
        parts = [train] if held is None else [train, held]
        self._inputs = [part.inputs for part in parts]
        self._keys = [part.keys() for part in parts] if stored or n_views else [[] for _ in parts]
        if n_views:
            views = PictureViews(train.inputs, self._keys[0], n_views, augmentation)
            self._inputs[0] = views
            if stored is not None:
                self._keys[0] = views.keys()
        self._batch_size = batch_size
        self._augmentation, self._n_views = augmentation, n_views
        n_rows = sum(map(len, self._inputs))
        self.cuts = plan_cuts(
            network, stored, stages, n_rows, bool(augmentation) and n_views is None
        )
        self._found: list[dict[tuple[str, ...], Activations]] = [{} for _ in parts]
        self._model: Any = model
        self._boundary: Boundary | None = None

    # === The pass ===

    def run(self, deadline: float | None, display: Silent) -> None:
        """Compute all cuts in one pass over the examples, unless that ends after a deadline."""
        if self._stored is None or not any(cut.nodes for cut in self.cuts):
            return
        cuts = list(dict.fromkeys(cut.nodes for cut in self.cuts if cut.nodes))
        features = self._network.boundary().cut
        if features and features not in cuts:  # for the look at the data, in the same pass
            cuts.append(features)
        with display.counting("what is frozen", sum(map(len, self._inputs))) as advance:
            for inputs, keys, found in zip(self._inputs, self._keys, self._found, strict=True):
                arrays = self._stored.activations(
                    inputs, keys, cuts, advance=advance, deadline=deadline
                )
                if arrays is None:
                    note = "not stored: one pass takes longer than the time budget"
                    self.cuts = [Cut((), note) for _ in self._stages]
                    self._found = [{} for _ in self._inputs]
                    return
                found.update(zip(cuts, arrays, strict=True))

    # === What comes of it ===

    @property
    def model(self) -> Any:
        """What trains: the part above the lowest cut, or the whole."""
        if self._model is None:
            self._model = self._network.build_part(self.boundary)
        return self._model

    @property
    def boundary(self) -> Boundary:
        """Where the model begins; by then the pass has been made."""
        if self._boundary is None:
            self._boundary = Boundary((), frozenset(), "")
            if all(cut.nodes for cut in self.cuts):
                trained = {name for stage in self._stages for name in stage.trained}
                self._boundary = self._network.boundary(trained)
        return self._boundary

    @property
    def lowest(self) -> tuple[str, ...]:
        """The cut that the model reads; empty if it is the whole."""
        return self.boundary.cut

    def features(self, rows: np.ndarray, part: int = 0) -> np.ndarray:
        """Return what the head reads of some examples; of views first come all as they are."""
        cut = self._network.boundary().cut
        if cut in self._found[part]:
            return self._found[part][cut].take(rows)[0]
        inputs = self._inputs[part]
        is_all = len(rows) == len(inputs)
        if not is_all:
            inputs = inputs[rows]
        if self._stored is not None and cut:
            keys = self._keys[part] if is_all else [self._keys[part][row] for row in rows]
            found = self._stored.activations(inputs, keys, [cut])
            assert found is not None  # there is no deadline
            return found[0].arrays[0]
        return Inference(self.model).on_inputs(inputs, self._batch_size, "features")

    @property
    def held_inputs(self) -> Any:
        """What the model reads of the examples that are held out."""
        return self._found[1][self.lowest] if self.lowest else self._inputs[1]

    def trained_features(self, rows: np.ndarray) -> np.ndarray:
        """Return what the head reads of some training examples, as the network is by now."""
        if self.lowest and self.lowest == self._network.boundary().cut:
            return self._found[0][self.lowest].take(rows)[0]
        inputs = self._found[0][self.lowest] if self.lowest else self._inputs[0]
        return Inference(self.model).on_inputs(inputs[rows], self._batch_size, "features")

    # === The feeds ===

    def feeds(
        self,
        targets: np.ndarray,
        weights: np.ndarray,
        validate: Callable[[Any], Validation | None],
        *,
        task: str,
        n_outputs: int,
        batch_seed: int,
        augmentation_seed: int,
        is_long: Callable[[int], bool],
    ) -> list[Feed]:
        """Make the feed of each stage.

        Parameters
        ----------
        targets : numpy.ndarray of shape (n, ...)
            Of the training examples, as the loss reads them.
        weights : numpy.ndarray of shape (n,)
            How much each counts.
        validate : callable
            From what a stage reads of the held-out examples to its validation.
        task : {"multiclass", "multilabel", "regression"}
        n_outputs : int
        batch_seed, augmentation_seed : int
            The latter of mixing, too.
        is_long : callable
            Whether so many batches are worth a forecast.
        """
        n_views = self._n_views or 1
        targets = np.concatenate([targets] * n_views)
        # Brought to a mean of 1, so that their scale changes no step.
        relative = np.concatenate([(weights / weights.mean()).astype(np.float32)] * n_views)
        counts = np.concatenate([weights / n_views] * n_views)

        def make_dataset(number: int, n_batches: int | None = None) -> Any:
            rows = slice(None if n_batches is None else n_batches * self._batch_size)
            augment = mix = None
            seed = augmentation_seed + SEEDS_OF_A_STAGE * number
            if self._augmentation and self._n_views is None:
                augment = build_augmentation(self._augmentation, seed)
            if (name := self._stages[number].mix) is not None:
                mix = build_mixing(name, task, n_outputs, seed)
            return shuffled_batches(
                (self._read(number)[rows], targets[rows], relative[rows]),
                self._batch_size,
                batch_seed + number,
                augment,
                mix,
            )

        def solvable(number: int, inference: Inference) -> Solvable:
            features = self._all_features(number, inference)
            return Solvable(features, targets, counts, len(weights) if self._n_views else None)

        feeds: list[Feed] = []
        validations: dict[tuple[str, ...], Validation | None] = {}
        for number, (cut, stage) in enumerate(zip(self.cuts, self._stages, strict=True)):
            is_exact = stage.solver == "exact"
            if cut.nodes not in validations:  # of the same inputs it takes the same time
                has_held = len(self._inputs) > 1
                validations[cut.nodes] = validate(self._read(number, 1)) if has_held else None
            feeds.append(
                Feed(
                    # One for each stage: the order of its examples must not depend on whether
                    # another reads the same.
                    None if is_exact else make_dataset(number),
                    validations[cut.nodes],
                    cut=cut.nodes,
                    solvable=functools.partial(solvable, number) if is_exact else None,
                    stored=cut.note,
                    rate_sample=make_dataset(number) if stage.rate_test else None,
                )
            )
        steps = [stage.epochs * each.steps for stage, each in zip(self._stages, feeds, strict=True)]
        if not is_long(sum(steps)):
            return feeds
        return [
            each if each.dataset is None else replace(each, sample=make_dataset(number, _SAMPLED))
            for number, each in enumerate(feeds)
        ]

    def _read(self, number: int, part: int = 0) -> Any:
        """Return what a stage reads of the training (0) or held-out (1) examples."""
        nodes = self.cuts[number].nodes
        return self._found[part][nodes] if nodes else self._inputs[part]

    def _all_features(self, number: int, inference: Inference) -> np.ndarray:
        """Return what the head reads of all that a stage trains on, as the network is by then."""
        nodes = self.cuts[number].nodes
        if nodes and nodes == self._network.boundary().cut:
            return self._found[0][nodes].arrays[0]
        return inference.on_inputs(self._read(number), self._batch_size, "features")
