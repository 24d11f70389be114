"""SIGKILL and takeover under verified load: see kill_loop.py.  CAIRN_TEST_ROUNDS sets how many (100)."""

import os
import random

import kill_loop

ROUNDS = int(os.environ.get('CAIRN_TEST_ROUNDS', '100'))


def test_kill(t):
    print(kill_loop.run(t, ROUNDS, False, random.SystemRandom().randrange(1 << 32)))


def test_takeover(t):
    print(kill_loop.run(t, max(1, ROUNDS // 4), True, random.SystemRandom().randrange(1 << 32)))
