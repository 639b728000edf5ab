"""Names of techniques and verbs cost no import, and each name is a class."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nbopt.jupyter.verbs import Verb, all_verbs
from nbopt.technique import Technique
from nbopt.techniques import all_techniques


@pytest.mark.parametrize(("found", "base"), [(all_techniques(), Technique), (all_verbs(), Verb)])
def test_each_file_holds_the_class_of_its_name(found: dict[str, type], base: type) -> None:
    assert len(found) == len(list(found)) > 7
    for word, kind in found.items():
        assert issubclass(kind, base)
        assert kind.word == word  # type: ignore[attr-defined]
    assert "nothing_of_that_name" not in found
    assert found.get("__init__") is None
    with pytest.raises(KeyError):
        found["_prune"]


def test_to_list_them_imports_none_of_them() -> None:
    program = (
        "import sys\n"
        "from nbopt.techniques import all_techniques\n"
        "from nbopt.jupyter.verbs import all_verbs\n"
        "names = [*all_techniques(), *all_verbs()]\n"
        "print(*[name for name in sys.modules if name.split('.')[-1] in names and name.startswith('nbopt.')])\n"
        "all_techniques()['prune']\n"
        "print('nbopt.techniques.prune' in sys.modules, 'nbopt.techniques.nas' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    listed, asked = done.stdout.splitlines()
    loaded = {name for name in listed.split() if name.startswith(("nbopt.techniques.", "nbopt.jupyter.verbs."))}
    assert loaded == set()
    assert asked == "True False"
