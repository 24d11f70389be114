"""Clients that harm others: by what they hold and do not use, by what they ask for, by going away.

How long anybody waits is not asserted, only that it comes to an end: whoever behaves is served while the others are
still there, or have been cut off for it."""

import os
import random
import select
import socket
import struct
import threading
import time

from harness import on, sanitized, wait_until
from test_bad_input import mount
from test_memory import SLACK, stallable
from wire import CACHE, FLUSH, READ, SIMPLE_MAGIC, WRITE, Wire

ON = ('dir',)  # what clients do to each other is not about where disks are kept
MIB = 1 << 20
PAGE = 4096
PATIENT_S = 150  # of whoever must be served in the end

# The least memory that there is: replies may hold about 30 MiB of it, unwritten data about 60.
MEMORY = 128 * MIB
SMALL = ['--memory', '128MB', '--threads', '1', '--connections', '64']


def attach(server, export=b'disk'):
    wire = Wire(server.socket)
    wire.socket.settimeout(PATIENT_S)
    wire.go(export)
    return wire


def write_data(wire, mebibytes):
    """Random content from the start of the disk on, flushed; returns it."""
    data = random.Random(mebibytes).randbytes(MIB)
    for number in range(mebibytes):
        assert wire.request(WRITE, number * MIB, MIB, payload=rotated(data, number))[0] == 0
    assert wire.request(FLUSH)[0] == 0
    return data


def rotated(data, number):
    """Which MiB it is shows in each of its pages."""
    at = number * 7919 % len(data)
    return data[at:] + data[:at]


def answer(wire):
    """The error of one reply without data."""
    magic, error, _ = struct.unpack('>IIQ', wire.receive(16))
    assert magic == SIMPLE_MAGIC, hex(magic)
    return error


def await_answer(wire, meanwhile):
    """The error of one reply; `meanwhile` is called now and then until it comes."""
    end = time.monotonic() + PATIENT_S
    while not select.select([wire.socket], [], [], 0.2)[0]:
        assert time.monotonic() < end, f'not answered within {PATIENT_S} s'
        meanwhile()
    return answer(wire)


def cut_off(server, why):
    return server.process.stderr().count(why)


def check_memory(server, limit=MEMORY):
    if sanitized():
        return
    most = server.process.memory('VmHWM')
    assert most <= limit + SLACK, f'{most >> 20} MiB resident at most, with a limit of {limit >> 20} MiB'


def leave(hostile, server):
    """Lets the hostile go first: a server that is stopped gives those that do not listen time to do so."""
    for wire in hostile:
        wire.close()
    server.stop()


def check_serves(wire, offset):
    """One that behaves has all it needs."""
    data = random.Random(offset).randbytes(3 * PAGE)
    assert wire.request(WRITE, offset, len(data), payload=data)[0] == 0
    assert wire.request(FLUSH)[0] == 0
    assert wire.request(READ, offset, len(data)) == (0, data)


# ---- payloads ----


def withhold(t, exports, meanwhile):
    """WRITEs of 32 MiB that do not come, for more memory than there is for them; then somebody wants to write."""
    server = t.server(arguments=SMALL)
    victim = attach(server)
    check_serves(victim, 64 * MIB)
    hostile = [attach(server, export) for export in exports]
    for wire in hostile:
        wire.send(wire.request_bytes(WRITE, 0, 32 * MIB))
    wait_until(lambda: server.statistics()['requests']['write'] == 1 + len(hostile), 'the headers are there')
    victim.send(victim.request_bytes(WRITE, 64 * MIB, PAGE) + b'v' * PAGE)
    assert await_answer(victim, lambda: meanwhile(hostile)) == 0
    assert cut_off(server, 'stopped in the middle of a WRITE') > 0, 'there was memory for all of them: nothing was tested'
    assert victim.request(READ, 64 * MIB, PAGE) == (0, b'v' * PAGE)
    assert victim.request(READ, 0, MIB) == (0, bytes(MIB)), 'a part of a WRITE shows'
    check_serves(victim, 80 * MIB)
    server.stop()


def test_payloads_withheld(t):
    withhold(t, [b'disk'] * 4, lambda hostile: None)


def test_payloads_in_drops(t):
    """A byte now and then is no progress; and it does not matter whose disk it is."""
    def drip(hostile):
        for wire in hostile:
            try:
                wire.send(b'a')
            except OSError:
                pass  # cut off
    withhold(t, [b'evil%d' % number for number in range(4)], drip)


