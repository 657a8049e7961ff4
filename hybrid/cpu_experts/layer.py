"""The routed experts of one layer: records in RAM, and the forward pass over them.

    layer = ExpertLayer(384, 7168, 2048)
    layer.set_expert(e, gate=(packed, scale), up=(packed, scale), down=(packed, scale))
    y = layer.forward(x, expert_ids, weights)        # float32 [T, hidden]

The two halves of `forward` can be had apart, where another device or a later moment computes some
of a token's experts: `outputs` of those that are here, `combine` once all are there. The same bits.

Every check of shapes, dtypes and ids happens here or in the first lines of the compiled forward:
below, addresses are trusted.
"""

import operator
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_experts import dispatch, forward
from hybrid.cpu_experts.cores import available_cores
from hybrid.cpu_experts.job import JOB, LAYER, OUTPUTS, SHARD, SUM, WHOLE
from hybrid.cpu_experts.pool import Pool, shared_pool
from hybrid.cpu_experts.record import GROUP, ROWS, RecordShape
from hybrid.cpu_experts.repack import repack
from hybrid.cpu_experts.rows.modes import MODES
from hybrid.cpu_experts.shards import Shard, allocate, whole
from hybrid.errors import ConfigError, RequestError
from hybrid.model_files import shown

Int4: TypeAlias = tuple[
    NDArray[np.int32], NDArray[np.uint16]
]  # packed [out, in/8], scale [out, in/32]

ALONE_BYTES = (
    512 * 1024
)  # below this many record bytes x tokens, waking workers costs more than it saves
MAX_THREADS = 1024
MAX_EXPERTS = 1 << 20
_NO_WEIGHTS = np.empty((0, 0), np.float32)


