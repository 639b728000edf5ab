"""Exported files on disk: their manifest, their hash, their size, and reading them back."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.batches import Inputs, as_inputs, numeric_inputs
from nbopt.children import cores
from nbopt.errors import ArtifactError, DataError, NbOptWarning, disk_error
from nbopt.runtimes import Manifest, Session, all_runtimes, runtime_named
from nbopt.runtimes._onnx_data import pointing_to

SIDECAR = ".nbopt.json"
EXTERNAL = ".data"  # model.onnx has its weights in model.onnx.data where they are too large for it
VERSION = 1
CHUNK = 1 << 20
LARGE = 512 << 20


def sidecar_of(path: Path) -> Path:
    """Return where the manifest of an exported file lies: `model.onnx` has `model.onnx.nbopt.json`."""
    return path.with_name(path.name + SIDECAR)


def files_of(path: Path) -> list[Path]:
    """Return all files that make up an artifact: OpenVINO's .bin, ONNX's external data, a folder's content."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    # Only those that belong to the form: a model.bin beside model.onnx may be of another export.
    companions = {".xml": path.with_suffix(".bin"), ".onnx": path.with_name(path.name + EXTERNAL)}
    companion = companions.get(path.suffix)
    return [path] if companion is None or not companion.is_file() else [path, companion]


def size_of(path: Path) -> int:
    """Return the bytes that a user ships."""
    return sum(file.stat().st_size for file in files_of(path))


def deflated_size(path: Path) -> int:
    """Return the bytes of the same files deflated: zlib level 6, as archives do, and above 512 MB level 1.

    Dense weights take as long at either (40 MB/s). Half zeros take twice as long at level 6 and are 1.73 times smaller
    by it, 1.63 times by level 1: of a file that is looked at for its zeros the quicker level tells too little.
    """
    level = 6 if size_of(path) <= LARGE else 1
    deflated = 0
    for file in files_of(path):
        packer = zlib.compressobj(level)
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                deflated += len(packer.compress(chunk))
        deflated += len(packer.flush())
    return deflated


def hash_of(path: Path) -> str:
    """Return the SHA-256 of an artifact's files, independent of what they are called."""
    digest = hashlib.sha256()
    files = files_of(path)
    for file in files:
        digest.update(file.suffix.encode())
        if file.suffix == ".onnx" and len(files) > 1:
            digest.update(pointing_to(file, f"model.onnx{EXTERNAL}"))
            continue
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
    damaged = (OSError, ValueError, KeyError, TypeError, AttributeError)
    try:
        body = json.loads(sidecar.read_text())
        version = int(body["nbopt_artifact"])
    except damaged as error:
        raise _damaged(sidecar, error) from error
    if version > VERSION:
        raise ArtifactError(
            f"an artifact of version {VERSION} or older",
            f"version {version}, written by a newer nbopt",
            "pip install --upgrade nbopt",
        )
    try:
        kept = {spec.name: body["manifest"][spec.name] for spec in fields(Manifest) if spec.name in body["manifest"]}
        kept |= {name: tuple(kept.get(name, ())) for name in ("inputs", "dtypes")}
        kept["shapes"] = tuple(tuple(shape) for shape in kept.get("shapes", ()))
        body["sha256"] = str(body["sha256"])
        return Manifest(**kept), body
    except damaged as error:
        raise _damaged(sidecar, error) from error


def _damaged(sidecar: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"the manifest {sidecar.name}",
        f"a damaged file ({type(error).__name__}: {error})",
        "export the run again, or delete the manifest to load the file without it",
    )


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
        floats = next((d for d in manifest.dtypes if d.startswith("float")), "float32")
        inputs = numeric_inputs(as_inputs(x), floats)
        check_inputs(manifest, inputs)
        wanted = dict(zip(manifest.inputs, manifest.dtypes, strict=False))
        if isinstance(inputs, dict):
            inputs = {name: _whole_numbers_as(leaf, wanted.get(name)) for name, leaf in inputs.items()}
        elif len(inputs) == len(wanted):
            inputs = tuple(map(_whole_numbers_as, inputs, wanted.values()))
        return self.session.run(as_exported(manifest, inputs))


def _whole_numbers_as(leaf: np.ndarray[Any, Any], dtype: str | None) -> np.ndarray[Any, Any]:
    """Return integers and booleans in the dtype that the model was exported with."""
    return leaf.astype(dtype) if dtype and leaf.dtype.kind in "iub" else leaf


def as_exported(manifest: Manifest, inputs: Inputs) -> Inputs:
    """Return inputs by name where the model takes names, by position where it takes positions."""
    if isinstance(inputs, dict) and not manifest.keyed and set(inputs) == set(manifest.inputs):
        return tuple(inputs[name] for name in manifest.inputs)
    if not isinstance(inputs, dict) and manifest.keyed and len(inputs) == len(manifest.inputs):
        return dict(zip(manifest.inputs, inputs, strict=True))
    return inputs


