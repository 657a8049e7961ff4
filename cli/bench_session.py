"""One run of `kimi-local bench`: a model loaded, its cases timed, what is printed when.

With -o jsonl each line is printed as soon as it is known; tables when all is done, or broken off.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cli import bench_table
from cli.engine_loading import loaded
from cli.interrupt import Interrupt
from cli.settings import Settings
from cli.turn import View
from hybrid.benchmark import (
    Asked,
    Case,
    Heat,
    Predict,
    Row,
    Run,
    file_head,
    predictor,
    rows,
    to_json,
)
from hybrid.engine import Engine
from hybrid.hardware import Hardware, probe
from hybrid.hardware.model_sizes import ModelSizes
from hybrid.memory import free_host_bytes

CANCELLED = 130


class Session:
    """One run of the command: the engine's turn with signals, and what is printed when."""

    def __init__(self, here: Settings, flags: dict[str, Any], view: View, output: str) -> None:
        self._asked = Asked(flags["seed"], flags["feed"])
        self._here, self._flags, self._view, self._output = here, flags, view, output
        self._free = free_host_bytes()  # a plan is made for the machine before the model came
        self._machine = Hardware()
        self._predict: Predict = lambda _engine, _case, _shares: None
        self._interrupt: Interrupt | None = None
        self._head: dict[str, Any] | None = None
        self._rows: list[dict[str, Any]] = []

    def run(self, cases: Sequence[Case]) -> int:
        """Time all cases; those that were finished are printed whatever happens then."""
        heat = Heat() if self._flags["plot"] else None
        run = Run(
            repetitions=self._flags["repetitions"],
            asked=self._asked,
            predict=lambda engine, case, shares: self._predict(engine, case, shares),
            peaks=lambda: self._machine.rates,
            poll=self._poll,
            begin=self._begin,
            heat=heat,
        )
        stopped = False
        try:
            for row in rows(cases, self._engine, run):
                self._rows.append(to_json(row))
                self._finished(row)
        except KeyboardInterrupt:
            stopped = True
        self._print(heat)
        return CANCELLED if stopped else 0

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        """A loaded engine; Ctrl-C is then seen between two layers."""
        with loaded(self._here, self._flags, self._view) as engine, Interrupt() as interrupt:
            self._interrupt = interrupt
            yield engine

    def _poll(self) -> None:
        if self._interrupt is not None and self._interrupt.requested:
            raise KeyboardInterrupt

    def _begin(self, engine: Engine, case: Case) -> None:
        if self._head is None:
            self._meet(engine)
        self._view.waiting(f"{case.label} {case.kind}")

    def _meet(self, engine: Engine) -> None:
        """The first engine says what was loaded: what to predict, and what the head holds."""
        model = self._flags["model"]
        self._machine = _machine(engine, model, self._free)
        self._predict = predictor(self._machine, self._asked)
        options = engine.stats()["options"]
        self._head = file_head(
            model.resolve().name, engine.config, options, self._asked, self._machine
        )
        if not self._machine.rates.measured:
            self._view.say(_how_to_measure(self._flags), "dim")
        if self._output == "jsonl":
            click.echo(json.dumps(self._head))

    def _finished(self, row: Row) -> None:
        if self._output == "jsonl":
            click.echo(json.dumps(self._rows[-1]))
        else:
            self._view.say(f"{row.case.label} {row.case.kind}: {row.median:.2f} tok/s", "dim")

    def _print(self, heat: Heat | None) -> None:
        if self._head is None or not self._rows:
            return
        if self._output == "md":
            click.echo(bench_table.markdown(self._head, self._rows))
        elif self._output == "csv":
            click.echo(bench_table.csv_text(self._head, self._rows), nl=False)
        elif self._output == "json":
            click.echo(json.dumps(self._head | {"rows": self._rows}, indent=2))
        if heat is not None:
            from cli import bench_plot

            for path in bench_plot.draw(self._flags["plot"], self._head, self._rows, heat.picks):
                self._view.say(f"wrote {path}", "dim")


def _machine(engine: Engine, model: Path, free: int) -> Hardware:
    """This machine, with what a calibration measured for a model loaded like this one."""
    options = engine.options
    machine = probe(
        model,
        threads=options.threads,
        isa=options.isa,
        activation=options.activation,
        sizes=ModelSizes.of(engine.config.text),
    )
    return replace(machine, ram=replace(machine.ram, free_bytes=free))


def _how_to_measure(flags: dict[str, Any]) -> str:
    threads = f" --threads {flags['threads']}" if flags["threads"] else ""
    command = f"kimi-local plan -m {shlex.quote(str(flags['model']))}{threads} --calibrate"
    return f"no prediction: this machine was not measured for this; do so with {command}"
