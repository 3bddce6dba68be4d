"""Find the old head of a classifier in its graph, and leave it out.

Of a model for pictures the old head begins where the layout of the picture is given up: at the
global pooling or flattening that all data passes, with what follows it. Of any other it is the last
layer with a kernel, where what that layer puts out are the numbers of the source task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_transfer.backbones.partition import (
    HEAD,
    LOGITS,
    OURS,
    STANDARDISED,
    TARGET,
    Leaf,
    read_leaves,
)
from keras_transfer.backbones.walk import is_graph
from keras_transfer.backbones.weights_file import mixes_positions
from keras_transfer.errors import InvalidParameterError

__all__ = ["without_old_head"]

_PROBABILITIES = ("softmax", "sigmoid", "log_softmax")
# What may stand between logits and the end of a model that gives logits: these change no number.
_NEUTRAL = ("linear", "flatten", "reshape", "squeeze", "getitem", "dropout", "identity")


def without_old_head(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Leave the old head of a classifier out.

    Parameters
    ----------
    model : keras.Model
        Built. A model that does not end in a classifier, one of keras_transfer, whose head its
        names tell, and a subclassed one, which does not show its inside, stay whole.

    Returns
    -------
    keras.Model
        The model below its old head, with the same layers and weights.
    tuple of str
        The paths of the layers left out, input side first.

    Raises
    ------
    InvalidParameterError
        If nothing with weights is left.
    """
    if not is_graph(model) or len(model.outputs) != 1 or len(model.inputs) != 1:
        return model, ()
    leaves = read_leaves(model)
    if _is_ours(model, leaves):
        return model, tuple(
            leaf.path for leaf in leaves if _own_block(leaf) in ("readout", HEAD, TARGET)
        )
    start = _find_start(leaves, model.inputs[0].shape)
    if start is None:
        return model, ()
    left_out = tuple(leaf.path for leaf in leaves[start:])
    if not any(_weights(leaf) for leaf in leaves[:start]):
        raise InvalidParameterError(
            f"source: expected a model with layers that hold weights below its old head. Received: "
            f"{model.name!r}, which has none before {left_out[0]!r}. To read what it puts out, "
            f"pass a function (input_shape) -> keras.Model that returns it."
        )
    return _below(model, leaves[start].path), left_out


# === Where the old head begins ===


def _find_start(leaves: Sequence[Leaf], input_shape: Sequence[int | None]) -> int | None:
    """Return the index of the old head's first leaf, or None if there is no old head."""
    if len(_shape(leaves[-1])) != 2:
        return None
    position = {id(leaf): index for index, leaf in enumerate(leaves)}
    # The layer that makes the model's numbers: the last with weights, as long as nothing merges.
    maker, kinds = leaves[-1], [_kind(leaves[-1])]
    while not _weights(maker) and len(maker.inputs) == 1 and not maker.reads_input:
        maker = maker.inputs[0]
        kinds.append(_kind(maker))
    has_kernel = any(len(weight.shape) > 1 for weight in _weights(maker)) and _calls(maker) == 1
    pooling = _find_pooling(leaves, input_shape)
    is_picture = pooling is not None and len(_input_shape(leaves[pooling], input_shape)) == 4

    if any(kind in _PROBABILITIES for kind in kinds):
        starts = [pooling] if is_picture else []
        if has_kernel:
            starts.append(position[id(maker)])
        # Without either, only what turns numbers into probabilities is known to be of the head.
        first = next(i for i, kind in reversed(list(enumerate(kinds))) if kind in _PROBABILITIES)
        return min((s for s in starts if s is not None), default=len(leaves) - 1 - first)
    is_linear = all(kind in _NEUTRAL for kind in kinds)
    if is_linear and has_kernel and pooling is not None and pooling < position[id(maker)]:
        return pooling if is_picture else position[id(maker)]
    return None


