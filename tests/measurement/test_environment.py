"""The conditions that figures were measured under."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version

from nbopt.comparison import Comparison
from nbopt.measurement.environment import INSTRUCTION_SETS, governor, machine


def test_the_machine_is_described_in_plain_data() -> None:
    found = machine()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]
    assert found["cores"] == os.cpu_count()
    assert found["python"] == platform.python_version()
    assert set(found["instruction_sets"]) <= set(INSTRUCTION_SETS.values())
    assert isinstance(governor(), str)


def test_versions_are_those_that_are_installed() -> None:
    found = machine()["versions"]
    for package in ("numpy", "torch", "onnxruntime", "openvino", "nncf", "keras", "tensorflow"):
        assert found[package] == version(package)


def test_every_run_carries_its_conditions(comparison: Comparison) -> None:
    for run in comparison:
        assert run.environment["threads"] == 1
        assert run.environment["cpu"] == machine()["cpu"]
        assert run.environment["measure"] == "quick"
        assert run.environment["shared_rows"] == 0
        assert run.contention is not None
        assert run.contention >= 1
