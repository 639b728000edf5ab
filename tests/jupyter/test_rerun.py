"""`%optimize rerun NAME` in a real shell."""

from __future__ import annotations

import pytest

from nbopt.comparison import Comparison
from nbopt.errors import Interrupted, ModelError, OptionError
from nbopt.reproduce import Reproduction
from tests.jupyter.conftest import MODEL, Shell

FAST = "--runtimes onnxruntime --threads 1"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_is_repeated_from_its_record(shell: Shell) -> None:
    shell.ok(MODEL)
    assert isinstance(shell.error("%optimize rerun quantize/onnxruntime"), ModelError), "nothing is bound"
    shell.ok(f"%optimize use net --train train --valid valid --name small {FAST}")
    assert isinstance(shell.error("%optimize rerun nothing/here"), OptionError)
    q8 = shell.ok(f"%optimize quantize --calibration 32 --seed 3 -o q8 {FAST}")
    assert isinstance(q8, Comparison)
    again = shell.ok("%optimize rerun quantize/onnxruntime -o again")
    assert isinstance(again, Reproduction)
    assert shell.names["again"] is again
    old, new = q8["quantize/onnxruntime"], again.new
    assert again.old.id == old.id
    assert (new.recipe, new.seed, new.runtime) == ("quantize --calibration 32", 3, "onnxruntime")
    assert new.artifact_sha256 == old.artifact_sha256
    assert "accuracy equal" in again.text
    assert "agree" in again.text
    # The model's variable may hold what was made of it: the run is of what is bound.
    shell.ok("%optimize apply baseline/torch --form model -o net")
    assert isinstance(shell.ok(f"%optimize rerun {old.id[:8]}"), Reproduction)
    assert shell.displayed() == []
    shell.ok("%optimize undo")
    # A variable means its run, and the new run is a run like any other.
    by_variable = shell.ok('%optimize rerun {q8["quantize/onnxruntime"]}')
    assert isinstance(by_variable, Reproduction)
    assert len([run for run in shell.ok("%optimize runs") if run.recipe == old.recipe]) == 4  # type: ignore[attr-defined]

    # A kernel that was restarted knows the run by its name, once the same model and data are bound.
    shell.ok("%reload_ext nbopt")
    shell.ok("net2 = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)).eval()")
    shell.ok("net2.load_state_dict(net.state_dict())")
    shell.ok(f"%optimize use net2 --train train --valid valid --name small {FAST}")
    assert isinstance(shell.ok(f"%optimize rerun {old.id[:8]}"), Reproduction)

    # Another model is another workload, and the message says what differs.
    shell.ok("with torch.no_grad(): net2[0].weight.mul_(1.1)")
    error = shell.error("%optimize rerun quantize/onnxruntime")
    assert isinstance(error, OptionError)
    assert "the model's weights (was it trained since?)" in str(error)
    assert len(shell.shown().splitlines()) <= 4


def test_an_interrupt_binds_and_shows_what_is_done_beside_the_run_that_it_repeats(shell: Shell) -> None:
    shell.ok(MODEL)
    shell.ok(
        "stop = False\n"
        "def share(y, score):\n"
        "    if stop: raise KeyboardInterrupt\n"
        "    return float((score.argmax(1) == y).mean())"
    )
    shell.ok(f"%optimize use net --train train --valid valid --metric share {FAST}")
    shell.ok(f"%optimize quantize --calibration 32 -o q8 {FAST}")
    shell.ok("stop = True")
    assert isinstance(shell.error("%optimize rerun quantize/onnxruntime -o again"), Interrupted)
    partial = shell.names["again"]
    assert isinstance(partial, Comparison)
    assert [run.name for run in partial] == ["baseline/torch", "baseline/onnxruntime", "quantize/onnxruntime"]
    assert any("quantize/onnxruntime" in str(bundle.get("text/plain")) for bundle in shell.displayed())
