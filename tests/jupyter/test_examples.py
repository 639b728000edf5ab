"""The examples of help: each can be read, and those of verbs run as they stand."""

from __future__ import annotations

import pytest

from nbopt.jupyter.arguments import read_line
from nbopt.jupyter.verbs import all_verbs
from nbopt.jupyter.verbs.help import page_of
from nbopt.techniques import all_techniques
from tests.jupyter.conftest import MODEL, Shell

KNOWN = {**all_verbs(), **all_techniques()}
NAMES = """
model = net
train_dl, valid_dl = train, valid
x_valid, y_valid = valid
"""
FAST = "--runtimes onnxruntime --threads 1"
AFTER = ("undo",)
"""Verbs that undo what others did: last."""


def examples(word: str) -> list[str]:
    sheet = page_of(KNOWN[word]).sheets[-1]
    assert sheet.title == "examples"
    return [row[0] for row in sheet.rows]


@pytest.mark.parametrize("word", KNOWN)
def test_every_example_can_be_read(word: str) -> None:
    found = examples(word)
    assert found
    names = dict.fromkeys(("model", "train_dl", "valid_dl", "x_valid", "y_valid"), (0, 1))
    for line in found:
        assert line.startswith(f"%optimize {word}")
        if "{" not in line:
            read_line(line.removeprefix("%optimize "), names)


@pytest.mark.slow
def test_examples_of_verbs_run(shell: Shell) -> None:
    shell.ok(MODEL + NAMES)
    shell.ok("%config NbOpt.runtimes = 'torch,onnxruntime,openvino'")
    shell.ok("%config NbOpt.threads = 1")
    shell.ok("%optimize use model --train train_dl --valid valid_dl")
    shell.ok("%optimize quantize -o q8")
    shell.ok("%optimize prune -o pruned")
    shell.ok("%optimize prune | quantize")
    for word in [*(word for word in all_verbs() if word not in ("use", *AFTER)), *AFTER]:
        for line in examples(word):
            shell.ok(line)