def test_payload_that_is_slow(t):
    """Who sends slowly, but does send, is not cut off on account of those who wait: all of it arrives."""
    server = t.server(arguments=SMALL)
    slow, waiting = attach(server), [attach(server) for _ in range(3)]
    data = random.Random(1).randbytes(6 * MIB)
    slow.send(slow.request_bytes(WRITE, 0, len(data)))
    for wire in waiting:
        wire.send(wire.request_bytes(WRITE, 64 * MIB, 32 * MIB))
    for at in range(0, len(data), 96 << 10):
        slow.send(data[at:at + (96 << 10)])
        time.sleep(0.2)
        if at == 0:
            wait_until(lambda: server.statistics()['requests']['write'] == 4, 'the headers are there')
    assert answer(slow) == 0
    assert slow.request(READ, 0, len(data)) == (0, data)
    server.stop()


# ---- replies ----


def test_deaf_readers(t):
    """They ask for more than replies may hold, and take nothing of it."""
    server = t.server(arguments=SMALL)
    victim = attach(server)
    data = write_data(victim, 40)
    hostile = [attach(server) for _ in range(5)]
    for wire in hostile:
        wire.send(wire.request_bytes(READ, 0, 8 * MIB))
    wait_until(lambda: server.statistics()['requests']['read'] == len(hostile), 'they have asked')
    assert victim.request(READ, 39 * MIB, MIB) == (0, rotated(data, 39))
    assert cut_off(server, 'did not take its replies') > 0, 'there was memory for all of them: nothing was tested'
    check_serves(victim, 64 * MIB)
    check_memory(server)
    leave(hostile, server)


def test_deaf_readers_of_holes(t):
    """What takes no memory is held against nobody."""
    server = t.server(arguments=SMALL)
    victim = attach(server)
    data = write_data(victim, 1)
    hostile = [attach(server) for _ in range(12)]
    for wire in hostile:
        wire.send(wire.request_bytes(READ, 64 * MIB, 32 * MIB))
    wait_until(lambda: server.statistics()['requests']['read'] == len(hostile), 'they have asked')
    assert victim.request(READ, 0, MIB) == (0, data)
    assert cut_off(server, 'did not take its replies') == 0
    assert answer(hostile[0]) == 0 and hostile[0].receive(MIB) == bytes(MIB), 'who listens late is served late'
    check_memory(server)
    leave(hostile, server)


def test_deaf_readers_of_bytes(t):
    """A byte of each page: a reply keeps the page, whatever little of it is asked for."""
    server = t.server(arguments=SMALL)
    victim = attach(server)
    data = write_data(victim, 160)
    each = 1000
    hostile = [attach(server) for _ in range(40)]
    for wire in hostile:
        wire.send(wire.request_bytes(READ, 512 * MIB, 4 * MIB))  # a hole, so that nothing behind it can be sent
    for number, wire in enumerate(hostile):
        wire.send(b''.join(wire.request_bytes(READ, (number * each + page) * PAGE, 1) for page in range(each)))
    victim.send(victim.request_bytes(WRITE, 600 * MIB, PAGE) + b'v' * PAGE)
    assert answer(victim) == 0
    assert attach(server).request(READ, 159 * MIB, MIB) == (0, rotated(data, 159))
    check_serves(victim, 601 * MIB)
    check_memory(server)
    leave(hostile, server)


# ---- much at once ----


def test_many_small_requests(t):
    """As many as a connection may have in flight, each of them worth a task, on many connections."""
    server = t.server(arguments=SMALL)
    victim = attach(server)
    write_data(victim, 8)
    server.restart()
    victim = attach(server)
    hostile = [attach(server) for _ in range(40)]
    for wire in hostile:
        wire.send(b''.join(wire.request_bytes(CACHE, number * PAGE, PAGE) for number in range(1023)))
    check_serves(victim, 64 * MIB)
    for wire in hostile:
        assert all(answer(wire) == 0 for _ in range(1023))
    check_memory(server)
    server.stop()


