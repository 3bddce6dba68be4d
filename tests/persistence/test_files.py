"""Files that are whole or not there."""

import os
import stat

import pytest

from keras_transfer.errors import OutputExistsError
from keras_transfer.persistence.files import new_file, refuse_existing


class Stop(BaseException):
    """As a Ctrl-C or a kill would be raised."""


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
def test_a_file_appears_when_all_went_well(tmp_path, as_path):
    path = tmp_path / "new.zip"
    with new_file(as_path(path)) as aside:
        aside.write_bytes(b"whole")
        assert aside.parent == tmp_path  # on the same disk, so that the rename is atomic
        assert aside != path
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert listing(tmp_path) == ["new.zip"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("when", ["before", "while", "after"])
def test_nothing_is_there_after_an_error(tmp_path, error, when):
    def write(path):
        with new_file(path) as aside:
            if when == "before":
                raise error
            with aside.open("wb") as file:
                file.write(b"half")
                if when == "while":
                    raise error
            raise error

    with pytest.raises(error):
        write(tmp_path / "new.zip")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_what_exists_is_kept(tmp_path, folder):
    path = tmp_path / "old.zip"
    path.mkdir() if folder else path.write_bytes(b"old")
    entered = []
    with pytest.raises(OutputExistsError, match=r"overwrite=True") as e, new_file(path) as aside:
        entered.append(aside)
    assert str(path) in str(e.value)
    assert not entered  # before the work is done, not after
    assert listing(tmp_path) == ["old.zip"]
    assert folder or path.read_bytes() == b"old"


def test_what_appeared_meanwhile_is_kept(tmp_path):
    path = tmp_path / "new.zip"

    def write():
        with new_file(path) as aside:
            aside.write_bytes(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(OutputExistsError):
        write()
    assert path.read_bytes() == b"theirs"
    assert listing(tmp_path) == ["new.zip"]


def test_overwriting_shows_the_old_file_or_the_new(tmp_path):
    path = tmp_path / "old.zip"
    path.write_bytes(b"old")
    with path.open("rb") as reader, new_file(path, overwrite=True) as aside:
        aside.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        held = reader
        inode = path.stat().st_ino
        assert held.read() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino != inode  # replaced, not written into
    assert listing(tmp_path) == ["old.zip"]


def test_overwriting_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "old.zip"
    path.write_bytes(b"old")

    def write():
        with new_file(path, overwrite=True) as aside:
            aside.write_bytes(b"half")
            raise Stop

    with pytest.raises(Stop):
        write()
    assert path.read_bytes() == b"old"
    assert listing(tmp_path) == ["old.zip"]


def test_overwriting_where_nothing_is(tmp_path):
    with new_file(tmp_path / "new.zip", overwrite=True) as aside:
        aside.write_bytes(b"new")
    assert listing(tmp_path) == ["new.zip"]


def test_a_folder_is_not_overwritten_by_a_file(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").write_bytes(b"kept")
    with pytest.raises(OSError), new_file(tmp_path / "old", overwrite=True) as aside:  # noqa: PT011
        aside.write_bytes(b"new")
    assert listing(tmp_path) == ["old"]
    assert (tmp_path / "old" / "kept").read_bytes() == b"kept"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], ids=oct)
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        with new_file(tmp_path / "new.zip") as aside:
            # Not for others to read while it is written.
            assert stat.S_IMODE(aside.stat().st_mode) == 0o600
        after = os.umask(umask)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.zip").stat().st_mode) == 0o666 & ~umask
    assert after == umask


def test_two_at_once(tmp_path):
    path = tmp_path / "new.zip"
    with new_file(path, overwrite=True) as first, new_file(path, overwrite=True) as second:
        assert first != second
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert path.read_bytes() == b"first"  # the outer one ends last
    assert listing(tmp_path) == ["new.zip"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "nowhere" / "new.zip"
    with pytest.raises(FileNotFoundError) as e, new_file(path):
        pass
    assert "nowhere" in str(e.value)
    assert ".new.zip." not in str(e.value)  # the user knows of no temporary file


def test_refuse_existing(tmp_path):
    path = tmp_path / "old"
    assert refuse_existing(str(path), overwrite=False) == path
    path.touch()
    assert refuse_existing(path, overwrite=True) == path
    with pytest.raises(OutputExistsError, match=r"old: expected a path that is free.*Choose"):
        refuse_existing(path, overwrite=False)
