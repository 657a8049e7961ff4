"""Images and video: from bytes to rows that take the place of token embeddings.

    bytes -> picture (RGB) -> resize, pad -> patches of 14 x 14 -> tower -> projector -> rows
    video -> sampled frames, four to a chunk ----^

media.py says what goes between the two halves: preprocessing knows PIL and numpy, the tower torch.
"""
