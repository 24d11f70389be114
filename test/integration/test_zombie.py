"""Servers that were stopped or cut off for longer than their lease, and come back: see zombie_loop.py.

CAIRN_TEST_ZOMBIES sets how many; by default most on one store that is like those of the world, few on the others."""

import os
import random

import stores
import zombie_loop
from harness import on

ROUNDS = int(os.environ.get('CAIRN_TEST_ZOMBIES', '0'))
STOPPED = {'versitygw': 10, 'rgw': 5, 'minio': 5}
CUT_OFF = {'versitygw': 5}
FEW = 3


def run(t, rounds, mishap):
    print(zombie_loop.run(t, ROUNDS or rounds.get(stores.kind(), FEW), mishap, zombie_loop.lease_of_kind(),
                          random.SystemRandom().randrange(1 << 32)))


def test_stopped(t):
    run(t, STOPPED, zombie_loop.Stopped)


@on('s3')
def test_cut_off(t):
    run(t, CUT_OFF, zombie_loop.CutOff)
