"""The built-in tiny model: made once, and again when what lies there does not open."""

import shutil

import pytest

from cli import default_model, settings
from cli.default_model import default_model as resolve
from hybrid.errors import KimiLocalError
from hybrid.tiny import MARKER, write_tiny


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A tiny checkpoint to copy from."""
    return write_tiny(tmp_path_factory.mktemp("intact") / "tiny")


@pytest.fixture
def here(home):
    return settings.read()


@pytest.fixture
def said():
    return []


@pytest.fixture
def cached(here, intact):
    """The directory in the cache, with an intact model in it."""
    directory = here.cache_dir / default_model._VERSION
    shutil.copytree(intact, directory)
    return directory


def contents(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def ask(here, said):
    return resolve(here, lambda text, _tone: said.append(text))


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
    "empty": lambda d: [path.unlink() for path in d.iterdir()],
    "no shard": lambda d: next(d.glob("*3-of*.safetensors")).unlink(),
    "short shard": lambda d: cut(next(d.glob("*3-of*.safetensors"))),
    "empty shard": lambda d: next(d.glob("*3-of*.safetensors")).write_bytes(b""),
    "no config": lambda d: (d / "config.json").unlink(),
    "short config": lambda d: cut(d / "config.json"),
    "no vocabulary": lambda d: (d / "tiktoken.model").unlink(),
    "short vocabulary": lambda d: cut(d / "tiktoken.model"),
    "no tokenizer settings": lambda d: (d / "tokenizer_config.json").unlink(),
    "bad template": lambda d: (d / "chat_template.jinja").write_text("{% if"),
}


def test_an_intact_one_is_used_as_it_is(here, said, cached, monkeypatch):
    monkeypatch.setattr("hybrid.tiny.write_tiny", None)
    assert ask(here, said) == cached
    assert said == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_made_again_and_that_is_said(here, said, cached, intact, damage):
    DAMAGE[damage](cached)
    assert contents(cached) != contents(intact)
    assert ask(here, said) == cached
    assert contents(cached) == contents(intact)
    assert len(said) == 1
    assert said[0].startswith("the built-in tiny model is damaged and is made again: ")
    assert "\n" not in said[0]


def test_the_check_for_repair_sees_a_check_that_finds_nothing(here, said, cached, monkeypatch):
    monkeypatch.setattr(default_model, "_fault", lambda _: None)  # planted
    DAMAGE["short shard"](cached)
    before = contents(cached)
    ask(here, said)
    assert (contents(cached), said) == (before, [])


def test_what_is_not_ours_stays_and_the_error_names_it(here, said, cached):
    (cached / MARKER).unlink()
    DAMAGE["no config"](cached)
    before = contents(cached)
    with pytest.raises(KimiLocalError, match="XDG_CACHE_HOME") as error:
        ask(here, said)
    assert str(cached) in str(error.value)
    assert contents(cached) == before


def test_a_file_in_its_place_stays_too(here, said, cached):
    shutil.rmtree(cached)
    cached.write_text("mine")
    with pytest.raises(KimiLocalError, match="is not a directory") as error:
        ask(here, said)
    assert str(cached) in str(error.value)
    assert cached.read_text() == "mine"


def test_the_command_goes_on_with_the_repaired_one(chat, engines, cached):
    DAMAGE["no shard"](cached)
    result = chat("-p", "hello", model=False)
    assert (result.code, result.out) == (0, "You said hello.\n")
    assert [line.split(":")[0] for line in result.err.splitlines()[1:2]] == [
        "the built-in tiny model is damaged and is made again"
    ]
    assert "damaged" not in chat("-p", "hello", model=False).err
