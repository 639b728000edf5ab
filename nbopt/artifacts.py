"""Exported files on disk: their manifest, their hash, their size, and reading them back."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.data import as_inputs, numeric_inputs
from nbopt.errors import ArtifactError
from nbopt.runtimes import Manifest, Session, all_runtimes, runtime_named

SIDECAR = ".nbopt.json"
VERSION = 1
CHUNK = 1 << 20


def sidecar_of(path: Path) -> Path:
    """Return where the manifest of an exported file lies: `model.onnx` has `model.onnx.nbopt.json`."""
    return path.with_name(path.name + SIDECAR)


def files_of(path: Path) -> list[Path]:
    """Return all files that make up an artifact: OpenVINO's .bin, ONNX's external data, a folder's content."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    companions = [p for p in (path.with_suffix(".bin"), path.with_name(path.name + ".data")) if p.is_file()]
    return [path, *(p for p in companions if p != path)]


def size_of(path: Path) -> tuple[int, int]:
    """Return the bytes that a user ships, and the bytes of the same files deflated (zlib level 6)."""
    total = deflated = 0
    for file in files_of(path):
        packer = zlib.compressobj(6)
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                total += len(chunk)
                deflated += len(packer.compress(chunk))
        deflated += len(packer.flush())
    return total, deflated


def hash_of(path: Path) -> str:
    """Return the SHA-256 of an artifact's files, independent of what they are called."""
    digest = hashlib.sha256()
    for file in files_of(path):
        digest.update(file.suffix.encode())
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def write_sidecar(path: Path, manifest: Manifest, about: dict[str, Any] | None = None) -> str:
    """Write the manifest beside an exported file and return the file's hash."""
    sha256 = hash_of(path)
    body = {"nbopt_artifact": VERSION, "sha256": sha256, "manifest": asdict(manifest), "about": about or {}}
    sidecar_of(path).write_text(json.dumps(body, indent=1))
    return sha256


def read_sidecar(path: Path) -> tuple[Manifest, dict[str, Any]] | None:
    """Return the manifest beside a file and what is said about it, or None where there is none.

    Raises:
        ArtifactError: A newer nbopt wrote it, or it is damaged.
    """
    sidecar = sidecar_of(path)
    if not sidecar.is_file():
        return None
    try:
        body = json.loads(sidecar.read_text())
        version = int(body["nbopt_artifact"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"the manifest {sidecar.name}", f"a file that is not one ({error})", "export the run again"
        ) from error
    if version > VERSION:
        raise ArtifactError(
            f"an artifact of version {VERSION} or older",
            f"version {version}, written by a newer nbopt",
            "pip install --upgrade nbopt",
        )
    fields = body["manifest"]
    for name in ("inputs", "dtypes"):
        fields[name] = tuple(fields[name])
    fields["shapes"] = tuple(tuple(shape) for shape in fields["shapes"])
    return Manifest(**fields), body


@dataclass
class Artifact:
    """Hold a loaded export.

    Args:
        path: The file.
        session: What runs it.
    """

    path: Path
    session: Session

    def predict(self, x: Any) -> np.ndarray[Any, Any]:
        """Return the model's primary output for inputs in any form that a batch takes.

        Args:
            x: One array (rows, ...), a tuple of arrays, or a mapping of arrays by input name.
        """
        manifest = self.session.manifest
        inputs = as_inputs(x)
        floats = next((d for d in manifest.dtypes if d.startswith("float")), "float32")
        inputs = numeric_inputs(inputs, floats)
        if isinstance(inputs, tuple) and len(inputs) == len(manifest.dtypes):
            inputs = tuple(
                leaf.astype(dtype) if leaf.dtype.kind in "iub" and leaf.dtype != dtype else leaf
                for leaf, dtype in zip(inputs, manifest.dtypes, strict=True)
            )
        return self.session.run(inputs)


def load(path: str | Path, *, runtime: str | None = None, threads: int | None = None) -> Artifact:
    """Load an exported model, to `.predict(x)` with it.

    Args:
        path: A file that `Run.export` wrote, or any .onnx, OpenVINO .xml, .tflite, .keras or .pt2.
        runtime: Word of the runtime; None takes the one it was measured with.
        threads: Threads of one inference; None for all cores that this process may use.

    Raises:
        ArtifactError: The file is missing, damaged, of an unknown kind, or of a newer nbopt.
    """
    path = Path(path)
    if not path.exists():
        raise ArtifactError("an exported model", f"no file at {path}", "run.export(path) writes one")
    kept = read_sidecar(path)
    if kept is None:
        suitable = [r for r in all_runtimes().values() if r.suffix == path.suffix]
        if not suitable:
            known = sorted({r.suffix for r in all_runtimes().values()})
            raise ArtifactError(f"a file ending in {', '.join(known)}", path.name)
        manifest = Manifest(runtime or sorted(suitable, key=lambda r: not r.by_default)[0].name)
    else:
        manifest, body = kept
        if hash_of(path) != body["sha256"]:
            raise ArtifactError(
                f"{path.name} as it was exported", "its content has changed or is cut short", "export the run again"
            )
    chosen = runtime_named(runtime or manifest.runtime)
    missing = chosen.unavailable()
    if missing:
        raise ArtifactError(f"{chosen.title} to run {path.name}", missing)
    return Artifact(path, chosen.load(path, manifest, threads=threads or available_threads()))


def available_threads() -> int:
    """Return the cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def copy_artifact(source: Path, target: Path) -> Path:
    """Copy an artifact with its manifest to `target`, whose ending may be left out.

    Raises:
        ArtifactError: `target` has the ending of another form.
    """
    if not target.suffix:
        target = target.with_suffix(source.suffix)
    if target.suffix != source.suffix:
        raise ArtifactError(
            f"a path that ends in {source.suffix}, the form of this run's artifact",
            target.name,
            f"run.export({str(target.with_suffix(source.suffix))!r}), or export a run of another runtime",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        for file in files_of(source):
            # ONNX names its external data file inside the graph, so that one keeps its name.
            own_name = file.name.endswith(".data")
            shutil.copy2(file, target.with_name(file.name) if own_name else target.with_suffix(file.suffix))
    if sidecar_of(source).is_file():
        shutil.copy2(sidecar_of(source), sidecar_of(target))
    return target
