"""The examples in docstrings run as printed, and what stands in several says the same."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import keras_transfer

PACKAGE = Path(keras_transfer.__file__).parent
MODULES = sorted(
    ".".join(["keras_transfer", *path.relative_to(PACKAGE).with_suffix("").parts])
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)

# Classes and numbers are held out, scored and lost by other rules.
OF_THEIR_OWN = {"validation", "scoring", "history_"}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0
    assert results.failed == 0


def entries(estimator):
    """Return what a docstring says of each parameter and attribute."""
    blocks = re.split(r"\n    (?=\S)", estimator.__doc__)
    pairs = (
        block.partition("\n") for block in blocks if block.partition("\n")[2].startswith("   ")
    )
    return {head.partition(" :")[0]: " ".join(f"{head} {body}".split()) for head, _, body in pairs}


def test_classifier_and_regressor_say_the_same_of_what_they_share():
    # Whoever reads one of them in an editor is to find all of it there, so it stands twice.
    classifier = entries(keras_transfer.TransferClassifier)
    regressor = entries(keras_transfer.TransferRegressor)
    others = {
        name for name in classifier.keys() & regressor.keys() if classifier[name] != regressor[name]
    }
    assert len(classifier.keys() & regressor.keys()) > 25
    assert others == OF_THEIR_OWN
