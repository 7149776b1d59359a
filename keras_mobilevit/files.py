"""Writing files so that nothing is lost or left half-written."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(
    path: str | os.PathLike, overwrite: bool = False
) -> Iterator[Path]:
    """Yields a temporary path that becomes `path` if the block succeeds.

    The temporary file lies in the folder of `path`, so the final move is
    atomic. If the block raises, it is removed and `path` is untouched.

    Args:
        path: the file to write. Its folder must exist.
        overwrite: whether an existing `path` may be replaced.

    Yields:
        A path with the suffix of `path`, to be written by the block.

    Raises:
        FileExistsError: `path` exists and `overwrite` is `False`.
        FileNotFoundError: the folder of `path` does not exist.
        PermissionError: the folder cannot be written.
        IsADirectoryError: `path` is a folder.
    """
    path = Path(path)
    check_writable(path, overwrite)
    # The whole name is kept as the tail: some writers look at the suffix,
    # and `.weights.h5` is two of them.
    handle, temporary = tempfile.mkstemp(
        prefix=".tmp-", suffix="-" + path.name, dir=path.parent
    )
    os.close(handle)
    temporary = Path(temporary)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Raises now what writing `path` at the end of long work would raise.

    Args and errors are those of `atomic_path`.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"The output path must be a file, not a folder. Received: {path}"
        )
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists already. Pass `overwrite=True` (`--overwrite` on "
            "the command line) to replace it, or choose another path."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder of the output path does not exist. Received: {path}"
        )
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(
            f"The folder of the output path cannot be written. Received: {path}"
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
