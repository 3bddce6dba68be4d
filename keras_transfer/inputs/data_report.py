"""What a look at the data found: class counts, copies and doubtful labels; and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras_transfer.errors import listed

__all__ = ["ClassCount", "Conflict", "DataReport", "Leak", "Suspect"]

# The largest class in training examples of the smallest: beyond, a warning.
IMBALANCED = 10

# Clean but hard data have confident errors too, so a warning needs more of them than these leave
# (three, and one in 40), or classes that are hardly ever confused otherwise.
_MIN_SUSPECTS, _SUSPICIOUS_SHARE = 3, 0.025
_CLEAR_AGREEMENT, _MIN_JUDGED_CLEAR = 0.99, 50


class ClassCount(NamedTuple):
    """How many examples a class has.

    Attributes
    ----------
    label : hashable
    n_train, n_validation : int
    """

    label: Any
    n_train: int
    n_validation: int


class Leak(NamedTuple):
    """A validation example that is a copy of a training example.

    Attributes
    ----------
    train, validation : str
        Their names.
    similarity : float
        Cosine of their standardised features; 1 if exact.
    kind : {"exact", "near"}
    """

    train: str
    validation: str
    similarity: float
    kind: str


class Conflict(NamedTuple):
    """Examples of identical content that carry different labels.

    Attributes
    ----------
    names : tuple of str
    labels : tuple
        The label of each.
    """

    names: tuple[str, ...]
    labels: tuple[Any, ...]


class Suspect(NamedTuple):
    """An example that is likely mislabelled.

    Attributes
    ----------
    name : str
    label, likely : hashable
        The label given, and the one that the other examples speak for.
    confidence, likely_confidence : float
        Out-of-fold probability of each.
    """

    name: str
    label: Any
    likely: Any
    confidence: float
    likely_confidence: float


@dataclass(frozen=True, repr=False)
class DataReport:
    """What a look at the data found: plain values, so that it can be written as JSON.

    Attributes
    ----------
    n_train, n_validation : int
        Number of examples.
    n_looked_at : int
        Examples that were searched for near copies and doubtful labels: all, or a random subset.
    class_counts : tuple of ClassCount
        Empty where there are no classes.
    duplicates : tuple of tuple of str
        Names of the training examples that are copies of each other, group by group.
    leaks : tuple of Leak
        One for each validation example that has a copy in the training part.
    conflicts : tuple of Conflict
    suspects : tuple of Suspect
        The most suspicious first. Of clean labels too about one in a hundred is listed.
    n_judged : int
        Examples whose labels were judged: those of classes with five or more.
    agreement : float or None
        Share of the judged examples whose most probable label is the one given; None if there
        were none.
    skipped : tuple of (str, str)
        Files that could not be read, and why.
    n_oriented : int
        How many pictures carry an orientation in EXIF data, which is not applied.
    """

    n_train: int
    n_validation: int
    n_looked_at: int
    class_counts: tuple[ClassCount, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    leaks: tuple[Leak, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    n_judged: int = 0
    agreement: float | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    n_oriented: int = 0

    def __post_init__(self) -> None:
        # What was written to a file comes back as bare tuples, or as lists.
        for field, kind in _ROWS.items():
            rows = tuple(kind(*row) for row in getattr(self, field))
            object.__setattr__(self, field, rows)

    def __repr__(self) -> str:
        n_examples = self.n_train + self.n_validation
        looked_at = "" if self.n_looked_at == n_examples else f" ({self.n_looked_at:,} looked at)"
        classes = f" of {len(self.class_counts)} classes" if self.class_counts else ""
        words = ("duplicate", "leak", "conflict", "suspect")
        found = ", ".join(_count(getattr(self, f"{word}s"), word) for word in words)
        found += f", {len(self.skipped):,} skipped"
        return (
            f"<DataReport: {self.n_train:,} training and {self.n_validation:,} validation examples"
            f"{classes}{looked_at}; {found}>"
        )

    def warnings(self, *, balanced: bool = False) -> tuple[str, ...]:
        """Say in words what is to be done about the data, a sentence or two each.

        What was skipped and what carries an orientation is not among it: whoever reads the files
        says so at once.

        Parameters
        ----------
        balanced : bool, default=False
            Whether class weights are set already.

        Returns
        -------
        tuple of str
        """
        return (
            *self._warn_of_copies(),
            *self._warn_of_labels(),
            *self._warn_of_classes(balanced),
        )

    def _warn_of_copies(self) -> Iterable[str]:
        for kind, nearly in (("exact", ""), ("near", "nearly ")):
            leaks = [leak for leak in self.leaks if leak.kind == kind]
            if leaks:
                first = leaks[0]
                if leaks[1:]:
                    are = (
                        f"{len(leaks)} validation examples are {nearly}copies of training examples"
                    )
                    first_of, them = "the first: ", "them"
                else:
                    are = f"1 validation example is {nearly}a copy of a training example"
                    first_of, them = "", "it"
                yield (
                    f"{are} ({first_of}{first.validation} of {first.train}), so the validation "
                    f"score is too good. Remove {them}, or pass groups. data_report_.leaks lists "
                    f"{them}."
                )

    def _warn_of_labels(self) -> Iterable[str]:
        if self.conflicts:
            first = self.conflicts[0]
            are = "are" if self.conflicts[1:] else "is"
            other = next(i for i, label in enumerate(first.labels) if label != first.labels[0])
            yield (
                f"{_count(self.conflicts, 'example')} {are} there more than once, with different "
                f"labels (the first: {first.names[0]} is {first.labels[0]!r}, "
                f"{first.names[other]} is {first.labels[other]!r}). Keep the right one. "
                f"data_report_.conflicts lists them."
            )
        if self.suspects and self._is_suspicious():
            worst = self.suspects[0]
            n_suspects = len(self.suspects)
            look, lead, them = "look", "the first: ", "them"
            if n_suspects == 1:
                look, lead, them = "looks", "", "it"
            yield (
                f"{n_suspects} of {self.n_judged} labels {look} wrong ({lead}{worst.name} is "
                f"{worst.label!r} and looks like {worst.likely!r}). Check {them}: "
                f"data_report_.suspects lists {them}{', the worst first' if lead else ''}."
            )

    def _is_suspicious(self) -> bool:
        n_suspects, n_judged = len(self.suspects), max(self.n_judged, 1)
        others = (self.agreement or 0.0) * n_judged / max(n_judged - n_suspects, 1)
        is_clear = others >= _CLEAR_AGREEMENT and n_judged >= _MIN_JUDGED_CLEAR
        return is_clear or n_suspects >= max(_MIN_SUSPECTS, _SUSPICIOUS_SHARE * n_judged)

    def _warn_of_classes(self, balanced: bool) -> Iterable[str]:
        single = [c for c in self.class_counts if c.n_train == 1 and not c.n_validation]
        unknown = [c for c in self.class_counts if not c.n_train]
        unseen = [c for c in self.class_counts if c.n_train > 1 and not c.n_validation]
        if single:
            each, them = ("each ", "them") if single[1:] else ("", "it")
            yield f"{_list(single)} one example {each}only. Add examples, or leave {them} out."
        if unknown:
            yield (
                f"{_list(unknown)} no training example and cannot be learned. Add some, or take "
                f"{'them' if unknown[1:] else 'it'} out of the validation data."
            )
        if unseen and self.n_validation:
            yield (
                f"{_list(unseen)} no validation example, so the validation score does not count "
                f"{'them' if unseen[1:] else 'it'}. Add some to the validation data."
            )
        several = [c for c in self.class_counts if c.n_train > 1]
        if several and not balanced:
            least = min(several, key=lambda c: c.n_train)
            most = max(several, key=lambda c: c.n_train)
            if most.n_train > IMBALANCED * least.n_train:
                yield (
                    f"Class {most.label!r} has {most.n_train:,} training examples, class "
                    f"{least.label!r} {least.n_train:,}. So that it is not overlooked, pass "
                    f"class_weight='balanced'."
                )


_ROWS: dict[str, Any] = {
    "class_counts": ClassCount,
    "leaks": Leak,
    "conflicts": Conflict,
    "suspects": Suspect,
}


def _count(found: Sequence[Any], what: str) -> str:
    return f"1 {what}" if len(found) == 1 else f"{len(found):,} {what}s"


def _list(counts: Sequence[ClassCount]) -> str:
    named = listed([repr(count.label) for count in counts], 5)
    return f"Class {named} has" if len(counts) == 1 else f"Classes {named} have"
