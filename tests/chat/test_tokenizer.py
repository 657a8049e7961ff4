"""Ids against tiktoken and the published vectors, decoding against whole-text UTF-8."""

import hashlib
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.chat import bpe
from hybrid.chat.prompt import encode_chat
from hybrid.chat.tokenizer import StreamDecoder, Tokenizer
from hybrid.chat.vocabulary import Vocabulary
from hybrid.errors import RequestError
from tests.reference.chat_strategies import PATIENT
from tests.reference.chat_vocabulary import (
    TEXT,
    official,
    official_ids,
    shuffled_tokens,
    trained_tokens,
    write_tokenizer,
)

GOLDEN_PLAIN = {
    "I'm sure it's fine, but I can't say I'd trust that it's what we'd ship.": [
        17172, 3287, 4643, 8201, 11, 996, 374, 8971, 3637, 20020, 8173, 473, 4643, 1573, 56229,
        13922, 13,
    ],
    "Hello, world!": [19180, 11, 2695, 0],
    "你好，世界！": [33845, 378, 2243, 856],
    "functions.get_weather:0": [41937, 1150, 21055, 2800, 25, 15],
    "## Return of functions.get_weather:0\n": [
        798, 6014, 318, 8271, 1150, 21055, 2800, 25, 15, 198,
    ],
    "<|kimi_k25_video_placeholder|>": [27, 91, 74, 30223, 7559, 1453, 37336, 114136, 91, 29],
    "You are Kimi, an AI assistant created by Moonshot AI.": [
        3900, 554, 24980, 72, 11, 519, 22572, 26626, 5232, 673, 30218, 10065, 22572, 13,
    ],
}  # fmt: skip
GOLDEN_SPECIAL = {
    "<|im_user|>user<|im_middle|>Hi<|im_end|><|im_assistant|>assistant<|im_middle|><think>": [
        163587, 2482, 163601, 18699, 163586, 163588, 69702, 163601, 163606,
    ],
    "<|im_assistant|>assistant<|im_middle|><think></think>": [
        163588, 69702, 163601, 163606, 163607,
    ],
    "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\nDescribe": [
        163602, 4017, 163603, 163605, 163604, 198, 48848,
    ],
    "00:00:02.000<|media_begin|>video<|media_content|><|media_pad|><|media_end|>": [
        465, 25, 465, 25, 4312, 13, 1476, 163602, 22782, 163603, 163605, 163604,
    ],
    "<|im_system|>tool_declare<|im_middle|>": [163594, 20960, 35556, 677, 163601],
}  # fmt: skip
# The text that llama.cpp tells tokenizers apart by, and its fingerprint for Kimi-K2 (spec §4.5).
FINGERPRINT_TEXT = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n"
    "🚀 (normal) 😶‍🌫️ (multiple emojis "
    "concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 "
    "កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български "
    "''''''```````\"\"\"\"......!!!!!!?????? "
    "I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? "
    "We'Ve a'lL"
)
FINGERPRINT = "81212dc7cdb7e0c1074ca62c5aeab0d43c9f52b8a737be7b12a777c953027890"


@pytest.fixture(scope="module", params=["small", "shuffled", "published"])
def pair(request, tmp_path_factory):
    """A tokenizer of ours and tiktoken's of the same files."""
    if request.param == "shuffled":
        directory = tmp_path_factory.mktemp("shuffled")
        write_tokenizer(directory, shuffled_tokens(160, seed=5))
        return Tokenizer.from_dir(directory), official(Vocabulary.from_dir(directory))
    directory = request.getfixturevalue(f"{request.param}_dir")
    return request.getfixturevalue(request.param), official(Vocabulary.from_dir(directory))


@pytest.mark.parametrize("text", GOLDEN_PLAIN)
def test_published_ids_of_plain_text(published, text):
    assert published.encode(text) == GOLDEN_PLAIN[text]
    assert published.decode(GOLDEN_PLAIN[text]) == text


