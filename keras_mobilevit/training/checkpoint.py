"""The whole state of a run in one file.

A `.keras` file does not hold the states of the random generators of dropout
(Keras 3.15), so a run could not go on exactly from it.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilevit.files import atomic_path


def save(path: Path, model: keras.Model, state: dict[str, Any]) -> None:
    """Writes the variables of a compiled model, and `state`, which is JSON.

    The file is complete or absent, whenever the process is killed.
    """
    arrays = {
        key: keras.ops.convert_to_numpy(variable.value)
        for owner, variables in _variables(model).items()
        for key, variable in _named(owner, variables)
    }
    with atomic_path(path, overwrite=True) as temporary:
        np.savez(temporary, state=np.array(json.dumps(state)), **arrays)


def load_state(path: Path) -> dict[str, Any]:
    """Reads the `state` that `save` was given.

    Raises:
        ValueError: the file is no checkpoint.
    """
    return json.loads(str(_read(path)["state"]))


def restore(path: Path, model: keras.Model, optimizer: bool) -> None:
    """Gives a compiled model the values of its variables.

    Args:
        path: what `save` wrote.
        model: the same architecture; its optimizer is built.
        optimizer: whether the optimizer is restored too.

    Raises:
        ValueError: the file is no checkpoint, or one of another model.
    """
    arrays = _read(path)
    for owner, variables in _variables(model).items():
        if owner == "optimizer" and not optimizer:
            continue
        saved = {k: v for k, v in arrays.items() if k.startswith(f"{owner}/")}
        wanted = dict(_named(owner, variables))
        different = set(saved) ^ set(wanted) | {
            key
            for key in set(saved) & set(wanted)
            if saved[key].shape != tuple(wanted[key].shape)
        }
        if different:
            raise ValueError(
                "`model` must be the one that the run was started with. "
                f"Received: {model.name!r}, whose {owner} differs from {path} "
                f"in {len(different)} variables, such as {min(different)}"
            )
        for key, variable in wanted.items():
            variable.assign(saved[key])


def _read(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"The checkpoint cannot be read: {error}. Received: {path}"
        ) from error


def _variables(model):
    return {
        # With the states of random generators, which `weights` lacks.
        "model": model.variables,
        "optimizer": model.optimizer.variables,
    }


def _named(owner, variables):
    """Yields a key that does not depend on what was built before, and the
    variable.
    """
    for number, variable in enumerate(variables):
        last = variable.path.rsplit("/", 1)[-1]
        for kind in ("momentum", "velocity"):  # "<variable>_momentum"
            last = kind if last.endswith(f"_{kind}") else last
        yield f"{owner}/{number:05}/{last}", variable
