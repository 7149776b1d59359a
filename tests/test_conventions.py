"""The package keeps its own conventions, read from its source."""

import ast
import pathlib
import subprocess
import sys

import pytest

import keras_mobilevit

ROOT = pathlib.Path(keras_mobilevit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LONGEST = 450  # lines

HEAVY = (
    "ai_edge_litert",
    "huggingface_hub",
    "litert_quantizer",
    "matplotlib",
    "safetensors",
    "sklearn",
    "tensorflow_datasets",
    "tensorflow_model_optimization",
    "tf_keras",
    "torch",
    "transformers",
)

# A module imports only from lower ranks, or from its own part.
RANKS = {
    "files": 0,
    "reports": 0,
    "version": 0,
    "configs": 1,
    "arguments": 1,
    "data": 1,
    "layers": 2,
    "weight_names": 2,
    "weights": 3,
    "network": 4,
    "mobilevit": 5,
    "mobilevit_v2": 6,
    "tasks": 7,
    "quantization": 7,
    "tflite": 8,
    "training": 9,
    "cli_flags": 0,
    "cli_demo": 9,
    "cli_inputs": 9,
    "cli": 10,
}
LEAVES = {part for part, rank in RANKS.items() if rank == 0}
STAND_ALONE = {"configs", "data"}  # they import leaves only

each_file = pytest.mark.parametrize(
    "file", FILES, ids=lambda file: str(file.relative_to(ROOT))
)


def parse(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(tree):
    """Yields the full name of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def part_of(file):
    return file.relative_to(ROOT).with_suffix("").parts[0]


def loaded_by(package):
    code = f"import sys, {package}; print(*set(sys.modules) & set({HEAVY}))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_import_is_light():
    """Keras itself imports some of these where they are installed."""
    assert loaded_by("keras_mobilevit") <= loaded_by("keras")
    assert not loaded_by("keras") & {"torch", "tf_keras", "ai_edge_litert"}


def test_public_names_exist():
    for name in keras_mobilevit.__all__:
        assert hasattr(keras_mobilevit, name)
    assert keras_mobilevit.__all__ == sorted(keras_mobilevit.__all__)


@each_file
def test_imports_point_one_way(file):
    part = part_of(file)
    if part == "__init__":
        return
    assert part in RANKS, f"give {part} a rank in this test"
    for name in imported(parse(file)):
        package, *rest = name.split(".")
        if package != "keras_mobilevit" or rest in ([], ["__version__"]):
            continue
        other = rest[0]
        assert other in RANKS, name
        if other == part:
            continue
        assert RANKS[other] < RANKS[part], f"{part} imports {name}"
        assert part not in STAND_ALONE or other in LEAVES, name


@each_file
def test_third_parties_are_imported_where_they_are_used(file):
    for node in parse(file).body:  # the module level only
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for name in imported(ast.Module([node], [])):
                assert name.split(".")[0] not in HEAVY, name


@each_file
def test_no_private_or_old_keras(file):
    tree = parse(file)
    for name in imported(tree):
        assert not name.startswith("keras.src"), name
        assert not name.startswith("tensorflow.keras"), name
        if part_of(file) != "quantization":
            assert not name.startswith("tf_keras"), name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            chain = ast.unparse(node)
            assert not chain.startswith(("tf.keras", "keras.src")), chain


@each_file
def test_no_assert_statement(file):
    """Python drops them under -O, and users get no message."""
    lines = [
        node.lineno
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Assert)
    ]
    assert lines == []


@each_file
def test_files_stay_short(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST


def public_functions(tree):
    """Yields functions of the module, and methods that Keras does not name."""
    keras_names = {"build", "call", "compute_output_shape", "get_config"}
    keras_names |= {"from_config", "compute_mask", "compute_output_spec"}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef) and node.name[0] != "_":
            for child in node.body:
                if isinstance(child, ast.FunctionDef):
                    if child.name not in keras_names:
                        yield child


@each_file
def test_public_functions_are_annotated(file):
    for function in public_functions(parse(file)):
        if function.name.startswith("_") and function.name != "__init__":
            continue
        arguments = function.args
        every = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
        bare = [
            argument.arg
            for argument in every
            if argument.annotation is None
            and argument.arg not in ("self", "cls")
        ]
        assert bare == [], f"{function.name}, line {function.lineno}"
        if function.name != "__init__":
            assert function.returns is not None, function.name


@each_file
def test_modules_and_public_functions_are_documented(file):
    tree = parse(file)
    assert ast.get_docstring(tree) or not tree.body
    if file.name == "mobilevit.py":  # sets its docstrings from one text
        return
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if not node.name.startswith("_"):
                assert ast.get_docstring(node), node.name
