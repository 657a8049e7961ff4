"""Every compiled function of this package, compiled (or read from disk) before the first token."""

from hybrid.cpu_dense import verbs
from hybrid.cpu_dense.attention import attention_unit
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
    total = len(UNITS) + len(VERBS)
    progress(Progress("kernels", 0, total, "kernels"))
    for done, name in enumerate(UNITS, 1):
        unit(name)
        progress(Progress("kernels", done, total, "kernels"))
    for done, compile_verb in enumerate(VERBS, 1 + len(UNITS)):
        compile_verb()
        progress(Progress("kernels", done, total, "kernels"))


def unit(name: str) -> int:
    """Address of a compiled unit, for a record."""
    return unit_address(name, UNITS[name])
