"""The examples in docstrings run as printed."""

import doctest
import importlib
from pathlib import Path

import pytest

import keras_transfer

PACKAGE = Path(keras_transfer.__file__).parent
MODULES = sorted(
    ".".join(["keras_transfer", *path.relative_to(PACKAGE).with_suffix("").parts])
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0
    assert results.failed == 0
