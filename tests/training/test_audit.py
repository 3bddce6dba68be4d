"""The audit says what trains, block by block."""

import pytest
import tiny

from keras_transfer import Stage
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.training.audit import AuditRow, audit
from keras_transfer.training.freezing import freeze_for

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


@pytest.mark.parametrize(("policy", "trained"), [("frozen", 148), ("affine", 156), ("train", 156)])
def test_rows(policy, trained):
    model = tiny.classifier(tiny.settled(tiny.residual, SHAPE), 3)
    blocks = read_blocks(model)
    stage = Stage("s", {"unit1_conv": 1e-4, "head": 1e-2}, 1, batch_norm=policy)
    with freeze_for(model, blocks, stage):
        rows = audit(model, blocks, stage)
        total = sum(w.numpy().size for w in model.trainable_weights)
    assert sum(row.trained for row in rows) == total
    assert rows == [
        AuditRow("stem", 112, 0, None, "-"),
        AuditRow("unit0_conv", 164, 0, None, "frozen"),
        AuditRow("unit1_conv", 164, trained, 1e-4, policy),
        AuditRow("head", 15, 15, 1e-2, "-"),
    ]
