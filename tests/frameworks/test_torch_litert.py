"""Torch models as .tflite files, by litert-torch, which has a folder of its own: constraints/litert-torch.txt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONVERTER = Path(sys.prefix) / "litert-torch"

MODELS = """
import numpy as np, torch
from torch import nn

class Vowels(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(12, 32, batch_first=True), nn.Linear(32, 9)

    def forward(self, x):
        return self.head(self.cells(x)[0].mean(1))

class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(50, 16), nn.Linear(16, 3)
        self.body = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, attention_mask, input_ids):
        return self.head((self.body(self.table(input_ids)) * attention_mask[..., None]).mean(1))

torch.manual_seed(0)
rng = np.random.default_rng(0)
cnn = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10))
ids = {"input_ids": rng.integers(0, 50, (6, 7)), "attention_mask": np.ones((6, 7), np.int64)}
cases = {
    "cnn": (cnn, rng.normal(size=(6, 1, 8, 8)).astype(np.float32)),
    "lstm": (Vowels(), rng.normal(size=(6, 25, 12)).astype(np.float32)),
    "text": (Text(), ids),
}
"""


def _run(code: str, home: Path) -> str:
    assert CONVERTER.is_dir(), f"no converter in {CONVERTER}: `make test` installs it"
    paths = [str(CONVERTER), str(Path(__file__).parents[2])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "NBOPT_HOME": str(home),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MODELS + code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_file_computes_what_the_model_does(tmp_path: Path) -> None:
    out = _run(
        f"""
from pathlib import Path
import nbopt
from nbopt.frameworks import framework_of
from nbopt.runtimes import Manifest, runtime_named

for name, (model, x) in cases.items():
    work = nbopt.Workload(model.eval(), valid=(x, np.zeros(6, np.int64)))
    signature = work.signature
    exported = work.framework.export(model, signature, Path({str(tmp_path)!r}) / f"{{name}}.tflite", "litert")
    manifest = Manifest("litert", tuple(signature.names), keyed=signature.keyed, batch=exported.batch)
    session = runtime_named("litert").load(exported.path, manifest, threads=1)
    inputs = x if isinstance(x, dict) else (x,)
    error = np.abs(session.run(inputs) - work.framework.predict(model, inputs)).max()
    assert error < 1e-5, (name, error)
    print(name, exported.batch, *exported.notes)
""",
        tmp_path,
    )
    assert [line.split()[:2] for line in out.splitlines()] == [["cnn", "1"], ["lstm", "1"], ["text", "1"]]
    assert "batch 1" in out


def test_its_rows_stand_beside_the_others(tmp_path: Path) -> None:
    out = _run(
        """
import nbopt
from nbopt.datasets import fashion_mnist

(x, y), (xt, yt) = fashion_mnist(600, 300)
x, xt = (part[:, None].astype(np.float32) / 255 for part in (x, xt))
head = [nn.Flatten(), nn.Linear(8 * 169, 64), nn.ReLU(), nn.Linear(64, 10)]
model = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), *head)
work = nbopt.Workload(model.eval(), train=(x, y), test=(xt, yt))
result = nbopt.optimize(work, nbopt.Quantize(method="weight_only"), runtimes=["litert"], threads=1)
for run in result:
    print(run.name, run.failed, run.reason)
base, quantized = result["baseline/litert"], result["quantize/litert"]
assert abs(base.quality - result["baseline/torch"].quality) < 1e-9
assert 3 < base.size_bytes / quantized.size_bytes < 4.5, (base.size_bytes, quantized.size_bytes)
assert quantized.agreement > 0.95
print("done")
""",
        tmp_path,
    )
    assert out.endswith("done\n"), out


def test_rows_of_different_shapes_are_refused_with_what_to_do(tmp_path: Path) -> None:
    out = _run(
        f"""
from pathlib import Path
import nbopt
from nbopt.errors import ExportError

model, x = cases["lstm"]
batches = [(torch.from_numpy(x[:2, :n]), torch.zeros(2).long()) for n in (10, 25, 7)]
work = nbopt.Workload(model.eval(), valid=batches)
try:
    work.framework.export(model, work.signature, Path({str(tmp_path)!r}) / "m.tflite", "litert")
except ExportError as error:
    print(error)
""",
        tmp_path,
    )
    assert "pad the rows" in out
