"""The launches of the routed experts at a model's sizes: for cubins, tables and rooflines.

What launch.py would launch for one layer, without launching it: one token with all its experts on
the device, and a block of PROMPT_TOKENS over all experts.
"""

from collections.abc import Mapping
from typing import Any

from hybrid.config import TextConfig
from hybrid.cpu_experts.record import GROUP, RecordShape
from hybrid.gpu_experts import launch
from hybrid.gpu_experts.kernels import decode, grouped, rows
from hybrid.triton_build import Launch, Unit

PROMPT_TOKENS = 2048
TYPES = {
    "f": "*fp32:16",
    "l": "*i64:16",
    "i": "*i32:16",
    "h": "*i16:16",
    "b": "*i8:16",
    "k": "i32",
}
FLOAT_STEPS = 4  # epilogue of a group: product of scales, product, sum, and int8's conversion


def launches(text: TextConfig) -> list[Launch]:
    """Every kernel of this package in every mode, as launch.py launches it."""
    shape = RecordShape.of(text)
    k = text.num_experts_per_tok
    found = [_combine(shape, k)]
    for mode, planes in launch.PLANES.items():
        found.append(_encode(mode, planes, shape, words=True))
        found += _decode(mode, planes, shape, k)
        if planes:
            found.append(_encode(mode, planes, shape, words=False))
            for pairs in (launch.SMALL_TILE, launch.LARGE_TILE):
                found += _grouped(mode, planes, shape, text, pairs)
    return found


def _signature(kernel: Any, constants: Mapping[str, Any], types: str) -> dict[str, str]:
    names = [name for name in kernel.arg_names if name not in constants]
    return {name: TYPES[letter] for name, letter in zip(names, types, strict=True)}


def _launch(
    name: str,
    kernel: Any,
    types: str,
    constants: Mapping[str, Any],
    grid: tuple[int, ...],
    nbytes: int,
    work: Mapping[Unit, int],
    warps: int = 4,
) -> Launch:
    unit, *others = work
    return Launch(
        name=name,
        kernel=kernel,
        signature=_signature(kernel, constants, types),
        constexprs=constants,
        grid=grid,
        bytes=nbytes,
        operations=work[unit],
        unit=unit,
        num_warps=warps,
        also={other: work[other] for other in others},
    )


def _combine(shape: RecordShape, k: int) -> Launch:
    hidden = shape.hidden
    constants = {"HIDDEN": hidden, "BLOCK": launch.COMBINE_COLUMNS}
    grid = 1, -(-hidden // launch.COMBINE_COLUMNS)
    nbytes = (k + 1) * hidden * 4
    return _launch(
        "combine", rows.combine, "fiffk", constants, grid, nbytes, {"fp32": 2 * k * hidden}
    )


def _encode(mode: str, planes: int, shape: RecordShape, *, words: bool) -> Launch:
    groups = shape.hidden // GROUP
    constants = launch.encode_constants(groups, planes, words=words)
    form = "words" if words and planes else "bytes" if planes else "floats"
    types = {"words": "fifi", "bytes": "fbfi", "floats": "fffi"}[form]
    tokens = 1 if words else PROMPT_TOKENS
    grid = tokens, -(-groups // launch.ENCODE_GROUPS)
    nbytes = tokens * groups * (GROUP * 4 + _encoded_bytes(planes, words=words))
    work: dict[Unit, int] = {"fp32": tokens * shape.hidden * 4}
    return _launch(f"{mode} encode {form}", rows.encode, types, constants, grid, nbytes, work)


def _encoded_bytes(planes: int, *, words: bool) -> int:
    """Of a group: codes, scale, offset."""
    if not planes:
        return GROUP * 4
    return planes * GROUP * (2 if words else 1) + 8


def _decode(mode: str, planes: int, shape: RecordShape, k: int) -> list[Launch]:
    constants = launch.decode_constants(shape, planes, by_slot=False)
    hidden, intermediate = shape.hidden, shape.intermediate
    code, encoded = "i" if planes else "f", "lfi"
    x, h = (k * n // GROUP * _encoded_bytes(planes, words=True) for n in (hidden, intermediate))
    return [
        _launch(
            f"{mode} decode gate_up",
            decode.gate_up,
            f"ihil{encoded}{code}fik",
            constants[0],
            (intermediate // GROUP, k),
            k * shape.down_offset + x + h,
            _plain_work(planes, 2 * intermediate * hidden * k),
            warps=1,
        ),
        _launch(
            f"{mode} decode down",
            decode.down,
            f"ihil{encoded}f",
            constants[1],
            (hidden // constants[1]["ROWS"], k),
            k * (shape.nbytes - shape.down_offset + hidden * 4) + h,
            _plain_work(planes, hidden * intermediate * k),
            warps=1,
        ),
    ]


def _plain_work(planes: int, weights: int) -> dict[Unit, int]:
    """Without tensor cores. A word of 8 nibbles: 7 shifts and masks, 4 products a plane."""
    if not planes:  # a weight: bring into float32, product, sum
        return {"fp32": 3 * weights, "int32": 2 * weights}
    group = 4 * (7 + 4 * planes) + 6 * planes  # and 6 to take the halves of a plane apart
    return {"int32": weights // GROUP * group, "fp32": weights // GROUP * FLOAT_STEPS}


def _grouped(
    mode: str, planes: int, shape: RecordShape, text: TextConfig, pairs: int
) -> list[Launch]:
    constants = launch.grouped_constants(shape, planes, pairs)
    hidden, intermediate = shape.hidden, shape.intermediate
    total, experts = PROMPT_TOKENS * text.num_experts_per_tok, text.n_routed_experts
    table, most = "iiiil", min(launch.TILE_PROGRAMS, total // pairs + min(experts, total))
    x, h = (
        total * n // GROUP * _encoded_bytes(planes, words=False) for n in (hidden, intermediate)
    )
    return [
        _launch(
            f"{mode} grouped gate_up, tiles of {pairs}",
            grouped.gate_up,
            f"ih{table}bfibfik",
            constants[0],
            (intermediate // constants[0]["ROWS"], most),
            experts * shape.down_offset + x + h,
            _tensor_work(planes, 2 * intermediate * hidden * total),
            warps=launch.WARPS[pairs],
        ),
        _launch(
            f"{mode} grouped down, tiles of {pairs}",
            grouped.down,
            f"ih{table}bfif",
            constants[1],
            (hidden // constants[1]["ROWS"], most),
            experts * (shape.nbytes - shape.down_offset) + h + total * hidden * 4,
            _tensor_work(planes, hidden * intermediate * total),
            warps=launch.WARPS[pairs],
        ),
    ]


def _tensor_work(planes: int, products: int) -> dict[Unit, int]:
    return {"int8": 2 * planes * products, "fp32": products // GROUP * FLOAT_STEPS}
