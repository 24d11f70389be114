"""Three servers that want the same volume: see fight_loop.py.

CAIRN_TEST_FIGHT_S sets for how many seconds; by default longest on one store that is like those of the world."""

import os
import random

import fight_loop
import stores
from harness import on
from zombie_loop import lease_of_kind

SECONDS = int(os.environ.get('CAIRN_TEST_FIGHT_S', '0')) or {'versitygw': 30}.get(stores.kind(), 10)
SERVERS = 3


def run(t, cuts):
    seed = random.SystemRandom().randrange(1 << 32)
    print(fight_loop.run(t, SECONDS, SERVERS, lease_of_kind(), seed, cuts))


def test_fight(t):
    run(t, False)


@on('fake')
def test_cut_off(t):
    """And their lines to the store fail, in one direction or both."""
    run(t, True)
