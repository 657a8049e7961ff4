"""The published speeds: bounded by the roofline, expected within a quarter, written down."""

import json
import sys
from copy import deepcopy

import predictions
import pytest
from predictions import Row

DATA = json.loads(predictions.DATA.read_text("utf-8"))
SIZES = predictions.model()
ROWS = predictions.read(DATA, SIZES)


def row(name, engine="one", tok_s=10.0, counted=20.0, **more):
    values = {"span": (tok_s, tok_s), "roofline": counted, "token_gb": 1.0, "miss": ""} | more
    return Row(
        id=name, engine=engine, hardware="", weights="", source="", note="", tok_s=tok_s,
        counted=counted, **values,
    )  # fmt: skip


def test_there_are_enough_rows_of_several_engines():
    assert len(ROWS) >= 12
    assert len({each.engine for each in ROWS}) >= 3
    assert len({each.source for each in ROWS}) >= 9
    assert all(each.source.startswith("https://") for each in ROWS)


@pytest.mark.parametrize("each", ROWS, ids=lambda each: each.id)
def test_the_roofline_bounds_every_figure_from_above(each):
    assert each.span[0] <= each.tok_s <= each.span[1] <= each.counted <= each.roofline


def test_rows_that_were_not_fitted_are_within_a_quarter_or_explained():
    assert predictions.unexplained(ROWS) == []
    _, checked = predictions.split(ROWS)
    explained = [each for each in checked if each.miss]
    assert len(checked) >= 6
    assert len(explained) <= len(checked) // 6  # explaining everything would prove nothing


def test_the_split_is_by_names_alone():
    again = deepcopy(DATA)
    for each in again["decode"]:
        each["tok_s"] = 1.0
    again["decode"].reverse()
    halves = predictions.split(predictions.read(again, SIZES))
    names = [{each.id for each in half} for half in halves]
    assert names == [{each.id for each in half} for half in predictions.split(ROWS)]
    assert not names[0] & names[1]
    assert abs(len(names[0]) - len(names[1])) <= 3  # one an engine


def test_a_fit_is_the_median_of_an_engines_shares():
    rows = [row("a", tok_s=2), row("b", tok_s=10), row("c", tok_s=12), row("d", "two", tok_s=5)]
    assert predictions.fit(rows) == {"one": 0.5, "two": 0.25}
    assert predictions.error(row("e", tok_s=8), {"one": 0.5}) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ({"id": "epyc-9965-1s", "tok_s": 39.0}, "above the roofline"),
        ({"id": "epyc-9965-1s", "tok_s": 8.0}, "explained: no"),
        ({"id": "epyc-9965-1s", "miss": "weather"}, "explained: weather"),
        ({"id": "epyc-9175f-cpu", "miss": "weather"}, "explained, but fitted"),
        ({"id": "kt-single", "ram_gb_s": 100.0}, "kt-single"),
    ],
)
def test_a_planted_fault_is_seen(fault, seen):
    changed = deepcopy(DATA)
    next(each for each in changed["decode"] if each["id"] == fault["id"]).update(fault)
    assert any(seen in line for line in predictions.unexplained(predictions.read(changed, SIZES)))


def test_bytes_of_a_token():
    """As published: 11.89 GB of experts, 21.1 GB of backbone; the same from the file's size."""
    published = {"backbone_bits": 16, "expert_bits": 4.5}
    experts, backbone = predictions.token_bytes(published, SIZES)
    assert experts == SIZES.token_experts_bytes
    assert backbone == pytest.approx(21.09e9, rel=1e-3)
    table = SIZES.backbone["embedding"]
    whole = {"backbone_bits": 16, "file_gb": (SIZES.routed_bytes + backbone + table) / 1e9}
    assert predictions.token_bytes(whole, SIZES)[0] == pytest.approx(experts)


def test_seconds_of_a_token_by_hand():
    each = {"gpu_gb_s": 1000, "cards": 1, "on_gpu": 0.25}
    assert predictions.seconds(each, 8e9, 5e9, 200e9) == pytest.approx(0.005 + 6 / 200)
    assert predictions.seconds({"gpu_gb_s": None}, 8e9, 5e9, 200e9) == pytest.approx(13 / 200)


def test_prompts_are_bounded_too():
    rows = list(predictions.prefill_rows(DATA, SIZES))
    assert len(rows) == 12
    assert all(told < bound for _, _, told, bound in rows)
    # one card, 2,048 tokens: all experts over PCIe 4, 571 GB at 31.5 GB/s
    assert rows[0][3] == pytest.approx(2048 / (570.76 / 31.5), rel=1e-3)


def test_the_document_has_the_table_of_today():
    text = predictions.DOCUMENT.read_text("utf-8")
    assert predictions.document(text, predictions.table(DATA)) == text


def test_a_stale_document_is_seen():
    changed = deepcopy(DATA)
    changed["decode"][0]["tok_s"] += 1
    text = predictions.DOCUMENT.read_text("utf-8")
    assert predictions.document(text, predictions.table(changed)) != text


def test_the_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    path = tmp_path / "predictions.md"
    path.write_text(f"before\n{predictions.BEGIN}\nold\n{predictions.END}\nafter\n")
    monkeypatch.setattr(predictions, "DOCUMENT", path)
    monkeypatch.setattr(sys, "argv", ["predictions.py", "--write"])
    predictions.main()
    out = capsys.readouterr().out
    assert "wrong" not in out
    assert out.strip() in path.read_text()
    assert path.read_text().startswith("before\n")
    assert path.read_text().endswith(f"{predictions.END}\nafter\n")
    assert "old" not in path.read_text()
