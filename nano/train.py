"""python -m nano.train --out DIR: train kimi-nano from nothing, or go on where DIR stopped.

The same seed, plan and machine give the same bits, with interruptions or without.
"""

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path
from time import perf_counter

import torch

from hybrid.chat.vocabulary import SPECIAL_SLOTS
from nano.data.mix import FAMILIES
from nano.data.render import Renderer
from nano.data.vocabulary import learnt
from nano.model.forward import Graph
from nano.model.parameters import initial
from nano.model.shape import NANO, model_config
from nano.training.allocator import keep_memory
from nano.training.crew import Crew
from nano.training.ends import turn
from nano.training.evaluation import accuracy
from nano.training.log import forget, plot, record, show
from nano.training.loop import step
from nano.training.masters import Masters
from nano.training.optimiser import Optimiser
from nano.training.schedule import Plan
from nano.training.state import Run, load, load_vocabulary, save, save_vocabulary

BASE_TOKENS = NANO.vocab_size - SPECIAL_SLOTS  # ordinary ones; 256 control tokens follow
SHOW_EVERY = 10  # steps
EVALUATED = 100  # held-out conversations of each family, at the end


def main() -> None:
    """Train until the plan is done, or for --minutes."""
    args = _parser().parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    keep_memory()
    run = load(args.out) or _begin(args)
    vocabulary = load_vocabulary(args.out)
    renderer, graph = Renderer.of(vocabulary), Graph(model_config(run.shape, vocabulary))
    torch.set_num_threads(1)
    crew = Crew(run.plan.threads)
    run = _train(run, graph, renderer, crew, args)
    crew.close()
    plot(args.out)
    if run.step == run.plan.steps:
        found = accuracy(graph, run.weights.seen, renderer, FAMILIES, args.evaluated)
        for family, share in found.items():
            sys.stdout.write(f"{family:16s} {share:7.1%} of {args.evaluated} held out\n")


def _train(run: Run, graph: Graph, renderer: Renderer, crew: Crew, args: argparse.Namespace) -> Run:
    began = saved = perf_counter()
    forget(args.out, run.step)
    tokens = 0
    while run.step < run.plan.steps and perf_counter() - began < 60 * args.minutes:
        report = step(run, graph, renderer, crew)
        now = perf_counter()
        tokens += report.tokens
        record(args.out, run.step, now - began, report)
        run = turn(args.out, run)
        if run.step % SHOW_EVERY == 0 or run.step == run.plan.steps:
            rate = tokens / (now - began)
            show(report, run.step, run.plan.steps, rate, run.plan.left(run.step) / rate)
        if now - saved > 60 * args.save_minutes:
            save(args.out, run)
            saved = now
    save(args.out, run)
    return run


def _begin(args: argparse.Namespace) -> Run:
    """A run at its first step, by the plan that the arguments change."""
    given = {f.name: getattr(args, f.name) for f in fields(Plan)}
    plan = replace(Plan(), **{name: value for name, value in given.items() if value is not None})
    vocabulary = learnt(BASE_TOKENS, plan.seed)
    save_vocabulary(args.out, vocabulary)
    master = initial(model_config(NANO, vocabulary), vocabulary, plan.seed)
    run = Run(plan, NANO, Masters.of(master), Optimiser.of(NANO.num_attention_heads, master))
    save(args.out, run)
    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nano.train", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="state, log and plot"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop early, resumable")
    parser.add_argument("--save-minutes", type=float, default=5.0)
    parser.add_argument("--evaluated", type=int, default=EVALUATED, help="held-out, of each family")
    for field in fields(Plan):
        kind = float if field.type in (float, "float") else int
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, help=f"default {field.default}; of a new run only")
    return parser


if __name__ == "__main__":
    main()
