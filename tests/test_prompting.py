"""From messages with images and video to token ids: the published ones, whatever users write."""

import base64
import shutil
from pathlib import Path

import numpy as np
import pytest

from hybrid.chat.prompt import VIDEO_CHUNK, VIDEO_PLACEHOLDER
from hybrid.chat.template import ChatTemplate, built_in_source
from hybrid.chat.tokenizer import Tokenizer
from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError, ContextTooLongError, RequestError
from hybrid.prompting import Prompting
from hybrid.vision.features import Features
from hybrid.vision.media import Item, Media
from hybrid.vision.media_config import PUBLISHED
from tests.chat.conftest import PUBLISHED as TOKENIZER
from tests.vision.clips import animation
from tests.vision.image_files import noise, written

PICTURE = noise(60, 40)  # 2 x 3 tokens
PNG = written(PICTURE, "PNG")
CLIP = animation("GIF", range(0, 240, 30), 500, size=(28, 28))  # 4 s: 8 frames, two chunks
CONFIG = Path(__file__).parent / "data" / "kimi_k25_config.json"


class NoTower:
    """Prompts are made without looking at anything."""

    def features(self, items, poll=lambda: None):
        pytest.fail("looked")


def prompting_of(config, tokenizer_dir, *, template=None, vision=True, max_tokens=1000):
    return Prompting(
        config,
        Tokenizer.from_dir(tokenizer_dir),
        ChatTemplate(template, "a template") if template else ChatTemplate.built_in(),
        Features(NoTower(), PUBLISHED) if vision else None,
        max_tokens,
    )


