from __future__ import annotations

import keras
import numpy as np
import pytest

from nbopt.errors import ArtifactError
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.runtimes import Manifest, runtime_named
from tests.keras_models import ALL, signature

pytestmark = pytest.mark.filterwarnings("ignore::nbopt.errors.NbOptWarning")


@pytest.mark.parametrize("name", ["cnn", "two_inputs", "by_name", "nested"])
def test_runs_what_the_export_wrote(name, tmp_path):
    model, inputs = ALL[name]()
    described = signature(inputs)
    exported = FRAMEWORK.export(model, described, tmp_path / "m.keras", "keras")
    manifest = Manifest("keras", tuple(described.names), described.keyed)
    session = runtime_named("keras").load(exported.path, manifest, threads=1)
    np.testing.assert_allclose(session.run(inputs), FRAMEWORK.predict(model, inputs), atol=1e-5)


def test_runs_a_file_of_the_users_own(tmp_path):
    model, inputs = ALL["cnn"]()
    model.save(tmp_path / "mine.keras")
    loaded = keras.saving.load_model(tmp_path / "mine.keras")
    session = runtime_named("keras").load(tmp_path / "mine.keras", Manifest("keras"), threads=1)
    np.testing.assert_allclose(session.run(inputs), FRAMEWORK.predict(loaded, inputs), atol=1e-5)


@pytest.mark.parametrize("content", [b"nothing", b""])
def test_a_damaged_file_is_told(content, tmp_path):
    path = tmp_path / "m.keras"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        runtime_named("keras").load(path, Manifest("keras"), threads=1)
