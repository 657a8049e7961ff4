"""A peer that a test can start: answers with what it was sent, or ends itself."""

import os
import sys

FATAL_TOKENS = 3


class Layer:
    """See `peer.Layer`."""

    kernel = "fake"

    def __init__(self, experts, threads, max_tokens):
        sys.stdout.write("a line that no JSON reader should meet\n")
        sys.stdout.flush()
        self.factor = experts + threads + max_tokens

    def prepare(self, x, routing):
        self.x, self.weight = x, routing.weights.sum()

    def run(self):
        if len(self.x) == FATAL_TOKENS:
            sys.stderr.write("three tokens are too many\n")
            os._exit(7)

    def output(self):
        return self.x * self.factor * self.weight
