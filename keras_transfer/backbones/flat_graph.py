"""The graph of a function of TensorFlow, flat and pure: calls inlined, variables in and out."""

from __future__ import annotations

import copy
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["FlatGraph", "GraphError", "call_nodes", "flatten", "node_of", "read_by"]

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# What is done with a variable by its handle, and the same with its value.
_READ = "ReadVariableOp"
_ASSIGN = {"AssignVariableOp": None, "AssignAddVariableOp": "AddV2", "AssignSubVariableOp": "Sub"}
_OF_VALUE = {"ResourceGather": "GatherV2", "ResourceGatherNd": "GatherNd", "VariableShape": "Shape"}
# Random operations that keep a state of their own, and those that are given a seed.
_RANDOM = {
    "RandomUniform": "StatelessRandomUniform",
    "RandomStandardNormal": "StatelessRandomNormal",
    "TruncatedNormal": "StatelessTruncatedNormal",
}


class GraphError(ValueError):
    """A graph that cannot be read or cut. The message goes on after "since"."""


@dataclass
class FlatGraph:
    """A function without side effects: what it reads are inputs, what it writes are outputs.

    Attributes
    ----------
    nodes : dict of str to NodeDef
        Each behind those that it reads. Only what outputs and updates depend on.
    library : FunctionDefLibrary
        The bodies of loops and branches.
    inputs : list of str
        Names of the arguments, as tensors are called: ``"inputs:0"``.
    output : str
        The name of a tensor, such as ``"mean:0"``.
    variables : list of tf.Variable
        That are read, in the order in which data meets them.
    values : dict of str to int
        From the name of a value that goes in to its place in ``variables``.
    handles : dict of str to int
        The same of variables that are given themselves, since a loop or branch reads them.
    updates : dict of int to str
        What variables become, by their places.
    seeds : list of str
        Names of the seeds that go in: a pair of whole numbers each.
    resources : dict of str to tensor
        What else it captured, such as tables.
    """

    nodes: dict[str, Any]
    library: Any
    inputs: list[str]
    output: str
    variables: list[Any]
    values: dict[str, int]
    handles: dict[str, int]
    updates: dict[int, str]
    seeds: list[str]
    resources: dict[str, Any]


def flatten(function: Any, output: int, updated: Sequence[Any] | None = None) -> FlatGraph:
    """Read the graph of a concrete function.

    Control dependencies are left out: of what they order, writing a variable and reading it, the
    order is kept by what is read; checks and prints are left out with them. So are gradients of a
    function's own, as ``tf.custom_gradient`` gives: they are tied to the graph that they came in.

    Parameters
    ----------
    function : tf.types.experimental.ConcreteFunction
    output : int
        Which of what it puts out.
    updated : sequence of tf.Variable, optional
        What becomes of these is put out, and of those that the output depends on, such as the
        states of random generators; None: what is written is lost.

    Returns
    -------
    FlatGraph

    Raises
    ------
    GraphError
        If it writes a variable in a way that cannot be told from its graph.
    """
    graph_def = function.graph.as_graph_def()
    inlined = _Inliner(graph_def.library)
    rename = inlined.add("", graph_def.node, {})
    names = [tensor.op.name for tensor in function.graph.inputs]
    n_arguments = len(names) - len(function.captured_inputs)
    captured = dict(zip(names[n_arguments:], function.captured_inputs, strict=True))
    known = {id(variable.handle): variable for variable in function.graph.variables}
    variables = {name: known[id(value)] for name, value in captured.items() if id(value) in known}
    pure = _Pure(inlined, variables, rename(function.outputs[output].name), updated)
    if pure.handles and _ASSIGN.keys() & _operations_inside(pure.nodes.values(), graph_def.library):
        raise GraphError("it writes variables inside of loops or branches")
    dropped = ["_class", "_output_shapes", "_gradient_op_type"]
    for node in pure.nodes.values():
        node.device = ""
        for key in dropped:
            node.attr.pop(key, None)
    resources = {f"{name}:0": each for name, each in captured.items() if name not in variables}
    return FlatGraph(
        nodes=pure.nodes,
        library=graph_def.library,
        inputs=[f"{name}:0" for name in names[:n_arguments]],
        output=pure.output,
        variables=pure.variables,
        values=pure.values,
        handles=pure.handles,
        updates=pure.updates,
        seeds=pure.seeds,
        resources=resources,
    )


