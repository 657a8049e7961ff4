"""Every compiled function of this package, compiled (or read from disk) before the first token."""

from collections.abc import Callable
from functools import partial

from hybrid.cpu_dense import paneling, verbs
from hybrid.cpu_dense.attention import attention_unit
from hybrid.cpu_dense.codes import code_unit
from hybrid.cpu_dense.feed_forward import swiglu_unit
from hybrid.cpu_dense.latent import latent_unit
from hybrid.cpu_dense.linear import linear_unit
from hybrid.cpu_dense.norm import norm_unit
from hybrid.cpu_dense.records import unit_address
from hybrid.cpu_dense.router import select_unit
from hybrid.cpu_dense.tiles import pack_matrix, pack_unit
from hybrid.progress import Progress, ProgressSink

UNITS = {
    "pack": pack_unit,
    "code": code_unit,
    "norm": norm_unit,
    "linear": linear_unit,
    "latent": latent_unit,
    "attention": attention_unit,
    "swiglu": swiglu_unit,
    "select": select_unit,
}
VERBS = (verbs.attend, verbs.dense, verbs.route, verbs.shared, verbs.head, pack_matrix)


def warm_up(progress: ProgressSink) -> None:
    """Some 20 seconds on a first start, a fraction of one later."""
    builds: list[Callable[[], object]] = [
        partial(paneling.address, name) for name in paneling.PANELS
    ]
    builds += [partial(unit, name) for name in UNITS]
    builds += VERBS
    progress(Progress("kernels", 0, len(builds), "kernels"))
    for done, build in enumerate(builds, 1):
        build()
        progress(Progress("kernels", done, len(builds), "kernels"))


def unit(name: str) -> int:
    """Address of a compiled unit, for a record."""
    return unit_address(name, UNITS[name])
