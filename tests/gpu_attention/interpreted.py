"""Runs the Triton launches of hybrid.gpu_attention on CPU tensors, in a process of its own.

Triton decides between compiler and interpreter when it is imported, by TRITON_INTERPRET: so this is
a child that is started with it, whatever its parent has imported. One question and one answer at a
time, pickled; a question is (function of launching.py, its arguments, faults), a fault a text of a
kernel's source and what to put in its place.
"""

import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


class Interpreter:
    """The child; `ask` from the parent."""

    def __init__(self):
        env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}  # noqa: TID251
        command = [sys.executable, "-W", "error", __file__]
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, cwd=ROOT)

    def ask(self, function, *args, faults=()):
        """What launching.`function` returns; raises what it raises."""
        pickle.dump((function, args, tuple(faults)), self._child.stdin)
        self._child.stdin.flush()
        failed, answer = pickle.load(self._child.stdout)
        if failed:
            raise RuntimeError(answer)
        return answer

    def close(self):
        self._child.stdin.close()
        self._child.wait()
        self._child.stdout.close()


def mend_bf16():
    """The interpreter keeps bf16 as uint16.

    It multiplies those, makes them of integers, and cuts fp32 off instead of rounding half to even
    as a card does.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    create_dot, create_si_to_fp = builder.create_dot, builder.create_si_to_fp
    create_fp_trunc = builder.create_fp_trunc

    def widened(self, a, b, d, *options):
        if a.dtype == tl.bfloat16:
            a, b = (self.create_fp_ext(each, tl.float32) for each in (a, b))
        return create_dot(self, a, b, d, *options)

    def rounded(self, source, target):
        if target.scalar != tl.bfloat16 or source.dtype.scalar != tl.float32:
            return create_fp_trunc(self, source, target)
        bits = np.ascontiguousarray(source.data).view(np.uint32)
        even = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        nan = np.isnan(source.data)
        data = (np.where(nan, bits | np.uint32(0x400000), even) >> np.uint32(16)).astype(np.uint16)
        return interpreter.TensorHandle(data, tl.bfloat16)

    def converted(self, source, target):
        if target.scalar != tl.bfloat16:
            return create_si_to_fp(self, source, target)
        return rounded(self, create_si_to_fp(self, source, tl.float32), target)

    builder.create_dot, builder.create_si_to_fp = widened, converted
    builder.create_fp_trunc = rounded


def faulty(launching, module, faults):
    """Put a copy of a kernel module with the faults in its place; returns the honest one."""
    honest = getattr(launching, module)
    text = Path(honest.__file__).read_text("utf-8")
    for _, old, new in faults:
        if text.count(old) != 1:
            raise ValueError(f"{module}.py has {old!r} {text.count(old)} times")
        text = text.replace(old, new)
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
        file.write(text)
    spec = importlib.util.spec_from_file_location(f"faulty_{module}", file.name)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    setattr(launching, module, made)
    return honest


def answer(launching, function, args, faults):
    honest = {}
    try:
        for module in {module for module, _, _ in faults}:
            own = [fault for fault in faults if fault[0] == module]
            honest[module] = faulty(launching, module, own)
        with warnings.catch_warnings():
            if faults:
                warnings.simplefilter("ignore")  # a fault may well divide by zero
            return getattr(launching, function)(*args)
    finally:
        for module, one in honest.items():
            Path(getattr(launching, module).__file__).unlink()
            setattr(launching, module, one)


def serve():
    import torch

    torch.set_num_threads(1)
    mend_bf16()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with out:
        answer_all(out)


def answer_all(out):
    from hybrid.gpu_attention.kernels import launching

    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            told = (False, answer(launching, *question))
        except Exception as error:  # noqa: BLE001 (the parent raises it)
            told = (True, repr(error))
        pickle.dump(told, out)
        out.flush()


if __name__ == "__main__":
    serve()
