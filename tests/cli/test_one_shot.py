"""`kimi-local chat -p`: prompt in, answer on stdout, everything else on stderr."""

import json

import pytest

import hybrid
from cli import prompt_source, tool_file
from tests.cli.fake_engine import HOSTILE, MP4, FakeEngine, png

WEATHER = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]


def last_user(engines) -> str:
    return engines[-1].calls[-1]["messages"][-1]["content"]


def test_the_answer_alone_is_on_stdout(chat, engines):
    result = chat("-p", "hello")
    assert (result.code, result.out) == (0, "You said hello.\n")
    assert result.err == "model · loaded in 0.0 s · experts avx2 int16 · context 1,000 tokens\n"
    assert engines[-1].closed


def test_the_load_line_says_where_experts_are_unless_all_are_in_ram(chat, monkeypatch):
    monkeypatch.setattr(FakeEngine, "stats", lambda _: stats)
    tiers = {"vram": {"records": 20}, "ram": {"records": 300}, "nvme": {"records": 160}}
    stats = {"last": {"vision_s": 0.0, "expert_reads": {}}, "tiers": tiers}
    placed = "experts avx2 int16, 4% on the device, 62% in RAM, 33% on disk · context"
    assert placed in chat("-p", "hello").err


def test_budgets_and_the_rest_of_the_cache_reach_the_engine(chat, monkeypatch, tmp_path):
    given = {}
    real = hybrid.load
    monkeypatch.setattr(
        hybrid, "load", lambda model, **options: given.update(options) or real(model, **options)
    )
    records = tmp_path / "experts.records"
    records.touch()
    flags = "--ram-budget 1.5GB --vram-budget 0 --cache-policy lru --no-prefetch --records"
    assert chat("-p", "hello", *flags.split(), str(records)).code == 0
    assert (given["ram_budget"], given["vram_budget"]) == (1_500_000_000, 0)
    assert (given["cache_policy"], given["prefetch"], given["records"]) == ("lru", False, records)


@pytest.mark.parametrize(
    ("args", "stdin", "prompt"),
    [
        (("-p", "hi"), b"", "hi"),
        (("-p", "-"), b"from stdin\n", "from stdin"),
        ((), b"from stdin\n", "from stdin"),
        (("-p", "sum up"), b"a text\nof two lines\n", "a text\nof two lines\n\nsum up"),
        ((), "žluťoučký 中\n".encode(), "žluťoučký 中"),
    ],
)
def test_where_the_prompt_comes_from(chat, engines, args, stdin, prompt):
    assert chat(*args, stdin=stdin).code == 0
    assert last_user(engines) == prompt


@pytest.mark.parametrize(
    ("args", "stdin", "hint"),
    [
        ((), b"", "empty"),
        (("-p", " "), b"", "empty"),
        (("-p", "-"), b" \n", "empty"),
        ((), b"ok \xff", "not UTF-8 text (byte 3 is 0xff)"),
        (("-c", "--session", "x", "-p", "x"), b"", "give one"),
        (("-c", "-p", "x"), b"", "no session"),
        (("--session", "../../etc/passwd", "-p", "x"), b"", "letters, digits"),
    ],
)
def test_bad_input_is_one_line(chat, args, stdin, hint):
    result = chat(*args, stdin=stdin)
    assert result.code == 2
    assert hint in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""


def test_an_endless_stdin_is_refused_without_reading_it_all(chat, monkeypatch):
    monkeypatch.setattr(prompt_source, "MOST_BYTES", 10)
    assert chat(stdin=b"0123456789").code == 0
    result = chat(stdin=b"0123456789x")
    assert (result.code, "larger than 10 bytes" in result.err) == (2, True)


def test_json_is_one_object_as_documented(chat):
    result = chat("-p", "hello", "--json")
    answer = json.loads(result.out)
    assert list(answer) == [
        "content",
        "reasoning",
        "tool_calls",
        "finish_reason",
        "usage",
        "stats",
    ]
    assert answer["content"] == "You said hello."
    assert answer["reasoning"] == "Let me think.\n"
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 7
    assert answer["stats"]["engine"]["tokens"] == 7
    assert result.out.count("\n") == 1


def test_json_is_exact_where_text_is_made_safe(chat):
    exact = chat("-p", "hostile", "--json").out
    assert json.loads(exact)["content"] == HOSTILE
    assert exact.isascii()
    assert "\x1b" not in exact
    assert chat("-p", "hostile").out == "safe red end link\n"


