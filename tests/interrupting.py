"""Ctrl-C before a bytecode of one's choice, in code of one's choice."""

import sys
from concurrent.futures import ThreadPoolExecutor


def interrupted(call, at, watched):
    """Whether `call` was ended before the bytecode of that number, of those in files `watched`.

    In a thread of its own: where the bytecode was the end of an `except`, the interpreter goes on
    taking that exception for the one being handled, and would in every test that follows.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_interrupted, call, at, watched).result()


def _interrupted(call, at, watched):
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not watched(frame.f_code.co_filename):
            return None
        frame.f_trace_opcodes = True
        count += event == "opcode"
        if count == at:
            count += 1  # once is enough
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
