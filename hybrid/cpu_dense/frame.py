"""Memory on the stack of a compiled function: sums on their way out, lanes of one vector."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hybrid.cpu_dense.panel import LANES

BLOCK_TOKENS = 48  # tokens whose sums are kept: 3 KiB beside the weights in the first cache


def _on_stack(vectors: int) -> Any:
    @intrinsic
    def reserve(typing: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = ir.ArrayType(ir.VectorType(ir.FloatType(), LANES), vectors)
            return builder.ptrtoint(cgutils.alloca_once(builder, kind), ir.IntType(64))

        return types.intp(), codegen

    return reserve


stack_line = _on_stack(1)  # address of 16 floats
stack_sums = _on_stack(BLOCK_TOKENS)  # of a tile of sums for BLOCK_TOKENS, or of four for one