@pytest.fixture(scope="module")
def tiny(tiny_dir):
    return prompting_of(ModelConfig.from_dir(tiny_dir), tiny_dir)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Prompts of K2.5 itself: its config and its tokenizer need no weights."""
    if not (TOKENIZER / "tiktoken.model").exists():
        pytest.skip("the published tokenizer is not on this machine")
    directory = tmp_path_factory.mktemp("published")
    shutil.copy(CONFIG, directory / "config.json")
    return prompting_of(ModelConfig.from_dir(directory), TOKENIZER)


@pytest.fixture(params=["tiny", "published"])
def prompting(request):
    return request.getfixturevalue(request.param)


def user(*parts):
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": "user", "content": content}


def image(source=PNG):
    return {"type": "image", "image": source}


def video(source=CLIP):
    return {"type": "video", "video": source}


def ids_of(prompting, *messages, **options):
    return prompting.of_messages(list(messages), **options)[0].ids


PAD = 163605
OPEN, CLOSE = [163587, 2482, 163601], [163586, 163588, 69702, 163601, 163606]  # spec §4.5
CHUNK_0 = [163602, 22782, 163603, PAD, 163604]
CHUNK_2 = [465, 25, 465, 25, 4312, 13, 1476, *CHUNK_0]  # 00:00:02.000


def test_an_image_has_the_published_ids(published):
    """Spec §4.5 and §5.4: one placeholder a token, and a newline behind the image."""
    ids = ids_of(published, user(image(), "Describe"))
    shown = [163602, 4017, 163603, *[PAD] * 6, 163604, 198, 48848]
    assert ids == [*OPEN, *shown, *CLOSE]


def test_a_video_has_the_published_ids(published):
    """Spec §6.2: chunks with time stamps, nothing between them, a newline behind the last."""
    ids = ids_of(published, user(video(), "Describe"))
    at_zero = published.tokenizer.encode("00:00:00.000")
    assert ids == [*OPEN, *at_zero, *CHUNK_0, *CHUNK_2, 198, 48848, *CLOSE]


def test_stamps_and_sizes_of_each_chunk_are_kept(published):
    first, second = (
        Item(np.full((t * h * w, 588), t, np.uint8), (t, h, w))
        for t, h, w in [(4, 2, 4), (1, 2, 4)]
    )
    media = Media("video", "x", 56, 28, (first, second), ("00:00:02.000", "01:00:00.040"), 9.0)
    prompt, _ = published.of_messages([user(video(media))])
    late = published.tokenizer.encode("01:00:00.040")
    wide = [163602, 22782, 163603, PAD, PAD, 163604]
    assert prompt.ids == [*OPEN, *CHUNK_2[:7], *wide, *late, *wide, 198, *CLOSE]
    assert [(p.start, p.item) for p in prompt.media] == [
        (13, first),
        (13 + 3 + len(late) + 3, second),
    ]


def test_each_video_has_its_own_stamps(prompting):
    """Of two videos and an image between them, in their order."""
    clips = [
        Media(
            "video", "x", 28, 28, (Item(np.full((4, 588), n, np.uint8), (1, 2, 2)),), (stamp,), 1.0
        )
        for n, stamp in enumerate(("00:00:11.000", "00:00:22.000"))
    ]
    ids = ids_of(prompting, user(video(clips[0]), image(), video(clips[1])))
    text = prompting.tokenizer.decode(ids, skip_special=True)
    assert text.index("00:00:11.000video") < text.index("image") < text.index("00:00:22.000video")


def test_a_still_video_is_called_one(published):
    """A chunk of one frame has the word of a video (spec §6.2)."""
    still = animation("GIF", [0, 200], 100, size=(28, 28))  # 0.2 s: one frame is sampled
    ids = ids_of(published, user(video(still)))
    assert ids == [*OPEN, *published.tokenizer.encode("00:00:00.000"), *CHUNK_0, 198, *CLOSE]


FORMS = {
    "PIL": {"image": PICTURE},
    "bytes": {"image": PNG},
    "bytearray": {"image": bytearray(PNG)},
    "beside": {},
    "None": {"image": None},
    "url": {"image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}},
    "plain url": {"image_url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"},
    "detail": {"image_url": {"url": "a.png", "detail": "high"}},
    "file": {"image_url": {"url": "a.png"}},
    "file url": {"image_url": {"url": "file:a.png"}},
}


@pytest.mark.parametrize("form", [*FORMS, "Media", "Path"])
def test_every_form_of_an_image_is_the_same_prompt(prompting, form, tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    more = {
        "Media": {"image": prompting.open_image(PNG, "m")},
        "Path": {"image": tmp_path / "a.png"},
    }
    part = (FORMS | more)[form]
    kind = "image_url" if "image_url" in part else "image"
    beside = [PNG] if form in ("beside", "None") else []
    message = user("a", {"type": kind, **part}, "b")
    got, _ = prompting.of_messages([message], beside, tmp_path)
    want, _ = prompting.of_messages([user("a", image(PNG), "b")])
    assert got.ids == want.ids
    assert got.identity() == want.identity()
    one_each = [
        i for i, row in zip(got.ids, got.identity(), strict=True) if row != got.media[0].digest
    ]
    at = got.media[0].start
    one_each.insert(at, prompting.config.media_placeholder_token_id)
    assert prompting.of_ids(one_each, [PNG]).identity() == want.identity()


@pytest.mark.parametrize("form", ["bytes", "Media", "Path", "url", "file", "beside"])
def test_every_form_of_a_video_is_the_same_prompt(tiny, form, tmp_path):
    (tmp_path / "a.gif").write_bytes(CLIP)
    data = f"data:image/gif;base64,{base64.b64encode(CLIP).decode()}"
    part = {
        "bytes": {"video": CLIP},
        "Media": {"video": tiny.open_video(CLIP)},
        "Path": {"video": tmp_path / "a.gif"},
        "url": {"video_url": {"url": data}},
        "file": {"video_url": {"url": "a.gif"}},
        "beside": {},
    }[form]
    kind = "video_url" if "video_url" in part else "video"
    beside = [CLIP] if form == "beside" else []
    got, _ = tiny.of_messages([user({"type": kind, **part})], beside, tmp_path)
    assert got.identity() == tiny.of_messages([user(video())])[0].identity()


def test_media_stand_in_the_order_of_the_conversation(prompting):
    pictures = [noise(28, 28, seed) for seed in range(4)]
    messages = [
        {"role": "system", "content": [image(pictures[0])]},
        user("a", image(pictures[1]), video(), image(pictures[2])),
        {"role": "assistant", "content": "b"},
        user("c"),
        {"role": "assistant", "tool_calls": [{"id": "f:0", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "f:0", "content": [image(pictures[3])]},
    ]
    prompt, _ = prompting.of_messages(messages)
    items = [prompting.open_image(picture).items for picture in pictures]
    clip = prompting.open_video(CLIP).items
    want = [*items[0], *items[1], *clip, *items[2], *items[3]]
    assert [placed.digest for placed in prompt.media] == [item.digest for item in want]


WRITTEN = {  # by users, who may write what they like
    "the video's": VIDEO_PLACEHOLDER,
    "the image's": "<|media_pad|>",
    "a chunk": f"00:00:00.000{VIDEO_CHUNK}",
    "many": f"{VIDEO_PLACEHOLDER}<|media_pad|>" * 3,
    "half of one": "<|kimi_k25_video_",
    "another half": "placeholder|>",
    "an end": "<|media_end|><|im_end|>",
    "an opener": "<",
}


def users_texts(prompting, ids):
    """What stands between the head of a user's only message and its media, and behind them."""
    special = prompting.tokenizer.id_of
    opened = [at for at, token in enumerate(ids) if token == special("<|media_begin|>")]
    closed = [at for at, token in enumerate(ids) if token == special("<|media_end|>")]
    head, end = ids.index(special("<|im_middle|>")), ids.index(special("<|im_end|>"))
    return ids[head + 1 : opened[0]], ids[closed[-1] + 1 : end]


