"""`import nbopt` and `%load_ext nbopt` are light and need no framework, and every public name is there."""

from __future__ import annotations

import json
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nbopt
import nbopt.runtimes
import nbopt.techniques

ROOT = Path(nbopt.__file__).parent.parent

FRAMEWORKS = ["torch", "tensorflow", "keras"]
HEAVY = [
    *FRAMEWORKS,
    "ai_edge_litert",
    "ai_edge_quantizer",
    "ipywidgets",
    "nncf",
    "onnx",
    "onnxruntime",
    "openvino",
    "optuna",
    "papermill",
    "plotly",
    "scipy",
    "sklearn",
]

# Runs in a fresh process, before which nothing was imported.
NEW_SHELL = """
import os, tempfile
os.environ["IPYTHONDIR"] = tempfile.mkdtemp()
from traitlets.config import Config
from IPython.core.interactiveshell import InteractiveShell
config = Config()
config.HistoryManager.enabled = False
shell = InteractiveShell.instance(config=config)
"""


def fresh(code: str, *, cwd: Path | None = None) -> object:
    """Run code in a new process and return what it printed last, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def best_seconds(before: str, timed: str) -> float:
    """Return the shortest of five timings, each in a new process: what the code costs on a quiet machine."""
    code = f"{before}\nimport time\nstart = time.perf_counter()\n{timed}\nprint(time.perf_counter() - start)\n"
    return min(float(str(fresh(code))) for _ in range(5))


def test_import_brings_nothing_heavy() -> None:
    heavy = [*HEAVY, "IPython", "numpy", "pandas"]
    code = f"import json, sys, nbopt; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    assert fresh(code) == []


def test_import_takes_no_time() -> None:
    assert best_seconds("", "import nbopt") < 0.05


def test_load_ext_brings_no_framework() -> None:
    code = (
        f"{NEW_SHELL}\nimport json, sys\nshell.run_line_magic('load_ext', 'nbopt')\n"
        "assert 'optimize' in shell.magics_manager.magics['line']\n"
        "assert 'optimize' in shell.magics_manager.magics['cell']\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    assert fresh(code) == []


def test_load_ext_takes_little_time() -> None:
    assert best_seconds(NEW_SHELL, "shell.run_line_magic('load_ext', 'nbopt')") < 0.2


def test_load_ext_works_where_neither_framework_is_installed() -> None:
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
{NEW_SHELL}
shell.run_line_magic("load_ext", "nbopt")
import json, nbopt
for name in dir(nbopt):
    getattr(nbopt, name)
print(json.dumps(dir(nbopt)))
"""
    assert {"Workload", "optimize", "Prune", "Quantize"} <= set(fresh(code))  # type: ignore[call-overload]


def test_every_public_name_resolves_and_brings_no_framework() -> None:
    code = (
        "import json, sys, nbopt\n"
        "found = {name: type(getattr(nbopt, name)).__name__ for name in dir(nbopt)}\n"
        f"print(json.dumps([found, [name for name in {HEAVY} if name in sys.modules]]))"
    )
    found, heavy = fresh(code)  # type: ignore[misc]
    assert set(nbopt.__all__) <= set(found)
    assert found["__version__"] == "str"
    assert heavy == []


@pytest.mark.parametrize("package", [nbopt.techniques, nbopt.runtimes])
def test_every_technique_and_runtime_imports_its_framework_inside(package: object) -> None:
    path, name = package.__path__, package.__name__  # type: ignore[attr-defined]
    # A part such as `_prune_torch` is itself imported inside: only when a model of its framework comes.
    modules = [m.name for m in pkgutil.iter_modules(path, f"{name}.") if not m.name.startswith(f"{name}._")]
    assert modules
    code = (
        f"import importlib, json, sys\nfor module in {modules}:\n    importlib.import_module(module)\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    assert fresh(code) == []


def test_every_technique_is_a_public_class() -> None:
    files = [module.name for module in pkgutil.iter_modules(nbopt.techniques.__path__)]
    public = [file for file in files if not file.startswith("_")]
    assert {"prune", "quantize"} <= set(public)
    for file in public:
        name = "".join(word.capitalize() for word in file.split("_"))
        assert name in dir(nbopt)
        assert getattr(nbopt, name).__module__ == f"nbopt.techniques.{file}"


def test_a_ninth_technique_is_one_new_file(tmp_path: Path) -> None:
    copied = tmp_path / "nbopt"
    shutil.copytree(ROOT / "nbopt", copied, ignore=shutil.ignore_patterns("__pycache__"))
    (copied / "techniques" / "fold_norms.py").write_text("class FoldNorms:\n    pass\n")
    code = (
        "import json, nbopt\nprint(json.dumps([nbopt.__file__, 'FoldNorms' in dir(nbopt), nbopt.FoldNorms.__module__]))"
    )
    assert fresh(code, cwd=tmp_path) == [str(copied / "__init__.py"), True, "nbopt.techniques.fold_norms"]


def test_comparison_comes_with_its_renderer() -> None:
    code = "import json, sys, nbopt; nbopt.Comparison; print(json.dumps('nbopt.render' in sys.modules))"
    assert fresh(code) is True


@pytest.mark.parametrize("name", ["Nothing", "nothing", "_nothing", "__wrapped__"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    assert not hasattr(nbopt, name)
    with pytest.raises(AttributeError, match=f"module 'nbopt' has no attribute '{name}'"):
        getattr(nbopt, name)
