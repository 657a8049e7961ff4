"""Images and video in the engine: what is reused, what is cut and who is beside changes no bit.

Whatever is cached is compared with a second engine of the same checkpoint, which forgets everything
before each prompt.
"""

import base64
import weakref

import numpy as np
import pytest
from PIL import Image

import hybrid
from hybrid import SamplingParams, timeline
from hybrid.errors import ContextTooLongError, RequestError
from hybrid.vision import features
from hybrid.vision.media import Item, Media
from hybrid.vision.prompt import Prompt
from tests.vision.clips import animation
from tests.vision.image_files import noise, written

KV_TOKENS = 160
A, B, C = (noise(60, 40, seed) for seed in range(3))  # 2 x 3 tokens, 24 patches each
TOKENS, PATCHES = 6, 24
PNG = written(A, "PNG")
CLIP = animation("GIF", range(0, 240, 30), 500, size=(56, 28))  # 8 frames: two chunks of 2 tokens
GREEDY = SamplingParams(temperature=0.0, max_tokens=3, logprobs=3)


class Stop(Exception):  # noqa: N818
    """Raised by a poll to abandon a block."""


def load(model_dir, threads=1):
    return hybrid.load(
        model_dir, device="cpu", activation="int8", threads=threads, kv_tokens=KV_TOKENS
    )


@pytest.fixture(scope="module")
def shared(tiny_dir):
    return load(tiny_dir)


@pytest.fixture(scope="module")
def judge(tiny_dir):
    return load(tiny_dir)


@pytest.fixture
def engine(shared):
    """An engine that knows nothing of the test before."""
    forget(shared)
    return shared


def forget(engine):
    engine._timeline.tokens.clear()
    engine._vision._kept.clear()
    engine._vision._bytes = 0


def image(source):
    return {"type": "image", "image": source}


def asking(*parts):
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": content}]


def shows(*pictures):
    """A conversation that begins with text, shows the pictures with a word each, and asks."""
    parts = (part for at, picture in enumerate(pictures) for part in (image(picture), f"no {at}"))
    return asking("look", *parts, "what?")


def prompt_of(engine, messages, *args):
    return engine._prompting.of_messages(messages, *args)[0]


def ask(engine, messages, *args, **options):
    """Logits of the first token of an answer, and how many tokens were reused."""
    return engine._timeline.prefill(prompt_of(engine, messages, *args), **options)


def fresh(judge, messages):
    forget(judge)
    return ask(judge, messages)[0]


def answer(engine, *args, **options):
    return list(engine.generate(*args, GREEDY, **options))


def looked(engine):
    return engine.stats()["vision"]["patches"] // PATCHES


def seen_during(engine, messages):
    before = looked(engine)
    logits, cached = ask(engine, messages)
    return logits, cached, looked(engine) - before


def row_of(engine, messages, which):
    """The row of the prompt at which a picture begins."""
    return prompt_of(engine, messages).media[which].start


# Every way in


DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@pytest.mark.parametrize("form", ["PIL", "bytes", "Media", "url", "file", "beside", "ids"])
def test_every_way_in_gives_the_same_answer(engine, judge, tmp_path, form):
    (tmp_path / "a.png").write_bytes(PNG)
    forget(judge)
    want = answer(judge, shows(A), thinking=False)
    given = {
        "PIL": image(A),
        "bytes": image(PNG),
        "Media": image(engine.open_image(tmp_path / "a.png")),
        "url": {"type": "image_url", "image_url": {"url": DATA}},
        "file": {"type": "image_url", "image_url": {"url": "a.png"}},
        "beside": {"type": "image"},
        "ids": None,
    }[form]
    if form == "ids":
        prompt, images = placeholders(engine, prompt_of(engine, shows(A), (), None), [A])
        close = engine.tokenizer.id_of("</think>")
        got = answer(engine, [*prompt, close], images=images, thinking=False)
    else:
        parts = asking("look", given, "no 0", "what?")
        beside = [A] if form == "beside" else ()
        got = answer(engine, parts, images=beside, thinking=False, media_root=tmp_path)
    assert got == want