@pytest.mark.parametrize("text", WRITTEN)
def test_what_users_write_is_text(prompting, text):
    """In front of a real image and a real video, and behind them."""
    text, encode = WRITTEN[text], prompting.tokenizer.encode
    ids = ids_of(prompting, user(f"a\n{text}\n", image(), video(), f"{text}\n", "b"))
    assert ids.count(prompting.config.media_placeholder_token_id) == 6 + 2
    front, behind = users_texts(prompting, ids)
    assert (front, behind) == (encode(f"a\n{text}\n"), encode(f"\n{text}\nb"))


def test_halves_of_a_name_in_two_parts_stay_halves(prompting):
    parts = "<|kimi_k25_video_", "placeholder|>", "<", "|media_pad|>"
    ids = ids_of(prompting, user(*parts, video()))
    front, _ = users_texts(prompting, ids)
    assert front == prompting.tokenizer.encode("".join(parts) + "00:00:00.000")
    assert ids.count(prompting.config.media_placeholder_token_id) == 2


@pytest.mark.parametrize("text", [VIDEO_PLACEHOLDER, "<|media_pad|>"])
def test_so_it_is_in_every_other_field(tiny, text):
    messages = [
        {"role": "system", "name": text, "content": text},
        user(video(), image()),
        {"role": "assistant", "content": text, "reasoning_content": text,
         "tool_calls": [{"id": text, "function": {"name": text, "arguments": {text: text}}}]},
        {"role": "tool", "tool_call_id": text, "content": text},
    ]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "f", "description": text}}]
    prompt, _ = tiny.of_messages(messages, tools=tools)
    assert len(prompt.media) == 3
    assert prompt.ids.count(tiny.config.media_placeholder_token_id) == 8


def test_without_the_guard_a_user_would_write_media(tiny, monkeypatch):
    monkeypatch.setattr("hybrid.chat.prompt.guarded", lambda value, openers, guard: value)
    for text in (VIDEO_PLACEHOLDER, "<|media_pad|>"):
        with pytest.raises(CheckpointError, match="the chat template wrote"):
            tiny.of_messages([user(text, video(), image())])


def test_the_wrong_stamps_would_be_seen(published, monkeypatch):
    monkeypatch.setattr("hybrid.chat.prompt.VIDEO_CHUNK", VIDEO_CHUNK.replace("video", "image"))
    ids = ids_of(published, user(video()))
    assert ids[-len(CLOSE) - 1 - len(CHUNK_2) : -len(CLOSE) - 1] != CHUNK_2


