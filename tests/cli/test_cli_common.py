"""What the commands share: which estimators they take."""

import pytest
import tiny

from keras_transfer import TransferEncoder


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_an_encoder_answers_no_question(call, folder, tmp_path, command):
    run = tmp_path / "encoder.keras_transfer"
    TransferEncoder(tiny.cnn, image_size=16).fit([tiny.encode(tiny.pictures()[0][0])]).save(run)
    for given in (run, tmp_path):  # the file, or the folder that holds it alone
        result = call(command, given, folder)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "RUN: expected a classifier or regressor." in result.stderr
        assert f"Received: {run}, a TransferEncoder." in result.stderr
