"""Completion by what each place of the line can hold, through IPython's own completer."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pexpect
import pytest
from IPython.core.completer import provisionalcompleter
from jupyter_client.manager import start_new_kernel

from nbopt import jupyter
from nbopt.jupyter import LOADER
from nbopt.jupyter.verbs import all_verbs
from nbopt.measurement.metrics import METRICS
from nbopt.runs import Run, RunStore
from nbopt.runtimes import all_runtimes
from nbopt.techniques import all_techniques
from tests.jupyter.conftest import MODEL, Shell

NAMES = """
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(4, 8), torch.zeros(4)))
rows = loader.dataset
batches = [(x[:10], y[:10]), (x[10:20], y[10:20])]
whole = {"input": x, "labels": y}
class Batches:
    def __iter__(self):
        yield x, y
custom = Batches()
def my_metric(y_true, y_score):
    return 0.0
title, number, numbers, words = "a", 3, [1, 2], {"a": 1}
once = iter([])
"""


def completed(shell: Shell, text: str, *, cell: str = "") -> list[str]:
    """Return whole lines with each completion in its place."""
    code = f"{cell}{text}"
    with provisionalcompleter():
        found = list(shell.ipython.Completer.completions(code, len(code)))
    return [code[: match.start] + match.text for match in found]


def words(shell: Shell, text: str) -> list[str]:
    """Return what stands after the last blank or comma of each completion."""
    return [line.replace(",", " ").rpartition(" ")[2] for line in completed(shell, text)]


@pytest.fixture
def named(shell: Shell) -> Shell:
    shell.ok(MODEL)
    shell.ok(NAMES)
    return shell


@pytest.mark.parametrize(
    "start", ["%optimize ", "r = %optimize ", "%%optimize ", "    %optimize ", "a, b = %optimize "]
)
def test_verbs_and_techniques_come_first(shell: Shell, start: str) -> None:
    assert set(words(shell, start)) == {*all_verbs(), *all_techniques()}
    assert words(shell, f"{start}qu") == ["quantize"]


def test_after_a_bar_only_techniques(shell: Shell) -> None:
    assert set(words(shell, "%optimize prune --structured | ")) == set(all_techniques())
    assert words(shell, "%optimize prune |q") == ["quantize"] or completed(shell, "%optimize prune |q") == [
        "%optimize prune |quantize"
    ]


def test_options_of_a_technique_its_own_first(shell: Shell) -> None:
    found = words(shell, "%optimize prune ")
    assert found[0] == "--sparsity"
    assert {"--structured", "--max-drop", "--valid", "-o"} <= set(found)
    assert words(shell, "%optimize prune --sparsi") == ["--sparsity"]
    assert "--sparsity" not in words(shell, "%optimize prune --sparsity 0.5 --")
    assert "--max-drop" not in words(shell, "%optimize prune --max-drop 1% | quantize --")


def test_a_flag_that_is_on_is_offered_off(shell: Shell) -> None:
    assert "--no-per-channel" in words(shell, "%optimize quantize --")
    assert "--structured" in words(shell, "%optimize prune --")


def test_choices(shell: Shell) -> None:
    assert words(shell, "%optimize quantize --dtype ") == ["int8", "int4", "float16", "bfloat16"]
    assert words(shell, "%optimize quantize --dtype in") == ["int8", "int4"]
    assert completed(shell, "%optimize quantize --dtype=int8") == ["%optimize quantize --dtype=int8"]
    assert words(shell, "%optimize quantize --measure ") == ["quick", "full"]


def test_runtimes_by_commas(shell: Shell) -> None:
    assert set(words(shell, "%optimize quantize --runtimes ")) == {*all_runtimes(), "all"}
    assert set(words(shell, "%optimize quantize --runtimes onnxruntime,")) == set(all_runtimes()) - {"onnxruntime"}
    assert completed(shell, "%optimize quantize --runtime onnxruntime,openv") == [
        "%optimize quantize --runtime onnxruntime,openvino"
    ]


@pytest.mark.parametrize("option", ["--train ", "--valid ", "--test ", "--valid="])
def test_data_is_what_can_be_data(named: Shell, option: str) -> None:
    found = {line.rpartition(option)[2] for line in completed(named, f"%optimize quantize {option}")}
    assert found == {"train", "valid", "loader", "batches", "whole", "custom"}


def test_arrays_by_commas(named: Shell) -> None:
    assert set(words(named, "%optimize use net --valid x,")) == {"x", "y"}


def test_models_are_what_is_a_model(named: Shell) -> None:
    assert words(named, "%optimize use ") == ["net"]
    assert words(named, "%optimize use --valid valid n") == ["net"]
    assert words(named, "%optimize quantize --model ") == ["net"]
    assert "--valid" in words(named, "%optimize use net ")


def test_metrics_and_functions(named: Shell) -> None:
    found = words(named, "%optimize use net --metric ")
    assert set(found) == {*METRICS, "my_metric"}
    assert words(named, "%optimize use net --metric acc") == ["accuracy"]


@pytest.mark.parametrize("verb", ["show", "export", "compare"])
def test_names_of_runs(shell: Shell, verb: str) -> None:
    assert "quantize/openvino" not in words(shell, f"%optimize {verb} ")
    store = RunStore()
    for name in ("baseline/torch", "quantize/openvino"):
        store.add(Run(name=name, recipe=name.split("/")[0], runtime=name.split("/")[1], workload_key="k"))
    assert {"baseline/torch", "quantize/openvino"} <= set(words(shell, f"%optimize {verb} "))
    assert words(shell, f"%optimize {verb} quan") == ["quantize/openvino"]


def test_a_place_with_choices_offers_them_and_then_runs(shell: Shell) -> None:
    assert words(shell, "%optimize plot ") == ["pareto", "latency", "layers"]
    RunStore().add(Run(name="quantize/openvino", recipe="quantize", runtime="openvino", workload_key="k"))
    assert "quantize/openvino" in words(shell, "%optimize plot layers ")
    assert "quantize/openvino" in words(shell, "%optimize apply ")


def test_topics_of_help(shell: Shell) -> None:
    assert words(shell, "%optimize help pr") == ["prune"]


def test_inside_an_expression_the_usual_completion_helps(named: Shell) -> None:
    assert any(line.endswith("number") for line in completed(named, "%optimize prune --sparsity {numb"))


def test_other_lines_are_left_alone(named: Shell) -> None:
    assert "quantize" not in words(named, "optimize ")
    assert not {"prune", "--sparsity"} & set(words(named, "net."))
    # The body of a cell is Python.
    assert "--valid" not in " ".join(completed(named, "net.", cell="%%optimize quantize\n"))


def test_a_damaged_store_does_not_disturb(shell: Shell) -> None:
    home = RunStore().home
    (home / "runs.sqlite").write_bytes(b"not a database" * 100)
    assert isinstance(words(shell, "%optimize show "), list)


def test_it_is_fast(named: Shell) -> None:
    named.names.update({f"v{i}": [i] for i in range(500)})
    completed(named, "%optimize quantize --valid ")
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        completed(named, "%optimize quantize --valid ")
        spent.append(time.perf_counter() - began)
    assert min(spent) < 0.1


def test_unloading_takes_it_away(shell: Shell) -> None:
    jupyter.unload_ipython_extension(shell.ipython)
    assert "quantize" not in words(shell, "%optimize ")
    assert shell.ipython.find_line_magic("optimize") is None
    assert shell.ipython.find_cell_magic("optimize") is None
    jupyter.unload_ipython_extension(shell.ipython)
    jupyter.load_ipython_extension(shell.ipython)
    jupyter.load_ipython_extension(shell.ipython)
    assert words(shell, "%optimize qu") == ["quantize"]
    names = [getattr(m, "matcher_identifier", "") for m in shell.ipython.Completer.custom_matchers]
    assert names.count("nbopt.optimize") == 1


def test_it_imports_no_framework() -> None:
    code = """
