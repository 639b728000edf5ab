"""One contract for every runtime that is found: what it exports it runs, on any number of rows, to equal outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbopt.artifacts import Artifact, load, write_sidecar
from nbopt.batches import Inputs, leaves, map_leaves, rows_of, take_rows
from nbopt.errors import ArtifactError, DataError, OptionError
from nbopt.runtimes import Manifest, Runtime, all_runtimes, runtime_named
from nbopt.workload import Workload
from tests.runtimes import keras_models

RUNTIMES = all_runtimes()
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


INPUTS: dict[str, Inputs] = {
    "mlp": (normal(7, 64),),
    "cnn": (normal(7, 1, 8, 8),),
    "lstm": (normal(7, 5, 8),),
    "text": {
        "input_ids": RNG.integers(0, 50, (7, 6)),
        "attention_mask": np.arange(6)[None] < RNG.integers(2, 7, (7, 1)),
    },
    "two": (normal(7, 6), RNG.integers(0, 5, 7)),
}
INPUTS["text"]["attention_mask"] = INPUTS["text"]["attention_mask"].astype(np.int64)  # type: ignore[call-overload,index]


@cache
def torch_model(kind: str) -> Any:
    import torch

    from tests import models

    torch.manual_seed(0)
    made: dict[str, Callable[[], Any]] = {
        "mlp": models.mlp, "cnn": models.Cnn, "lstm": models.Lstm, "text": models.TextEncoder, "two": models.TwoInputs,
    }  # fmt: skip
    return made[kind]().eval()


@cache
def workload(framework: str, kind: str) -> Workload:
    model = torch_model(kind) if framework == "torch" else keras_models.model(kind)
    inputs = INPUTS[kind] if framework == "torch" else keras_models.inputs(kind, INPUTS[kind])
    labels = np.arange(7) % 2
    data = {**inputs, "labels": labels} if isinstance(inputs, dict) else (inputs, labels)
    return Workload(model, valid=data)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], tuple[Workload, Artifact]]:
    """Give a function that exports a model for a runtime once, and loads it as any later process would."""
    folder = tmp_path_factory.mktemp("exported")
    made: dict[tuple[str, str, str], tuple[Workload, Artifact]] = {}

    def export(runtime_name: str, framework: str, kind: str) -> tuple[Workload, Artifact]:
        key = (runtime_name, framework, kind)
        if key not in made:
            runtime, work = RUNTIMES[runtime_name], workload(framework, kind)
            path = folder / f"{framework}-{runtime_name}-{kind}{runtime.suffix}"
            written = work.framework.export(work.model, work.signature, path, runtime.form)
            write_sidecar(path, manifest_of(work, runtime, written.batch))
            made[key] = work, load(path, threads=1)
        return made[key]

    return export


def manifest_of(work: Workload, runtime: Runtime, batch: int | None) -> Manifest:
    signature = work.signature
    return Manifest(
        runtime.name,
        tuple(signature.names),
        signature.keyed,
        batch,
        dtypes=tuple(leaf.dtype for leaf in signature.leaves),
        shapes=tuple(leaf.shape for leaf in signature.leaves),
        output=work.output,
    )


# Compiling takes from 5 to 60 s a model and shape: one model stands for that runtime.
SLOW = {name for name, runtime in RUNTIMES.items() if not runtime.by_default and runtime.needs_framework}
CASES = [
    pytest.param(name, framework, kind, id=f"{name}-{framework}-{kind}")
    for name, runtime in RUNTIMES.items()
    for framework in runtime.frameworks
    if not runtime.unavailable(framework)
    for kind in (["mlp"] if name in SLOW else INPUTS)
]


def test_every_runtime_is_found_by_its_own_word() -> None:
    assert {"torch", "onnxruntime", "openvino", "keras", "litert", "inductor"} <= set(RUNTIMES)
    for name, runtime in RUNTIMES.items():
        assert runtime.name == name
        assert runtime_named(name) is runtime
        assert runtime.title
        assert runtime.suffix.startswith(".")
        assert runtime.frameworks
        assert runtime.__doc__
    titles = [runtime.title for runtime in RUNTIMES.values()]
    assert len(set(titles)) == len(titles)
    with pytest.raises(OptionError, match="did you mean"):
        runtime_named("onnxruntimes")


@pytest.mark.parametrize("name", RUNTIMES)
def test_it_says_why_it_is_not_available_and_never_raises(name: str) -> None:
    runtime = RUNTIMES[name]
    for framework in ("", "torch", "keras"):
        assert isinstance(runtime.unavailable(framework), str)
    foreign = {"torch", "keras"} - set(runtime.frameworks)
    for framework in foreign:
        assert f"not of {framework}" in runtime.unavailable(framework)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_package_that_is_missing_is_named_with_its_pip_command(name: str) -> None:
    lacking = type("Lacking", (type(RUNTIMES[name]),), {"packages": {"no_such_package": "torch"}})()
    reason = lacking.unavailable()
    assert "no_such_package is not installed" in reason
    assert 'pip install "nbopt[torch]"' in reason


@pytest.mark.parametrize("name", RUNTIMES)
def test_its_version_is_known_where_it_is_installed(name: str) -> None:
    runtime = RUNTIMES[name]
    assert bool(runtime.version()) or runtime.unavailable()


@pytest.mark.parametrize(("name", "framework", "kind"), CASES)
def test_it_gives_the_frameworks_outputs_for_any_number_of_rows(
    exported: Callable[..., tuple[Workload, Artifact]], name: str, framework: str, kind: str
) -> None:
    work, artifact = exported(name, framework, kind)
    inputs = next(work.report_rows.batches())
    before = [leaf.copy() for leaf in leaves(inputs)]
    expected = work.framework.predict(work.model, inputs)
    for rows in (1, 3, 7):
        part = map_leaves(np.ascontiguousarray, take_rows(inputs, slice(0, rows)))
        output = artifact.session.run(part)
        assert output.dtype == np.float32
        assert len(output) == rows
        np.testing.assert_allclose(output, expected[:rows], rtol=1e-3, atol=2e-5)
        np.testing.assert_array_equal(artifact.predict(part), output)
    for leaf, original in zip(leaves(inputs), before, strict=True):
        np.testing.assert_array_equal(leaf, original)


@pytest.mark.parametrize(("name", "framework", "kind"), CASES)
def test_inputs_that_must_not_be_written_to_are_taken_and_outputs_are_the_callers(
    exported: Callable[..., tuple[Workload, Artifact]], name: str, framework: str, kind: str
) -> None:
    work, artifact = exported(name, framework, kind)
    inputs = next(work.report_rows.batches())
    for leaf in leaves(inputs):
        leaf.setflags(write=False)
    first = artifact.session.run(inputs)
    kept = first.copy()
    second = artifact.session.run(map_leaves(np.zeros_like, inputs))
    assert not np.array_equal(second, kept)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(("name", "framework", "kind"), CASES)
def test_the_weights_in_the_file_are_those_of_the_model(
    exported: Callable[..., tuple[Workload, Artifact]], name: str, framework: str, kind: str
) -> None:
    work, artifact = exported(name, framework, kind)
    total, _ = work.framework.count(work.model)
    precisions = RUNTIMES[name].weight_precisions(artifact.path)
    assert max(precisions, key=lambda dtype: precisions[dtype]) == "float32"
    # Batch norm may be folded, buffers and constants of shapes may be counted: a tenth, or a few numbers.
    assert abs(sum(precisions.values()) - total) <= max(0.1 * total, 200)


@pytest.mark.parametrize(("name", "framework", "kind"), [case for case in CASES if case.values[2] == "mlp"])
def test_a_shape_that_the_model_does_not_take_is_told_with_shapes(
    exported: Callable[..., tuple[Workload, Artifact]], name: str, framework: str, kind: str
) -> None:
    _, artifact = exported(name, framework, kind)
    with pytest.raises(DataError) as caught:
        artifact.predict(np.zeros((3, 63), np.float32))
    assert "64" in caught.value.expected
    assert "(3, 63)" in caught.value.came
    with pytest.raises(DataError):
        artifact.predict((np.zeros((3, 64)), np.zeros((3, 64))))


@pytest.mark.parametrize(("name", "framework", "kind"), [case for case in CASES if case.values[2] == "mlp"])
def test_arrays_of_any_order_and_a_closed_session(
    exported: Callable[..., tuple[Workload, Artifact]], name: str, framework: str, kind: str
) -> None:
    work, artifact = exported(name, framework, kind)
    session = RUNTIMES[name].load(artifact.path, artifact.session.manifest, threads=1)
    (x,) = next(work.report_rows.batches())
    expected = session.run((x,))
    backwards = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    foreign = x.astype(x.dtype.newbyteorder())
    for same in (backwards, foreign, np.asfortranarray(x)):
        np.testing.assert_allclose(session.run((same,)), expected, atol=1e-6)
    session.manifest = dataclasses.replace(session.manifest, batch=1)
    with pytest.raises(DataError, match="one row"):
        session.run((x[:0],))
    session.close()
    session.close()
    with pytest.raises(ArtifactError, match="closed"):
        session.run((x,))


@pytest.mark.parametrize(("name", "framework", "kind"), [case for case in CASES if case.values[2] == "mlp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_file_is_told_as_one(
    exported: Callable[..., tuple[Workload, Artifact]],
    tmp_path: Path,
    name: str,
    framework: str,
    kind: str,
    share: float,
) -> None:
    _, artifact = exported(name, framework, kind)
    path = tmp_path / f"damaged{artifact.path.suffix}"
    content = artifact.path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    if artifact.path.with_suffix(".bin").exists():
        path.with_suffix(".bin").write_bytes(artifact.path.with_suffix(".bin").read_bytes())
    with pytest.raises(ArtifactError) as caught:
        RUNTIMES[name].load(path, artifact.session.manifest, threads=1)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(("name", "framework", "kind"), [case for case in CASES if case.values[2] == "mlp"])
def test_a_file_for_a_fixed_number_of_rows_runs_in_parts(
    exported: Callable[..., tuple[Workload, Artifact]], name: str, framework: str, kind: str
) -> None:
    work, artifact = exported(name, framework, kind)
    inputs = next(work.report_rows.batches())
    whole = artifact.session.run(inputs)
    manifest = artifact.session.manifest
    for batch in (1, 3):
        artifact.session.manifest = dataclasses.replace(manifest, batch=batch)
        try:
            parts = artifact.session.run(inputs)
        finally:
            artifact.session.manifest = manifest
        assert len(parts) == rows_of(inputs)
        np.testing.assert_allclose(parts, whole, atol=1e-5)
