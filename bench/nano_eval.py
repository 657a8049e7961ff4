"""Does kimi-nano do what it learnt, through the real runtime? And would it notice a broken one?

    python bench/nano_eval.py MODEL_DIR [--count N] [--families a,b] [--activation int8]
    python bench/nano_eval.py MODEL_DIR --perplexity   against the training graph, all activations
    python bench/nano_eval.py MODEL_DIR --sabotage     a fault at a time: which task falls
    python bench/nano_eval.py MODEL_DIR --trace FILE   which experts are busy; `kimi-local trace
                                                       replay FILE` plays the cache over it

Conversations are of the held-out split (nano/data/draw.py), answers greedy. An answer is right if
its text is the expected one and its calls have the expected names and arguments; it parses if all
arguments are JSON that the declared schema allows. Reasoning is not compared.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment
from nano_faults import FAULTS, Fault
from numpy.typing import NDArray

import hybrid
from hybrid import SamplingParams
from hybrid.cache.recorder import Recorder
from hybrid.cache.trace_file import Trace, read_trace
from hybrid.chat.template import ChatTemplate
from hybrid.chat.tokenizer import Tokenizer
from hybrid.config import ModelConfig
from hybrid.errors import KimiLocalError
from nano.data import mix
from nano.data.render import Renderer
from nano.data.sample import Sample
from nano.export.reading import parameters
from nano.model.forward import Graph
from nano.training.evaluation import nats

ACTIVATIONS = ("int8", "int16", "bf16")
MAX_TOKENS = 400
GREEDY = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)
KINDS = {"string": str, "integer": int}


@dataclass(frozen=True, slots=True)
class Said:
    """An answer as the runtime's events told it."""

    content: str
    calls: tuple[tuple[str, str], ...]  # name and JSON text
    ended: bool  # by itself


@dataclass(frozen=True, slots=True)
class Row:
    """One family."""

    family: str
    count: int
    right: float  # shares
    ended: float
    parsed: float | None  # of calls that were made; None if there were none


def ask(engine: hybrid.Engine, sample: Sample) -> Said:
    """Let the runtime answer a conversation."""
    content, calls, ended = "", [], False
    events = engine.generate(
        sample.messages, GREEDY, thinking=sample.thinking, tools=sample.tools or None
    )
    for event in events:
        if event.kind == "content":
            content += event.text
        if event.tool_call:
            calls.append((event.tool_call.name, event.tool_call.arguments))
        ended = event.finish_reason in ("stop", "tool_calls")
    return Said(content, tuple(calls), ended)


def is_right(sample: Sample, said: Said) -> bool:
    """Tell whether an answer is the expected one."""
    functions = [call["function"] for call in sample.answer.get("tool_calls", ())]
    expected = [(f["name"], json.loads(f["arguments"])) for f in functions]
    made = [(name, _json(text)) for name, text in said.calls]
    return said.ended and said.content == sample.answer["content"] and made == expected


def is_valid(sample: Sample, call: tuple[str, str]) -> bool:
    """Tell whether a call names a declared tool and its arguments obey the schema."""
    name, arguments = call[0], _json(call[1])
    functions = {tool["function"]["name"]: tool["function"] for tool in sample.tools}
    if name not in functions or not isinstance(arguments, dict):
        return False
    schema = functions[name]["parameters"]
    known = schema["properties"]
    if not arguments.keys() <= known.keys() or not set(schema["required"]) <= arguments.keys():
        return False
    return all(_fits(known[key], value) for key, value in arguments.items())


def measure(engine: hybrid.Engine, family: str, count: int) -> Row:
    """Accuracy of one family."""
    right, ended, valid, calls = 0, 0, 0, 0
    for sample in mix.held_out(family, count):
        said = ask(engine, sample)
        right += is_right(sample, said)
        ended += said.ended
        calls += len(said.calls)
        valid += sum(is_valid(sample, call) for call in said.calls)
    parsed = valid / calls if calls else None
    return Row(family, count, right / count, ended / count, parsed)


def perplexities(
    model_dir: Path, families: Iterable[str], count: int, threads: int | None
) -> dict[str, float]:
    """Perplexity of held-out answers: of the training graph, and of the runtime by activation.

    Clips are left out: `Engine.logits` takes images only.
    """
    renderer = Renderer(Tokenizer.from_dir(model_dir), ChatTemplate.from_dir(model_dir))
    samples = [s for f in families if f != "clip" for s in mix.held_out(f, count)]
    rows = [renderer.row(sample) for sample in samples]
    graph = Graph(ModelConfig.from_dir(model_dir))
    made = {"graph": _perplexity(nats(graph, parameters(model_dir), rows).values())}
    for activation in ACTIVATIONS:
        with hybrid.load(
            model_dir, device="cpu", activation=activation, threads=threads, warm_start=False
        ) as engine:
            pairs = [_engine_nats(engine, renderer, sample) for sample in samples]
        made[activation] = _perplexity(pairs)
    return made


def sabotage(
    model_dir: Path, fault: Fault, families: Sequence[str], count: int, threads: int | None
) -> list[Row]:
    """Accuracy with a fault planted; an answer that ends in an error is a wrong one."""
    with tempfile.TemporaryDirectory() as room:
        directory = fault.directory(model_dir, Path(room))
        with (
            fault.patch(model_dir),
            hybrid.load(
                directory, device="cpu", activation="int8", threads=threads, warm_start=False
            ) as engine,
        ):
            return [_or_nothing(engine, family, count) for family in families]


