"""Runs the Triton kernels in Triton's interpreter: a process of its own, asked over a pipe.

    stdin    pickled requests (kernels' folder or None, what, arguments), one after another
    stdout   pickled answers: tuples of arrays

Triton decides when a kernel is decorated whether it will be interpreted. So the variable is set
before Triton is imported, and never in the process that runs the tests. A request may name a folder
with other sources of the kernels: that is how faults are planted.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = "numerics", "rows", "decode", "grouped"


class Interpreter:
    """The process, started when it is first asked."""

    def __init__(self):
        variables = "TRITON_INTERPRET=1", f"PYTHONPATH={ROOT}"
        python = sys.executable, "-W", "error", "-m", "tests.gpu_experts.interpreted"
        pipe = subprocess.PIPE
        command = "env", *variables, *python
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT)

    def run(self, case, mode, form, kernels=None):
        """(outputs, combined) of a case by the kernels of `form`: "decode" or "grouped"."""
        sizes = case.shape.hidden, case.shape.intermediate
        arrays = case.x, case.ids, case.weights, case.records
        return self._ask(kernels, "experts", (form, mode, sizes, arrays))

    def numerics(self, x, largest, kernels=None):
        """(silu, rounded to bf16, codes, scales) of x f32 [n, 32]; n is a power of two."""
        return self._ask(kernels, "numerics", (x, largest))

    def _ask(self, *request):
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def load(folder):
    """launch.py and the test's kernel, over the kernels of `folder` or our own."""
    import importlib

    import hybrid.gpu_experts.kernels as package

    package.__path__ = [folder or str(ROOT / "hybrid/gpu_experts/kernels")]
    for name in ("launch", *(f"kernels.{name}" for name in NAMES)):
        sys.modules.pop(f"hybrid.gpu_experts.{name}", None)
    sys.modules.pop("tests.gpu_experts.numerics_kernel", None)
    for name in NAMES:
        package.__dict__.pop(name, None)
    launch = importlib.import_module("hybrid.gpu_experts.launch")
    return launch, importlib.import_module("tests.gpu_experts.numerics_kernel").numerics


def experts(launch, form, mode, sizes, arrays):
    import torch

    from hybrid.cpu_experts.record import RecordShape
    from tests.gpu_experts.cases import UNTOUCHED

    launch.DECODE_PAIRS = 0 if form == "grouped" else sys.maxsize
    x, ids, weights, records = (torch.from_numpy(array.copy()) for array in arrays)
    out = torch.full((ids.numel(), sizes[0]), float(UNTOUCHED))
    launch.outputs(x, ids, records, RecordShape(*sizes), mode, out)
    return out.numpy(), launch.combine(out, ids, weights).numpy()


def numerics(kernel, x, largest):
    import torch

    x = torch.from_numpy(x)
    floats = torch.empty_like(x), torch.empty_like(x)
    found = *floats, torch.empty(x.shape, dtype=torch.int32), torch.empty(len(x))
    kernel[(1,)](x, *found, N=len(x), LARGEST=largest)
    return tuple(each.numpy() for each in found)


def answer(folder, what, arguments):
    launch, kernel = load(folder)
    return experts(launch, *arguments) if what == "experts" else numerics(kernel, *arguments)


def main():
    import numpy as np

    # the interpreter computes in numpy, which warns of what IEEE 754 defines
    np.seterr(all="ignore")
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what anybody prints must not get among the answers
        while True:
            try:
                request = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(answer(*request), answers)
            answers.flush()


if __name__ == "__main__":
    main()
