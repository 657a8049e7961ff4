"""Whom a layer is expected to stream: bounded, and only as long as it is mostly right."""

import numpy as np

from hybrid.cache.foresight import TRIAL, TRUSTED, Memory, guess, learnt

ALL = np.ones(16, np.bool_)
SOME = np.array([3, 1, 7, 5], np.int32)


def wanted(*experts):
    mask = np.zeros(16, np.bool_)
    mask[list(experts)] = True
    return mask


def test_the_busiest_of_the_last_pass_come_first():
    assert guess(Memory(SOME), ALL, 3, 1).tolist() == [3, 1, 7]
    assert guess(Memory(SOME), ALL, 9, 1).tolist() == [3, 1, 7, 5]
    assert guess(Memory(SOME), ~wanted(1), 3, 1).tolist() == [3, 7, 5]


def test_a_first_pass_guesses_nobody():
    assert len(guess(None, ALL, 8, TRIAL)) == 0
    assert len(guess(Memory(SOME), ALL, 0, 1)) == 0


def test_wrong_guesses_end_the_guessing_and_a_trial_can_resume_it():
    memory = Memory(SOME)
    while memory.trust >= TRUSTED:
        memory = learnt(memory, SOME, SOME, wanted())
    assert len(guess(memory, ALL, 4, TRIAL - 1)) == 0
    assert guess(memory, ALL, 4, TRIAL).tolist() == SOME.tolist()
    while memory.trust < TRUSTED:
        memory = learnt(memory, SOME, SOME, wanted(*SOME))
    assert guess(memory, ALL, 4, TRIAL - 1).tolist() == SOME.tolist()


def test_who_was_not_guessed_says_nothing_of_trust():
    memory = learnt(Memory(SOME, 0.3), SOME[:1], SOME[:0], wanted(3))
    assert memory.trust == 0.3
    assert memory.streamed.tolist() == [3]
    assert learnt(None, SOME, SOME[:0], wanted()).trust == 1
