#!/usr/bin/python3
"""Lets clients vanish: cuts them off from their server in the middle of what they do, and measures how long it takes
until another server has their volume.

    vanish.py [FLAG…]

Each client is on a host of its own (test/lib/network.py) and has a volume of its own: one idles, one is waiting for
replies, one is in the middle of a WRITE; their lines are unplugged, or dead in one direction.  FLAGS are for their
server; without any it runs with its defaults, and it takes some two minutes.  At a second server somebody waits for
all these volumes; how long after the cut he was let in is what is printed."""

import os
import re
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib'))
sys.dont_write_bytecode = True

import stores  # noqa: E402
from harness import REPOSITORY, Bench, Server, wait_until  # noqa: E402
from load import Opening  # noqa: E402
from network import HostServer, Network  # noqa: E402

PORT = 10809
PAGE = 4096
PATIENCE_S = 300
# (what the client does, how it is cut off)
CASES = (('idles', 'unplug'), ('idles', 'deafen'), ('idles', 'mute'), ('waits for replies', 'unplug'),
         ('waits for replies', 'deafen'), ('waits for replies', 'mute'), ('writes', 'unplug'), ('writes', 'mute'))

CLIENT = """
import socket, sys, time
sys.path.insert(0, {lib!r})
from wire import *
wire = Wire(({address!r}, {port}))
assert wire.go({volume!r})[0] == REPLY_ACK
assert wire.request(WRITE, 0, 4096, payload=b'v' * 4096)[0] == 0
assert wire.request(FLUSH)[0] == 0
if {what!r} == 'waits for replies':
    for number in range(64):
        wire.send(wire.request_bytes(READ, 0, 1 << 20))
if {what!r} == 'writes':
    wire.send(wire.request_bytes(WRITE, 0, 1 << 20) + b'w' * 4096)
print('attached', flush=True)
time.sleep(1000)
"""


def volume_of(number):
    return f'disk{number}'


def start_client(bench, network, number, what):
    script = CLIENT.format(lib=os.path.join(REPOSITORY, 'test', 'lib'), address=network.address(0), port=PORT,
                           volume=volume_of(number).encode(), what=what)
    return bench.start(f'client{number}', [*network.enter(f'host{number}'), '/usr/bin/python3', '-B', '-c', script])


def run(bench, flags):
    """[(what the client did, how it was cut off, seconds until its volume was another server's, what the log said)]"""
    network = Network(bench, 1 + len(CASES))
    store = bench.store()
    if isinstance(store, stores.S3Store):
        network.relay(store.server.port)
    server = HostServer(network, 0, store, name='first', size='16MB',
                        arguments=['--host', network.address(0), '--port', PORT, *flags])
    clients = [start_client(bench, network, number, what) for number, (what, _) in enumerate(CASES, 1)]
    for client in clients:
        wait_until(lambda: 'attached' in client.stdout(), f'{client.name} is in')
    second = Server(bench, store=store, name='second', size='16MB', arguments=['--owner-wait', '10m'])
    openings = {number: Opening(second.uri(volume_of(number))) for number in range(1, 1 + len(CASES))}
    cut = {}
    for number, (_, how) in enumerate(CASES, 1):
        getattr(network, how)(number)
        cut[number] = time.monotonic()
    seconds = {}
    while openings:
        for number, opening in list(openings.items()):
            if opening.ready(10):
                seconds[number] = time.monotonic() - cut[number]
                assert bytes(opening.handle.pread(PAGE, 0)) == b'v' * PAGE
                del openings[number]
            late = time.monotonic() - cut[number] > PATIENCE_S
            assert not late, f'not free after {PATIENCE_S} s: {CASES[number - 1]}'
    for client in clients:
        assert client.running(), f'{client.name} ended by itself'
    second.stop()
    server.stop()
    told = server.process.stderr()
    reasons = [re.search(rf"detached from volume '{volume_of(number)}': (.*)", told)[1] for number in sorted(seconds)]
    return [(*case, seconds[number], reason) for (number, case), reason in zip(enumerate(CASES, 1), reasons)]


def main():
    directory = tempfile.mkdtemp(prefix='cairn-vanish.')
    shared = stores.Shared(stores.kind())
    bench = Bench(directory)
    try:
        for what, how, seconds, reason in run(bench, sys.argv[1:]):
            print(f'{seconds:6.1f} s  {how}, {what}: {reason}')
    finally:
        bench.close()
        shared.stop()
    shutil.rmtree(directory)


if __name__ == '__main__':
    main()
