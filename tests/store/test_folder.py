"""The folder of a store: its lock file, and how it is emptied."""

import errno
import resource
from pathlib import Path

import pytest
from test_activation_store import forget, keys, new_process, rows  # noqa: F401

from keras_transfer.errors import OutputError
from keras_transfer.store import folder as module
from keras_transfer.store.activation_store import Memory, clear_folder, open_store
from keras_transfer.store.folder import DATA, LOCK, MARK, fill_lock_file


def test_a_lock_file_that_cannot_be_filled_is_taken_away(tmp_path):
    """Half of one would end the process later, by a SIGBUS."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            fill_lock_file(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
    fill_lock_file(tmp_path)
    assert (tmp_path / LOCK).stat().st_size == module._LOCK_BYTES
    (tmp_path / LOCK).write_bytes(b"in use")
    fill_lock_file(tmp_path)  # one that is there is left alone
    assert (tmp_path / LOCK).read_bytes() == b"in use"


def test_a_store_that_may_not_be_emptied_stays_known(tmp_path, monkeypatch):
    open_store(Memory(tmp_path)).write("net", keys([1]), [rows([1])])
    forget()
    unlink = Path.unlink

    def refuse(self, missing_ok=False):
        if self.name == DATA:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError) as caught:
        clear_folder(tmp_path)
    assert str(caught.value) == (
        f"FOLDER: expected a folder that can be written. Received: {tmp_path}: Permission denied. "
        f"Change its permissions."
    )
    assert (tmp_path / MARK).exists()
    monkeypatch.undo()
    assert clear_folder(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