def _operations_inside(nodes: Iterable[Any], library: Any) -> set[str]:
    """Return the kinds of operations in the bodies of loops and branches."""
    bodies = {each.signature.name: each.node_def for each in library.function}
    kinds: set[str] = set()
    known: set[str] = set()
    waiting = list(nodes)
    while waiting:
        for value in waiting.pop().attr.values():
            for function in (value.func, *value.list.func):
                if function.name in bodies and function.name not in known:
                    known.add(function.name)
                    kinds |= {node.op for node in bodies[function.name]}
                    waiting += bodies[function.name]
    return kinds


def node_of(tensor: str) -> str:
    """Return the node that a tensor comes out of."""
    return tensor.partition(":")[0]


def read_by(node: Any) -> list[str]:
    """List the tensors that a node reads."""
    return [_tensor(each) for each in node.input if not each.startswith("^")]


def call_nodes(
    nodes: Iterable[Any], library: Any, given: Mapping[str, Any], outputs: Sequence[str]
) -> list[Any]:
    """Run nodes in the graph that is being built.

    Parameters
    ----------
    nodes : iterable of NodeDef
    library : FunctionDefLibrary
    given : mapping of str to tensor
        What goes in, by names of tensors.
    outputs : sequence of str

    Returns
    -------
    list of tensor
    """
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef()
    graph_def.node.extend(nodes)
    graph_def.library.CopyFrom(library)
    graph_def.versions.producer = tf.version.GRAPH_DEF_VERSION
    read = {each for node in graph_def.node for each in read_by(node)}
    given = {name: value for name, value in given.items() if name in {*read, *outputs}}
    inside = [name for name in outputs if name not in given]
    made = tf.graph_util.import_graph_def(
        graph_def,
        input_map={name: value for name, value in given.items() if name in read},
        return_elements=inside,
        name="saved",
    )
    found = {**given, **dict(zip(inside, made, strict=True))}
    return [found[name] for name in outputs]


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"


class _Inliner:
    """All nodes of a function and of those that it calls, under names of their own."""

    def __init__(self, library: Any):
        self.nodes: dict[str, Any] = {}
        # What must have run before a node, beside what it reads.
        self.after: dict[str, set[str]] = {}
        self._functions = {each.signature.name: each for each in library.function}
        self._bodies: dict[str, tuple[Any, dict[str, str]]] = {}

    def add(self, prefix: str, nodes: Any, given: Mapping[str, str]) -> Callable[[str], str]:
        """Add the nodes of one body.

        Parameters
        ----------
        prefix : str
            Put before their names.
        nodes : sequence of NodeDef
        given : mapping of str to str
            From the names of arguments to tensors that are here.

        Returns
        -------
        callable
            From a tensor's name in the body to its name here.
        """
        put_out: dict[str, str] = {}  # by calls in the body
        inside: dict[str, list[str]] = {}  # nodes of each call

        def rename(tensor: str) -> str:
            tensor = _tensor(tensor)
            node = node_of(tensor)
            return given[node] if node in given else put_out.get(tensor, prefix + tensor)

        for node in _in_order(nodes):
            if node.name in given:
                continue
            own = copy.deepcopy(node)
            own.name = prefix + node.name
            del own.input[:]
            own.input.extend(map(rename, read_by(node)))
            waits = [each[1:] for each in node.input if each.startswith("^")]
            after = {name for each in waits for name in inside.get(each, [prefix + each])}
            called = node.attr["f"].func.name if node.op in _CALLS else node.op
            if called in self._functions:
                n_known = len(self.nodes)
                for number, tensor in enumerate(self._call(own, called)):
                    put_out[f"{node.name}:{number}"] = tensor
                inside[node.name] = list(self.nodes)[n_known:]
            else:
                self.nodes[own.name] = own
                inside[node.name] = [own.name]
            for name in inside[node.name]:
                self.after[name] = self.after.get(name, set()) | after
        return rename

    def _call(self, node: Any, called: str) -> list[str]:
        """Add the nodes of a function in place of its call; returns what it puts out."""
        from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

        function = self._functions[called]
        if called not in self._bodies:
            self._bodies[called] = function_def_to_graph_def(function)
        body, flat_names = self._bodies[called]
        arguments = [each.name for each in function.signature.input_arg]
        given = dict(zip(arguments, node.input, strict=True))
        rename = self.add(f"{node.name}/", body.node, given)
        returned = [function.ret[each.name] for each in function.signature.output_arg]
        return [rename(flat_names.get(each, each)) for each in returned]


