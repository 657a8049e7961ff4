"""The two files that define the tokens, read and checked.

    tiktoken.model          base64(bytes) SP rank        one line a token, ranks 0 ... base-1
    tokenizer_config.json   added_tokens_decoder         {"163586": {"content": "<|im_end|>", ...}}

    id   0 ............. base-1 | base ........................... base+255
         byte pairs, by rank    | 256 slots: a named token, or <|reserved_token_{id}|>

The slots without a name count too: leaving them out moves every later id (spec §4.5).
"""

import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid.errors import CheckpointError
from hybrid.model_files import parse_json_object, read_model_file, shown

SPECIAL_SLOTS = 256
MODEL_NAME = "tiktoken.model"
CONFIG_NAME = "tokenizer_config.json"
MODEL_BYTES_LIMIT = 16 << 20  # the published file has 2.8 MB
CONFIG_BYTES_LIMIT = 4 << 20
TOKEN_COUNT_LIMIT = 1 << 20
TOKEN_BYTES_LIMIT = 512  # the longest published token has 256
NAME_LENGTH_LIMIT = 128


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`base[id]` are the bytes of an ordinary token, `special[id - len(base)]` a control token."""

    base: tuple[bytes, ...]
    special: tuple[str, ...]  # SPECIAL_SLOTS names in id order

    @classmethod
    def from_dir(cls, model_dir: Path) -> "Vocabulary":
        """Read both files of a checkpoint; CheckpointError if either is missing or wrong."""
        base = read_base(model_dir)
        return cls(base, read_special(model_dir, len(base)))


def read_tokenizer_config(model_dir: Path) -> dict[str, Any]:
    """Return `tokenizer_config.json` as it stands."""
    data = read_model_file(model_dir, CONFIG_NAME, CONFIG_BYTES_LIMIT)
    return parse_json_object(data, str(model_dir / CONFIG_NAME))


def read_base(model_dir: Path) -> tuple[bytes, ...]:
    """Return the ordinary tokens by rank (spec §4.1)."""
    path = model_dir / MODEL_NAME
    lines = read_model_file(model_dir, MODEL_NAME, MODEL_BYTES_LIMIT).splitlines()
    if len(lines) > TOKEN_COUNT_LIMIT:
        raise CheckpointError(f"{path} has {len(lines)} lines; at most {TOKEN_COUNT_LIMIT} fit")
    by_rank: dict[int, bytes] = {}
    for number, line in enumerate(lines, 1):
        try:
            encoded, rank = line.split(b" ")
            by_rank[int(rank)] = binascii.a2b_base64(encoded, strict_mode=True)
        except ValueError as error:
            raise CheckpointError(
                f"{path} line {number} is not 'base64 rank'; download the file again"
            ) from error
    if len(by_rank) != len(lines):
        raise CheckpointError(f"{path} gives a rank twice; download the file again")
    return _checked_base(path, by_rank)


def _checked_base(path: Path, by_rank: dict[int, bytes]) -> tuple[bytes, ...]:
    if not by_rank or max(by_rank) != len(by_rank) - 1 or min(by_rank) != 0:
        raise CheckpointError(f"{path}: ranks are not 0 ... {len(by_rank) - 1} without a gap")
    tokens = tuple(by_rank[rank] for rank in range(len(by_rank)))
    distinct = set(tokens)
    if len(distinct) != len(tokens):
        raise CheckpointError(f"{path} lists a token twice; download the file again")
    missing = [value for value in range(256) if bytes([value]) not in distinct]
    if missing:
        raise CheckpointError(f"{path} has no token for the byte 0x{missing[0]:02x}")
    if not all(0 < len(token) <= TOKEN_BYTES_LIMIT for token in tokens):
        raise CheckpointError(f"{path} has a token of 0 or more than {TOKEN_BYTES_LIMIT} bytes")
    return tokens


def read_special(model_dir: Path, base_count: int) -> tuple[str, ...]:
    """Return the names of all special slots in id order, reserved ones included (spec §4.3)."""
    path = model_dir / CONFIG_NAME
    added = read_tokenizer_config(model_dir).get("added_tokens_decoder")
    if not isinstance(added, dict) or not added:
        raise CheckpointError(f"{path} has no added_tokens_decoder; download the file again")
    slots = range(base_count, base_count + SPECIAL_SLOTS)
    names = {token_id: f"<|reserved_token_{token_id}|>" for token_id in slots}
    for key, entry in added.items():
        if not key.isascii() or not key.isdigit() or len(key) > 9 or int(key) not in slots:
            raise CheckpointError(
                f"{path}: added token id {shown(key)} lies outside {slots.start} ... "
                f"{slots.stop - 1}; it belongs to another tiktoken.model"
            )
        names[int(key)] = _checked_name(path, key, entry)
    if len(set(names.values())) != SPECIAL_SLOTS:
        raise CheckpointError(f"{path} gives two added tokens the same content")
    return tuple(names[token_id] for token_id in slots)


def _checked_name(path: Path, key: str, entry: object) -> str:
    name = entry.get("content") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not 2 <= len(name) <= NAME_LENGTH_LIMIT:
        raise CheckpointError(f"{path}: added token {key} has no content of 2 to 128 characters")
    if not name.isprintable() or " " in name or name[0].isalnum() or name[1].isdigit():
        raise CheckpointError(
            f"{path}: added token {key} is {shown(name)}; names look like <|im_end|> or [EOS]"
        )
    return name
