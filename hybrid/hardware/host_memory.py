"""RAM: all of it, what this process may still take, and how it is handed out."""

import re
from pathlib import Path

import psutil

from hybrid.hardware import kernel_text
from hybrid.hardware.description import Ram
from hybrid.hardware.dimms import promised_gb_s
from hybrid.hardware.roots import HERE, Roots
from hybrid.memory import VERSIONS, free_host_bytes, groups, own_path

NO_LIMIT = 1 << 60  # version 1 of control groups says "none" with a number beyond any memory
HUGE_PAGES = "kernel/mm/transparent_hugepage/enabled"


def read_ram(roots: Roots = HERE) -> Ram:
    """The memory of the machine that `roots` shows; psutil's part is that of psutil.PROCFS_PATH."""
    groups, own = roots.system / "fs/cgroup", roots.processes / "self/cgroup"
    try:
        total, free = int(psutil.virtual_memory().total), free_host_bytes(groups, own)
    except (OSError, ValueError, KeyError):  # KeyError: meminfo without the usual lines
        total, free = None, None
    return Ram(
        total_bytes=total,
        free_bytes=free,
        limit_bytes=limit_bytes(groups, own),
        huge_pages=huge_pages(roots.system),
        peak_gb_s=promised_gb_s(roots.system),
    )


def limit_bytes(cgroup: Path, own: Path) -> int | None:
    """The tightest limit of the control groups that this process is in; None without one."""
    found = [
        kernel_text.number(group / files.limit)
        for files in VERSIONS
        for group in groups(cgroup / files.folder, own_path(own, files.controller))
    ]
    return min((limit for limit in found if limit is not None and limit < NO_LIMIT), default=None)


def huge_pages(system: Path) -> str | None:
    """When the kernel hands out transparent huge pages: always, madvise or never."""
    found = re.search(r"\[(\w{1,16})\]", kernel_text.text(system / HUGE_PAGES))
    return found[1] if found else None