def test_tool_calls_come_as_json(chat, engines, tmp_path):
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps(WEATHER))
    call = {
        "id": "functions.get_weather:0",
        "name": "get_weather",
        "arguments": '{"city": "Paris"}',
    }
    answer = json.loads(chat("-p", "x", "--tools", str(tools), "--json").out)
    assert (answer["finish_reason"], answer["tool_calls"]) == ("tool_calls", [call])
    assert json.loads(chat("-p", "x", "--tools", str(tools)).out) == call
    assert engines[-1].calls[-1]["tools"] == WEATHER


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "non-empty JSON list"),
        ("[]", "non-empty JSON list"),
        ("[1]", "tool 0 is not"),
        ('[{"type": "function"}]', 'no "function" object'),
        ('[{"type": "function", "function": {"name": "a b"}}]', "named 'a b'"),
        ('[{"type": "function", "function": {"name": "f", "parameters": 1}}]', "JSON schema"),
        (json.dumps(WEATHER * 2), "two tools are named"),
    ],
)
def test_a_bad_tools_file_is_one_line(chat, tmp_path, text, hint):
    path = tmp_path / "tools.json"
    path.write_text(text)
    result = chat("-p", "x", "--tools", str(path))
    assert result.code == 2
    assert hint in result.err
    assert result.err.count("\n") == 1


def test_a_huge_tools_file_is_refused(chat, tmp_path, monkeypatch):
    monkeypatch.setattr(tool_file, "MOST_BYTES", 10)
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(WEATHER))
    assert "larger than 10 bytes" in chat("-p", "x", "--tools", str(path)).err


def test_flags_reach_the_engine(chat, engines):
    chat(
        *("-p", "x", "--instant", "--system", "be brief", "--context", "77"),
        *("--temperature", "0", "--top-p", "0.5", "--top-k", "3", "--min-p", "0.1"),
        *("--max-tokens", "9", "--seed", "4", "--stop", "a", "--stop", "b"),
        *("--repetition-penalty", "1.1", "--presence-penalty", "-1", "--frequency-penalty", "2"),
    )
    call, sampling = engines[-1].calls[-1], engines[-1].calls[-1]["sampling"]
    assert engines[-1].kv_tokens == 77
    assert call["messages"][0] == {"role": "system", "content": "be brief"}
    assert not call["thinking"]
    assert sampling.stop == ("a", "b")
    values = {
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.1,
        "max_tokens": 9,
        "seed": 4,
        "repetition_penalty": 1.1,
        "presence_penalty": -1.0,
        "frequency_penalty": 2.0,
    }
    assert {name: getattr(sampling, name) for name in values} == values


@pytest.fixture
def pics(home):
    """A directory with two pictures and a video."""
    (home / "board.png").write_bytes(png(1024, 768))
    (home / "dot.png").write_bytes(png(1, 1))
    (home / "clip.mp4").write_bytes(MP4)
    return home


def test_pictures_and_videos_come_before_the_text(chat, engines, pics):
    result = chat(
        *("-p", "which one?", "--video", f"{pics}/clip.mp4"),
        *("-i", f"{pics}/board.png", "--image", f"{pics}/dot.png"),
    )
    assert (result.code, result.out) == (0, "You said which one?.\n")
    assert result.err.split("\n")[1:] == [
        "board.png 1024x768 -> 1,036 tokens",
        "dot.png 1x1 -> 1 token",
        "clip.mp4 640x360, 4.0 s -> 598 tokens",
        "",
    ]
    parts = last_user(engines)
    assert [part["type"] for part in parts] == ["image", "image", "video", "text"]
    assert parts[-1]["text"] == "which one?"


def test_usage_counts_what_was_shown(chat, pics):
    bare = json.loads(chat("-p", "what is it?", "--json").out)["usage"]
    shown = json.loads(chat("-p", "what is it?", "--json", "-i", f"{pics}/board.png").out)["usage"]
    assert shown["prompt_tokens"] - bare["prompt_tokens"] == 1036


def test_a_path_in_p_is_text(chat, engines, pics):
    chat("-p", f"what is in {pics}/board.png ?")
    assert last_user(engines) == f"what is in {pics}/board.png ?"


