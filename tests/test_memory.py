"""The limits of the process's groups count, their page cache does not."""

import psutil
import pytest

from hybrid import memory
from hybrid.memory import free_host_bytes

MIB = 1 << 20


@pytest.fixture
def own(tmp_path):
    """What /proc/self/cgroup says: by default that the process lies in the root."""
    file = tmp_path / "own"
    file.write_text("4:memory:/\n0::/\n")
    return file


def version_2_group(folder, limit, used, cache=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cache}\ninactive_file {cache}\n")
    return folder


def version_1_group(folder, limit, used, cache=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"total_inactive_file {cache}\n")
    return folder


@pytest.fixture
def version_2(tmp_path):
    return version_2_group(tmp_path / "groups", 100 * MIB, 90 * MIB, 70 * MIB)


def test_a_limit_leaves_what_is_not_used(version_2, own):
    assert free_host_bytes(version_2, own) == 80 * MIB


def test_page_cache_counted_as_used_would_be_seen(version_2, own):
    (version_2 / "memory.stat").write_text("anon 1\n")
    assert free_host_bytes(version_2, own) == 10 * MIB


def test_no_limit_leaves_what_the_machine_has(version_2, own):
    (version_2 / "memory.max").write_text("max\n")
    assert free_host_bytes(version_2, own) > 100 * MIB


def test_more_used_than_allowed_leaves_nothing(version_2, own):
    (version_2 / "memory.current").write_text(f"{500 * MIB}\n")
    assert free_host_bytes(version_2, own) == 0


def test_version_1(tmp_path, own):
    version_1_group(tmp_path / "memory", 50 * MIB, 30 * MIB, 10 * MIB)
    assert free_host_bytes(tmp_path, own) == 30 * MIB


def test_without_any_container_the_machine_counts(tmp_path, own):
    available = psutil.virtual_memory().available
    assert free_host_bytes(tmp_path, own) == pytest.approx(available, rel=0.2)
    assert free_host_bytes(tmp_path, tmp_path / "absent") == pytest.approx(available, rel=0.2)


@pytest.mark.parametrize("tightest", [0, 1, 2])
@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_of_the_groups_above_the_process_counts(version, tightest, tmp_path, own):
    """Each has 100 MiB left but for one, which has 60."""
    own.write_text("5:cpu,memory:/a b/c\n" if version == 1 else "3:cpu:/x\n0::/a b/c\n")
    make = version_1_group if version == 1 else version_2_group
    root = tmp_path / "memory" if version == 1 else tmp_path
    for depth, folder in enumerate((root, root / "a b", root / "a b" / "c")):
        left = 60 if depth == tightest else 100
        make(folder, (left + 30) * MIB, 40 * MIB, 10 * MIB)
    make(root / "a b" / "c" / "d", MIB, 0)  # below the process: not its limit
    make(root / "x", MIB, 0)  # another's
    assert free_host_bytes(tmp_path, own) == 60 * MIB


def test_a_group_that_is_not_looked_at_would_be_seen(tmp_path, own, monkeypatch):
    """The planted fault: the root alone, as for a container with a name space of its own."""
    own.write_text("0::/a\n")
    version_2_group(tmp_path / "a", 100 * MIB, 0)
    assert free_host_bytes(tmp_path, own) == 100 * MIB
    monkeypatch.setattr(memory, "groups", lambda root, _: [root])
    assert free_host_bytes(tmp_path, own) > 100 * MIB


def test_groups_of_which_some_are_hidden_or_have_no_limit(tmp_path, own):
    """A container often sees its host's path but its own root."""
    own.write_text("0::/host/container\n")
    version_2_group(tmp_path, 200 * MIB, 0)
    assert free_host_bytes(tmp_path, own) == 200 * MIB
    version_2_group(tmp_path / "host", "max", 0)
    version_2_group(tmp_path / "host" / "container", 70 * MIB, 0)
    assert free_host_bytes(tmp_path, own) == 70 * MIB


@pytest.mark.parametrize("text", ["0::/../..\n", "", "0:\n::\n", "\n", "0::", "a:b:c:d\n"])
def test_what_the_kernel_may_say_besides(text, version_2, own):
    own.write_text(text)
    assert free_host_bytes(version_2, own) == 80 * MIB
