"""What an S3 store is asked for, counted between the server and the store by bench/s3_proxy.

On the store of the run, so that what it makes cairn do counts as well: an ETag that must be sent in another form, a
connection that is closed.  Long runs have the proxy itself for a store, which drops the data."""

import os
import random

import nbd

from harness import Skip, on
from load import connect
from s3_proxy import PROGRAM, Proxy
from stores import S3Server, S3Store

ON = ('s3',)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def behind_proxy(t, sink=False, **options):
    """(proxy, the run's store as seen through it)"""
    if not os.access(PROGRAM, os.X_OK):
        raise Skip(f'{PROGRAM} is not built')
    if sink:
        proxy = Proxy(None, keep=MIB, **options)
        found = S3Store(S3Server(proxy.port), 'store')
    else:
        store = t.store()
        proxy = Proxy(store.server.port, **options)
        found = S3Store(S3Server(proxy.port, access_key=store.server.access_key,
                                 secret_key=store.server.secret_key), store.prefix)
    t.later(lambda: proxy.popen.poll() is None and proxy.popen.kill())
    return proxy, found


def write_all(handle, pieces, depth=16):
    """(bytes, offset) after (bytes, offset), some under way at once."""
    cookies = []

    def take_oldest():
        cookie = cookies.pop(0)
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)

    for data, offset in pieces:
        if len(cookies) >= depth:
            take_oldest()
        cookies.append(handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset))
    while cookies:
        take_oldest()


def expect(proxy, what, requests=()):
    """Exactly these requests since the last time."""
    counts = proxy.counts()
    wanted = dict(requests)
    assert counts.requests() == wanted, f'{what}: {counts} instead of {wanted}'
    proxy.reset()
    return counts


def test_flush(t):
    """4 KiB and a flush: one put of at most 5 KiB. A flush with nothing new: no request at all."""
    proxy, store = behind_proxy(t)
    server = t.server(store=store, arguments=['--s3-hedge', '0'])
    handle = connect(server)
    proxy.reset()
    for number in range(5):
        handle.pwrite(random.randbytes(4 * KIB), number * 40 * KIB)
        handle.flush()
        counts = expect(proxy, 'a small flush', requests={'PUT log': 1})
        assert counts.total('PUT', 'log', 'sent') <= 5 * KIB, counts.told
        for _ in range(10):
            handle.flush()
        expect(proxy, 'flushes of nothing')
    handle.pwrite(random.randbytes(4 * KIB), 0, nbd.CMD_FLAG_FUA)
    expect(proxy, 'a write with FUA', requests={'PUT log': 1})
    handle.shutdown()
    server.stop()


def test_random_writes(t):
    """1,000 writes of 4 KiB anywhere and a flush: one put."""
    proxy, store = behind_proxy(t)
    server = t.server(store=store, size='10GB', arguments=['--batch-age', '60s', '--s3-hedge', '0'])
    handle = connect(server)
    proxy.reset()
    pages = random.sample(range(10 * GIB // (4 * KIB)), 1000)
    write_all(handle, ((random.randbytes(4 * KIB), page * 4 * KIB) for page in pages))
    handle.flush()
    counts = expect(proxy, '1,000 writes', requests={'PUT log': 1})
    assert counts.total('PUT', 'log', 'sent') <= 4.2 * MIB, counts.told
    handle.shutdown()
    server.stop()


@on('fake')
def test_in_order(t):
    """1 GiB in order and a flush: at most 150 puts, with hardly more bytes than were written."""
    proxy, store = behind_proxy(t, sink=True)
    server = t.server(store=store, size='1GB')
    handle = connect(server)
    proxy.reset()
    chunk = memoryview(random.randbytes(2 * MIB))
    write_all(handle, ((chunk[number:number + MIB], number * MIB) for number in range(1024)))
    handle.flush()
    counts = proxy.counts()
    assert counts.total('PUT') <= 150 and sum(counts.requests().values()) == counts.total('PUT'), counts
    assert counts.total('PUT', field='sent') <= 1.02 * GIB, counts.told
    print(f'{counts}; {counts.told["at_once"]["PUT"]} puts at once')
    handle.shutdown()
    server.stop()


def test_cold_read(t):
    """A page that is in no memory: one get of about its size; again: none. A hole: none."""
    proxy, store = behind_proxy(t)
    server = t.server(store=store, arguments=['--s3-hedge', '0'])
    handle = connect(server)
    pages = {at: random.randbytes(4 * KIB) for at in (0, 10 * MIB, 500 * MIB)}
    big = random.randbytes(16 * MIB)
    for at, page in pages.items():
        handle.pwrite(page, at)
    handle.flush()
    write_all(handle, [(big[at:at + MIB], 100 * MIB + at) for at in range(0, len(big), MIB)])
    handle.flush()
    handle.shutdown()
    server.restart()
    handle = connect(server)
    proxy.reset()
    for at, page in pages.items():
        assert handle.pread(4 * KIB, at) == page
        counts = expect(proxy, 'a cold read', requests={'GET log': 1})
        assert counts.total('GET', 'log', 'received') <= 8 * KIB, counts.told
        assert handle.pread(4 * KIB, at) == page
    assert handle.pread(MIB, 700 * MIB) == bytes(MIB)
    expect(proxy, 'warm reads, and one of a hole')
    at = 5 * MIB + 40 * KIB
    assert handle.pread(4 * KIB, 100 * MIB + at) == big[at:at + 4 * KIB]
    counts = expect(proxy, 'a cold read out of a data object', requests={'GET data': 1})
    assert counts.total('GET', 'data', 'received') <= 140 * KIB, counts.told
    handle.shutdown()
    server.stop()


def test_start(t):
    """Starting on a store that is known, and opening a volume: a dozen requests, none of them the probe's writes."""
    proxy, store = behind_proxy(t)
    server = t.server(store=store)
    connect(server).shutdown()
    first = proxy.counts()
    server.stop()
    proxy.reset()
    server.start()
    ready = proxy.counts()
    handle = connect(server)
    handle.pread(4 * KIB, 0)
    opened = proxy.counts()
    assert sum(opened.requests().values()) <= 12, opened
    assert opened.total('PUT', 'probe') == 0 and opened.total('PUT') <= 4, opened
    print(f'the first start: {first}\nthe second: {ready}\nwith its volume: {opened}')
    handle.shutdown()
    server.stop()