import json, os, sys, tempfile
os.environ["IPYTHONDIR"] = tempfile.mkdtemp()
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "nbopt")
found = []
with provisionalcompleter():
    for text in ("%optimize ", "%optimize use ", "%optimize quantize --", "%optimize quantize --runtimes "):
        found.append([match.text for match in shell.Completer.completions(text, len(text))])
heavy = ("torch", "tensorflow", "keras", "onnx", "onnxruntime", "openvino", "nncf", "ai_edge_litert", "papermill")
print(json.dumps([found, [name for name in heavy if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    found, heavy = json.loads(done.stdout.splitlines()[-1])
    assert "quantize" in found[0]
    assert heavy == []


def test_tab_on_another_line_loads_nothing() -> None:
    code = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "nbopt")
seen = []
for text in ("some_na", "%optimize qu"):
    names = shell.Completer.complete(line_buffer=text, cursor_pos=len(text))[1]
    seen.append("nbopt.jupyter.completion" in sys.modules)
print(seen, names)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip().splitlines()[-1] == "[False, True] ['quantize']"


def test_a_kernel_loads_what_the_first_tab_needs_while_no_cell_runs() -> None:
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        said: list[str] = []

        def run(code: str) -> str:
            said.clear()
            reply = client.execute_interactive(
                code, output_hook=lambda message: said.append(message["content"].get("text", "")), timeout=60
            )
            assert reply["content"]["status"] == "ok"
            return "".join(said).strip()

        loaded = 'print("nbopt.jupyter.session" in sys.modules)'
        assert run(f"import sys\n%load_ext nbopt\n{loaded}") == "False"
        until = time.monotonic() + 60
        while run(loaded) != "True":
            assert time.monotonic() < until, "the kernel was idle and loaded nothing"
            time.sleep(0.2)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_ipython_in_a_terminal_loads_it_while_a_person_types() -> None:
    terminal = pexpect.spawn(sys.executable, ["-m", "IPython", "--simple-prompt", "--no-banner"], timeout=60)
    try:
        terminal.expect(r"In \[1\]")
        loaded = '"nbopt.jupyter.session" in sys.modules'
        terminal.sendline(f"import sys; get_ipython().run_line_magic('load_ext', 'nbopt'); print('at once', {loaded})")
        assert terminal.expect(["at once (True|False)\r"]) == 0
        assert terminal.match[1] == b"False"
        terminal.expect(r"In \[2\]")
        terminal.sendline(
            f"import threading; [each.join() for each in threading.enumerate() if each.name == '{LOADER}']"
        )
        terminal.expect(r"In \[3\]")
        terminal.sendline(f"print('after it', {loaded})")
        terminal.expect("after it (True|False)\r")
        assert terminal.match[1] == b"True"
        terminal.sendline("exit")
        terminal.expect(pexpect.EOF)
        terminal.wait()
        assert terminal.exitstatus == 0
    finally:
        terminal.close(force=True)
