"""Scores come back as they were kept, or not at all."""

import numpy as np
import pytest

from hybrid.cache import warm_start
from hybrid.cpu_experts import kernel_files
from tests.cache import record_cases as cases

SCORES = np.arange(12, dtype=np.float64).reshape(3, 4) / 8


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_files, "_directories", lambda: [tmp_path])
    return tmp_path


def test_scores_come_back_for_their_model_alone():
    assert warm_start.recall("a", 3, 4) is None
    warm_start.keep("a", SCORES)
    np.testing.assert_array_equal(warm_start.recall("a", 3, 4), SCORES)
    assert warm_start.recall("a", 3, 4).dtype == np.float64
    assert warm_start.recall("b", 3, 4) is None
    warm_start.keep("a", SCORES + 1)
    np.testing.assert_array_equal(warm_start.recall("a", 3, 4), SCORES + 1)


@pytest.mark.parametrize(("layers", "experts"), [(3, 5), (2, 4), (0, 0), (12, 2)])
def test_scores_of_another_shape_are_none(layers, experts):
    warm_start.keep("a", SCORES)
    assert warm_start.recall("a", layers, experts) is None


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -1e-30])
def test_scores_that_cannot_be_are_none(wrong):
    scores = SCORES.copy()
    scores[1, 2] = wrong
    warm_start.keep("a", scores)
    assert warm_start.recall("a", 3, 4) is None


def test_a_spoilt_file_is_none(folder):
    warm_start.keep("a", SCORES)
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert warm_start.recall("a", 3, 4) is None
    file.write_bytes(b"")
    assert warm_start.recall("a", 3, 4) is None


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, folder):
    monkeypatch.setattr(kernel_files, "_directories", lambda: [folder / "file" / "below"])
    (folder / "file").write_text("")
    monkeypatch.setattr(kernel_files, "_warn_once", lambda text: None)
    warm_start.keep("a", SCORES)
    assert warm_start.recall("a", 3, 4) is None


def test_a_models_key_follows_from_its_tensors(model):
    with cases.opened(model) as (_, checkpoint):
        key = warm_start.key_of(checkpoint)
        assert key == warm_start.key_of(checkpoint)

        class Moved:
            """The same tensors, one of them elsewhere in its file."""

            def __iter__(self):
                return iter(checkpoint)

            def info(self, name):
                info = checkpoint.info(name)
                return info if name != "lm_head.weight" else _Shifted(info)

        assert warm_start.key_of(Moved()) != key


class _Shifted:
    def __init__(self, info):
        self.dtype, self.shape, self.file, self.offset = (
            info.dtype,
            info.shape,
            info.file,
            info.offset + 64,
        )