class ExpertLayer:
    """`n_experts` gated MLPs in INT4; see `forward` for what is computed."""

    def __init__(
        self,
        n_experts: int,
        hidden: int,
        intermediate: int,
        isa: str | None = None,
        threads: int | None = None,
        activation: str = "int8",
        *,
        records: NDArray[np.uint8] | None = None,
        shards: Sequence[Shard] = (),
        where: NDArray[np.int32] | None = None,
        pool: Pool | None = None,
    ) -> None:
        """Records lie in memory of the layer's own, by rows on the NUMA nodes that compute them, or
        in `shards` that shards.allocate made, or whole in `records` [n_experts, record_bytes].

        `where` [n_experts] is its owner's: record `where[e]` of the shards is expert e, -1: it is
        elsewhere; this may change between calls. `pool` takes the place of the shared one.
        """
        self.shape = RecordShape(_whole("hidden", hidden), _whole("intermediate", intermediate))
        self.record_bytes = self.shape.nbytes
        self.n_experts = _within("n_experts", n_experts, MAX_EXPERTS)
        cores = available_cores() if threads is None else threads
        self.threads = _within("threads", cores, MAX_THREADS)
        self.isa = dispatch.select(isa)
        self.activation = dispatch.select_mode(activation)
        self._pool = pool or shared_pool(self.threads)
        if records is not None:
            shards = (whole(self.shape, self._checked_records(records)),)
        self.shards = tuple(shards) or allocate(self.shape, self.n_experts, self._pool.shares)
        self.where = np.full(self.n_experts, -1, np.int32) if where is None else where
        self._table = self._describe_shards()
        self._layer = self._describe()
        self._job = np.zeros(1, JOB)
        self._forward = forward.forward()
        self._addresses = self._layer.ctypes.data, self._job.ctypes.data

    def _checked_records(self, records: NDArray[np.uint8]) -> NDArray[np.uint8]:
        want = (self.n_experts, self.record_bytes)
        if not _is_array(records, np.uint8, want):
            raise ConfigError(f"records is {_kind(records)}; this layer needs uint8 {want}")
        if not (records.flags.c_contiguous and records.flags.writeable):
            raise ConfigError("records must be contiguous and writable")
        return records

    @property
    def records(self) -> NDArray[np.uint8]:
        """[n_experts, record_bytes] where records are whole: on a machine with one NUMA node."""
        if len(self.shards) > 1:
            raise ConfigError(f"records lie on {len(self.shards)} NUMA nodes; see `shards`")
        return self.shards[0].records

    def _describe_shards(self) -> NDArray[np.void]:
        table = np.zeros(len(self.shards), SHARD)
        for row, shard in zip(table, self.shards, strict=True):
            row["records"], row["record_bytes"] = shard.records.ctypes.data, shard.records.shape[1]
            row["gate"], row["gates"] = shard.gates.start, len(shard.gates)
            row["down"], row["downs"] = shard.downs.start, len(shard.downs)
        return table

    def _describe(self) -> NDArray[np.void]:
        layer = np.zeros(1, LAYER)
        layer["shards"], layer["nodes"] = self._table.ctypes.data, len(self._table)
        layer["n_experts"] = self.n_experts
        layer["hidden"] = self.shape.hidden
        layer["intermediate"] = self.shape.intermediate
        layer["where"] = self.where.ctypes.data
        layer["group_bytes"] = MODES[self.activation].group_bytes
        layer["kernel"] = dispatch.compiled_kernel(self.activation).address
        layer["rows16"] = dispatch.rows16(self.isa, self.activation)
        layer["panels_from"] = dispatch.panels_from(self.activation)
        layer["biased"] = dispatch.biased(self.isa, self.activation)
        return layer

    def set_expert(self, e: int, *, gate: Int4, up: Int4, down: Int4) -> None:
        """Repack one expert's checkpoint tensors into its record; threads may do so side by side.

        gate and up: int32 [intermediate, hidden/8], uint16 bf16 bits [intermediate, hidden/32];
        down: int32 [hidden, intermediate/8], uint16 [hidden, intermediate/32].
        Raises RequestError for an expert that is not there, ConfigError for unfit tensors.
        """
        index = _integer(e)
        if index is None or not 0 <= index < self.n_experts:
            raise RequestError(
                f"expert {_seen(e)} of a layer with {self.n_experts} experts", param="e"
            )
        hidden, intermediate = self.shape.hidden, self.shape.intermediate
        gate = _checked("gate", gate, intermediate, hidden)
        up = _checked("up", up, intermediate, hidden)
        down = _checked("down", down, hidden, intermediate)
        for shard in self.shards:
            at = shard.records.ctypes.data + index * shard.records.shape[1]
            block, down_block = self.shape.gate_block_bytes, self.shape.down_block_bytes
            rows = range(shard.gates.start * GROUP, shard.gates.stop * GROUP)
            _place(gate, rows, at, 2 * block)
            _place(up, rows, at + block, 2 * block)
            rows = range(shard.downs.start * ROWS, shard.downs.stop * ROWS)
            _place(down, rows, at + shard.down_at(self.shape), down_block)
        self.where[index] = index

    def forward(
        self,
        x: NDArray[np.float32],
        expert_ids: NDArray[np.int32],
        weights: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Return float32 [T, hidden]: per token, the sum in slot order of weight * expert(x).

        x [T, hidden] float32, expert_ids [T, k] int32 with -1 for "skip", weights [T, k] float32.
        Raises RequestError for a wrong dtype or shape, an id out of range, an expert never set.
        """
        x, ids, weights = self._request(x, expert_ids, weights)
        result = self._output(x, out)
        self._run(x, ids, weights, result, WHOLE)
        return result

    def outputs(
        self, x: NDArray[np.float32], expert_ids: NDArray[np.int32], outputs: NDArray[np.float32]
    ) -> None:
        """Write expert(x) of every id that is not -1 to `outputs`, float32 [T * k, hidden].

        Row t * k + slot is that of token t and slot; rows of -1 are left alone, so that several may
        fill one array at a time. Raises RequestError as `forward` does.
        """
        x, ids, weights = self._request(x, expert_ids, None)
        outputs = self._checked_outputs(ids, outputs)
        self._run(x, ids, weights, outputs, OUTPUTS, outputs)

    def combine(
        self,
        outputs: NDArray[np.float32],
        expert_ids: NDArray[np.int32],
        weights: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The sum, in slot order, of weight * output over all ids that are not -1: [T, hidden]."""
        ids = _array("expert_ids", expert_ids, np.int32)
        result = np.empty((len(ids), self.shape.hidden), np.float32)
        result, ids, weights = self._request(result, ids, weights)
        self._run(result, ids, weights, result, SUM, self._checked_outputs(ids, outputs))
        return result

    def _request(
        self,
        x: NDArray[np.float32],
        expert_ids: NDArray[np.int32],
        weights: NDArray[np.float32] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        x = _array("x", x, np.float32)
        ids = _array("expert_ids", expert_ids, np.int32)
        weights = _NO_WEIGHTS if weights is None else _array("weights", weights, np.float32)
        if x.shape[1] != self.shape.hidden:
            raise RequestError(f"x has {x.shape[1]} columns; hidden is {self.shape.hidden}", "x")
        unfit = weights is not _NO_WEIGHTS and ids.shape != weights.shape
        if unfit or len(ids) != len(x):
            raise RequestError(
                f"x {x.shape}, expert_ids {ids.shape} and weights {weights.shape} do not fit; "
                "they are [T, hidden], [T, k] and [T, k]",
                param="expert_ids",
            )
        return x, ids, weights

    def _checked_outputs(
        self, ids: NDArray[np.int32], outputs: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        want = (ids.size, self.shape.hidden)
        if not _is_array(outputs, np.float32, want) or not outputs.flags.carray:
            raise RequestError(
                f"outputs is {_kind(outputs)}; it must be contiguous float32 {want}", "outputs"
            )
        return outputs

    def _output(
        self, x: NDArray[np.float32], out: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        if out is None:
            return np.empty(x.shape, np.float32)  # [T, hidden]
        if not _is_array(out, np.float32, x.shape) or not out.flags.carray:
            raise RequestError(
                f"out is {_kind(out)}; it must be contiguous float32 {x.shape}", "out"
            )
        if np.may_share_memory(x, out):
            raise RequestError("out overlaps x; pass another array", "out")
        return out

    def _run(
        self,
        x: NDArray[np.float32],
        ids: NDArray[np.int32],
        weights: NDArray[np.float32],
        out: NDArray[np.float32],
        parts: int,
        outputs: NDArray[np.float32] | None = None,
    ) -> None:
        """`outputs`: where to leave (OUTPUTS) or find (SUM) what each expert said."""
        pool, o = self._pool, 0 if outputs is None else outputs.ctypes.data
        alone = self.threads == 1 or ids.size * self.record_bytes < ALONE_BYTES
        with pool.lock:
            if not alone:
                pool.start()
            while True:
                scratch = pool.scratch
                memory = pool.state, self.threads, scratch.address, scratch.nbytes
                status, value = self._forward(
                    *self._addresses, x, ids, weights, out, memory, alone, parts, o
                )
                pool.check()
                if status == forward.OK:
                    return
                if status != forward.MORE_SCRATCH:
                    raise self._refusal(status, value)
                pool.grow_scratch(value)

    def _refusal(self, status: int, expert: int) -> RequestError:
        if status == forward.NOT_READY:
            return RequestError(
                f"expert {expert} has no weights; set_expert it first", "expert_ids"
            )
        return RequestError(
            f"expert id {expert} is out of range; ids are -1 ... {self.n_experts - 1}", "expert_ids"
        )


def _place(matrix: Int4, rows: range, target: int, stride: int) -> None:
    """Repack some rows of a checked matrix; row blocks go to the target, `stride` bytes apart."""
    packed, scale = (part[rows.start : rows.stop] for part in matrix)
    groups = scale.shape[1]
    addresses = packed.ctypes.data, scale.ctypes.data
    repack()(*addresses, len(rows) // ROWS, groups, target, stride)


def _whole(name: str, value: object) -> int:
    number = _integer(value)
    if number is None:
        raise ConfigError(f"{name} is {_seen(value)}; it must be a whole number")
    return number


def _within(name: str, value: object, limit: int) -> int:
    number = _whole(name, value)
    if not 0 < number <= limit:
        raise ConfigError(f"{name} is {number}; it must be 1 ... {limit}")
    return number


def _integer(value: object) -> int | None:
    """A Python int; numpy's integers are as good, but True, 2.0 and "2" are mistakes."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _seen(value: object) -> str:
    """What came in place of a number, for an error line."""
    return _kind(value) if isinstance(value, np.ndarray) else shown(value)


def _kind(value: object) -> str:
    """What came in place of an array, for an error line."""
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else str(type(value))


def _is_array(value: object, dtype: type, shape: tuple[int, ...]) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype and value.shape == shape


def _array(name: str, value: np.ndarray, dtype: type) -> np.ndarray:
    """`value` as an aligned, contiguous matrix; a wrong type or rank is refused."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != 2:
        raise RequestError(f"{name} is {_kind(value)}; it must be a {dtype.__name__} matrix", name)
    flags = value.flags
    return value if flags.c_contiguous and flags.aligned else np.array(value, order="C")


def _checked(name: str, matrix: Int4, rows: int, columns: int) -> Int4:
    """A checkpoint matrix as contiguous arrays; a wrong shape or dtype is refused by name."""
    if not isinstance(matrix, tuple | list) or len(matrix) != 2:
        raise ConfigError(f"{name} is {_kind(matrix)}; it must be a pair (packed, scale) of arrays")
    packed, scale = matrix
    for part, array, dtype, width in (
        ("packed", packed, np.int32, columns // 8),
        ("scale", scale, np.uint16, columns // GROUP),
    ):
        if not _is_array(array, dtype, (rows, width)):
            raise ConfigError(
                f"{name} {part} is {_kind(array)}; hidden and intermediate ask for "
                f"{np.dtype(dtype)} {(rows, width)}"
            )
    return np.ascontiguousarray(packed), np.ascontiguousarray(scale)
