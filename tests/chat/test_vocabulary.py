"""Tokenizer files are foreign data: each way to break them gives one line, not a crash."""

import base64
import json
import os
from pathlib import Path

import pytest

from hybrid.chat.tokenizer import Tokenizer
from hybrid.chat.vocabulary import MODEL_BYTES_LIMIT, Vocabulary
from hybrid.errors import CheckpointError
from tests.reference.chat_vocabulary import trained_tokens, write_tokenizer


def lines(tokens: list[bytes]) -> list[bytes]:
    return [base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(tokens)]


BYTES = [bytes([value]) for value in range(256)]
BROKEN_MODELS = {
    "empty": b"",
    "blank line": b"\n".join([*lines(BYTES), b"", b"QUI= 256"]),
    "no rank": b"\n".join([*lines(BYTES), b"QUI="]),
    "rank is no number": b"\n".join([*lines(BYTES), b"QUI= abc"]),
    "rank of 5000 digits": b"\n".join([*lines(BYTES), b"QUI= " + b"9" * 5000]),
    "negative rank": b"\n".join([*lines(BYTES), b"QUI= -1"]),
    "gap in the ranks": b"\n".join([*lines(BYTES), b"QUI= 257"]),
    "rank twice": b"\n".join([*lines(BYTES), b"QUI= 255"]),
    "token twice": b"\n".join([*lines(BYTES), b"QQ== 256"]),
    "empty token": b"\n".join([*lines(BYTES), b" 256"]),
    "long token": b"\n".join(lines([*BYTES, b"x" * 2048])),
    "bad base64": b"\n".join([*lines(BYTES), b"QUI 256"]),
    "garbage in base64": b"\n".join([*lines(BYTES), b"Q?I= 256"]),
    "byte 0x07 missing": b"\n".join(lines([t for t in BYTES if t != b"\x07"])),
    "too many lines": b"x\n" * ((1 << 20) + 1),
    "binary": bytes(range(256)) * 9,
    "a merge bomb": b"\n".join(lines([*BYTES, *(b"a" * n for n in range(2, 300))])),
}


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_a_broken_model_file_is_one_line(broken_copy, name):
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.from_dir(broken_copy("tiktoken.model", BROKEN_MODELS[name]))
    assert "\n" not in str(caught.value)
    assert "tiktoken.model" in str(caught.value)


def entry(key: object, content: object) -> bytes:
    return json.dumps({"added_tokens_decoder": {str(key): {"content": content}}}).encode()


FIRST = 256 + 160
BROKEN_CONFIGS = {
    "not JSON": b"{",
    "not an object": b"[]",
    "not UTF-8": b"\xff{}",
    "deep": b"[" * 100_000,
    "no tokens": b"{}",
    "tokens in a list": b'{"added_tokens_decoder": []}',
    "token is a string": b'{"added_tokens_decoder": {"416": "<|im_end|>"}}',
    "id below the slots": entry(FIRST - 1, "<|im_end|>"),
    "id behind the slots": entry(FIRST + 256, "<|im_end|>"),
    "id is no number": entry("abc", "<|im_end|>"),
    "id is negative": entry(-1, "<|im_end|>"),
    "id in other digits": entry("٤١٦", "<|im_end|>"),
    "content missing": b'{"added_tokens_decoder": {"416": {}}}',
    "content is a number": entry(FIRST, 5),
    "content empty": entry(FIRST, ""),
    "content of one character": entry(FIRST, "<"),
    "content too long": entry(FIRST, "<" + "x" * 200),
    "content with a newline": entry(FIRST, "<|im\n|>"),
    "content is a word": entry(FIRST, "user"),
    "content like a reserved slot": entry(FIRST, f"<|reserved_token_{FIRST + 5}|>"),
    "no token ends an answer": entry(FIRST, "<|im_user|>"),
}


@pytest.mark.parametrize("name", BROKEN_CONFIGS)
def test_a_broken_tokenizer_config_is_one_line(broken_copy, name):
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.from_dir(broken_copy("tokenizer_config.json", BROKEN_CONFIGS[name]))
    assert "\n" not in str(caught.value)
    assert "tokenizer_config.json" in str(caught.value)


@pytest.mark.parametrize("missing", ["tiktoken.model", "tokenizer_config.json"])
def test_a_missing_file_is_named(small_dir, tmp_path, missing):
    for file in small_dir.iterdir():
        if file.name != missing:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match=missing):
        Tokenizer.from_dir(tmp_path)


def test_a_fifo_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "tiktoken.model")
    with pytest.raises(CheckpointError, match="regular file"):
        Vocabulary.from_dir(tmp_path)


def test_an_endless_file_is_not_read_whole(broken_copy):
    directory = broken_copy("tiktoken.model", b"")
    os.truncate(directory / "tiktoken.model", MODEL_BYTES_LIMIT + 1)  # a hole, no disk space
    with pytest.raises(CheckpointError, match="larger"):
        Vocabulary.from_dir(directory)


def test_the_order_of_lines_does_not_matter(tmp_path: Path):
    tokens = trained_tokens(20)
    write_tokenizer(tmp_path, tokens)
    (tmp_path / "tiktoken.model").write_bytes(b"\n".join(reversed(lines(tokens))))
    assert Vocabulary.from_dir(tmp_path).base == tuple(tokens)


def test_every_slot_has_a_name(small):
    assert len(set(small.special_names)) == 256
    assert small.name_of(FIRST + 5) == f"<|reserved_token_{FIRST + 5}|>"
    assert small.vocab_size == FIRST + 256
