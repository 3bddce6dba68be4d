"""Transfer learning for Keras 3 as scikit-learn estimators.

A pretrained model, a recipe and a few labelled examples go in; a scikit-learn estimator that is
also a servable model comes out. Public names are imported on first use, so that
``import keras_transfer`` costs no TensorFlow start-up.
"""

from __future__ import annotations

import importlib
from typing import Any

from keras_transfer._version import __version__

# Public name -> the module that it lives in (a module of that name is itself public).
_HOMES: dict[str, str] = {
    "datasets": "keras_transfer.datasets",
    "errors": "keras_transfer.errors",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'keras_transfer' has no attribute {name!r}") from None
    module = importlib.import_module(home)
    value = module if home.rpartition(".")[2] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
