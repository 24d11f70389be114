"""The S3 server itself is killed and started again, its data kept, under verified load: what was flushed is there, what is
under way is answered when it is back, and no client sees an error.

CAIRN_TEST_STORE_KILLS sets how often (5; 50 by hand).  Now and then the server of disks is killed in the middle of it."""

import collections
import os
import random
import time

import nbd

import stores
from disk_model import Disk
from harness import Server
from load import Load

ON = ('s3',)
KILLS = int(os.environ.get('CAIRN_TEST_STORE_KILLS', '5'))
SIZE = 8 << 20
LOAD_S = 0.6
DOWN_S = 2
RESUME_S = 30


def start_server(t):
    if stores.kind() == 'fake':
        return stores.FakeServer(t)
    server = stores.RealServer(stores.kind(), t.path('s3'))
    t.later(server.stop)
    return server


def work(load, seconds):
    end = time.monotonic() + seconds
    load.work(lambda: time.monotonic() > end)


def settle(server, disk):
    handle = nbd.NBD()
    handle.connect_uri(server.uri())
    disk.settle(lambda offset, length: handle.pread(length, offset))
    handle.shutdown()


def test_killed(t):
    dice = random.Random(int.from_bytes(os.urandom(4)))
    s3 = start_server(t)
    server = Server(t, s3.store(), size=str(SIZE), arguments=['--memory', '128MB', '--threads', '1'])
    disk = Disk(SIZE)
    flushes, slowest = 0, 0
    for number in range(KILLS):
        load = Load(disk, dice, depth=8)
        load.connect(server.uri(), 3)
        work(load, dice.uniform(0, LOAD_S))
        s3.kill()
        work(load, dice.uniform(0, DOWN_S))
        if number % 5 == 3:
            server.kill()
            load.close()
            s3.restart()
            server.start()
            settle(server, disk)
            continue
        s3.restart()
        began, answered = time.monotonic(), load.flush_answers
        load.work(lambda: load.flush_answers > answered or time.monotonic() - began > RESUME_S)
        assert load.flush_answers > answered, f'no flush was answered {RESUME_S} s after the store was back'
        slowest = max(slowest, time.monotonic() - began)
        work(load, dice.uniform(0, LOAD_S))
        load.drain(time.monotonic, RESUME_S)
        assert not load.busy() and not load.errors, collections.Counter(load.errors)
        flushes += load.flush_answers
        load.close()
    server.kill()
    server.start()
    settle(server, disk)
    server.stop()
    print(f'{KILLS} kills, {flushes} flushes, {disk.operations} changes; flushes went on within {slowest:.1f} s')
