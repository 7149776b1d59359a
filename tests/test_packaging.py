"""The wheel and the sdist hold what they should, and install."""

import email
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "venv"
)


def run(*command, cwd):
    result = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Builds the sdist, and the wheel from it, as a release is built."""
    pytest.importorskip("build", reason="needs the `test` extra (build)")
    folder = tmp_path_factory.mktemp("packaging")
    # A copy: a build leaves folders in the source tree.
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    run(
        *(sys.executable, "-m", "build", "--no-isolation"),
        *("--outdir", str(folder / "dist"), str(folder / "source")),
        cwd=folder,
    )
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(distributions):
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(distributions):
    (path,) = distributions.glob("*.tar.gz")
    return path


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    (info,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops == {"keras_mobilevit", info}
    held = {name for name in names if name.endswith(".py")}
    package = ROOT / "keras_mobilevit"
    expected = {
        file.relative_to(ROOT).as_posix() for file in package.rglob("*.py")
    }
    assert held == expected
    assert "keras_mobilevit/py.typed" in names
    page = ROOT / "tflite" / "web"
    for file in page.rglob("*.*"):
        inside = f"keras_mobilevit/tflite/web/{file.relative_to(page)}"
        assert (inside in names) == (file.suffix != ".md"), file
    assert any(name.endswith("LICENSE") for name in names)
    assert not any("__pycache__" in name for name in names)


def test_every_folder_of_the_package_is_a_package():
    """Else `find_packages` leaves it out of the wheel."""
    for file in (ROOT / "keras_mobilevit").rglob("*.py"):
        assert (file.parent / "__init__.py").exists(), file


def test_wheel_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (
            name
            for name in archive.namelist()
            if name.endswith(".dist-info/METADATA")
        )
        metadata = email.message_from_bytes(archive.read(name))
        (name,) = (
            name
            for name in archive.namelist()
            if name.endswith("entry_points.txt")
        )
        entry_points = archive.read(name).decode()
    assert metadata["Name"].replace("-", "_") == "keras_mobilevit"
    licence = metadata["License-Expression"] or metadata["License"]
    assert licence == "Apache-2.0"
    assert metadata["Requires-Python"]
    assert metadata.get_payload().strip()  # the README
    extras = set(metadata.get_all("Provides-Extra"))
    assert {"examples", "test", "parity", "jax"} <= extras
    needed = {
        line.split(";")[0].split("[")[0].rstrip("<>=!~., 0123456789")
        for line in metadata.get_all("Requires-Dist")
        if "extra ==" not in line
    }
    assert {"tensorflow", "keras", "absl-py"} <= needed
    assert not {"torch", "transformers", "jax"} & needed
    assert "keras-mobilevit = keras_mobilevit.cli:main" in (
        entry_points.replace("=", " = ").replace("  ", " ")
    )


def test_sdist_holds_the_source(sdist):
    with tarfile.open(sdist) as archive:
        names = {
            name.split("/", 1)[1] for name in archive.getnames() if "/" in name
        }
    assert {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "setup.py",
        "keras_mobilevit/__init__.py",
        "keras_mobilevit/py.typed",
    } <= names
    # One can test what one has unpacked.
    assert {"tests/test_packaging.py", "tests/golden/parity.npz"} <= names
    scripts = (ROOT / "tflite").rglob("*.py")
    kotlin = (ROOT / "tflite").rglob("*.kt*")
    page = (ROOT / "tflite" / "web").rglob("*.*")
    for file in (*scripts, *kotlin, *page):
        assert file.relative_to(ROOT).as_posix() in names
    assert not any("__pycache__" in name for name in names)


@pytest.mark.parametrize("kind", ("wheel", "sdist"))
def test_distribution_installs_and_imports(kind, wheel, sdist, tmp_path):
    target = tmp_path / "target"
    run(
        *(sys.executable, "-m", "pip", "install", "--no-deps", "--quiet"),
        *("--no-build-isolation", "--no-index", "--target", str(target)),
        str({"wheel": wheel, "sdist": sdist}[kind]),
        cwd=tmp_path,
    )
    code = "import sys; sys.path.insert(0, 'target'); import keras_mobilevit"
    code += "; print(keras_mobilevit.__file__, keras_mobilevit.__version__)"
    output = run(sys.executable, "-c", code, cwd=tmp_path)
    assert str(pathlib.Path("target", "keras_mobilevit")) in output
