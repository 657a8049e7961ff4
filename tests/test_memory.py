"""The container's limit counts, its page cache does not."""

import psutil
import pytest

from hybrid.memory import free_host_bytes

MIB = 1 << 20


@pytest.fixture
def version_2(tmp_path):
    (tmp_path / "memory.max").write_text(f"{100 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{90 * MIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {20 * MIB}\ninactive_file {70 * MIB}\n")
    return tmp_path


def test_a_limit_leaves_what_is_not_used(version_2):
    assert free_host_bytes(version_2) == 80 * MIB


def test_page_cache_counted_as_used_would_be_seen(version_2):
    (version_2 / "memory.stat").write_text("anon 1\n")
    assert free_host_bytes(version_2) == 10 * MIB


def test_no_limit_leaves_what_the_machine_has(version_2):
    (version_2 / "memory.max").write_text("max\n")
    assert free_host_bytes(version_2) > 100 * MIB


def test_more_used_than_allowed_leaves_nothing(version_2):
    (version_2 / "memory.current").write_text(f"{500 * MIB}\n")
    assert free_host_bytes(version_2) == 0


def test_version_1(tmp_path):
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(f"{50 * MIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{30 * MIB}\n")
    (folder / "memory.stat").write_text(f"total_inactive_file {10 * MIB}\n")
    assert free_host_bytes(tmp_path) == 30 * MIB


def test_without_any_container_the_machine_counts(tmp_path):
    available = psutil.virtual_memory().available
    assert free_host_bytes(tmp_path) == pytest.approx(available, rel=0.2)