def test_a_bad_picture_is_one_line_and_exit_2(chat, engines, pics):
    (pics / "x\x1b]0;owned\x07.png").write_bytes(b"not a picture")
    for flags, hint in (
        (("-i", f"{pics}/missing.png"), "does not exist"),
        (("-i", f"{pics}"), "is a directory"),
        (("-i", f"{pics}/clip.mp4"), "clip.mp4 is not a picture"),
        (("--video", f"{pics}/dot.png"), "dot.png is not a video"),
        (("-i", f"{pics}/x\x1b]0;owned\x07.png"), "kimi-local: x.png is not a picture"),
        (("-i", f"{pics}/dot.png", "--no-vision"), "vision was left out"),
    ):
        result = chat("-p", "x", *flags)
        assert result.code == 2
        assert hint in result.err.split("\n")[-2]
        assert result.out == ""
        assert "\x1b" not in result.err
        assert all(not engine.calls for engine in engines)


def test_no_vision_reaches_the_engine(chat, engines):
    chat("-p", "x")
    assert engines[-1].vision
    chat("-p", "x", "--no-vision")
    assert not engines[-1].vision


def test_a_session_shows_its_pictures_again_and_a_lost_one_is_one_line(chat, engines, pics):
    chat("-p", "first", "--session", "s", "-i", f"{pics}/board.png")
    saved = (pics / "state/kimi-local/sessions/s.json").read_bytes()
    assert len(saved) < 2000  # no pixels
    chat("-p", "second", "-c")
    assert engines[-1].opened == ["board.png"]
    first = engines[-1].calls[-1]["messages"][0]["content"]
    assert (first[0]["type"], first[0]["image"].tokens, first[1]["text"]) == (
        "image",
        1036,
        "first",
    )
    (pics / "board.png").rename(pics / "elsewhere.png")
    before = (pics / "state/kimi-local/sessions/s.json").read_bytes()
    lost = chat("-p", "third", "-c")
    assert (lost.code, lost.out) == (2, "")
    assert "board.png: No such file" in lost.err
    assert "put it back" in lost.err
    assert (pics / "state/kimi-local/sessions/s.json").read_bytes() == before


def test_what_was_not_asked_for_stays_the_models_default(chat, engines):
    chat("-p", "x")
    sampling = engines[-1].calls[-1]["sampling"]
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (None, None, None)


def test_length_is_success_and_an_engine_error_is_not(chat):
    cut = chat("-p", "x", "--max-tokens", "5", "--json")
    assert (cut.code, json.loads(cut.out)["finish_reason"]) == (0, "length")
    failed = chat("-p", "boom")
    assert failed.code == 4
    assert failed.out == "half an ans\n"
    assert failed.err.endswith("kimi-local: worker 3 died; run kimi-local doctor\n")


def test_a_named_session_goes_on_and_a_nameless_run_leaves_nothing(chat, engines, home):
    chat("-p", "none")
    assert not (home / "state").exists()
    chat("-p", "first", "--session", "s", "--system", "S", "--seed", "7")
    chat("-p", "second", "-c")
    roles = [m["role"] for m in engines[-1].calls[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert engines[-1].calls[-1]["sampling"].seed == 7


def test_without_a_model_it_takes_kimi_nano_and_says_so(chat, engines, home, monkeypatch):
    result = chat("-p", "hello", model=False)
    assert result.code == 0
    notice, _ = result.err.splitlines()
    assert "kimi-nano" in notice
    assert "--model DIR" in notice
    assert engines[-1].model_dir == hybrid.KIMI_NANO
    monkeypatch.setenv("KIMI_LOCAL_MODEL", str(home / "model"))
    assert "nano" not in chat("-p", "hello", model=False).err
    assert engines[-1].model_dir == home / "model"


def test_a_conversation_needs_a_terminal(chat, monkeypatch):
    monkeypatch.setattr("cli.prompt_source.one_shot_prompt", lambda _: None)
    monkeypatch.setattr("cli.chat.one_shot_prompt", lambda _: None)
    assert "give the prompt with -p" in chat().err
    assert "give it with -p" in chat("--json").err


class PassThrough:
    """Planted: a cleaner that cleans nothing."""

    def feed(self, text):
        return text


def test_the_check_for_safe_output_sees_a_cleaner_that_does_nothing(chat, monkeypatch):
    monkeypatch.setattr("cli.plain_view.Cleaner", PassThrough)
    assert "\x1b]0;owned" in chat("-p", "hostile").out


def test_ctrl_c_while_loading_is_quiet(chat, monkeypatch):
    def load(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hybrid.load", load)
    result = chat("-p", "hello")
    assert (result.code, result.out, result.err) == (130, "", "")