@pytest.mark.parametrize("text", GOLDEN_SPECIAL)
def test_published_ids_of_template_text(published, text):
    assert published.encode_with_specials(text) == GOLDEN_SPECIAL[text]
    assert published.decode(GOLDEN_SPECIAL[text]) == text


def test_published_fingerprint(published):
    ids = published.encode(FINGERPRINT_TEXT)
    assert len(ids) == 155
    assert hashlib.sha256(str(ids).encode()).hexdigest() == FINGERPRINT


def test_stop_ids_come_from_the_names(small, published):
    assert published.stop_ids == {163585, 163586, 163593}  # spec §7
    assert small.stop_ids == {small.id_of(name) for name in ("<|im_end|>", "[EOS]", "[EOT]")}


def test_an_eos_from_a_config_alone_would_run_past_the_turn(tokenizer, template):
    """Spec §7 fault (f): some revisions of config.json say 163585, which is [EOS]."""
    message = {"role": "assistant", "content": "Hi"}
    *_, end_of_turn = encode_chat(tokenizer, template, [message], add_generation_prompt=False)
    planted = {tokenizer.id_of("[EOS]")}
    assert end_of_turn in tokenizer.stop_ids
    assert end_of_turn not in planted


def test_no_bos_is_added(tokenizer):
    """Spec §7 fault (k)."""
    ids = tokenizer.encode("Hi")
    assert tokenizer.id_of("[BOS]") not in ids
    planted = [tokenizer.id_of("[BOS]"), *ids]
    assert tokenizer.decode(planted) != "Hi" == tokenizer.decode(ids)


def compacted(directory: Path) -> Tokenizer:
    """The planted fault: only the named tokens are added, so ids move (spec §4.5)."""
    vocabulary = Vocabulary.from_dir(directory)
    named = [name for name in vocabulary.special if not name.startswith("<|reserved_token_")]
    filler = [f"<|filler_{i}|>" for i in range(256 - len(named))]
    return Tokenizer(Vocabulary(vocabulary.base, (*named, *filler)))


def test_compacted_slots_are_caught(published_dir):
    planted = compacted(published_dir)
    text = next(text for text in GOLDEN_SPECIAL if "<think>" in text)
    assert planted.encode_with_specials(text) != GOLDEN_SPECIAL[text]
    assert planted.id_of("<|media_pad|>") == 163602  # the number that was seen in the field


@pytest.mark.oracle
def test_compacted_slots_are_caught_on_a_small_vocabulary(small, small_dir):
    theirs = official(Vocabulary.from_dir(small_dir))
    text = "<|im_user|>a<think>"
    assert small.encode_with_specials(text) == official_ids(theirs, text, specials=True)
    assert compacted(small_dir).encode_with_specials(text) != small.encode_with_specials(text)


# Strings that tell one pre-tokenizer from another.
EDGES = [
    "", " ", "  ", "\n", "\r\n", " \n ", "\t\n\n  x", "a  b   c", "x \n\n y", "   leading",
    "trailing   ", "1234567", "1 22 333 4444", "a1b2", "don't DON'T Don'T we'LL I'd'd", "'s 'S 't",
    "ABCdef abcDEF AbCdEf", "ǅ ǆ ʰ ª", "é e\u0301 \u0301x \u0301", "中文abc中文", "。，！", "中 文",
    "日本語テキスト", "한국어", "עברית العربية",
    "🎉👩‍👩‍👧‍👦🏳️‍🌈", "!!!\n\n???", " !\n", "a\u00a0b",
    "a\u3000b", "\u2028\u2029", "\x00\x01\x7f", "<|im_end|>", "[EOS]<think>", "\ufdd0\ufffe",
    "x" * 300, "中" * 300, "\ufeffBOM", "1٣४", "Ⅷ½²", "_snake_case", "a/b\\c",
    "#include <x>\n\n\tint", "{}[]()", "\r\r\n\n",
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("text", EDGES)
def test_edge_strings_equal_tiktoken(pair, text):
    ours, theirs = pair
    assert ours.encode(text) == theirs.encode_ordinary(text)
    assert ours.decode(ours.encode(text)) == text


def random_texts(count: int, seed: int) -> list[str]:
    """Pieces of edge strings, prose, code and random characters, glued without regard for sense."""
    rng = random.Random(seed)
    alphabet = "aAzZ äÖß中文字漢ñ1٣½ .,'\"!?-_\n\r\t\u3000🎉\u0301ʰǅ<|>[]{}"
    pieces = [
        lambda: rng.choice(EDGES)[:20],
        lambda: rng.choice(TEXT.split(" ")),
        lambda: "".join(rng.choices(alphabet, k=rng.randint(1, 8))),
        lambda: chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])),
        lambda: rng.choice([" ", "\n", "\t", "\r\n"]) * rng.randint(1, 5),
    ]
    return ["".join(rng.choice(pieces)() for _ in range(rng.randint(1, 12))) for _ in range(count)]


