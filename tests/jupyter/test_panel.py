"""The panel, its widgets clicked from Python, over a real model; the browser's part is in tests/e2e."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from nbopt.comparison import Comparison
from nbopt.jupyter.underway import all_underway
from nbopt.measurement.metrics import METRICS
from nbopt.render import MIME
from nbopt.techniques import all_techniques
from nbopt.workload import Workload
from tests.jupyter.conftest import MODEL, Shell

PATIENCE = 120.0


@pytest.fixture
def panel(shell: Shell) -> Any:
    shell.ok(MODEL)
    shell.ok("xt, yt = x, y")
    shell.ok("%optimize panel")
    opened = shell.ipython.magics_manager.registry["OptimizeMagics"].session.panel
    opened.running.fill({"runtimes": "onnxruntime", "threads": "1"})
    return opened


def options(control: Any) -> list[str]:
    return [value for _, value in control.options]


def labels(control: Any) -> list[str]:
    return [label for label, _ in control.options]


def finish(panel: Any) -> None:
    assert panel._session.jobs.wait(PATIENCE)


def test_it_is_shown_as_a_widget_with_results_as_an_output_of_their_own(shell: Shell, panel: Any) -> None:
    shell.ok("%optimize panel")
    widget, results, curves = shell.displayed()
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert "running kernel" in str(widget["text/plain"])
    assert "Results will stand here" in str(results["text/html"])
    assert curves["text/plain"] == "", "nothing was trained yet"


def test_it_offers_what_the_notebook_has(shell: Shell, panel: Any) -> None:
    assert options(panel.choices["model"]) == ["", "net"]
    assert {"train", "valid", "x,y", "xt,yt"} <= set(options(panel.choices["valid"]))
    assert panel.choices["model"].value == "net"
    assert (panel.choices["train"].value, panel.choices["valid"].value) == ("train", "valid")
    assert options(panel.steps[0].choice) == ["", *all_techniques()]
    assert options(panel.choices["metric"]) == ["", *METRICS]
    assert all_techniques()[panel.steps[0].choice.value].works_on_files, "what needs no training is offered first"
    shell.ok("other = torch.nn.Linear(8, 2)")
    panel.again.click()
    assert options(panel.choices["model"]) == ["", "net", "other"]
    assert panel.choices["model"].value == "net"


def test_every_click_shows_the_magic(panel: Any) -> None:
    assert panel.lines == [
        "%optimize use net --train train --valid valid",
        "%optimize quantize --runtimes onnxruntime --threads 1",
    ]
    panel.steps[0].choice.value = "prune"
    panel.steps[0].form.fill({"sparsity": "30%", "structured": True})
    panel.add_step.click()
    assert panel.lines[-1] == (
        "%optimize prune --sparsity 30% --structured --runtimes onnxruntime --threads 1 | quantize"
    )
    assert "prune --sparsity 30%" in panel.preview.value
    panel.drop_step.click()
    panel.steps[0].choice.value = ""
    assert panel.lines == ["%optimize use net --train train --valid valid --runtimes onnxruntime --threads 1"]


def test_a_wrong_value_is_told_beside_its_field_and_not_run(panel: Any) -> None:
    panel.steps[0].choice.value = "prune"
    panel.steps[0].form.fill({"sparsity": "1.5"})
    assert "between 0 and 1" in panel.steps[0].form._beside["sparsity"].value
    panel.start.click()
    assert "between 0 and 1" in panel.message.value
    assert list(panel._session.jobs) == []


def test_the_metric_that_is_shown_is_used(shell: Shell, panel: Any) -> None:
    session, names = panel._session, shell.names
    session.bind({"model": names["net"], "valid": names["valid"], "metric": "f1"})
    shell.ok("%optimize panel")
    assert panel.choices["metric"].value == "f1"
    panel.choices["metric"].value = ""
    assert panel.choices.binding["metric"] is None
    panel.again.click()
    assert panel.choices["metric"].value == "", "what was chosen stays"
    assert session.bind(panel.choices.binding).metric_name == "accuracy"
    shell.ok("def share(y, score): return float((score.argmax(1) == y).mean())")
    panel.choices["metric"].value = "auc"
    assert session.bind(panel.choices.binding).metric_name == "auc"


@pytest.mark.parametrize(("metric", "shown"), [("share", "share"), ("lambda y, score: 0.5", "the bound function")])
def test_a_function_as_metric_is_offered(shell: Shell, panel: Any, metric: str, shown: str) -> None:
    shell.ok("def share(y, score): return float((score.argmax(1) == y).mean())")
    function = eval(metric, dict(shell.names))
    panel._session.bind({"model": shell.names["net"], "valid": shell.names["valid"], "metric": function})
    panel.again.click()
    assert panel.choices["metric"].value == shown
    assert panel._session.bind(panel.choices.binding).metric is function


def test_defaults_that_were_configured_are_shown_and_can_be_left(shell: Shell, panel: Any) -> None:
    try:
        shell.ok("%config NbOpt.measure = 'full'")
        shell.ok("%config NbOpt.max_drop = '1%'")
        assert panel.lines[-1] == "%optimize quantize --runtimes onnxruntime --threads 1"
        assert panel.running.values["measure"] == "full"
        assert panel.running.values["max_drop"] == "0.01"
        panel.running.fill({"measure": "quick", "max_drop": ""})
        assert panel.lines[-1].endswith("--measure quick --threads 1 --max-drop None")
    finally:
        shell.ipython.config.pop("NbOpt", None)


@pytest.mark.slow
def test_run_apply_export_and_insert(shell: Shell, panel: Any, tmp_path: Path) -> None:
    panel.output.fill({"o": "q8"})
    panel.start.click()
    finish(panel)
    (job,) = panel._session.jobs
    assert job.state == "done", job.error
    assert isinstance(shell.names["q8"], Comparison)
    assert "quantize/onnxruntime" in [run.name for run in panel.results.comparison]
    assert MIME in panel.results._bundle()
    assert "quantize/onnxruntime" in labels(panel.chosen)
    panel.chosen.label = "quantize/onnxruntime"
    panel.path.value = str(tmp_path / "small")
    panel.export.click()
    assert (tmp_path / "small.onnx").stat().st_size > 0
    assert "small.onnx" in panel.message.value
    panel.export.click()
    assert "is there" in panel.message.value
    panel.variable.value = "fast"
    panel.apply.click()
    assert shell.ok("fast.predict(x).shape") == (400, 2)
    panel.insert.click()
    cell = shell.ipython.rl_next_input
    assert cell.splitlines()[:2] == [
        "%optimize use net --train train --valid valid",
        "%optimize quantize --runtimes onnxruntime --threads 1 -o q8",
    ]
    assert cell.splitlines()[-1] == "%optimize apply quantize/onnxruntime -o fast"
    shell.ipython.rl_next_input = None
    # What is bound is not bound again, so that baselines are not measured anew.
    panel.choices["valid"].value = "valid"
    assert len(panel.lines) == 1


@pytest.mark.slow
def test_a_run_is_taken_whatever_model_was_chosen_since(shell: Shell, panel: Any, tmp_path: Path) -> None:
    panel.start.click()
    finish(panel)
    first = panel.results.comparison["quantize/onnxruntime"]
    shell.ok("other = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()")
    panel.again.click()
    panel.choices["model"].value = "other"
    panel.start.click()
    finish(panel)
    second = next(run for run in panel.results.newest if run.recipe == "quantize")
    assert second.workload_key != first.workload_key
    assert [run.workload_key for run in panel.results.newest] == [second.workload_key] * len(panel.results.newest)
    assert panel.chosen.value in {run.id for run in panel.results.newest}, "the best of the model that is at work"
    for run in (first, second):
        panel.chosen.value = run.id
        assert panel.chosen.label.endswith(f" of {run.workload}")
        panel.path.value = str(tmp_path / run.id)
        panel.export.click()
        assert (tmp_path / f"{run.id}.onnx").read_bytes() == run.path.read_bytes()
        assert f"{run.label}, {run.id[:8]}" in panel.message.value
    # In a cell, a name is that of the model which is bound then.
    assert [line.split()[2] for line in panel._done[-2:]] == [first.id[:8], "quantize/onnxruntime"]


@pytest.mark.slow
def test_cancel_during_a_training_keeps_what_was_measured(panel: Any) -> None:
    panel.steps[0].choice.value = "prune"
    panel.steps[0].form.fill({"epochs": "10000"})
    panel.start.click()
    panel.steps[0].choice.value = ""
    panel.start.click()
    first, second = panel._session.jobs
    assert second.state == "waiting"
    ends = time.monotonic() + PATIENCE
    while (first.progress is None or first.progress.what != "training") and time.monotonic() < ends:
        time.sleep(0.02)
    assert not panel.watch.cancel.disabled
    assert all_underway()[0].line.startswith("prune")
    began = time.monotonic()
    panel.watch.cancel.click()
    finish(panel)
    assert (first.state, second.state) == ("cancelled", "done"), (first.error, second.error)
    assert time.monotonic() - began < PATIENCE / 2
    assert isinstance(first.result, Comparison)
    assert "baseline/onnxruntime" in [run.name for run in panel.results.comparison]
    assert all_underway() == []
    assert panel.watch.cancel.disabled


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell",
    [
        "%optimize prune --epochs 1 --runtimes onnxruntime --threads 1",
        "%%optimize tune --trials 1\ntrial.suggest_float('rate', 0, 1)",
        "%optimize rerun {base['baseline/onnxruntime']}",
    ],
)
def test_a_cell_waits_for_the_panel(shell: Shell, panel: Any, cell: str) -> None:
    shell.ok("base = %optimize use net --train train --valid valid --runtimes onnxruntime --threads 1")
    panel.start.click()
    (job,) = panel._session.jobs
    shell.ok(cell)
    assert job.state == "done"


@pytest.mark.slow
def test_a_job_that_waits_is_recorded_with_what_it_was_queued_with(shell: Shell, panel: Any) -> None:
    shell.ok("other = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()")
    panel.again.click()
    seen = {}
    panel._session.jobs.watch(lambda job: seen.update({each.workload_key: each.bind for each in all_underway()}))
    panel.start.click()
    panel.choices["model"].value = "other"
    panel.start.click()
    panel.choices["model"].value = "net"
    panel.start.click()
    finish(panel)
    bound = {Workload(shell.names[name], valid=shell.names["valid"], train=shell.names["train"]).digest: name
             for name in ("net", "other")}  # fmt: skip
    assert {bound[key]: bind.split()[-1] for key, bind in seen.items()} == {"net": "net", "other": "other"}