def _in_order(nodes: Any) -> list[Any]:
    """Sort nodes so that each comes behind what it reads and waits for, else as they stand."""
    place = {node.name: index for index, node in enumerate(nodes)}
    readers: dict[str, list[str]] = {name: [] for name in place}
    missing = dict.fromkeys(place, 0)
    for node in nodes:
        for source in {each.lstrip("^").partition(":")[0] for each in node.input}:
            if source in place:
                readers[source].append(node.name)
                missing[node.name] += 1
    ready = [place[name] for name, count in missing.items() if not count]
    heapq.heapify(ready)
    found = []
    while ready:
        node = nodes[heapq.heappop(ready)]
        found.append(node)
        for reader in readers[node.name]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, place[reader])
    return found


class _Pure:
    """The nodes with values in place of variables."""

    def __init__(
        self,
        inlined: _Inliner,
        variables: Mapping[str, Any],
        output: str,
        updated: Sequence[Any] | None,
    ):
        self.variables: list[Any] = []
        self.values: dict[str, int] = {}
        self.handles: dict[str, int] = {}
        self.seeds: list[str] = []
        self._inlined = inlined
        self._variables = variables
        self._alias: dict[str, str] = {}
        self._made: dict[str, Any] = {}
        # By handle: the node that writes a variable, and the tensor that it becomes.
        self._written: dict[str, str] = {}
        self._becomes: dict[str, str] = {}
        for node in inlined.nodes.values():
            self._add(node)
        self.output = self._alias.get(output, output)
        nodes = self._needed([self.output])
        read = {each for node in nodes.values() for each in node.input}
        kept = {
            handle: new
            for handle, new in self._becomes.items()
            if updated is not None and self._is_kept(handle, updated, read)
        }
        self.nodes = self._needed([self.output, *kept.values()])
        self._number_variables()
        self.updates = {self._place(handle): new for handle, new in kept.items()}

    def _add(self, node: Any) -> None:
        read = [self._alias.get(each, each) for each in read_by(node)]
        del node.input[:]
        node.input.extend(read)
        out = f"{node.name}:0"
        handle = node_of(read[0]) if read else ""
        is_of_variable = handle in self._variables
        if node.op == "Placeholder":
            return
        if node.op == "Identity" and is_of_variable:
            self._alias[out] = read[0]
        elif node.op == _READ and is_of_variable:
            is_after = handle in self._written and self._comes_after(node.name, handle)
            self._alias[out] = self._becomes[handle] if is_after else _value(handle)
        elif node.op in _ASSIGN and is_of_variable:
            self._write(node, handle, read[1])
        elif node.op in _RANDOM:
            self._seed(node)
        elif node.op in _OF_VALUE and is_of_variable:
            dtype = _enum(self._variables[handle].dtype)
            self._made.update((each.name, each) for each in _of_value(node, handle, dtype))
        else:
            self._made[node.name] = node

    def _write(self, node: Any, handle: str, value: str) -> None:
        if handle in self._written:
            raise GraphError(f"it writes {self._variables[handle].name} twice")
        self._written[handle] = node.name
        kind = _ASSIGN[node.op]
        if kind is None:
            self._becomes[handle] = value
            return
        made = _node(node.name, kind, [_value(handle), value])
        made.attr["T"].type = node.attr["dtype"].type
        self._made[node.name] = made
        self._becomes[handle] = f"{node.name}:0"

    def _seed(self, node: Any) -> None:
        seed = f"{node.name}/given_seed"
        made = _node(node.name, _RANDOM[node.op], [node.input[0], f"{seed}:0"])
        made.attr["T"].type = node.attr["T"].type
        made.attr["dtype"].type = node.attr["dtype"].type
        made.attr["Tseed"].type = _enum("int64")
        self._made[node.name] = made
        self.seeds.append(f"{seed}:0")

    def _is_kept(self, handle: str, updated: Sequence[Any], read: set[str]) -> bool:
        variable = self._variables[handle]
        is_read = bool({_value(handle), f"{handle}:0"} & read)
        return is_read or any(variable is each for each in updated)

    def _comes_after(self, node: str, handle: str) -> bool:
        """Say whether a node runs behind the one that writes, by what it reads or waits for."""
        seen: set[str] = set()
        waiting = [node]
        while waiting:
            name = waiting.pop()
            if name == self._written[handle]:
                return True
            if name not in seen and name in self._inlined.nodes:
                seen.add(name)
                waiting += map(node_of, read_by(self._inlined.nodes[name]))
                waiting += self._inlined.after[name]
        return False

    def _needed(self, tensors: Iterable[str]) -> dict[str, Any]:
        waiting, found = [node_of(each) for each in tensors], set[str]()
        while waiting:
            name = waiting.pop()
            if name in self._made and name not in found:
                found.add(name)
                waiting += [node_of(each) for each in self._made[name].input]
        return {name: node for name, node in self._made.items() if name in found}

    def _number_variables(self) -> None:
        """Number the variables in the order of their first use, and drop what nothing reads."""
        read = [each for node in self.nodes.values() for each in node.input]
        self.seeds = [seed for seed in self.seeds if seed in set(read)]
        handle_of = {_value(handle): handle for handle in self._variables}
        for each in [*read, self.output]:
            if each in handle_of:
                self.values[each] = self._place(handle_of[each])
            elif node_of(each) in self._variables:
                self.handles[each] = self._place(node_of(each))

    def _place(self, handle: str) -> int:
        variable = self._variables[handle]
        for place, known in enumerate(self.variables):
            if known is variable:
                return place
        self.variables.append(variable)
        return len(self.variables) - 1


