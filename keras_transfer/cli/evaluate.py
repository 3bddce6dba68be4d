"""``keras-transfer evaluate``: how good a fitted estimator is on labelled pictures."""

from __future__ import annotations

import json
from typing import Any

import click

from keras_transfer.cli.common import load_run, print_table, reporting_errors

__all__ = ["evaluate_command"]


@click.command("evaluate")
@click.argument("run")
@click.argument("source", metavar="FOLDER|CSV")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the confusion matrix.")
def evaluate_command(run: str, source: str, as_json: bool) -> None:
    """Score the estimator of RUN on labelled pictures.

    They are a folder of class folders, or a CSV of path and label. Of a classifier: accuracy,
    balanced accuracy, and for each class how many pictures there are, how many of them are found
    (recall), how many of those called so are so (precision), and what it is most often taken for.
    Of a regressor: R2 and the mean absolute error.
    """
    with reporting_errors():
        from keras_transfer.inputs.sources import open_labelled

        examples = open_labelled(source)
        estimator = load_run(run)
        if hasattr(estimator, "predict_proba"):
            figures = _score_classes(estimator, examples)
            cells = [("measure", "value"), *_scores(figures, ("accuracy", "balanced_accuracy"))]
        else:
            figures = _score_numbers(estimator, examples)
            cells = [("measure", "value"), *_scores(figures, ("r2", "mean_absolute_error"))]
        if as_json:
            click.echo(json.dumps(figures, indent=2, ensure_ascii=False))
            return
        print_table("", cells)
        if "classes" in figures:
            click.echo()
            heading = ("class", "pictures", "recall", "precision", "most often taken for")
            print_table("", [heading, *map(_class_cells, figures["classes"])])


def _scores(figures: dict[str, Any], names: tuple[str, ...]) -> list[tuple[str, str]]:
    words = {"r2": "R2"}
    rows = [(words.get(name, name.replace("_", " ")), f"{figures[name]:.3f}") for name in names]
    return [*rows, ("pictures", f"{figures['pictures']:,}")]


def _class_cells(row: dict[str, Any]) -> tuple[str, ...]:
    shares = ("-" if row[key] is None else f"{row[key]:.3f}" for key in ("recall", "precision"))
    return (row["class"], f"{row['pictures']:,}", *shares, row["taken_for"] or "-")


def _score_classes(estimator: Any, examples: Any) -> dict[str, Any]:
    import numpy as np
    from sklearn.metrics import confusion_matrix

    from keras_transfer.errors import DataError, warn

    if estimator._targets.task == "multilabel":
        raise DataError(
            "RUN: expected an estimator of one label for each picture, as folders and CSVs have. "
            "Received: one of several labels. Use its score(X, y)."
        )
    # Folders and CSVs hold text; the estimator may have been fitted on labels of another type.
    known = [str(label) for label in estimator.classes_.tolist()]
    unknown = sorted(set(examples.y) - set(known))
    if unknown:
        warn(
            f"FOLDER|CSV: {', '.join(unknown[:5])}: no class of the estimator, so always counted "
            f"as wrong. It knows {', '.join(known[:20])}."
        )
    names = [*known, *unknown]
    predicted = np.array(known)[estimator.predict_proba(examples.X).argmax(axis=1)]
    table = confusion_matrix(examples.y, predicted, labels=names)
    true, called, found = table.sum(axis=1), table.sum(axis=0), table.diagonal()
    mistaken = table - np.diag(found)
    return {
        "pictures": int(table.sum()),
        "accuracy": float(found.sum() / table.sum()),
        "balanced_accuracy": float(np.mean((found / np.maximum(true, 1))[true > 0])),
        "classes": [
            {
                "class": name,
                "pictures": int(true[row]),
                "recall": float(found[row] / true[row]) if true[row] else None,
                "precision": float(found[row] / called[row]) if called[row] else None,
                "taken_for": names[mistaken[row].argmax()] if mistaken[row].any() else None,
            }
            for row, name in enumerate(names)
        ],
        "confusion": table.tolist(),
    }


def _score_numbers(estimator: Any, examples: Any) -> dict[str, Any]:
    from sklearn.metrics import mean_absolute_error, r2_score

    from keras_transfer.errors import DataError

    if estimator._targets.n_outputs > 1:
        raise DataError(
            "RUN: expected an estimator of one number for each picture, as folders and CSVs have. "
            f"Received: one of {estimator._targets.n_outputs}. Use its score(X, y)."
        )
    truth = estimator._read_labels(examples.y)
    predicted = estimator.predict(examples.X)
    return {
        "pictures": len(truth),
        "r2": float(r2_score(truth, predicted)),
        "mean_absolute_error": float(mean_absolute_error(truth, predicted)),
    }
