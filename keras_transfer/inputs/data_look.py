"""A look at the data before anything trains: finds copies, doubtful labels and lacking examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_transfer.errors import DataError
from keras_transfer.inputs.data_report import ClassCount, Conflict, DataReport, Leak, Suspect

__all__ = ["CONFIDENT", "MAX_LOOKED_AT", "MIN_PER_CLASS", "look_at"]

# Beyond, a random subset of each part is looked at; class counts and exact copies are always whole.
MAX_LOOKED_AT = 2_000

# A near copy lies closer than this share of the distance to the tenth nearest. A bound on the
# similarity alone is 0.98 for drawings of faces and 0.9 for digits; the share serves both.
_NEAR_SHARE, _NEIGHBOUR = 0.15, 10
# More alike than this is a near copy also where the neighbourhood is full of copies, as in films.
_SURELY_NEAR = 0.98
# In fewer dimensions some are close to each other by chance. Lite0 has 20 from 50 pictures on.
_MIN_DIMENSIONS = 20

# Classes of fewer examples are neither judged nor proposed.
MIN_PER_CLASS = 5
# Confidence from which another label is likely: of clean labels 1 % are named.
CONFIDENT = 0.9
_BLOCK = 512  # rows in one matrix product
_PROJECTED = 1024  # what more than twice as many features are reduced to


def look_at(
    features: np.ndarray | Callable[[np.ndarray], np.ndarray],
    labels: Sequence[Hashable] | np.ndarray | None,
    names: Sequence[str],
    *,
    digests: Sequence[bytes | str | None] | np.ndarray | None = None,
    n_train: int,
) -> DataReport:
    """Look for copies, doubtful labels and lacking examples.

    Near copies are those much closer to each other than to their neighbours. Doubtful labels are
    found by the rule of confident learning [1]_: another label is at least as probable as it is on
    average where it was given. The probabilities come from a ridge regression that leaves each
    example out in turn, its scores brought to probabilities by one temperature; on features of
    which nothing can be told they are even, and nothing is named.

    Parameters
    ----------
    features : numpy.ndarray of shape (n, n_features), or callable
        What the pretrained backbone makes of each example, the training part first. A callable
        returns those of an array of row numbers, and is asked only for what is looked at.
    labels : sequence of hashable, length n, optional
        None where there are no classes.
    names : sequence of str, length n
        What each is called in messages.
    digests : sequence of bytes or str, length n, optional
        Equal for examples of equal content; None or empty where nobody looked.
    n_train : int
        How many belong to the training part; the others validate.

    Returns
    -------
    DataReport

    Raises
    ------
    DataError
        If the lengths differ.

    References
    ----------
    .. [1] Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset
       Labels", JAIR 70, 2021, https://arxiv.org/abs/1911.00068

    Examples
    --------
    >>> import numpy as np
    >>> report = look_at(np.eye(4), ["cat", "cat", "dog", "cat"], ["a", "b", "c", "d"], n_train=4,
    ...                  digests=["1", "1", "2", "3"])
    >>> report.duplicates
    (('a', 'b'),)
    >>> report.warnings()
    ("Class 'dog' has one example only. Add examples, or leave it out.",)
    """
    names = [str(name) for name in names]
    plain = None if labels is None else [_as_plain(label) for label in labels]
    known = [None] * len(names) if digests is None else list(digests)
    lengths = {len(names), len(known), len(names if plain is None else plain)}
    if not callable(features):
        lengths.add(len(features))
    if len(lengths) > 1 or not 0 <= n_train <= len(names):
        raise DataError(
            f"features: expected as many rows as labels, names and digests, and n_train among "
            f"them. Received: {sorted(lengths)} and n_train={n_train}."
        )
    copies = _find_copies(known)
    exact = [(group[0], row) for group in copies for row in group if group[0] < n_train <= row]
    leaks = [Leak(names[train], names[held], 1.0, "exact") for train, held in exact]
    rows, n_sampled = _choose_rows(len(names), n_train)
    if callable(features):
        seen = features(rows)
    else:  # copying all of a large array would double the memory
        seen = features if len(rows) == len(names) else features[rows]
    units = _standardise(seen)
    suspects: list[Suspect] = []
    n_judged, agreement = 0, None
    if units is not None:
        counted = {held for _, held in exact}
        leaks += [
            Leak(names[rows[train]], names[rows[held]], round(similarity, 4), "near")
            for train, held, similarity in _find_near(units, n_sampled)
            if rows[held] not in counted
        ]
        if plain is not None:
            sampled = [plain[row] for row in rows], [names[row] for row in rows]
            suspects, n_judged, agreement = _find_suspects(units, *sampled)
    return DataReport(
        n_train,
        len(names) - n_train,
        len(rows),
        () if plain is None else _count_classes(plain, n_train),
        tuple(
            tuple(names[row] for row in group if row < n_train)
            for group in copies
            if sum(row < n_train for row in group) > 1
        ),
        tuple(leaks),
        () if plain is None else tuple(_find_conflicts(copies, names, plain)),
        tuple(suspects),
        n_judged,
        agreement,
    )


# === Class counts and copies ===


def _as_plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def _count_classes(labels: list[Any], n_train: int) -> tuple[ClassCount, ...]:
    train, held = Counter(labels[:n_train]), Counter(labels[n_train:])
    return tuple(ClassCount(label, train[label], held[label]) for label in _sort(labels))


def _sort(labels: list[Any]) -> list[Any]:
    distinct = list(dict.fromkeys(labels))
    try:
        return sorted(distinct)
    except TypeError:  # numbers and words together
        return sorted(distinct, key=lambda label: (type(label).__name__, repr(label)))


def _find_copies(digests: Sequence[Any]) -> list[list[int]]:
    """List the rows of each content that is there more than once."""
    rows_of: dict[Any, list[int]] = {}
    for row, digest in enumerate(digests):
        if digest:
            rows_of.setdefault(digest, []).append(row)
    return [rows for rows in rows_of.values() if len(rows) > 1]


def _find_conflicts(
    copies: list[list[int]], names: list[str], labels: list[Any]
) -> Iterable[Conflict]:
    for group in copies:
        given = tuple(labels[row] for row in group)
        if len(set(given)) > 1:
            yield Conflict(tuple(names[row] for row in group), given)


def _choose_rows(n_examples: int, n_train: int) -> tuple[np.ndarray, int]:
    """Return the rows to look at, in order, and how many of them train."""
    rng = np.random.default_rng(0)
    parts = [
        np.sort(rng.permutation(part)[:MAX_LOOKED_AT])
        for part in (np.arange(n_train), np.arange(n_train, n_examples))
    ]
    return np.concatenate(parts), len(parts[0])


# === In the space of the features ===


def _blocks(n_rows: int) -> Iterable[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, n_rows, _BLOCK))


def _standardise(features: np.ndarray) -> np.ndarray | None:
    """Return centred and scaled rows of length 1, float32, or None if all rows are the same."""
    n_rows, n_features = features.shape
    if n_rows < 2 or n_features == 0:
        return None
    if not np.isfinite(features).all():  # of a network that overflows nothing can be told
        return None
    mean = features.mean(axis=0, dtype=np.float64)
    square = sum(((features[block] - mean) ** 2).sum(axis=0) for block in _blocks(n_rows))
    spread = np.sqrt(square / n_rows)
    if spread.mean() <= 1e-5 * np.abs(mean).mean():  # no more than rounding
        return None
    # What hardly ever moves would otherwise count as much as the rest.
    scale = np.maximum(spread, 0.1 * spread.mean())
    projection = None
    if n_features > 2 * _PROJECTED:  # a random projection keeps distances within a few percent
        normal = np.random.default_rng(0).standard_normal((n_features, _PROJECTED), np.float32)
        projection = normal / np.float32(np.sqrt(_PROJECTED))
    units = np.empty((n_rows, _PROJECTED if projection is not None else n_features), np.float32)
    for block in _blocks(n_rows):
        rows = ((features[block] - mean) / scale).astype(np.float32)
        units[block] = rows if projection is None else rows @ projection
    return units / np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-6)


def _count_dimensions(units: np.ndarray) -> float:
    """Return the participation ratio: in how many directions the rows really differ."""
    gram = units.T @ units if units.shape[1] < len(units) else units @ units.T
    return float(np.trace(gram) ** 2 / np.square(gram).sum())


def _find_near(units: np.ndarray, n_train: int) -> Iterable[tuple[int, int, float]]:
    """Return (training row, validation row, similarity) of near copies."""
    train = units[:n_train]
    if n_train <= _NEIGHBOUR or n_train == len(units):
        return
    if _count_dimensions(units) < _MIN_DIMENSIONS:
        return
    for block in _blocks(len(units) - n_train):
        held = units[n_train:][block]
        similarity = held @ train.T
        nearest = similarity.argmax(axis=1)
        best = similarity[np.arange(len(held)), nearest]
        tenth = np.partition(similarity, -_NEIGHBOUR, axis=1)[:, -_NEIGHBOUR]
        is_near = (1 - best < _NEAR_SHARE * (1 - tenth)) | (best > _SURELY_NEAR)
        for row in np.flatnonzero(is_near):
            similar = min(float(best[row]), 1.0)
            yield int(nearest[row]), n_train + block.start + int(row), similar


# === Doubtful labels ===


def _find_suspects(
    units: np.ndarray, labels: list[Any], names: list[str]
) -> tuple[list[Suspect], int, float | None]:
    """Return the suspects, how many examples were judged, and how many of them agreed."""
    enough = [label for label, count in Counter(labels).items() if count >= MIN_PER_CLASS]
    classes = _sort(enough)
    if len(classes) < 2:
        return [], 0, None
    index = {label: number for number, label in enumerate(classes)}
    judged = np.array([row for row, label in enumerate(labels) if label in index])
    given = np.array([index[labels[row]] for row in judged])
    probabilities = _out_of_fold(units[judged], given, len(classes))
    rows = np.arange(len(given))
    confidence = probabilities[rows, given]
    agreement = float((probabilities.argmax(axis=1) == given).mean())
    # By class, so that one class can be in the majority.
    recalls = np.bincount(given, probabilities.argmax(axis=1) == given) / np.bincount(given)
    chance = 1 / len(classes)
    if recalls.mean() < chance + 3 * np.sqrt(chance * (1 - chance) / len(given)):
        return [], len(given), agreement  # nothing is told by features like these
    usual = np.bincount(given, confidence) / np.bincount(given)
    others = np.where(probabilities >= np.maximum(usual, CONFIDENT), probabilities, 0.0)
    others[rows, given] = 0.0
    likely, likely_confidence = others.argmax(axis=1), others.max(axis=1)
    order = np.lexsort((confidence, -likely_confidence))
    suspects = [
        Suspect(
            names[judged[row]],
            classes[given[row]],
            classes[likely[row]],
            round(float(confidence[row]), 4),
            round(float(likely_confidence[row]), 4),
        )
        for row in order
        if likely_confidence[row] > 0
    ]
    return suspects, len(given), agreement


def _out_of_fold(units: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Return probabilities of the classes, each row's by a regression on the others."""
    targets = np.eye(n_classes)[classes]
    targets -= targets.mean(axis=0)
    x = units.astype(np.float64)
    # With rows of length 1 a penalty of 1 serves from 60 to 1,800 examples: it need not be chosen.
    if x.shape[1] <= len(x):
        smoothed = x @ np.linalg.inv(x.T @ x + np.eye(x.shape[1]))
        residuals = targets - smoothed @ (x.T @ targets)
        left = 1 - np.einsum("ij,ij->i", smoothed, x)
    else:
        inverse = np.linalg.inv(x @ x.T + np.eye(len(x)))
        residuals, left = inverse @ targets, np.diag(inverse)
    scores = targets - residuals / left[:, None]  # what the fit without the row answers
    scores -= scores.max(axis=1, keepdims=True)
    rows = np.arange(len(classes))

    def loss(temperature: float) -> float:
        logits = scores / temperature
        return float((np.log(np.exp(logits).sum(axis=1)) - logits[rows, classes]).mean())

    best = min(np.geomspace(0.03, 3, 24), key=loss)
    likelihood = np.exp(scores / best)
    return likelihood / likelihood.sum(axis=1, keepdims=True)
