"""A compute unit with memory of its own and a link to the host's: a CUDA device, or threads.

What is built on it (expert slots, streamed prompts, the hand-off) is written once against
`interface`; on a machine without a GPU the same code runs, overlaps and is tested on `host`.
"""
