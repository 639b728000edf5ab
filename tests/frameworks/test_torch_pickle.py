"""A pickled module has what its forward pass needs and no data of a notebook; reading it leaves live classes alone."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.frameworks import Signature
from nbopt.frameworks._torch_pickle import dump, load, unneeded
from nbopt.frameworks.torch import FRAMEWORK
from nbopt.frozen import Leaf

TRAIN = np.zeros((1000, 1000), np.float32)
BACKBONE = nn.Linear(500, 500)
SHIFT = torch.ones(4)
SCALE = 2.0
OPTIONS = {"scale": 2, "pool": True, "axis": 1}


def one_epoch(model: nn.Module) -> int:
    return sum(len(row) for row in TRAIN)


def shifted(x: torch.Tensor) -> torch.Tensor:
    return x + SHIFT


class Notebook(nn.Module):
    """Keeps its training beside its forward pass, as notebooks have it."""

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2) if head is None else head
        self.unused = BACKBONE.in_features

    def fit(self) -> int:
        return one_epoch(self)

    @torch.no_grad()
    def evaluate(self) -> int:
        return len(TRAIN)

    def helped(self, x: torch.Tensor) -> torch.Tensor:
        return shifted(x) * SCALE

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(getattr(self, "helped")(x))  # noqa: B009 - a name in a text counts too


def written(model: nn.Module) -> bytes:
    buffer = io.BytesIO()
    dump(model, buffer)
    return buffer.getvalue()


def test_methods_that_read_data_and_serve_no_forward_pass_are_found() -> None:
    found = {function.__qualname__.rpartition(".")[2]: data for function, data in unneeded(Notebook()).items()}
    assert found == {"__init__": "BACKBONE", "fit": "TRAIN", "evaluate": "TRAIN"}


def test_a_forward_pass_that_makes_modules_keeps_how_they_are_made() -> None:
    class Maker(Notebook):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return type(self)().head(x)

    assert "__init__" not in {function.__name__ for function in unneeded(Maker())}


class Scaled(nn.Conv2d):
    """Has a method that torch's own forward calls."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: Any) -> torch.Tensor:  # noqa: A002
        return super()._conv_forward(input, weight * OPTIONS["scale"], bias)


class Roundabout(nn.Module):
    """Gets to each method by another way than its name in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.kind = Scaled(1, 1, 1), "shift"
        self.pool = self._pool if OPTIONS["pool"] else nn.Identity()
        self.table = {"twice": [self._twice]}
        self.conv.register_forward_hook(self._hook)

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(OPTIONS["axis"])

    def _twice(self, x: torch.Tensor) -> torch.Tensor:
        return x * (2 * OPTIONS["scale"])

    def _hook(self, _: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output + OPTIONS["scale"]

    def _by_shift(self, x: torch.Tensor) -> torch.Tensor:
        return x - OPTIONS["scale"]

    def _by_nothing(self, x: torch.Tensor) -> torch.Tensor:
        return x[: len(TRAIN)]

    @property
    def offset(self) -> float:
        return self._offset()

    def _offset(self) -> float:
        return float(OPTIONS["scale"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.table["twice"][0](self.pool(self.conv(x)))
        return getattr(self, f"_by_{self.kind}")(x) + self.offset


def test_methods_that_a_forward_pass_gets_to_by_roundabout_ways_are_written(tmp_path: Path) -> None:
    model, x = Roundabout().eval(), np.ones((1, 1, 3, 3), np.float32)
    unreached = {function.__name__ for function in unneeded(model)}
    assert unreached == {"__init__", "_by_shift", "_by_nothing"}, "a name that is put together shows when it runs"
    signature = Signature((Leaf("x", "float32", (None, 1, 3, 3)),), False, (x,))
    path = FRAMEWORK.export(model, signature, tmp_path / "model.pt", "torch").path
    assert path.stat().st_size < 20_000
    script = """
import pickle, sys, torch
print(pickle.load(open(sys.argv[1], "rb"))(torch.ones(1, 1, 3, 3)).tolist())
"""
    told = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert told.strip() == str(FRAMEWORK.predict(model, (x,)).tolist())


def test_the_file_holds_no_data_and_runs_where_the_class_is_not(tmp_path: Path) -> None:
    model = Notebook().eval()
    signature = Signature((Leaf("x", "float32", (None, 4)),), False, (np.ones((1, 4), np.float32),))
    path = FRAMEWORK.export(model, signature, tmp_path / "model.pt", "torch").path
    assert path.stat().st_size < 20_000, "without a million rows' zeros and without the backbone"
    script = """
import pickle, sys, torch
model = pickle.load(open(sys.argv[1], "rb"))
print(model(torch.ones(1, 4)).tolist()[0])
try: model.fit()
except NotImplementedError as error: print(error)
"""
    told = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.splitlines()
    with torch.no_grad():
        assert told[0] == str(model(torch.ones(1, 4)).tolist()[0])
    assert told[1].startswith("Notebook.fit is not in this file: it reads TRAIN")


def test_reading_the_file_leaves_the_live_class_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import cloudpickle

    here = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(here)
    try:
        model = Notebook().eval()
        before: dict[str, Any] = dict(vars(Notebook))
        again = load(written(model))
    finally:
        cloudpickle.unregister_pickle_by_value(here)
    assert type(again) is Notebook
    assert dict(vars(Notebook)) == before
    monkeypatch.setattr(here, "SCALE", 0.0)
    assert torch.equal(Notebook(nn.Identity())(torch.ones(1, 4)), torch.zeros(1, 4)), "it sees the notebook's variables"
    assert one_epoch(model) == Notebook().fit()


def test_hooks_by_which_transformers_hands_out_hidden_states_stay_out(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForSequenceClassification(BertConfig(vocab_size=20, output_hidden_states=True, **sizes)).eval()
    inputs = (np.ones((2, 5), np.int64),)
    before = FRAMEWORK.predict(model, inputs)  # puts them in
    named = Signature((Leaf("input_ids", "int64", (None, 5)),), False, (inputs[0][:1],))
    FRAMEWORK.export(model, named, tmp_path / "model.pt", "torch")
    again = load((tmp_path / "model.pt").read_bytes())
    np.testing.assert_allclose(FRAMEWORK.predict(again, inputs), before, atol=1e-6)
    assert len(again(torch.ones(1, 5, dtype=torch.int64)).hidden_states) == 3
    assert len(model(torch.ones(1, 5, dtype=torch.int64)).hidden_states) == 3
