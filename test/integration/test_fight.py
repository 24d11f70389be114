"""Three servers that want the same volume: see fight_loop.py.

CAIRN_TEST_FIGHT_S sets for how many seconds; by default longest on one store that is like those of the world."""

import os
import random

import fight_loop
import stores
from zombie_loop import lease_of_kind

SECONDS = int(os.environ.get('CAIRN_TEST_FIGHT_S', '0')) or {'versitygw': 30}.get(stores.kind(), 10)
SERVERS = 3


def test_fight(t):
    print(fight_loop.run(t, SECONDS, SERVERS, lease_of_kind(), random.SystemRandom().randrange(1 << 32)))
