"""The process that emulates: a pickled Job on standard input, outcomes on standard output."""

import os
import pickle
import sys
from dataclasses import replace

from tests.emulation.machine import Machine, Outcome
from tests.emulation.runner import Call, Job
from tests.emulation.soft_amx import SoftAmx


def work(job: Job) -> list[Outcome]:
    """Every call of the job, in order, on one machine."""
    amx = SoftAmx()
    machine = Machine(job.model, amx if job.soft_amx else None)
    loaded = [machine.load(program) for program in job.programs]
    return [_called(machine, amx, loaded[call.program][call.symbol], call) for call in job.calls]


def _called(machine: Machine, amx: SoftAmx, address: int, call: Call) -> Outcome:
    amx.release()
    outcome = machine.call(address, call.arguments, call.branch_limit)
    if amx.in_use and not outcome.offences:
        return replace(outcome, offences=("returned without tilerelease",))
    return outcome


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the emulator prints is no part of the answer
    pickle.dump(work(pickle.load(sys.stdin.buffer)), answer)
    answer.close()