def placeholders(engine, prompt, pictures):
    """The ids of a prompt with one placeholder an item."""
    ids, pad = list(prompt.ids), engine.config.media_placeholder_token_id
    for placed in reversed(prompt.media):
        ids[placed.start : placed.end] = [pad]
    return ids, pictures


def test_a_video_is_its_chunks_one_by_one(engine, judge):
    messages = asking("look", {"type": "video", "video": CLIP}, "what?")
    clip = engine.open_video(CLIP)
    assert (clip.tokens, clip.stamps) == (4, ("00:00:00.000", "00:00:02.000"))
    stills = [Media("image", "chunk", 56, 28, (item,)) for item in clip.items]
    prompt = prompt_of(engine, messages)
    ids, images = placeholders(engine, prompt, stills)
    logits, _ = ask(engine, messages)
    assert np.array_equal(judge.logits(ids, images)[-1], logits)
    swapped = judge.logits(ids, images[::-1])[-1]
    assert not np.array_equal(swapped, logits)


def test_logits_of_every_position(engine, judge):
    ids, images = placeholders(engine, prompt_of(engine, shows(A, B)), [A, B])
    all_rows = engine.logits(ids, images)
    assert len(all_rows) == len(ids) + 2 * (TOKENS - 1)
    assert np.array_equal(all_rows[-1], fresh(judge, shows(A, B)))


def test_messages_without_media_look_at_nothing(engine):
    hello, asked = asking("Hello"), engine.stats()["vision"]
    assert answer(engine, hello)[-1].usage.prompt_tokens == len(engine.prompt_ids(hello))
    assert engine.stats()["vision"] == asked


# What is reused


def test_the_same_picture_again_costs_nothing(engine, judge):
    first, cached, looks = seen_during(engine, shows(A))
    assert (cached, looks) == (0, 1)
    asked = engine.stats()["vision"]
    again, cached, looks = seen_during(engine, shows(written(A, "PNG")))
    assert (cached, looks) == (len(prompt_of(engine, shows(A)).ids) - 1, 0)
    assert engine.stats()["vision"] == asked
    assert np.array_equal(first, again)
    assert np.array_equal(first, fresh(judge, shows(A)))


def test_the_next_turn_does_not_look_again(engine):
    said = answer(engine, shows(A), thinking=False)
    text = "".join(event.text for event in said)
    asked = engine.stats()["vision"]
    more = [*shows(A), {"role": "assistant", "content": text}, {"role": "user", "content": "and?"}]
    usage = answer(engine, more, thinking=False)[-1].usage
    assert usage.cached_tokens >= said[-1].usage.prompt_tokens
    assert engine.stats()["vision"] == asked


def other_prompts():
    """(name, first prompt, second, the picture at which they part, looks that the second costs)."""
    wide, tall = Image.new("RGB", (112, 28), "black"), Image.new("RGB", (28, 112), "black")
    return {
        "the picture": (shows(A), shows(B), 0, 1),
        "the same pixels, turned": (shows(wide), shows(tall), 0, None),
        "the last of three": (shows(A, B, C), shows(A, B, A), 2, 0),
        "the middle one": (shows(A, B, C), shows(A, C, C), 1, 0),
        "the first": (shows(A, B), shows(C, B), 0, 1),
        "two that changed places": (shows(A, B), shows(B, A), 0, 0),
    }


@pytest.mark.parametrize("case", other_prompts())
def test_what_follows_another_picture_is_computed_anew(engine, judge, case):
    before, now, parting, looks = other_prompts()[case]
    known, _ = ask(engine, before)
    assert len(prompt_of(engine, before).ids) == len(prompt_of(engine, now).ids)
    logits, cached, looked_at = seen_during(engine, now)
    assert cached == row_of(engine, now, parting)
    assert looks is None or looked_at == looks
    assert np.array_equal(logits, fresh(judge, now))
    assert not np.array_equal(logits, known)