def traced(engine: hybrid.Engine, families: Iterable[str], count: int, path: Path) -> Trace:
    """Record what the router chooses in `count` conversations of each family."""
    with Recorder.of(engine.config, path) as recorder, engine.record(recorder):
        for family in families:
            for sample in mix.held_out(family, count):
                ask(engine, sample)
    return read_trace(path)


def loads(trace: Trace) -> NDArray[np.float64]:
    """How often each expert was chosen, as a multiple of its layer's mean [layers, experts]."""
    counts = [
        np.bincount(layer.ravel(), minlength=trace.experts) for layer in trace.picks.swapaxes(0, 1)
    ]
    return np.stack(counts) * (trace.experts / trace.picks[:, 0].size)


def _or_nothing(engine: hybrid.Engine, family: str, count: int) -> Row:
    try:
        return measure(engine, family, count)
    except KimiLocalError:
        return Row(family, count, 0.0, 0.0, None)


def _engine_nats(engine: hybrid.Engine, renderer: Renderer, sample: Sample) -> tuple[float, int]:
    """Summed loss and ids of what the model says, as training/evaluation.nats counts them."""
    row = renderer.row(sample)
    prompt, media = renderer.prompt(sample)
    logits = engine.logits([*prompt, *renderer.answer(sample)], media)  # [n, vocab]
    learnt = np.flatnonzero(np.asarray(row.weight) > 0)
    wide = torch.from_numpy(logits[learnt - 1]).double()
    targets = torch.tensor(row.ids)[torch.from_numpy(learnt)]
    loss = torch.nn.functional.cross_entropy(wide, targets, reduction="sum")
    return float(loss), len(learnt)


def _perplexity(pairs: Iterable[tuple[float, int]]) -> float:
    spent, ids = (sum(column) for column in zip(*pairs, strict=True))
    return math.exp(spent / ids)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _fits(schema: Mapping[str, Any], value: Any) -> bool:
    kind = KINDS[schema["type"]]
    return type(value) is kind and value in schema.get("enum", [value])


def _show(rows: Iterable[Row]) -> None:
    for row in rows:
        parsed = "" if row.parsed is None else f"  calls parse {row.parsed:7.1%}"
        print(
            f"{row.family:16s} {row.right:7.1%} right  {row.ended:7.1%} ended{parsed}", flush=True
        )


def main() -> None:
    args = _parser().parse_args()
    families = args.families.split(",") if args.families else list(mix.FAMILIES)
    line: dict[str, Any] = {"bench": "nano_eval", "environment": environment()}
    if args.sabotage:
        line["sabotage"] = _all_faults(args, families)
    elif args.trace:
        with hybrid.load(
            args.model, device="cpu", activation=args.activation, threads=args.threads
        ) as engine:
            trace = traced(engine, families, args.count, args.trace)
        line["tokens"] = len(trace.picks)
        line["loads"] = loads(trace).round(3).tolist()
        print(f"{line['tokens']:,} tokens")
        for layer, load in enumerate(np.sort(loads(trace)), 1):
            share = load[-(trace.experts // 4) :].sum() / trace.experts
            print(
                f"layer {layer}  rarest {load[0]:.2f}  busiest {load[-1]:.2f}  quarter {share:.0%}"
            )
    elif args.perplexity:
        line["perplexity"] = perplexities(args.model, families, args.count, args.threads)
        for name, value in line["perplexity"].items():
            print(f"{name:6s} {value:9.5f}  {value / line['perplexity']['graph'] - 1:+.3%}")
    else:
        line["activation"] = args.activation
        with hybrid.load(
            args.model, device="cpu", activation=args.activation, threads=args.threads
        ) as engine:
            rows = []
            for family in families:
                rows.append(measure(engine, family, args.count))
                _show(rows[-1:])
        line["rows"] = [asdict(row) for row in rows]
    print(json.dumps(line), file=args.json)


def _all_faults(args: argparse.Namespace, families: Sequence[str]) -> dict[str, Any]:
    sound = sabotage(args.model, Fault("none"), families, args.count, args.threads)
    _show(sound)
    table: dict[str, Any] = {"none": [asdict(row) for row in sound]}
    for fault in FAULTS:
        rows = sabotage(args.model, fault, families, args.count, args.threads)
        pairs = zip(rows, sound, strict=True)
        fallen = [
            f"{r.family} {s.right:.0%} -> {r.right:.0%}" for r, s in pairs if r.right < s.right
        ]
        print(f"{fault.name:36s} {', '.join(fallen) or 'nothing falls'}", flush=True)
        table[fault.name] = [asdict(row) for row in rows]
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--count", type=int, default=100, help="conversations of each family")
    parser.add_argument("--families", help="separated by commas; default all")
    parser.add_argument("--activation", default="int8", choices=ACTIVATIONS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--perplexity", action="store_true")
    parser.add_argument("--sabotage", action="store_true")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="record the routing")
    parser.add_argument("--json", type=argparse.FileType("a"), default=sys.stdout)
    return parser


if __name__ == "__main__":
    main()
