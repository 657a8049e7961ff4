"""Tokenizers that many tests share: a small one made here, and the published one where it is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hybrid.chat.template import ChatTemplate
from hybrid.chat.tokenizer import Tokenizer
from tests.reference.chat_vocabulary import trained_tokens, write_tokenizer

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "kimi_tokenizer"


@pytest.fixture(scope="session")
def small_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("small_tokenizer"), trained_tokens(160))


@pytest.fixture(scope="session")
def small(small_dir: Path) -> Tokenizer:
    return Tokenizer.from_dir(small_dir)


@pytest.fixture(scope="session")
def published_dir() -> Path:
    if not (PUBLISHED / "tiktoken.model").exists():
        pytest.skip("the published tokenizer is not on this machine")
    return PUBLISHED


@pytest.fixture(scope="session")
def published(published_dir: Path) -> Tokenizer:
    return Tokenizer.from_dir(published_dir)


@pytest.fixture(params=["small", "published"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def template() -> ChatTemplate:
    return ChatTemplate.built_in()


@pytest.fixture
def broken_copy(small_dir: Path, tmp_path: Path) -> Callable[[str, bytes], Path]:
    """A copy of the small tokenizer with one file replaced."""

    def make(name: str, content: bytes) -> Path:
        for file in ("tiktoken.model", "tokenizer_config.json"):
            (tmp_path / file).write_bytes((small_dir / file).read_bytes())
        (tmp_path / name).write_bytes(content)
        return tmp_path

    return make
