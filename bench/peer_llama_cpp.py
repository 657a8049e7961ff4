"""llama.cpp's mixture of experts: the graph that it builds itself, on Q4_0 weights.

INT4 with groups of 32 and Q4_0 are the same numbers, only the scale is fp16 (exact for ours) and
the nibbles lie otherwise. Weights go into the buffer type that repacks them for the CPU where the
build has one, on huge pages as ours:

    gate, up [experts][intermediate][hidden], down [experts][hidden][intermediate], one buffer
    ids, x -> mul_mat_id(gate), mul_mat_id(up) -> swiglu -> mul_mat_id(down) -> * weights -> sum
"""

import ctypes
import mmap
from dataclasses import dataclass

import numpy as np
import synthetic
from ggml import TYPES, Ggml, InitParams
from synthetic import DISTINCT, GROUP, HIDDEN, MATRICES, TOP_K, Int4Matrix, Routing

GRAPH_BYTES = 16 << 20  # of tensor headers; the data lies elsewhere
BLOCK_BYTES = 2 + GROUP // 2


def q4_0(matrix: Int4Matrix) -> np.ndarray:
    """Blocks uint8 [out, in/32, 18]: fp16 scale, then inputs i (low nibble) and i + 16 (high)."""
    codes = synthetic.codes_of(matrix.packed).reshape(*matrix.scale.shape, GROUP)
    blocks = np.empty((*matrix.scale.shape, BLOCK_BYTES), np.uint8)
    scale = synthetic.bf16_to_float32(matrix.scale).astype(np.float16)
    blocks[..., :2] = scale[..., None].view(np.uint8)
    blocks[..., 2:] = codes[..., : GROUP // 2] | codes[..., GROUP // 2 :] << 4
    return blocks


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes for one number of tokens."""

    graph: int
    x: int
    ids: int
    weights: int
    result: int
    tokens: int


class Layer:
    """One layer of Q4_0 experts; see `peer.Layer`."""

    def __init__(self, experts: int, threads: int, max_tokens: int) -> None:
        self._ggml = Ggml()
        self._experts = experts
        self._backend = self._ggml.backend_cpu_init()
        self._ggml.backend_cpu_set_n_threads(self._backend, threads)
        self._default = self._ggml.backend_cpu_buffer_type()
        repacking = self._ggml.repacking_buffer_type(self._backend)
        self.kernel = "Q4_0 repacked" if repacking else "Q4_0"
        self._weights = self._place_weights(repacking or self._default)
        self._graphs: dict[int, Graph] = {}  # kept, so that no timed step meets fresh pages

    def _context(self) -> int:
        return self._ggml.init(InitParams(GRAPH_BYTES, None, True))

    def _place_weights(self, buffer_type: int) -> dict[str, int]:
        """The three tensors of all experts, each expert set on its own: no second copy."""
        sizes = {
            name: rows * inputs // GROUP * BLOCK_BYTES for name, (rows, inputs) in MATRICES.items()
        }
        total = self._experts * sum(sizes.values())
        buffer = self._ggml.backend_buft_alloc_buffer(buffer_type, total)
        at = self._ggml.backend_buffer_get_base(buffer)
        _advise_huge_pages(at, total)
        context = self._context()
        tensors = {}
        for name, (rows, inputs) in MATRICES.items():
            blocks = [q4_0(synthetic.expert(index)[name]) for index in range(DISTINCT)]
            for e in range(self._experts):
                self._set_expert(buffer, at + e * sizes[name], rows, inputs, blocks[e % DISTINCT])
            tensor = self._ggml.new_tensor_3d(context, TYPES["q4_0"], inputs, rows, self._experts)
            self._ggml.backend_tensor_alloc(buffer, tensor, at)
            tensors[name] = tensor
            at += self._experts * sizes[name]
        return tensors

    def _set_expert(self, buffer: int, at: int, rows: int, inputs: int, blocks: np.ndarray) -> None:
        context = self._ggml.init(InitParams(4096, None, True))
        tensor = self._ggml.new_tensor_2d(context, TYPES["q4_0"], inputs, rows)
        self._ggml.backend_tensor_alloc(buffer, tensor, at)
        self._ggml.backend_tensor_set(tensor, blocks.ctypes.data, 0, blocks.nbytes)
        self._ggml.free(context)

    def prepare(self, x: np.ndarray, routing: Routing) -> None:
        """A graph for this many tokens, with its inputs."""
        if len(x) not in self._graphs:
            self._graphs[len(x)] = self._build(len(x))
        self._next = nodes = self._graphs[len(x)]
        arrays = x, routing.ids, routing.weights
        for node, array in zip((nodes.x, nodes.ids, nodes.weights), arrays, strict=True):
            self._ggml.backend_tensor_set(node, array.ctypes.data, 0, array.nbytes)

    def _build(self, tokens: int) -> Graph:
        g, c = self._ggml, self._context()
        x = g.new_tensor_3d(c, TYPES["f32"], HIDDEN, 1, tokens)
        ids = g.new_tensor_2d(c, TYPES["i32"], TOP_K, tokens)
        weights = g.new_tensor_3d(c, TYPES["f32"], 1, TOP_K, tokens)
        for node in (x, ids, weights):
            g.set_input(node)
        gate = g.mul_mat_id(c, self._weights["gate"], x, ids)
        up = g.mul_mat_id(c, self._weights["up"], x, ids)
        down = g.mul_mat_id(c, self._weights["down"], g.swiglu_split(c, gate, up), ids)
        weighted = g.mul(c, down, weights)  # [tokens, TOP_K, HIDDEN]
        row = HIDDEN * 4
        slots = [g.view_2d(c, weighted, HIDDEN, tokens, TOP_K * row, k * row) for k in range(TOP_K)]
        result = slots[0]
        for slot in slots[1:]:
            result = g.add(c, result, slot)
        g.set_output(result)
        graph = g.new_graph(c)
        g.build_forward_expand(graph, result)
        memory = g.gallocr_new(self._default)
        if not g.gallocr_alloc_graph(memory, graph):
            raise MemoryError(f"ggml cannot allocate the activations of {tokens} tokens")
        return Graph(graph, x, ids, weights, result, tokens)

    def run(self) -> None:
        """One step."""
        status = self._ggml.backend_graph_compute(self._backend, self._next.graph)
        if status:
            raise RuntimeError(f"ggml_backend_graph_compute returned {status}")

    def output(self) -> np.ndarray:
        """The last step's result, float32 [tokens, hidden]."""
        out = np.empty((self._next.tokens, HIDDEN), np.float32)
        self._ggml.backend_tensor_get(self._next.result, out.ctypes.data, 0, out.nbytes)
        return out


def _advise_huge_pages(address: int, nbytes: int) -> None:
    """What ggml leaves to the system's setting; advice only, so a refusal is no error."""
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    madvise(first, (address + nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE, mmap.MADV_HUGEPAGE)