SOURCE = built_in_source()
BROKEN = {  # what a checkpoint's own template may do, and who is named
    "no image": (SOURCE.replace("<|media_pad|>", ""), 0, 2),
    "images twice": (SOURCE.replace("<|media_pad|>", "<|media_pad|><|media_pad|>"), 4, 2),
    "no video": (SOURCE.replace(VIDEO_PLACEHOLDER, ""), 0, 1),
    "videos twice": (SOURCE.replace(VIDEO_PLACEHOLDER, VIDEO_PLACEHOLDER * 2), 2, 1),
    "a pad for a video": (SOURCE.replace(VIDEO_PLACEHOLDER, "<|media_pad|>"), 0, 1),
    "messages twice": (SOURCE + SOURCE, 2, 1),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_template_that_drops_or_doubles_media_is_told(fault, tiny, tiny_dir):
    template, wrote, have = BROKEN[fault]
    prompting = prompting_of(tiny.config, tiny_dir, template=template)
    messages = [user(image(), image(PICTURE))] if "image" in fault else [user(video())]
    with pytest.raises(
        CheckpointError, match=f"chat template wrote {wrote} .* have {have}\\b"
    ) as caught:
        prompting.of_messages(messages)
    assert "\n" not in str(caught.value)
    assert prompting.of_messages([user("text")])[0].media == ()


def test_a_template_that_invents_media_is_told(tiny, tiny_dir):
    for invented, what in (
        ("<|media_pad|>", "1 media placeholders"),
        (VIDEO_PLACEHOLDER, "1 videos"),
    ):
        prompting = prompting_of(tiny.config, tiny_dir, template=f"{invented}a")
        with pytest.raises(CheckpointError, match=f"the chat template wrote {what} where"):
            prompting.of_messages([user("text")])


@pytest.mark.parametrize(
    ("part", "match", "param"),
    [
        ({"type": "image"}, "image is missing", "image"),
        ({"type": "image_url"}, "must be an object", "image_url"),
        ({"type": "image_url", "image_url": {}}, "must be an object", "image_url"),
        ({"type": "image_url", "image_url": {"url": PNG}}, "must be an object", "image_url"),
        ({"type": "image_url", "image_url": {"url": "http://a/b"}}, "on a network", "image_url"),
        ({"type": "image_url", "image_url": "a.png"}, "not allowed here", "image_url"),
        ({"type": "video_url", "video_url": "data:,x"}, ".", "video_url"),
        ({"type": "image", "image": 5}, "an image is a int", "image"),
        ({"type": "image", "image": b"x"}, "is not a PNG", "image"),
        ({"type": "video"}, "video is missing", "video"),
    ],
)
def test_a_bad_part_is_named(tiny, part, match, param):
    with pytest.raises(RequestError, match=match) as caught:
        tiny.of_messages([user("a"), user(image(), part)])
    assert caught.value.param == f"messages[1].content[1].{param}"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("images", [PICTURE, PNG, Path("a.png"), "a.png", 5, iter([PNG]), {PNG}])
def test_images_are_a_list(tiny, images):
    for call in (
        lambda: tiny.of_ids([1, 2], images),
        lambda: tiny.of_messages([user("a")], images),
    ):
        with pytest.raises(RequestError, match=r"images is a .*; give a list of them") as caught:
            call()
        assert caught.value.param == "images"


def test_no_images_is_no_images(tiny):
    for images in (None, (), []):
        assert tiny.of_ids([1, 2], images).ids == [1, 2]
        assert tiny.of_messages([user("a")], images)[0].media == ()


def test_more_than_the_context_is_not_opened(tiny, tiny_dir):
    small = prompting_of(tiny.config, tiny_dir, max_tokens=20)
    with pytest.raises(ContextTooLongError, match="24 tokens but the KV cache holds 20"):
        small.of_messages([user(*[image()] * 9)])
    with pytest.raises(RequestError, match="takes 2 tokens, 1 are left"):
        prompting_of(tiny.config, tiny_dir, max_tokens=1).open_video(CLIP)


@pytest.mark.parametrize("there", [True, False])
def test_a_model_that_reads_text_only_says_why(checkpoint_dir, there):
    directory = checkpoint_dir("k2.5" if there else "k2-thinking")
    blind = prompting_of(ModelConfig.from_dir(directory), directory, vision=False)
    why = "it was loaded without vision" if there else "it has no vision tower"
    assert blind.of_messages([user("a", VIDEO_PLACEHOLDER, "<|media_pad|>")])[0].media == ()
    for call in (
        lambda: blind.of_messages([user(image())]),
        lambda: blind.of_messages([user({"type": "video_url", "video_url": "data:,x"})]),
        lambda: blind.of_messages([user("a")], [PNG]),
        lambda: blind.of_ids([1], [PNG]),
        lambda: blind.open_image(PNG),
        lambda: blind.open_video(CLIP),
    ):
        with pytest.raises(RequestError, match=f"this model reads text only: {why}"):
            call()
