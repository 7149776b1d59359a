"""Nothing is lost or half-written."""

import errno
import os

import pytest

from keras_mobilevit.files import atomic_path
from keras_mobilevit.files import check_writable


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()]
)
def test_a_fault_leaves_the_old_file(tmp_path, fault):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(fault)):
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text("half of the n")
            raise fault
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_existing_files_are_kept(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    for check in (check_writable, lambda p: atomic_path(p).__enter__()):
        with pytest.raises(FileExistsError, match="overwrite=True"):
            check(path)
    assert path.read_text() == "old"
    check_writable(path, overwrite=True)


def test_paths_that_cannot_be_written(tmp_path):
    with pytest.raises(IsADirectoryError, match="not a folder"):
        check_writable(tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_writable(tmp_path / "no" / "a.txt")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(PermissionError, match="cannot be written"):
        check_writable(locked / "a.txt")
