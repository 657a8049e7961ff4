"""When a tower is built, what loading it costs, and models that have none or are to have none."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import hybrid
from hybrid import reservation
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig
from hybrid.errors import ConfigError, PlacementError, RequestError
from hybrid.load_options import LoadOptions
from hybrid.tiny import TinyShape, write_tiny
from hybrid.vision import loading
from hybrid.vision.image import image_media
from hybrid.vision.loading import LateTower, load_features, vision_names
from hybrid.vision.media_config import PUBLISHED
from tests.vision.image_files import noise

GIGABYTE = 10**9
PICTURE = noise(60, 40)  # 2 x 3 tokens
SHAPE = TinyShape(num_hidden_layers=2, n_routed_experts=8, vt_num_hidden_layers=1)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("loading") / "sees", SHAPE, seed=2)


@pytest.fixture(scope="module")
def config(model_dir):
    return ModelConfig.from_dir(model_dir)


def load(model_dir, **options):
    options = {"activation": "bf16", "threads": 1, "kv_tokens": 64} | options
    return hybrid.load(model_dir, device="cpu", **options)


def features_of(model_dir, config, sink=lambda _: None):
    with Checkpoint.open(model_dir, config) as checkpoint:
        return load_features(config, PUBLISHED, checkpoint, "cpu", 1, sink)


def item():
    (only,) = image_media(PICTURE, PUBLISHED).items
    return only


def test_the_tower_of_a_cpu_is_built_once_and_late(model_dir, config, monkeypatch):
    built = []
    build = loading.TowerPlan.build

    def counted(self, *args):
        built.append(args)
        return build(self, *args)

    monkeypatch.setattr(loading.TowerPlan, "build", counted)
    tower = features_of(model_dir, config)._tower
    assert isinstance(tower, LateTower)
    assert not built
    (first,) = tower.features([item()])
    (again,) = tower.features([item()])
    assert len(built) == 1
    assert np.array_equal(first, again)
    assert (first.shape, first.dtype) == ((6, SHAPE.hidden_size), np.float32)
    assert tower._copied is None  # weights are not kept twice


def test_a_late_tower_computes_on_the_memory_that_was_read(model_dir, config):
    late = features_of(model_dir, config)._tower
    read = late._copied.values["vision_tower.patch_embed.pos_emb.weight"]
    late.features([item()])
    assert late._tower._table.data_ptr() == read.ctypes.data


def test_late_or_at_once_a_tower_sees_the_same(model_dir, config):
    features = features_of(model_dir, config)
    with Checkpoint.open(model_dir, config) as checkpoint:
        plan = features._tower._plan
        at_once = plan.build(checkpoint)
        (want,) = at_once.features([item()])
    (got,) = features._tower.features([item()])
    assert np.array_equal(got, want)


def test_weights_are_read_while_the_checkpoint_is_open(model_dir, config):
    seen = []
    features_of(model_dir, config, seen.append)
    with Checkpoint.open(model_dir, config) as checkpoint:
        names = list(vision_names(checkpoint))
        total = sum(checkpoint.info(name).nbytes for name in names)
    assert {name.split(".")[0] for name in names} == {"vision_tower", "mm_projector"}
    assert {(p.phase, p.unit, p.total) for p in seen} == {("weights", "bytes", total)}
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == total


IMPORTS = """
import sys
import hybrid
from PIL import Image
engine = hybrid.load(sys.argv[1], device="cpu", activation="bf16", threads=1, kv_tokens=64)
before = "torch" in sys.modules
pad = engine.config.media_placeholder_token_id
picture = engine.open_image(Image.new("RGB", (30, 30)))
engine.logits([1, 2])
text = "torch" in sys.modules
engine.logits([1, pad, 2], images=[picture])
print(before, text, "torch" in sys.modules)
"""


def test_torch_is_imported_for_the_first_picture_and_not_before(model_dir):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTS, str(model_dir)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["False", "False", "True"]


def test_without_vision_nothing_of_it_is_loaded(model_dir, monkeypatch):
    monkeypatch.setattr("hybrid.loader.load_features", lambda *_: pytest.fail("loaded"))
    with load(model_dir, vision=False) as engine:
        pad = engine.config.media_placeholder_token_id
        assert not engine.sees
        assert engine.stats()["vision"] is None
        assert engine.stats()["options"]["vision"] is False
        assert engine.logits([1, 2]).shape[0] == 2
        for call in (
            lambda: engine.open_image(PICTURE),
            lambda: engine.open_video(b"GIF89a"),
            lambda: engine.logits([1, pad], images=[PICTURE]),
            lambda: engine.generate([{"role": "user", "content": [{"type": "image"}]}]),
            lambda: engine.generate([{"role": "user", "content": "a"}], images=[PICTURE]),
        ):
            with pytest.raises(RequestError, match="reads text only: it was loaded without vision"):
                call()


def test_vision_is_there_unless_told_otherwise(model_dir):
    with load(model_dir) as engine:
        assert engine.sees
        assert engine.options.vision is True
        stats = engine.stats()
        assert stats["vision"] == {"items": 0, "patches": 0, "seconds": 0.0}
        engine.logits([engine.config.media_placeholder_token_id], images=[PICTURE])
        assert engine.stats()["vision"]["patches"] == 24
        assert engine.stats()["vision"]["seconds"] > 0


def test_a_model_without_a_tower_reads_text(checkpoint_dir):
    directory = checkpoint_dir("k2-thinking")
    for vision in (True, False):
        with load(directory, vision=vision) as engine:
            assert not engine.sees
            assert engine.options.vision is False
            assert engine.stats()["vision"] is None
            assert engine.logits([1, 2]).shape[0] == 2
            with pytest.raises(RequestError, match="reads text only: it has no vision tower"):
                engine.open_image(PICTURE)


@pytest.mark.parametrize("vision", [1, "yes", None])
def test_the_option_is_checked(model_dir, vision):
    with pytest.raises(ConfigError, match=r"vision is .*; give True or False"):
        load(model_dir, vision=vision)


def test_the_tower_counts_where_memory_is_counted(model_dir, config, monkeypatch):
    with Checkpoint.open(model_dir, config) as checkpoint:
        tower = sum(checkpoint.info(name).nbytes for name in vision_names(checkpoint))
    needed = least_memory(model_dir, monkeypatch, vision=True)
    assert needed - least_memory(model_dir, monkeypatch, vision=False) == tower > 0
    monkeypatch.setattr(reservation, "free_host_bytes", lambda: needed - 1)
    with pytest.raises(PlacementError, match="lower ram_budget and vram_budget, or kv_tokens"):
        load(model_dir, ram_budget=0)
    with load(model_dir, ram_budget=0, vision=False) as engine:
        assert not engine.sees
    monkeypatch.setattr(reservation, "free_host_bytes", lambda: needed)
    with load(model_dir, ram_budget=0) as engine:
        assert engine.sees


def least_memory(model_dir, monkeypatch, vision):
    """The least free memory that is enough, by halving; refusals come before any work."""
    config = ModelConfig.from_dir(model_dir)
    options = LoadOptions(device="cpu", kv_tokens=64, ram_budget=0, vision=vision)
    low, high = 1, GIGABYTE
    with Checkpoint.open(model_dir, config) as checkpoint, monkeypatch.context() as patch:
        patch.setattr(reservation, "free_host_bytes", lambda: middle)
        while low < high:
            middle = (low + high) // 2
            try:
                reservation.reserve(config.text, checkpoint, options)
                high = middle
            except PlacementError:
                low = middle + 1
    return low


def test_a_budget_that_forgets_the_tower_would_be_seen(model_dir, monkeypatch):
    monkeypatch.setattr("hybrid.reservation.vision_names", lambda checkpoint: ())
    seeing, blind = (
        least_memory(model_dir, monkeypatch, vision=vision) for vision in (True, False)
    )
    assert seeing == blind


def test_settings_that_are_not_implemented_are_refused_before_weights_are_read(tmp_path):
    model_dir = write_tiny(tmp_path / "sees", SHAPE)
    path = model_dir / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    settings["media_proc_cfg"]["fixed_output_tokens"] = 64
    path.write_text(json.dumps(settings))
    seen = []
    with pytest.raises(ConfigError, match="fixed_output_tokens"):
        load(model_dir, progress=seen.append)
    assert {p.phase for p in seen} <= {"kernels"}
    with load(model_dir, vision=False) as engine:
        assert not engine.sees


def test_a_picture_that_pil_made_is_enough(model_dir):
    with load(model_dir) as engine:
        media = engine.open_image(Image.new("L", (1, 1)))
    assert (media.tokens, media.name) == (1, "image")