def test_a_change_of_text_behind_pictures_does_not_look(engine, judge):
    ask(engine, asking(image(A), image(B), "what?"))
    logits, cached, looks = seen_during(engine, asking(image(A), image(B), "who?"))
    assert looks == 0
    assert cached > row_of(engine, asking(image(A), image(B), "who?"), 1) + TOKENS
    assert np.array_equal(logits, fresh(judge, asking(image(A), image(B), "who?")))


def test_a_change_of_text_in_front_computes_rows_again_without_a_look(engine, judge):
    ask(engine, asking("one", image(A)))
    logits, cached, looks = seen_during(engine, asking("two", image(A)))
    assert looks == 0
    assert cached < row_of(engine, asking("two", image(A)), 0)
    assert np.array_equal(logits, fresh(judge, asking("two", image(A))))


def test_a_picture_that_ends_a_prompt_is_computed_to_its_last_row(engine, judge):
    pad = engine.config.media_placeholder_token_id
    prompt = engine._prompting.of_ids([5, pad], [A])
    first, _ = engine._timeline.prefill(prompt)
    again, cached = engine._timeline.prefill(prompt)
    assert cached == TOKENS
    assert np.array_equal(first, again)
    assert np.array_equal(judge.logits([5, pad], [A])[-1], again)


def stale(monkeypatch):
    monkeypatch.setattr(Prompt, "identity", lambda self: list(self.ids))


def without_grid(monkeypatch):
    monkeypatch.setattr(Item, "digest", property(lambda self: self.patches.tobytes()))


def by_size(monkeypatch):
    monkeypatch.setattr(Item, "digest", property(lambda self: repr(self.grid).encode()))


@pytest.mark.parametrize(
    ("fault", "case"),
    [
        (stale, "the picture"),
        (stale, "the middle one"),
        (without_grid, "the same pixels, turned"),
        (by_size, "the picture"),
        (by_size, "two that changed places"),
    ],
)
def test_a_careless_comparison_would_be_seen(engine, judge, monkeypatch, fault, case):
    before, now, _, _ = other_prompts()[case]
    right = fresh(judge, now)
    fault(monkeypatch)
    ask(engine, before)
    assert not np.array_equal(ask(engine, now)[0], right)


# What is cut, and who is beside


@pytest.mark.parametrize("block", [1, 2, 5, 7, 16])
def test_a_block_may_end_inside_a_picture(engine, judge, monkeypatch, block):
    monkeypatch.setattr(engine._timeline.model.backbone, "max_block", block)
    logits, cached = ask(engine, shows(A, B))
    assert cached == 0
    assert np.array_equal(logits, fresh(judge, shows(A, B)))


def one_off(pictures, start, end):
    return ((max(row - 1, 0), rows) for row, rows in inside(pictures, start, end))


def from_its_start(pictures, start, end):
    for placed, rows in pictures:
        first, last = max(start, placed.start), min(end, placed.end)
        if first < last:
            yield first - start, rows[: last - first]


def only_whole(pictures, start, end):
    return ((row, rows) for row, rows in inside(pictures, start, end) if len(rows) == TOKENS)


def the_other(pictures, start, end):
    rows = [rows for _, rows in pictures]
    placed = [placed for placed, _ in pictures]
    return inside(list(zip(placed, rows[::-1], strict=True)), start, end)


inside = timeline._inside


@pytest.mark.parametrize("fault", [one_off, from_its_start, only_whole, the_other])
def test_rows_in_the_wrong_place_would_be_seen(engine, judge, monkeypatch, fault):
    right = fresh(judge, shows(A, B))
    monkeypatch.setattr(engine._timeline.model.backbone, "max_block", 16)
    monkeypatch.setattr(timeline, "_inside", fault)
    assert not np.array_equal(ask(engine, shows(A, B))[0], right)


def rows_seen(engine, *pictures):
    """What the tower makes of pictures that come together."""
    engine._vision._kept.clear()
    prompt = prompt_of(engine, shows(*pictures))
    return engine._vision.of(prompt.media)


