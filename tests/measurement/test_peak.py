"""The machine's peak: measured once in a process of its own, kept per machine, believed only where it is whole."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nbopt.measurement import peak
from nbopt.measurement.peak import peak_macs, peaks


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measure once, and return the folder of the cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBOPT_CACHE", str(folder))
        peak._known.clear()
        assert peaks(1)
    return folder


@pytest.fixture
def cache(measured: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the one file of the cache, as a new process finds it."""
    monkeypatch.setenv("NBOPT_CACHE", str(measured))
    peak._known.clear()
    (file,) = (measured / "peaks").iterdir()
    return file


def test_a_product_of_numpys_own_comes_no_higher(cache: Path) -> None:
    found = peaks(1)
    assert set(found) >= {"float32", "int8"}
    a = np.ones((512, 512), np.float32)
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - began)
    assert found["float32"] > 0.3 * 512**3 / np.median(seconds)
    assert found["int8"] > 0.5 * found["float32"]
    assert peak_macs(1, "float32") == found["float32"]
    assert peak_macs(1, "float8") is None


def test_what_is_kept_is_not_measured_again(cache: Path) -> None:
    before = cache.read_text()
    cache.write_text(json.dumps({"peaks": {"float32": 123.0}, "contention": 1.0}))
    try:
        assert peaks(1) == {"float32": 123.0}
        cache.unlink()
        assert peaks(1) == {"float32": 123.0}  # nor is the file read twice in a process
    finally:
        cache.write_text(before)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"peaks": {"float32": "fast"}, "contention": 1}', '{"peaks": {"float32": -1}, "contention": 1}'],
)
def test_a_damaged_file_is_measured_anew(cache: Path, content: str) -> None:
    cache.write_text(content)
    found = peaks(1)
    assert found["float32"] > 1e8
    assert json.loads(cache.read_text())["peaks"] == found


def test_figures_of_a_busy_machine_are_measured_anew_and_the_better_is_kept(cache: Path) -> None:
    cache.write_text(json.dumps({"peaks": {"float32": 1.0, "int8": 1e18}, "contention": 3.0}))
    found = peaks(1)
    assert found["float32"] > 1e8
    assert found["int8"] == 1e18


def test_a_cache_that_can_not_be_written_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("NBOPT_CACHE", str(blocked))
    assert peaks(1)["float32"] > 1e8
    assert blocked.read_text() == ""


def test_other_threads_are_another_figure(cache: Path) -> None:
    assert peak._key(1) != peak._key(2)
    assert cache.stem == peak._key(1)


def test_the_kernels_process_loads_no_runtime_for_it(
    run_python: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    script = """
        import os, sys
        os.environ["NBOPT_CACHE"] = sys.argv[1]
        from nbopt.measurement.peak import peaks
        assert peaks(1)["float32"] > 0
        print([name for name in ("openvino", "onnxruntime", "onnx") if name in sys.modules])
    """
    output, error = run_python(script, str(tmp_path / "cache")).communicate(timeout=60)
    assert output.strip() == "[]", error