def _find_pooling(leaves: Sequence[Leaf], input_shape: Sequence[int | None]) -> int | None:
    """Return the index of the first leaf that gives up the layout for good."""
    learned = False
    # How far the edges reach that start before the present leaf; one that passes over it means
    # that data goes round it, as it goes round the pooling of squeeze-and-excitation.
    reach = max((i for i, leaf in enumerate(leaves) if leaf.reads_input), default=0)
    position = {id(leaf): index for index, leaf in enumerate(leaves)}
    for index, leaf in enumerate(leaves):
        if (
            learned
            and reach <= index
            and _calls(leaf) == 1
            and _gives_up_layout(leaf, _input_shape(leaf, input_shape))
            # On small pictures a network can come down to one pixel long before its end.
            and not any(_mixes_positions(later) for later in leaves[index:])
        ):
            return index
        learned = learned or any(len(weight.shape) > 1 for weight in _weights(leaf))
        reach = max([reach, *(position[id(consumer)] for consumer in leaf.consumers)])
    return None


def _gives_up_layout(leaf: Leaf, before: Sequence[int | None]) -> bool:
    after = _shape(leaf)
    if len(before) < 3:
        return False
    if len(after) == 2:
        return True
    if len(after) != 4 or _weights(leaf) or tuple(after[1:3]) != (1, 1):
        return False
    # A picture of one pixel. The last max pooling of VGG makes one too, of small pictures.
    kind = type(leaf.operation).__name__
    return kind.startswith("Global") or (kind != "MaxPooling2D" and tuple(before[1:3]) != (1, 1))


def _mixes_positions(leaf: Leaf) -> bool:
    return any(mixes_positions(weight.shape) for weight in _weights(leaf))


def _weights(leaf: Leaf) -> list[Any]:
    return getattr(leaf.operation, "weights", [])  # operations that are not layers have none


def _calls(leaf: Leaf) -> int:
    """Count how often a layer is called in the graph; of a shared one no single place is meant."""
    return len(leaf.inputs) + leaf.reads_input


def _kind(leaf: Leaf) -> str:
    """Return the name of a layer's activation, or of the layer."""
    activation = getattr(leaf.operation, "activation", None)
    return getattr(activation, "__name__", type(leaf.operation).__name__.lower())


def _shape(leaf: Leaf) -> Sequence[int | None]:
    import keras

    return keras.tree.flatten(leaf.operation.output)[0].shape


def _input_shape(leaf: Leaf, input_shape: Sequence[int | None]) -> Sequence[int | None]:
    return input_shape if leaf.reads_input or not leaf.inputs else _shape(leaf.inputs[0])


def _is_ours(model: Any, leaves: Sequence[Leaf]) -> bool:
    """Say whether keras_transfer built a model: its blocks, and so its head, have names."""
    return model.name.startswith(OURS) or any(
        leaf.path.rpartition("/")[2] in (LOGITS, STANDARDISED) for leaf in leaves
    )


def _own_block(leaf: Leaf) -> str:
    return leaf.path.rpartition("/")[2].partition(".")[0]


# === Leaving it out ===


class _Reached(Exception):
    """The walk through a model has come to the old head."""

    def __init__(self, tensor: Any):
        super().__init__()
        self.tensor = tensor


def _below(model: Any, path: str) -> Any:
    """Return the part of a model that comes before the layer at a path, nesting kept.

    Returns None where that layer is the first.
    """
    import keras

    name, _, inside = path.partition("/")

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if operation.name != name:
            return operation(*args, **kwargs)
        tensor = keras.tree.flatten((args, kwargs))[0]
        part = _below(operation, inside) if inside else None
        raise _Reached(tensor if part is None else part(*args, **kwargs))

    (source,) = model.inputs
    # Under its own name, for the same model to become the same value each time.
    own_name = source._keras_history.operation.name
    inputs = keras.Input(source.shape[1:], dtype=source.dtype, name=own_name)
    try:
        if isinstance(model, keras.Sequential):
            # A Sequential keeps its graph to itself; its layers are a chain.
            tensor = inputs
            for layer in model.layers:
                tensor = call(layer, tensor)
        else:
            model._run_through_graph([inputs], call_fn=call)
    except _Reached as reached:
        if reached.tensor is inputs:
            return None
        return keras.Model(inputs, reached.tensor, name=model.name)
    raise AssertionError(f"{path!r} is not in {model.name!r}")