@pytest.mark.oracle
def test_thousands_of_random_strings_equal_tiktoken(pair):
    ours, theirs = pair
    texts = random_texts(4000, seed=1)
    wrong = [t for t in texts if ours.encode(t) != theirs.encode_ordinary(t)]
    assert wrong == []


@pytest.mark.oracle
def test_another_pattern_is_caught(small_dir, monkeypatch):
    """The pattern of cl100k is the likely mistake."""
    cl100k = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    theirs = official(Vocabulary.from_dir(small_dir))
    monkeypatch.setattr(bpe, "PATTERN", cl100k)
    planted = Tokenizer.from_dir(small_dir)
    texts = random_texts(4000, seed=1)
    assert any(planted.encode(t) != theirs.encode_ordinary(t) for t in texts)


@pytest.mark.oracle
def test_merges_in_another_order_are_caught(small_dir):
    vocabulary = Vocabulary.from_dir(small_dir)
    theirs = official(vocabulary)
    planted = Tokenizer(
        Vocabulary(vocabulary.base[:256] + vocabulary.base[:255:-1], vocabulary.special)
    )

    def pieces(text: str) -> list[bytes]:
        return [theirs.decode_single_token_bytes(i) for i in theirs.encode_ordinary(text)]

    texts = random_texts(4000, seed=1)
    assert any([planted.token_bytes(i) for i in planted.encode(t)] != pieces(t) for t in texts)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "text",
    [
        "a" * 60_001,
        " " * 50_000 + "x" + "\n" * 25_001,
        "ab " * 20_000 + "中" * 25_000 + "!" * 25_001,
        ("word " * 5000 + "<|im_end|>") * 3 + "x" * 30_000 + "<|im_end|>" + "y" * 30_000,
        "xy z" * 110_000 + "<think>" + "q" * 26_000,
    ],
    ids=["one run", "space runs", "mixed", "runs through control tokens", "beyond a slice"],
)
def test_long_texts_are_cut_where_the_official_encoder_cuts(small, small_dir, text):
    theirs = official(Vocabulary.from_dir(small_dir))
    assert small.encode(text) == official_ids(theirs, text, specials=False)
    assert small.encode_with_specials(text) == official_ids(theirs, text, specials=True)


@pytest.mark.oracle
def test_uncut_long_text_is_caught(small, small_dir, monkeypatch):
    theirs = official(Vocabulary.from_dir(small_dir))
    text = "xThe " + "the" * 20_000  # 25,000 is not a multiple of the token's length
    monkeypatch.setattr(bpe, "RUN_CHARS", 10**9)
    assert small.encode(text) != official_ids(theirs, text, specials=False)


def test_a_cut_never_falls_into_a_control_token(small):
    """The official encoder breaks a control token that straddles a cut; we keep it."""
    text = "x y " * 99_999 + "<|im_end|>"
    assert len(text) > bpe.SLICE_CHARS > len(text) - len("<|im_end|>")
    assert small.encode_with_specials(text)[-1] == small.id_of("<|im_end|>")