def test_pictures_beside_change_nothing(engine, monkeypatch):
    (alone,) = rows_seen(engine, A)
    large = noise(300, 200, 7)
    for together in ([A, B], [B, A], [large, A], [C, A, B]):
        seen = rows_seen(engine, *together)
        assert np.array_equal(seen[together.index(A)], alone)
    monkeypatch.setattr(features, "PASS_PATCHES", PATCHES)
    assert np.array_equal(rows_seen(engine, B, A)[1], alone)


def test_a_picture_behind_changes_no_row_in_front(engine):
    ids, images = placeholders(engine, prompt_of(engine, shows(A, B)), [A, B])
    cut = ids.index(engine.config.media_placeholder_token_id) + 2
    short = engine.logits(ids[:cut], images[:1])
    assert np.array_equal(engine.logits(ids, images)[: len(short)], short)


def test_threads_change_no_bit(engine, tiny_dir):
    pictures = [A, noise(300, 200, 7)]
    ids, images = placeholders(engine, prompt_of(engine, shows(*pictures)), pictures)
    alone = engine.logits(ids, images)
    rows = rows_seen(engine, *pictures)
    with load(tiny_dir, threads=2) as other:
        assert np.array_equal(other.logits(ids, images), alone)
        for one, two in zip(rows, rows_seen(other, *pictures), strict=True):
            assert np.array_equal(one, two)


# Interruptions and limits


@pytest.fixture
def looking(engine, monkeypatch):
    """A flag that is up while the tower works: [looks so far, whether one is going on]."""
    state = {"looks": 0, "now": False}
    tower = engine._vision._tower
    see = tower.features

    def watched(items, poll):
        state["looks"] += 1
        state["now"] = True
        try:
            return see(items, poll)
        finally:
            state["now"] = False

    monkeypatch.setattr(tower, "features", watched)
    return state


def test_cancelled_while_looking_the_engine_goes_on(engine, judge, looking):
    answer(engine, shows(A))
    known = looking["looks"]
    events = answer(engine, shows(A, B), should_stop=lambda: looking["now"])
    assert [event.kind for event in events] == ["finish"]
    assert events[-1].finish_reason == "cancelled"
    assert looking["looks"] == known + 1
    kept = engine.context_tokens
    assert kept > row_of(engine, shows(A, B), 0) + TOKENS  # the first picture's rows stay
    logits, cached, looks = seen_during(engine, shows(A, B))
    assert (cached, looks) == (kept, 1)
    assert np.array_equal(logits, fresh(judge, shows(A, B)))
    assert answer(engine, shows(A, B)) != []


def test_what_a_cancelled_look_has_finished_is_kept(engine, looking, monkeypatch):
    monkeypatch.setattr(features, "PASS_PATCHES", PATCHES)
    before = looked(engine)
    stop = lambda: looking["now"] and looking["looks"] == 3  # noqa: E731
    assert answer(engine, shows(A, B, C), should_stop=stop)[-1].finish_reason == "cancelled"
    assert looked(engine) - before == 2
    assert seen_during(engine, shows(A, B, C))[2] == 1


def test_cancelled_inside_a_picture_its_rows_count_block_by_block(engine, judge, monkeypatch):
    start = row_of(engine, shows(A), 0)
    monkeypatch.setattr(timeline, "PASS_TOKENS", start + 2)  # two rows of the picture
    layers = iter(range(100))

    def poll():
        if engine.context_tokens == start + 2 and next(layers) == 2:
            raise Stop

    with pytest.raises(Stop):
        ask(engine, shows(A), poll=poll)
    assert engine.context_tokens == start + 2
    logits, cached, looks = seen_during(engine, shows(A))
    assert (cached, looks) == (start + 2, 0)
    assert np.array_equal(logits, fresh(judge, shows(A)))
    ask(engine, shows(A))
    del engine._timeline.tokens[start + 2 :]
    _, cached = ask(engine, shows(B))
    assert cached == start  # two rows of one picture are not two rows of another


