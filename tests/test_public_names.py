"""The public surface, and that imports point one way."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import keras_transfer

PACKAGE = Path(keras_transfer.__file__).parent

PUBLIC = [
    "Backbone",
    "CompositeTransfer",
    "Memory",
    "ParameterTransfer",
    "Readout",
    "Recipe",
    "Stage",
    "StructureTransfer",
    "TransferClassifier",
    "TransferEncoder",
    "TransferRegressor",
    "datasets",
    "errors",
    "export_backbone",
    "get_backbone",
    "list_backbones",
    "load",
    "register_backbone",
]

# Each room may import from those before it, and from its own. Private helpers of all come first.
ROOMS = [
    "errors",
    "parameters",
    "store",
    "backbones",
    "inputs",
    "graph",
    "training",
    "recipe",
    "modes",
    "quality",
    "choosing",
    "fitting",
    "estimators",
    "persistence",
    "datasets",
    "config_checks",
    "config",
    "recipe_data",
    "output_folder",
    "experiment",
    "cli",
]
# Modules that import a library at their top which only they may.
ONLY_IN = {
    "sklearn.base": ("estimators/", "recipe.py"),
    "tensorflow_hub": ("backbones/saved_model.py",),
    "keras_hub": ("backbones/kerashub.py", "backbones/minilm.py"),
    "click": ("cli/",),
    "pydantic": ("config.py",),
}

# Classes that Keras finds by their names stand at the top; only functions import these.
LAYERS = {"backbones/kerashub_layer.py", "backbones/saved_model_layer.py"}

MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports(path, *, inside_functions):
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if inside_functions else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_public_names():
    assert keras_transfer.__all__ == PUBLIC
    assert [name for name in PUBLIC if getattr(keras_transfer, name) is None] == []
    assert set(PUBLIC) <= set(dir(keras_transfer))
    with pytest.raises(AttributeError, match="no attribute 'TransferClasifier'"):
        keras_transfer.TransferClasifier  # noqa: B018


def test_every_modules_all_exists():
    for path in MODULES:
        name = ".".join(["keras_transfer", *path.with_suffix("").parts]).removesuffix(".__init__")
        module = importlib.import_module(name)
        assert all(hasattr(module, public) for public in getattr(module, "__all__", [])), name


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path):
    room = path.parts[0].removesuffix(".py")
    if room in ("__init__", "_version"):
        return
    allowed = ROOMS[: ROOMS.index(room) + 1]
    # A convenience method imports its room inside the method; at the top all point one way.
    for module in imports(path, inside_functions=False):
        parts = module.split(".")
        if parts[0] == "keras_transfer" and len(parts) > 1 and parts[1] != "_version":
            assert parts[1] in allowed, f"{path} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_libraries_stay_in_their_rooms(path):
    for module in imports(path, inside_functions=True):
        for library, places in ONLY_IN.items():
            if module == library or module.startswith(library + "."):
                assert any(str(path).startswith(place) for place in places), f"{path}: {module}"
    # An optional library is imported where it is needed, and missed there.
    assert "keras_hub" not in [each.split(".")[0] for each in imports(path, inside_functions=False)]
    # Keras and TensorFlow are slow to import: only when something is built.
    if str(path) in LAYERS:
        return
    for module in imports(path, inside_functions=False):
        assert module.split(".")[0] not in ("keras", "tensorflow"), f"{path}: {module}"


def test_one_place_writes_trainable():
    writers = {
        str(path)
        for path in MODULES
        for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr == "trainable"
    }
    assert writers == {"training/freezing.py"}


def test_one_place_compiles_and_fits():
    callers = {
        str(path)
        for path in MODULES
        for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func) in ("model.compile", "model.fit")
    }
    assert callers == {"training/run.py"}


def test_importing_starts_nothing():
    code = (
        "import sys, keras_transfer; print({'keras', 'tensorflow', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