def test_python_and_regex_agree_on_whitespace():
    """`cut_positions` uses `\\s` where the official encoder asks `str.isspace`."""
    matched = re.compile(r"\s").match
    assert all(char.isspace() == bool(matched(char)) for char in map(chr, range(0x110000)))


@settings(PATIENT)
@given(st.text())
def test_text_survives_the_round_trip(small, text):
    assert small.decode(small.encode(text)) == text


def test_lone_surrogates_become_replacement_characters(small):
    assert small.decode(small.encode("a\ud800b")) == "a\ufffdb"
    assert small.decode(small.encode_with_specials("a\ud83d\ude00<think>")) == "a😀<think>"


@settings(PATIENT)
@given(st.data())
def test_plain_text_never_becomes_a_control_token(small, data):
    names = st.sampled_from(small.special_names)
    text = "".join(data.draw(st.lists(st.one_of(names, st.text(max_size=3)), max_size=6)))
    assert not any(small.is_special(i) for i in small.encode(text))
    assert small.decode(small.encode(text)) == text


def test_every_control_token_is_one_id(tokenizer):
    for slot, name in enumerate(tokenizer.special_names):
        expected = tokenizer.vocab_size - 256 + slot
        assert tokenizer.encode_with_specials(f"a{name}b")[1:-1] == [expected]
        assert (tokenizer.id_of(name), tokenizer.name_of(expected)) == (expected, name)
    assert tokenizer.decode(tokenizer.encode_with_specials("a[BOS]b"), skip_special=True) == "ab"


def test_of_two_control_tokens_the_longer_one_counts(small_dir):
    vocabulary = Vocabulary.from_dir(small_dir)
    names = ("<x", "<xy", "<x|", *vocabulary.special[3:])
    tokenizer = Tokenizer(Vocabulary(vocabulary.base, names))
    ids = tokenizer.encode_with_specials("<x<xy<x|")
    assert [tokenizer.name_of(i) for i in ids] == ["<x", "<xy", "<x|"]


def test_ids_outside_the_vocabulary_are_refused(small):
    for token_id in (-1, small.vocab_size):
        with pytest.raises(RequestError, match="outside the vocabulary"):
            small.decode([token_id])
    with pytest.raises(RequestError, match="not a control token"):
        small.name_of(0)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = StreamDecoder(tokenizer)
    return [*(decoder.push(i) for i in ids), decoder.flush()]


@settings(PATIENT, max_examples=300)
@given(st.lists(st.integers(0, 256 + 160 + 255), max_size=30))
def test_streamed_text_equals_whole_text(small, ids):
    assert "".join(streamed(small, ids)) == small.decode(ids)


@settings(PATIENT)
@given(st.lists(st.sampled_from([*range(0x7E, 0xFF)]), max_size=12))
def test_streamed_bytes_equal_whole_bytes(small, ids):
    """Nothing but the bytes that make and break UTF-8; in the small vocabulary byte = id."""
    assert "".join(streamed(small, ids)) == bytes(ids).decode("utf-8", "replace")


def test_a_split_character_is_held_back(small):
    ids = list("a🎉b".encode())
    assert streamed(small, ids) == ["a", "", "", "", "🎉", "b", ""]
    assert streamed(small, ids[:3]) == ["a", "", "", "\ufffd"]


def test_decoding_token_by_token_is_caught(small):
    """The planted fault: every token decoded on its own."""
    ids = list("a🎉b".encode())
    assert "".join(small.decode([i]) for i in ids) != small.decode(ids) == "a🎉b"


def test_a_million_equal_characters_make_no_million_steps(small, monkeypatch):
    """Runs reach the BPE in bounded pieces, so its cost per character is bounded."""
    assert len(list(bpe.cut_positions("a" * 1_000_000))) == 40 - 1
    assert small.decode(small.encode("a" * 1_000_000)) == "a" * 1_000_000


def test_trained_tokens_are_what_they_claim():
    assert len(set(trained_tokens(160))) == 416