@pytest.mark.parametrize("many", [40, KV_TOKENS // TOKENS])
def test_too_many_pictures_are_refused_before_one_is_looked_at(engine, looking, many):
    """More than the cache by themselves, and only with the words around them."""
    ask(engine, shows(A))
    known, looks = engine.context_tokens, looking["looks"]
    with pytest.raises(ContextTooLongError, match="the KV cache holds 160"):
        engine.generate(shows(*[B] * many))
    pad = engine.config.media_placeholder_token_id
    for call in (engine.generate, engine.logits):
        with pytest.raises(ContextTooLongError, match="the KV cache holds 160"):
            call([5, *[pad] * (KV_TOKENS // TOKENS + 1)], images=[B] * (KV_TOKENS // TOKENS + 1))
    assert (engine.context_tokens, looking["looks"]) == (known, looks)
    assert ask(engine, shows(A))[1] == known - 1


def test_a_picture_larger_than_the_context(engine, looking):
    with pytest.raises(ContextTooLongError, match="1036 tokens but the KV cache holds 160"):
        engine.generate(asking(image(noise(1024, 768))))
    assert not looking["looks"]


def test_a_long_video_says_how_long(engine, looking):
    long = animation("GIF", range(100), 2000, size=(112, 56))  # 25 chunks of 8 tokens
    with pytest.raises(RequestError, match=r"\(200\.0 s\) takes 200 tokens, 160 are left"):
        engine.generate(asking({"type": "video", "video": long}))
    with pytest.raises(RequestError, match="takes 200 tokens, 160 are left"):
        engine.open_video(long)
    assert not looking["looks"]


@pytest.mark.parametrize(
    ("messages", "images"),
    [
        (asking({"type": "image"}), ()),
        (asking("a"), [A]),
        (asking(image(b"no picture")), ()),
        (asking(image(A), {"type": "image_url", "image_url": {"url": "/etc/passwd"}}), ()),
    ],
)
def test_a_bad_request_changes_nothing(engine, looking, messages, images):
    ask(engine, shows(A))
    known, looks = list(engine._timeline.tokens), looking["looks"]
    with pytest.raises(RequestError):
        engine.generate(messages, images=images)
    assert (engine._timeline.tokens, looking["looks"]) == (known, looks)


def test_looking_reports_progress_before_prefill(engine):
    seen = []
    answer(engine, shows(A, B), progress=seen.append)
    phases = [p.phase for p in seen]
    assert phases == ["vision"] * 2 + ["prefill"] * (len(phases) - 2)
    assert [(p.done, p.total, p.unit) for p in seen[:2]] == [
        (0, 2 * PATCHES, "patches"),
        (2 * PATCHES, 2 * PATCHES, "patches"),
    ]
    seen.clear()
    answer(engine, shows(A, B), progress=seen.append)
    assert {p.phase for p in seen} == {"prefill"}


def test_statistics_of_looking(engine):
    before = engine.stats()["vision"]
    answer(engine, shows(A, B, A))
    after = engine.stats()["vision"]
    assert after["items"] - before["items"] == 3
    assert after["patches"] - before["patches"] == 2 * PATCHES
    assert after["seconds"] > before["seconds"]


def test_time_in_the_tower_is_no_prefill(engine, monkeypatch):
    now = [0.0]
    for module in ("hybrid.generation", "hybrid.vision.features"):
        monkeypatch.setattr(f"{module}.perf_counter", lambda: now[0])
    tower = engine._vision._tower

    def slow(items, poll=lambda: None):
        now[0] += 5.0
        return tower.features(items, poll)

    monkeypatch.setattr(
        engine._vision, "_tower", type("Slow", (), {"features": staticmethod(slow)})
    )
    answer(engine, shows(A))
    last = engine.stats()["last"]
    assert (last["vision_s"], last["prefill_s"]) == (5.0, 0.0)
    answer(engine, shows(A))
    assert engine.stats()["last"]["vision_s"] == 0.0


def test_a_closed_engine_lets_the_tower_go(tiny_dir):
    engine = load(tiny_dir)
    tower = weakref.ref(engine._vision._tower)
    assert engine.sees
    engine.close()
    assert not engine.sees
    assert tower() is None
