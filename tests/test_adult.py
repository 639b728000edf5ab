"""A third workload: an MLP on Adult income, judged by AUC, where one row in four is positive."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nbopt
from nbopt.datasets import adult


@pytest.fixture(scope="module")
def work() -> nbopt.Workload:
    (x, y), (x_test, y_test) = adult(seed=0)
    x, y = x.astype("float32"), y.astype("float32")[:, None]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    rows, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(3):
        for part in torch.randperm(len(rows) - 4000).split(256):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(model(rows[part]), labels[part]).backward()
            optimizer.step()
    model.eval()
    return nbopt.Workload(
        model,
        train=(x[:-4000], y[:-4000]),
        valid=(x[-4000:], y[-4000:]),
        test=(x_test, y_test),
        metric="auc",
        name="adult",
    )


@pytest.mark.slow
def test_one_logit_is_understood_and_quantizing_keeps_the_auc(
    work: nbopt.Workload, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBOPT_HOME", str(tmp_path))
    assert work.output == "binary_logits"
    cmp = nbopt.optimize(
        work,
        nbopt.Prune(sparsity=0.5, structured=True),
        nbopt.Quantize(dtype="int8"),
        runtimes=["onnxruntime", "openvino"],
    )
    baseline = cmp["baseline/torch"]
    assert baseline.quality > 0.89
    assert baseline.quality_low < baseline.quality < baseline.quality_high
    for runtime in ("onnxruntime", "openvino"):
        untouched, run = cmp[f"baseline/{runtime}"], cmp[f"prune+quantize/{runtime}"]
        assert abs(untouched.quality_delta) < 1e-6
        assert run.quality_delta_low > -0.02
        assert run.size_bytes < untouched.size_bytes / 2
        assert run.metric == "auc"
    best = cmp.best(max_drop=0.02, minimize="size")
    assert best.name.startswith("prune+quantize/")