def _value(handle: str) -> str:
    return f"{handle}/value:0"


def _of_value(node: Any, handle: str, dtype: int) -> list[Any]:
    """Return what does with a variable's value what a node does with its handle."""
    kind, value = _OF_VALUE[node.op], _value(handle)
    if kind == "Shape":
        made = _node(node.name, kind, [value])
        made.attr["T"].type = dtype
        made.attr["out_type"].type = node.attr["out_type"].type or _enum("int32")
        return [made]
    made = _node(node.name, kind, [value, node.input[1]])
    made.attr["Tparams"].type = dtype
    made.attr["Tindices"].type = node.attr["Tindices"].type
    if kind == "GatherNd":
        return [made]
    n_batch = node.attr["batch_dims"].i
    axis = _node(f"{node.name}/axis", "Const", [])
    axis.attr["dtype"].type = axis.attr["value"].tensor.dtype = _enum("int32")
    axis.attr["value"].tensor.tensor_shape.SetInParent()
    axis.attr["value"].tensor.int_val.append(n_batch)
    made.input.append(f"{axis.name}:0")
    made.attr["Taxis"].type = _enum("int32")
    made.attr["batch_dims"].i = n_batch
    return [axis, made]


def _node(name: str, kind: str, inputs: Sequence[str]) -> Any:
    import tensorflow as tf

    return tf.compat.v1.NodeDef(name=name, op=kind, input=inputs)


def _enum(dtype: Any) -> int:
    import tensorflow as tf

    return int(tf.as_dtype(dtype).as_datatype_enum)
