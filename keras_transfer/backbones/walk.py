"""Walk the graph of a Keras model leaf by leaf, through any nesting of models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = [
    "call_leaves",
    "holds_batch_norm",
    "is_batch_norm",
    "is_graph",
    "leaf_layers",
]


def is_graph(model: Any) -> bool:
    """Say whether a layer is a functional or sequential model, whose inside can be walked."""
    import keras

    # Functional is not a public class; a functional model is one that knows its operations.
    return isinstance(model, keras.Sequential) or (
        isinstance(model, keras.Model) and hasattr(model, "operations")
    )


def call_leaves(
    model: Any, inputs: Any, call: Callable[..., Any], prefix: str = "", *, nested: bool = True
) -> Any:
    """Run ``inputs`` through a model, calling ``call`` in place of every layer and operation.

    Parameters
    ----------
    model : keras.Model
        A functional or sequential model, which may hold others.
    inputs : object or list of object
        What goes in: Keras tensors, or any tokens that ``call`` understands.
    call : callable
        ``call(path, operation, node_outputs, *args, **kwargs)`` with the path of names from the
        outermost model, joined by ``"/"``, and the number of tensors that the operation puts out;
        returns the outputs.
    prefix : str, default=""
        Put before every path.
    nested : bool, default=True
        Whether models inside the model are walked through, or called as one layer.

    Returns
    -------
    object
        What came out, in the structure of the model's output.
    """
    import keras

    def visit(operation: Any, *args: Any, **kwargs: Any) -> Any:
        path = f"{prefix}{operation.name}"
        if nested and is_graph(operation):
            return call_leaves(operation, args[0], call, f"{path}/")
        return call(path, operation, len(keras.tree.flatten(operation.output)), *args, **kwargs)

    if isinstance(model, keras.Sequential):
        # A Sequential keeps its graph to itself; its layers are a chain.
        outputs = inputs
        for layer in model.layers:
            outputs = visit(layer, outputs)
        return outputs
    # The one method that Keras's own clone_model uses for this. clone_model itself wires a nested
    # model to copies of the tensors that it is given, so what comes out is not connected.
    return model._run_through_graph(inputs, call_fn=visit)


def leaf_layers(layer: Any) -> list[Any]:
    """List a layer and everything inside it, outermost first; nothing of a bare operation."""
    # Keras has no public way to look into a composite layer.
    inside = getattr(layer, "_flatten_layers", None)
    return list(inside(include_self=True, recursive=True)) if inside is not None else []


def is_batch_norm(layer: Any) -> bool:
    """Say whether a layer is a BatchNorm, or the weights of one inside a SavedModel."""
    import keras

    return isinstance(layer, keras.layers.BatchNormalization) or bool(
        getattr(layer, "is_batch_norm", False)
    )


def holds_batch_norm(layer: Any) -> bool:
    """Say whether a layer is or holds a BatchNorm."""
    return any(map(is_batch_norm, leaf_layers(layer)))
