"""The `nbopt` command: what it prints, its exit status, and the demo from a notebook to its page."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nbopt.cli import FAILED, INTERRUPTED, OK, USAGE, main
from nbopt.demo import DemoFailed, ProgressLine, last_table, run_demo, titles, tutorials
from nbopt.errors import MissingExtra
from nbopt.runs import Run, RunStore

TABLE = """
from nbopt import Comparison
from nbopt.runs import Run
names = ["baseline/torch", "quantize/openvino"][:rows]
Comparison([
    Run(name=name, recipe=name.split("/")[0], runtime=name.split("/")[1], workload="w", quality=0.9, metric="accuracy")
    for name in names
])
"""


def write_notebook(path: Path, *cells: str) -> Path:
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    made[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


@pytest.fixture
def kept(home: Path) -> list[Run]:
    store = RunStore(home)
    rows = [
        ("small", "k1", "baseline/torch", "ok"),
        ("small", "k1", "quantize/openvino", "ok"),
        ("large", "k2", "baseline/torch", "ok"),
        ("large", "k2", "quantize/litert", "failed"),
        ("large", "k2", "prune+quantize/openvino", "ok"),
    ]
    return [
        store.add(
            Run(
                name=name,
                workload=workload,
                workload_key=key * 8,
                recipe=name.split("/")[0].replace("+", " | "),
                label=name.split("/")[0],
                runtime=name.split("/")[1],
                framework="torch",
                status=status,
                reason="operator X is not supported" if status == "failed" else "",
                quality=None if status == "failed" else 0.9,
                metric="accuracy",
                created=f"2026-11-01T00:00:0{second}.000+00:00",
            )
        )
        for second, (workload, key, name, status) in enumerate(rows)
    ]


def test_no_command_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == USAGE
    assert "doctor" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["demos"], ["runs", "--nothing"], ["demo", "--epochs", "many"], ["demo", "--rows", "-1"], ["runs", "--last", "0"]],
)
def test_a_wrong_word_is_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == USAGE
    told = capsys.readouterr().err
    assert "usage: nbopt" in told
    assert "_" not in told.replace("_CACHE", "")


def test_runs_of_all_workloads_newest_first(kept: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 runs, newest first"
    assert "prune+quantize/openvino" in lines[2]
    assert "failed" in lines[3]
    assert "operator X is not supported" in lines[3]
    assert main(["runs", "--last", "1", "--workload", "small"]) == OK
    out = capsys.readouterr().out
    assert "quantize/openvino" in out
    assert "baseline" not in out


def test_runs_where_there_are_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == OK
    assert "no runs are kept here yet" in capsys.readouterr().out
    assert not home.exists()


def test_compare_the_newest_workload(kept: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == OK
    out = capsys.readouterr().out
    assert "large" in out
    assert "prune+quantize/openvino" in out
    assert "small" not in out


@pytest.mark.parametrize("workload", ["small", "k1k1k1"])
def test_compare_a_named_workload(kept: list[Run], workload: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "quantize", "--workload", workload]) == OK
    assert "quantize/openvino" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["compare", "quantise/litert"], USAGE, "did you mean 'quantize/litert'"),
        (["compare", "--workload", "smal"], USAGE, "did you mean 'small'"),
        (["runs", "--workload", "none"], USAGE, "a workload that has runs"),
    ],
)
def test_a_wrong_name_says_the_nearest(
    kept: list[Run], words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == status
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == FAILED
    assert "%optimize use" in capsys.readouterr().err


def test_a_damaged_store_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunStore(home)
    (home / "runs.sqlite").write_bytes(b"damaged" * 1000)
    assert main(["runs"]) == FAILED
    err = capsys.readouterr().err
    assert err.startswith("nbopt: StoreError\nexpected: ")
    assert len(err.splitlines()) == 4
    assert main(["doctor"]) == FAILED


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == OK
    assert "ONNX Runtime" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == OK
    assert "runtimes" in json.loads(capsys.readouterr().out)


def test_an_interrupt_has_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nbopt.doctor.diagnose", interrupt)
    assert main(["doctor"]) == INTERRUPTED


def test_the_installed_command(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("nbopt")
    done = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("nbopt ")
    done = subprocess.run(
        f"{command} doctor | head -1", shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in done.stderr


def test_demo_runs_a_notebook_and_prints_its_last_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_notebook(tmp_path / "mine.ipynb", "rows = 0", TABLE, "# The end\nprint(rows)")
    assert main(["demo", "--notebook", str(source), "--rows", "2"]) == OK
    said = capsys.readouterr()
    assert "quantize/openvino" in said.out
    assert str(tmp_path / "nbopt-demo" / "mine.ipynb") in said.out
    assert "mine.ipynb:" in said.err
    assert "cell 4: The end" in said.err
    page = (tmp_path / "nbopt-demo" / "mine.html").read_text()
    assert "quantize/openvino" in page
    assert "quantize/openvino" in last_table(tmp_path / "nbopt-demo" / "mine.ipynb")
    assert last_table(source) == ""


def test_demo_of_a_notebook_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_notebook(tmp_path / "bad.ipynb", "rows = 0", "%load_ext nbopt", "%optimize quantise")
    assert main(["demo", "--notebook", str(source), "--output", "out"]) == FAILED
    err = capsys.readouterr().err
    assert "OptionError" in err
    assert "did you mean 'quantize'" in err
    assert str(tmp_path / "out" / "bad.ipynb") in err
    assert "Traceback" not in err
    assert (tmp_path / "out" / "bad.ipynb").is_file()


def test_demo_of_a_kernel_that_dies(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "dies.ipynb", "import os", "os._exit(1)")
    with pytest.raises(DemoFailed, match="the kernel died"):
        run_demo(source, tmp_path / "out", {}, io.StringIO())


def test_demo_without_its_notebook_or_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--notebook", "nowhere.ipynb", "--output", str(tmp_path)]) == FAILED
    assert "nowhere.ipynb" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.ipynb").write_text("no notebook")
    assert main(["demo", "--notebook", str(tmp_path / "broken.ipynb"), "--output", str(tmp_path / "o")]) == FAILED
    assert "a notebook" in capsys.readouterr().err
    source = write_notebook(tmp_path / "n.ipynb", "1")
    assert main(["demo", "--notebook", str(source), "--output", str(tmp_path / "file" / "in")]) == FAILED
    assert "a folder that can be written" in capsys.readouterr().err


def test_demo_without_papermill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbopt.demo.find_spec", lambda name: None if name == "papermill" else object())
    with pytest.raises(MissingExtra, match=r"pip install \"nbopt\[notebook\]\""):
        run_demo(tmp_path / "x.ipynb", tmp_path, {}, io.StringIO())


def test_tutorials_of_a_checkout() -> None:
    assert tutorials().name == "notebooks"
    assert (tutorials().parent / "pyproject.toml").is_file()
    found = {path.stem: title for path, title in titles().items()}
    assert found["quickstart"] == "Quickstart: a PyTorch model, smaller and faster, with proof"
    assert all(found.values())


def test_the_line_of_progress_in_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    line = ProgressLine(stream, "n.ipynb")
    line.cell("# # Train the network\nfit()")
    line.cell("\n\nx")
    line.end()
    text = stream.getvalue()
    assert "\n" not in text
    assert "cell 1: Train the network" in text
    assert text.endswith("\r")
