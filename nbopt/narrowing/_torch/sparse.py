"""Whether zeros would be worth a sparse kernel on this machine: measured, since it depends on how many there are."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from nbopt.measurement import measure

SECONDS = 0.3

MOST_WEIGHTS = 1 << 22
"""Weights that are timed, of a larger layer the first outputs: half zero, its sparse form has 1.5 times its size."""


def sparse_word(model: nn.Module) -> str:
    """Return what the largest linear layer would gain as torch.sparse in CSR form, "" where there is none.

    On 2 cores without a GPU, one row, 1,024 units: 0.2 times as fast at half zeros, 1.3 times at nine tenths, 9 times
    at 99 of 100. Neither ONNX nor OpenVINO has such a kernel, so the exported file stays dense.
    """
    lines = [
        (name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear) and m.weight.device.type == "cpu"
    ]
    if not lines:
        return ""
    name, line = max(lines, key=lambda pair: pair[1].weight.numel())
    outputs = max(1, MOST_WEIGHTS // line.in_features)
    weight = line.weight.detach()[:outputs].float()
    part = name if len(weight) == line.out_features else f"{name}.weight[:{outputs}]"
    zeros = 1 - int(torch.count_nonzero(weight)) / weight.numel()
    if not zeros:
        return ""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # that CSR is in beta
        packed, row = weight.to_sparse_csr(), torch.ones(1, weight.shape[1])
        # In turns: two medians, one after the other, once called the sparse kernel 43 times as fast. The process for
        # the next artifact was importing its runtime while the dense one ran, whose threads wait for each other.
        timing = measure(lambda: nn.functional.linear(row, weight), lambda: (packed @ row.T).T, budget=SECONDS)
    verdict = {
        "better": "faster in eager torch alone: layer.weight.to_sparse_csr()",
        "inconclusive": "inconclusive here, so it stays dense",
    }.get(timing.verdict, "not faster here, so it stays dense")
    ratio = timing.interval
    told = "may be faster or slower" if ratio.unknown else f"would be {ratio.text()} times as fast for a row"
    return f"as torch.sparse {part} ({zeros:.0%} zeros) {told}: {verdict}"
