"""The output folder is whole or not there, also where the file system refuses something."""

from pathlib import Path

import pytest

from keras_transfer.errors import OutputError
from keras_transfer.output_folder import RESULTS, check_output, new_output


def write(output, text, overwrite=False):
    with new_output(str(output), overwrite) as folder:
        (folder / RESULTS).write_text(text)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_where_the_new_one_cannot_take_its_place_the_old_one_stands(tmp_path, monkeypatch, error):
    output = tmp_path / "result"
    write(output, "old")
    rename = Path.rename

    def fail_to_take_the_place(self, target):
        if Path(target) == output and (self / RESULTS).read_text() == "new":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_to_take_the_place)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write(output, "new", overwrite=True)
    if expected is OutputError:
        assert str(caught.value) == (
            f"output: expected a folder that can be written. Received: {output}: No space left on "
            f"device. Choose another with output=FOLDER."
        )
    assert (output / RESULTS).read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]  # nothing is left beside it
    monkeypatch.undo()
    write(output, "new", overwrite=True)
    assert (output / RESULTS).read_text() == "new"
    assert list(tmp_path.iterdir()) == [output]


def test_what_cannot_be_looked_at_is_one_clear_error(tmp_path):
    output = tmp_path / ("x" * 300)
    with pytest.raises(OutputError, match=r"a folder that can be read\. Received: .*too long\.$"):
        check_output(output)
    with pytest.raises(OutputError, match="too long"):
        write(output, "new")
    assert list(tmp_path.iterdir()) == []