def write_in_fragments(server, blocks):
    """Every page of a block of 32 is written by another commit, so that no two of them lie together.  Every block reads
    the same: the pages 1, 2, … 32."""
    wire = attach(server)
    for number in range(32):
        content = bytes([number + 1]) * PAGE
        for first in range(0, blocks, 100):
            some = range(first, min(first + 100, blocks))
            wire.send(b''.join(wire.request_bytes(WRITE, (block * 32 + number) * PAGE, PAGE) + content
                               for block in some))
            assert all(answer(wire) == 0 for _ in some)
        assert wire.request(FLUSH)[0] == 0
    wire.close()


def test_fragmented_disk(t):
    """Reads of a disk in 32,768 pieces ask the store for each: not for all of them at once, since each takes a stack,
    and a process may have 65,530 mappings of memory, of which a stack is two."""
    server = t.server(arguments=['--memory', '2GB', '--threads', '1'])
    blocks = 1024
    write_in_fragments(server, blocks)
    server.restart()
    wires = [attach(server) for _ in range(8)]
    expected = b''.join(bytes([number + 1]) * PAGE for number in range(32)) * (MIB // (32 * PAGE))
    for number, wire in enumerate(wires):
        wire.send(b''.join(wire.request_bytes(READ, at * MIB, MIB) for at in range(number * 16, number * 16 + 16)))
    most, over = 0, threading.Event()

    def receive_all():
        for wire in wires:
            for _ in range(16):
                assert answer(wire) == 0 and wire.receive(MIB) == expected
        over.set()
    receiver = threading.Thread(target=receive_all, daemon=True)
    receiver.start()
    while receiver.is_alive():
        with open(f'/proc/{server.process.pid}/maps', 'rb') as maps:
            most = max(most, maps.read().count(b'\n'))
        receiver.join(0.02)
    assert over.is_set(), 'not everything was read'
    assert sanitized() or most < 16384, f'{most} mappings of memory'
    server.stop()


# ---- going away ----


def test_full_disk_at_release(t):
    """The register cannot be written when the server ends, and goes on naming it: whether it lives must still be told by
    its lock file, so that the next one may take the disk."""
    directory = mount(t, 'mnt', '-t', 'tmpfs', '-o', 'size=32m', 'tmpfs')
    server = t.server(store=os.path.join(directory, 'store'), size='64MB')
    wire = attach(server)
    check_serves(wire, 0)
    ballast = os.path.join(directory, 'ballast')
    with open(ballast, 'wb', buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError:
            pass
    wire.close()
    server.stop()
    assert 'could not be released' in server.process.stderr(), server.process.stderr()
    os.unlink(ballast)
    server.start()
    assert attach(server).request(READ, 0, 3 * PAGE) == (0, random.Random(0).randbytes(3 * PAGE))
    server.stop()


def reset(wire):
    """Hangs up without a word, over what there is in either direction."""
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    wire.close()


@on('dir', 'fake')
def test_gone_while_reading(t):
    """Clients vanish with hundreds of READs waiting for a store that hangs.  Those to whom something was being sent are
    noticed at once, and nothing waits on their account; the others when the store is back.  Then nothing is left."""
    server, stall = stallable(t, arguments=SMALL + ['--release-grace', '500ms'])
    data = write_data(attach(server), 32)
    server.restart()  # so that nothing is in memory
    hostile = [attach(server) for _ in range(6)]
    released = server.process.stderr().count('released at log entry')
    stall.begin(reads=True)
    for number, wire in enumerate(hostile):
        wire.send(b''.join(wire.request_bytes(READ, (at * 6 + number) % 512 * (64 << 10), 64 << 10)
                           for at in range(200)))
        if number % 2:
            wire.send(wire.request_bytes(READ, 512 * MIB, 3 * MIB))  # a hole: answered, and more than a socket takes
    wait_until(lambda: server.statistics()['requests']['read'] == 6 * 200 + 3, 'they have asked')
    for wire in hostile:
        reset(wire)
    wait_until(lambda: server.statistics()['connections']['open'] == 3, 'those who are known to be gone are gone')
    stall.end()
    wait_until(lambda: server.statistics()['connections']['open'] == 0, 'their connections are gone')
    wait_until(lambda: server.process.stderr().count('released at log entry') > released, 'the disk is released')
    wire = attach(server)
    assert wire.request(READ, 31 * MIB, MIB) == (0, rotated(data, 31))
    check_serves(wire, 64 * MIB)
    assert server.statistics()['connections']['open'] == 1
    server.stop()
