"""The compiled kernels: which set runs, whether its results are right, whether they are kept."""

from collections.abc import Callable

from hybrid.doctor.check import Check, bad, good, none
from hybrid.errors import KernelError

NAME, CONTENT = "doctor", b"written and read again"


def kernel_set(isa: str, x86: bool, verify: Callable[[str], None]) -> Check:
    """The set this CPU gets, held against the portable one bit for bit."""
    try:
        verify(isa)
    except KernelError as error:
        return bad("CPU kernels", str(error), "load with --isa portable, and report this CPU")
    if isa != "portable":
        return good("CPU kernels", f"{isa}, equal to the portable set bit for bit")
    if x86:
        return bad(
            "CPU kernels",
            "portable: this CPU shows no AVX2, and decoding is many times slower",
            "in a virtual machine pass the host's CPU on (qemu: -cpu host); else use a newer CPU",
        )
    return none("CPU kernels", "portable: there are no others for this architecture yet")


def kernel_files_kept(
    read: Callable[[str, object], bytes | None], write: Callable[[str, object, bytes], None]
) -> Check:
    """Whether compiled kernels outlive the process: hybrid/cpu_experts/kernel_files.py."""
    write(NAME, NAME, CONTENT)
    if read(NAME, NAME) == CONTENT:
        return good("kernel files", "compiled kernels and measured rates are kept")
    return bad(
        "kernel files",
        "nothing can be kept: each start compiles again",
        "export NUMBA_CACHE_DIR=DIR, a directory that only you may write to (chmod 700 DIR)",
    )
