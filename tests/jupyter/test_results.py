"""The panel's outputs: rows, and the curves of trainings, which stay in the notebook."""

from __future__ import annotations

import dataclasses

from nbopt.jupyter.curves import Curves
from nbopt.jupyter.results import MOST_TRAININGS, Results
from nbopt.progress import Progress
from tests.jupyter.conftest import Shell
from tests.render import sample_runs


def curves(last: float) -> Curves:
    found = Curves()
    for step, value in enumerate((1.0, last)):
        found.take(Progress("training", step, 2, figure=("loss", value)))
    return found


def test_curves_are_an_output_that_is_updated(shell: Shell) -> None:
    from IPython.utils.capture import capture_output

    results = Results()
    with capture_output() as captured:
        results.show()
        results.trained("%optimize <b>", curves(0.5))
        results.trained("%optimize nothing", Curves())
    rows, before, after = captured.outputs
    assert rows.transient["display_id"] != before.transient["display_id"] == after.transient["display_id"]
    assert "img" not in before.data["text/html"]
    assert 'alt="loss from 1 to 0.5"' in after.data["text/html"]
    assert "%optimize &lt;b&gt;" in after.data["text/html"]
    assert (before.update, after.update) == (False, True)


def test_the_newest_of_each_line_stay() -> None:
    results = Results()
    for number in range(MOST_TRAININGS + 3):
        results.trained(f"%optimize prune {number}", curves(0.5))
    results.trained("%optimize prune 5", curves(0.25))
    html = results._trainings()["text/html"]
    assert html.count("<img") == MOST_TRAININGS
    assert "prune 1<" not in html
    assert html.count("prune 5<") == 1
    assert html.index("prune 5<") > html.index("prune 10<")
    assert "to 0.25" in html


def test_every_model_stays_in_the_rows_and_the_newest_has_its_figures_alone() -> None:
    results = Results()
    assert len(results.newest) == 0
    later = {"workload_key": "other", "workload": "houses", "created": "2026-11-24T18:00:00.000+00:00"}
    results.add(sample_runs.EVERYTHING)
    results.add([dataclasses.replace(sample_runs.INT8, id="new", **later)])
    assert [run.id for run in results.newest] == ["new"]
    assert {"new", sample_runs.INT8.id, sample_runs.BASELINE.id} <= {run.id for run in results.comparison}