def check_inputs(manifest: Manifest, inputs: Inputs) -> None:
    """Compare inputs with what the model was exported for, as far as the manifest tells.

    Raises:
        DataError: An input is missing or too many, or its shape is another one.
    """
    if not manifest.shapes:
        return
    shapes = dict(zip(manifest.inputs, manifest.shapes, strict=True))
    # A model that is called by position takes names too, those of its inputs.
    given = inputs if isinstance(inputs, dict) else dict(zip(manifest.inputs, inputs, strict=False))
    if set(given) != set(shapes) or len(inputs) != len(shapes):
        came = ", ".join(inputs) if isinstance(inputs, dict) else f"{len(inputs)} by position"
        raise DataError(f"{len(shapes)} inputs: {', '.join(shapes)}", came, "give each as an array (rows, ...)")
    for name, shape in shapes.items():
        found = given[name].shape
        if len(found) != len(shape) or any(w is not None and w != f for w, f in zip(shape, found, strict=True)):
            text = ", ".join("rows" if axis == 0 else "any" if w is None else str(w) for axis, w in enumerate(shape))
            one_row = found == shape[1:]
            raise DataError(
                f"{name} of shape ({text})",
                f"shape {found}",
                "add the batch axis: x[None]" if one_row else "check the order of axes and the number of features",
            )


def load(path: str | Path, *, runtime: str | None = None, threads: int | None = None) -> Artifact:
    """Load an exported model, to `.predict(x)` with it.

    Args:
        path: A file that `Run.export` wrote, or any .onnx, OpenVINO .xml, .tflite, .keras or .pt.
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
    with warnings.catch_warnings():
        if threads is None:
            # That a framework which runs here already keeps its threads matters to who asked for a number of them.
            warnings.simplefilter("ignore", NbOptWarning)
        return Artifact(path, chosen.load(path, manifest, threads=threads or available_threads()))


def available_threads() -> int:
    """Return the cores that this process may use, each of which a thread of an inference has."""
    return cores()


def copy_artifact(source: Path, target: Path) -> Path:
    """Copy an artifact with its manifest to `target`, whose ending may be left out.

    Raises:
        ArtifactError: `target` has the ending of another form.
        StoreError: The place can't be written, or is full; nothing of it is left there.
    """
    if not target.suffix:
        target = target.with_suffix(source.suffix)
    if target.suffix != source.suffix:
        raise ArtifactError(
            f"a path that ends in {source.suffix}, the form of this run's artifact",
            target.name,
            f"run.export({str(target.with_suffix(source.suffix))!r}), or export a run of another runtime",
        )
    try:
        copy_files(source, target)
    except OSError as error:
        raise disk_error(error, target.parent) from error
    return target


HEADER = """/* {name}: {size} bytes, written by nbopt. {about} */
#ifndef {guard}
#define {guard}

#ifdef __cplusplus
#define {guard}_ALIGN alignas(16)
#else
#define {guard}_ALIGN _Alignas(16)
#endif

static const unsigned int {symbol}_len = {size};
{guard}_ALIGN static const unsigned char {symbol}[] = {{
{body}
}};

#endif
"""


def write_header(source: Path, target: Path) -> Path:
    """Write a file's bytes as a C array, aligned as interpreters on microcontrollers want it.

    Raises:
        StoreError: The place can't be written, or is full.
    """
    content = source.read_bytes()
    symbol = re.sub(r"\W", "_", target.stem)
    symbol = f"_{symbol}" if symbol[:1].isdigit() else symbol
    kept = read_sidecar(source)
    shapes = [] if kept is None else zip(kept[0].inputs, kept[0].shapes, strict=False)
    about = ", ".join(f"{name} {list(shape[1:])}" for name, shape in shapes).replace("*/", "")
    body = "\n".join(
        "  " + ", ".join(f"0x{byte:02x}" for byte in content[start : start + 12]) + ","
        for start in range(0, len(content), 12)
    )
    guard = f"{symbol.upper()}_H"
    text = HEADER.format(
        name=target.name, size=len(content), about=f"Inputs of one row: {about}.", guard=guard, symbol=symbol, body=body
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise disk_error(error, target.parent) from error
    return target


def copy_files(source: Path, target: Path) -> None:
    """Copy an artifact with its manifest; on failure the target's folder is as it was.

    Raises:
        OSError: The place can't be written, or is full.
    """
    scratch: list[tuple[Path, Path]] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for file, place in _places(source, target):
            place.parent.mkdir(parents=True, exist_ok=True)
            scratch.append((place.with_name(f".{uuid.uuid4().hex[:8]}.{place.name}"), place))
            shutil.copy2(file, scratch[-1][0])
        if any(place.suffix == EXTERNAL for _, place in scratch) and source.name != target.name:
            scratch[0][0].write_bytes(pointing_to(source, target.name + EXTERNAL))
        # Only when all of it is there does anything take its place, so that an older export is not lost to a full disk.
        for written, place in scratch:
            written.replace(place)
        if not target.is_dir():  # what an older export had beside it is not of this one
            for stale in set(files_of(target)) - {place for _, place in scratch}:
                stale.unlink()
    finally:
        for written, _ in scratch:
            written.unlink(missing_ok=True)


def _places(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each file of an artifact, manifest included, and where its copy goes."""
    for file in files_of(source):
        if source.is_dir():
            yield file, target / file.relative_to(source)
        elif file.suffix == EXTERNAL:
            yield file, target.with_name(target.name + EXTERNAL)
        else:
            yield file, target.with_suffix(file.suffix)
    if sidecar_of(source).is_file():
        yield sidecar_of(source), sidecar_of(target)
