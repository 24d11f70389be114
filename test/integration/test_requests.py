"""What a store is asked for: counted by the server's own statistics, and beside them by what is in the store."""

import random
import re
import time

import nbd

from harness import wait_until
from load import connect

KIB = 1 << 10
MIB = 1 << 20


class Count:
    """What was put between its making and spent(), but for the register: it is written over, twice in each lease and when
    a checkpoint is complete."""

    def __init__(self, server):
        self.server = server
        self.before = self.look()

    def look(self):
        """(statistics, how often the register was written, what was written once), all of one moment."""
        looks = []

        def look():
            statistics = self.server.statistics()
            wait_until(lambda: 'renewals=' in self.said(), 'the statistics of the volume')
            looks.append((statistics['store'], int(re.search(r'renewals=(\d+)', self.said())[1]),
                          self.server.store.written_once()))
            return len(looks) > 1 and looks[-1] == looks[-2]
        wait_until(look, 'a moment without puts')
        return looks[-1]

    def said(self):
        """Of the volume, at the end of the last statistics."""
        return self.server.process.stderr().rpartition('statistics: store ')[2]

    def spent(self):
        """(puts, bytes) by the server's count; the store must agree."""
        (before, renewed_before, objects_before), (after, renewed, objects) = self.before, self.look()
        made = {key: size for key, size in objects.items() if key not in objects_before}
        puts, put_bytes = after['puts'] - before['puts'], after['bytes_put'] - before['bytes_put']
        renewals = renewed - renewed_before
        assert len(made) + renewals == puts, f'{puts} puts counted, {renewals} of the register, but new: {made}'
        assert 0 <= put_bytes - sum(made.values()) <= renewals * 4 * KIB, f'{put_bytes} bytes counted, but new: {made}'
        assert after['failed'] == before['failed']
        return len(made), sum(made.values())


def test_small_flush(t):
    """4 KiB and a flush: one put of at most 5 KiB. A flush with nothing new: none."""
    server = t.server()
    handle = connect(server)
    for number in range(5):
        count = Count(server)
        handle.pwrite(random.randbytes(4 * KIB), number * 40 * KIB)
        handle.flush()
        puts, put_bytes = count.spent()
        assert puts == 1 and put_bytes <= 5 * KIB, (puts, put_bytes)
        count = Count(server)
        for _ in range(10):
            handle.flush()
        assert count.spent() == (0, 0)
    handle.shutdown()
    server.stop()


def test_fua(t):
    """A FUA write is a flush of its own."""
    server = t.server()
    handle = connect(server)
    count = Count(server)
    handle.pwrite(random.randbytes(4 * KIB), 0, nbd.CMD_FLAG_FUA)
    assert count.spent()[0] == 1
    count = Count(server)
    handle.flush()
    assert count.spent() == (0, 0)
    handle.shutdown()
    server.stop()


def test_random_writes(t):
    """1,000 random writes of 4 KiB and a flush: one put of at most 4.2 MiB."""
    server = t.server(size='10GB', arguments=['--batch-age', '60s'])
    handle = connect(server)
    count = Count(server)
    for page in random.sample(range(10 << 30 >> 12), 1000):
        handle.pwrite(random.randbytes(4 * KIB), page << 12)
    handle.flush()
    puts, put_bytes = count.spent()
    assert puts == 1 and put_bytes <= 4.2 * MIB, (puts, put_bytes)
    handle.shutdown()
    server.stop()


def test_zeroes_cost_nothing(t):
    """Zeroes, however they are written, make no data objects and small commits; where zeroes are already, none."""
    server = t.server()
    handle = connect(server)
    count = Count(server)
    handle.pwrite(bytes(16 * MIB), 0)
    handle.zero(100 * MIB, 200 * MIB)
    handle.trim(100 * MIB, 400 * MIB)
    handle.flush()
    assert count.spent() == (0, 0)
    for at in (5 * MIB, 250 * MIB, 450 * MIB):
        handle.pwrite(b'x' * 4 * KIB, at)
    handle.flush()
    count = Count(server)
    handle.pwrite(bytes(16 * MIB), 0)
    handle.zero(100 * MIB, 200 * MIB)
    handle.trim(100 * MIB, 400 * MIB)
    handle.flush()
    puts, put_bytes = count.spent()
    assert puts == 1 and put_bytes <= 4 * KIB, (puts, put_bytes)
    assert not [key for key in server.store.objects() if '/data/' in key]
    for at in (5 * MIB, 250 * MIB, 450 * MIB):
        assert handle.pread(4 * KIB, at) == bytes(4 * KIB)
    handle.shutdown()
    server.stop()


def test_group_flush(t):
    """Flushes that are under way together share commits."""
    server = t.server()
    handles = [connect(server) for _ in range(8)]
    count = Count(server)
    rounds = 20
    for number in range(rounds):
        for at, handle in enumerate(handles):
            handle.pwrite(random.randbytes(4 * KIB), (number * len(handles) + at) * 4 * KIB)
        cookies = [handle.aio_flush() for handle in handles]
        for handle, cookie in zip(handles, cookies):
            while not handle.aio_command_completed(cookie):
                handle.poll(-1)
    puts, _ = count.spent()
    assert puts <= rounds * 4, f'{puts} puts for {rounds} rounds of {len(handles)} flushes'
    server.stop()


def test_written_in_order(t):
    """1 GiB written in order and a flush: at most 150 puts."""
    server = t.server(size='1GB')
    handle = connect(server)
    count = Count(server)
    chunk = random.randbytes(MIB)
    cookies = []
    for number in range(1024):
        if len(cookies) >= 8:
            cookie = cookies.pop(0)
            while not handle.aio_command_completed(cookie):
                handle.poll(-1)
        cookies.append(handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(chunk[number:] + chunk[:number])),
                                         number * MIB))
    for cookie in cookies:
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)
    handle.flush()
    puts, put_bytes = count.spent()
    assert puts <= 150, puts
    assert put_bytes <= 1.02 * (1 << 30), put_bytes
    for number in random.sample(range(1024), 20):
        assert handle.pread(MIB, number * MIB) == chunk[number:] + chunk[:number]
    handle.shutdown()
    server.stop()
    print(f'{puts} puts of {put_bytes} bytes')


def test_empty_terabyte(t):
    """1 TB created, read everywhere at random, trimmed whole: no data object."""
    server = t.server(size='1TB')
    began = time.monotonic()
    handle = connect(server)
    dice = random.Random(1)
    for _ in range(4000):
        assert handle.pread(4 * KIB, dice.randrange((1 << 40) - 4 * KIB)) == bytes(4 * KIB)
    at, step = 0, (4 << 30) - 4 * KIB
    while at < 1 << 40:
        length = min(step, (1 << 40) - at)
        handle.trim(length, at)
        at += length
    handle.flush()
    handle.shutdown()
    seconds = time.monotonic() - began
    server.stop()
    made = server.store.written_once()
    assert not [key for key in made if '/data/' in key], made
    assert sum(made.values()) < 64 * KIB, made
    print(f'4,000 reads and the trim of 1 TB took {seconds:.2f} s')
