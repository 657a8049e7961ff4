"""Medians, ranges and shares of hand-made samples."""

import json

import pytest
import rows
from rows import MACHINE, Sample, Spread, Subject

GIB = 10**9


def samples(isa="avx2"):
    """Reads of 20 and 40 GB/s, peaks of 100 and 200 GFLOP/s, and a decode step on each count."""
    found = {}
    for threads, read, peak in ((1, 20, 100), (2, 40, 200)):
        found[Subject(MACHINE, "read", threads)] = [Sample(1, read * GIB)]
        found[Subject(MACHINE, "peak", threads, "avx2")] = [Sample(0.5, 0, peak * GIB // 4)]
        step = Subject("ours", "decode", threads, isa, "int8", 1, 64)
        found[step] = [Sample(s, threads * GIB, 10 * GIB, 8) for s in (0.1, 0.4, 0.2)]
    return found


def test_a_spread_is_median_low_high():
    assert rows.spread([3, 1, 2, 10]) == Spread(2.5, 1, 10)


@pytest.mark.parametrize("threads", [1, 2])
def test_shares_are_of_the_same_thread_count(threads):
    row = next(
        row
        for row in rows.rows(samples())
        if row.subject.engine == "ours" and row.subject.threads == threads
    )
    assert row.milliseconds == Spread(200, 100, 400)
    assert row.gb_s == Spread(threads / 0.2, threads / 0.4, threads / 0.1)
    assert row.of_read == pytest.approx(threads / 0.2 / (20 * threads))  # 0.25 on both
    assert row.gflop_s == Spread(100, 50, 200)
    assert row.of_peak == pytest.approx(100 / (100 * threads))
    assert row.distinct == 8


def test_the_machine_is_no_share_of_itself():
    machine = [row for row in rows.rows(samples()) if row.subject.engine == MACHINE]
    assert len(machine) == 4
    assert all(row.of_read is None and row.of_peak is None for row in machine)


def test_without_a_loop_of_its_own_the_fastest_counts():
    found = samples(isa="Q4_0")
    found[Subject(MACHINE, "peak", 1, "avx512bw")] = [Sample(1, 0, 200 * GIB)]
    shares = {row.subject.threads: row.of_peak for row in rows.rows(found) if row.subject.tokens}
    assert shares == {1: pytest.approx(100 / 400), 2: pytest.approx(100 / 200)}


def test_no_read_in_the_run_means_no_share():
    found = {s: taken for s, taken in samples().items() if s.what == "decode"}
    assert [row.of_read for row in rows.rows(found)] == [None, None]
    assert [row.of_peak for row in rows.rows(found)] == [None, None]


def test_json_lines_carry_every_sample():
    head, *lines = rows.json_lines({"bench": "kernels"}, rows.rows(samples()))
    assert json.loads(head) == {"bench": "kernels"}
    assert len(lines) == 6
    step = json.loads(lines[2])
    assert step["engine"] == "ours"
    assert step["samples_ms"] == [100, 400, 200]
    assert step["gb_s"] == [5, 2.5, 10]
    assert json.loads(lines[0])["gflop_s"] is None


def test_the_table_lines_up():
    heading, *lines = rows.table(rows.rows(samples()))
    assert len(lines) == 6
    assert lines[2].startswith("ours    decode avx2 int8")
    end = heading.index("of read") + len("of read")
    assert lines[2][:end].endswith("25.0%")
    assert all(len(line) <= len(heading) for line in lines)
