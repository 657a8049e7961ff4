"""kimi-nano: the model in the box, and everything that makes it.

    data/       generators of conversations, pure functions of a seed      -> Sample
    model/      the training graph: K2.5's architecture, small, in torch    -> logits
    training/   rounded weights, optimiser, schedule, loop, resumption      -> train.py
    export/     the published checkpoint format, native INT4                -> a model directory

    python -m nano.train --out DIR        trains, or goes on where it stopped
    python -m nano.write DIR MODEL_DIR    writes the checkpoint that `kimi-local chat` loads

Nothing here is needed to run a model.
"""
