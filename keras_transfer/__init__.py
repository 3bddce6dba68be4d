"""Transfer learning for Keras 3 as scikit-learn estimators.

A pretrained model, a recipe and a few labelled examples go in; a scikit-learn estimator that is
also a servable model comes out. Public names are imported on first use, so that
``import keras_transfer`` costs no TensorFlow start-up.
"""

from __future__ import annotations

import importlib
from typing import Any

from keras_transfer._version import __version__ as __version__

# Public name -> the module that it lives in (a module of that name is itself public).
_HOMES: dict[str, str] = {
    "Backbone": "keras_transfer.backbones.backbone",
    "CompositeTransfer": "keras_transfer.modes",
    "Memory": "keras_transfer.store.memory",
    "ParameterTransfer": "keras_transfer.modes",
    "Readout": "keras_transfer.graph.readout",
    "Recipe": "keras_transfer.recipe",
    "Stage": "keras_transfer.training.stage",
    "StructureTransfer": "keras_transfer.modes",
    "TransferClassifier": "keras_transfer.estimators.classifier",
    "TransferEncoder": "keras_transfer.estimators.encoder",
    "TransferRegressor": "keras_transfer.estimators.regressor",
    "datasets": "keras_transfer.datasets",
    "errors": "keras_transfer.errors",
    "export_backbone": "keras_transfer.persistence.reusable",
    "get_backbone": "keras_transfer.backbones.registry",
    "list_backbones": "keras_transfer.backbones.registry",
    "load": "keras_transfer.persistence.native",
    "register_backbone": "keras_transfer.backbones.registry",
}

__all__ = sorted(_HOMES)


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
