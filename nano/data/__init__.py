"""Conversations to learn from, all of our own making: pure functions of a seed, nothing scraped.

draw.py      a seed and a split -> choices; what the held-out split may contain
sample.py    one conversation
talk.py numbers.py lists.py lookup.py pictures.py clips.py tools.py      the families
mix.py       which family how often, in which stage of training
render.py    a conversation -> token ids, what to learn of them, pictures
vocabulary.py  the byte pairs that these conversations support best
"""
