"""What many tests share: data, trained models, one measured comparison. Nothing of the user's is touched."""

from __future__ import annotations

import operator
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from nbopt.comparison import Comparison
from nbopt.runs import RunStore
from nbopt.workload import Workload

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).parent.parent

# How long an example takes says nothing: the first imports a framework, and the machine is shared.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a store of its own, so that none writes beside the sources or into the user's."""
    folder = tmp_path / "nbopt-home"
    monkeypatch.setenv("NBOPT_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Let interrupts arrive where the tests were started in the background of a shell, which has them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Give each test the same random states, whatever ran before: what it finds is not found by luck."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what models and libraries under test draw from
    for name, seed in (("torch", "manual_seed"), ("keras", "utils.set_random_seed")):
        if name in sys.modules:
            operator.attrgetter(seed)(sys.modules[name])(0)


@dataclass(frozen=True)
class Digits:
    """The handwritten digits of scikit-learn: 8 by 8 pixels in [0, 1], flat, classes 0 to 9."""

    x: Array
    y: Array

    @property
    def train(self) -> tuple[Array, Array]:
        return self.x[:1000], self.y[:1000]

    @property
    def valid(self) -> tuple[Array, Array]:
        return self.x[1000:1250], self.y[1000:1250]

    @property
    def test(self) -> tuple[Array, Array]:
        return self.x[1250:], self.y[1250:]


@pytest.fixture(scope="session")
def digits() -> Digits:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return Digits((x / 16).astype(np.float32), y.astype(np.int64))


@pytest.fixture(scope="session")
def trained_mlp(digits: Digits) -> Any:
    """Return a trained classifier of digits. Shared: a test must not change it."""
    import torch

    from tests.models import mlp, train

    torch.manual_seed(0)
    return train(mlp(), *digits.train)


@pytest.fixture(scope="session")
def trained_cnn(digits: Digits) -> Any:
    """Return a trained convolutional classifier of digits as images. Shared: a test must not change it."""
    import torch

    from tests.models import Cnn, train

    torch.manual_seed(0)
    x, y = digits.train
    return train(Cnn(), x.reshape(-1, 1, 8, 8), y, steps=40)


@pytest.fixture(scope="session")
def workload(trained_mlp: Any, digits: Digits) -> Workload:
    """Return the classifier of digits, bound with all three splits."""
    return Workload(trained_mlp, train=digits.train, valid=digits.valid, test=digits.test, name="digits")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """Return the store of what is measured once a session."""
    return RunStore(tmp_path_factory.mktemp("shared-home"))


@dataclass(frozen=True)
class Measured:
    """Hold one run of `optimize`, and all of the user's that could have changed by it, before and after."""

    comparison: Comparison
    before: dict[str, Any]
    after: dict[str, Any]


def belongings(model: Any, x: Array) -> dict[str, Any]:
    """Return everything of a torch user's that must not change: the model's parts, and random states."""
    import torch

    with torch.no_grad():
        outputs = model(torch.from_numpy(x)).numpy().tobytes()
    return {
        "outputs": outputs,
        "state": {name: value.numpy().tobytes() for name, value in model.state_dict().items()},
        "training": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grad": [parameter.grad is None for parameter in model.parameters()],
        "hooks": [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()],
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),  # noqa: NPY002 - the user's own state is what is looked at
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "grad mode": torch.is_grad_enabled(),
    }


@pytest.fixture(scope="session")
def measured(trained_mlp: Any, workload: Workload, store: RunStore, digits: Digits) -> Measured:
    """Prune and quantize once a session, on the runtimes that are on by default."""
    from nbopt.loop import optimize
    from nbopt.techniques.prune import Prune
    from nbopt.techniques.quantize import Quantize

    before = belongings(trained_mlp, digits.x)
    comparison = optimize(workload, Prune(sparsity=0.5), Quantize(), seed=0, threads=1, store=store)
    return Measured(comparison, before, belongings(trained_mlp, digits.x))


@pytest.fixture(scope="session")
def comparison(measured: Measured) -> Comparison:
    """Return what `optimize` measured of pruning and quantizing."""
    return measured.comparison


@pytest.fixture
def run_python(home: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a function that starts a script in a new process, which ends with the test at the latest."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NBOPT_HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
