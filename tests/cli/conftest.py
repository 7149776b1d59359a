"""Pictures and a model for commands, and what runs a command."""

import keras
import pytest
from commands import SIZE
from commands import save_picture
from commands import small_backbone

from keras_mobilevit import cli


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of two classes, told apart by their colour."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("blue", "red"):
        for split, count in (("train", 16), ("val", 6)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                path = folder / split / name / f"{i}.png"
                save_picture(path, name == "red", i)
    return folder


@pytest.fixture
def call(capsys):
    """Runs a command: `(exit code, stdout, stderr)`."""

    def run_command(*arguments):
        capsys.readouterr()
        code = cli.main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return code, out, err

    return run_command


@pytest.fixture
def small_model(tmp_path):
    """Saves a classifier that converts in a second."""

    def save(shape=(SIZE, SIZE, 3), name="small.keras"):
        backbone = small_backbone(shape)
        x = keras.layers.Dense(2, activation="softmax")(backbone.output)
        keras.Model(backbone.input, x).save(tmp_path / name)
        return tmp_path / name

    return save
