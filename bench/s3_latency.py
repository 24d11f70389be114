#!/usr/bin/python3
"""What a disk in a store that is far away costs, beside bare requests to the same store in the same run.

    s3_latency.py [--rounds N] [--only TEXT] [--backend KIND] [--json FILE] [--trace FILE]

The store stands behind bench/s3_proxy, which makes a PUT take 30 ms and a GET
15 ms, and a stream no faster than 80 MB/s.  cairn and a client that does
nothing but send signed requests take turns, so both meet the same machine; the
figure of a row is the ratio of their medians.  README.md beside this file says
what each row stands for."""

import argparse
import hashlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(REPOSITORY, 'test', 'lib'), os.path.dirname(os.path.abspath(__file__))]
sys.dont_write_bytecode = True

import stores  # noqa: E402
from bare_nbd import WRITE, BareNbd  # noqa: E402
from bare_s3 import BareClient  # noqa: E402
from s3_proxy import CAIRN, PROGRAM, Proxy  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20
PUT_MS, GET_MS, MBPS = 30, 15, 80
KEEP_BYTES = MIB  # of a body, in the proxy's own store: data objects are dropped, they are not read again
PATH = f'/{stores.BUCKET}/bare/v/{"0" * 36}/'
VOLUME_MB = 512

SMALL_BYTES = 4 * KIB
RANDOM_WRITES = 1000
STREAM_BYTES = 256 * MIB
STREAMS, STREAM_PUT_BYTES = 16, 8 * MIB
COLD_READS = 20
TICKS = os.sysconf('SC_CLK_TCK')


class Far:
    """A store behind the proxy, and cairn on it."""

    def __init__(self, backend, directory, trace):
        self.directory = directory
        self.server = None
        if backend == 'sink':
            self.proxy = Proxy(None, PUT_MS, GET_MS, MBPS, KEEP_BYTES, trace)
        else:
            self.server = stores.RealServer(backend, os.path.join(directory, backend))
            self.proxy = Proxy(self.server.port, PUT_MS, GET_MS, MBPS, trace=trace)
        self.cairn = None

    def client(self):
        return BareClient(self.proxy.port, stores.ACCESS_KEY, stores.SECRET_KEY)

    def start_cairn(self):
        path = os.path.join(self.directory, 'socket')
        front = stores.S3Server(self.proxy.port)
        with open(os.path.join(self.directory, 'cairn.log'), 'ab') as log:
            self.cairn = subprocess.Popen(
                [CAIRN, 'serve', *stores.S3Store(front, 'disks').words(), '--size', f'{VOLUME_MB}MB', '--unix', path],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(front))
        end = time.monotonic() + 30
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(path)
                return path
            except OSError:
                if self.cairn.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f'cairn does not serve: {self.log()}') from None
                time.sleep(0.01)

    def environment(self, front):
        """Ours without the developer's own settings."""
        found = {key: value for key, value in os.environ.items()
                 if not key.startswith(('NBD_', 'AWS_', 'XDG_')) and not key.lower().endswith('_proxy')}
        return {**found, 'RUNTIME_DIRECTORY': self.directory, **front.environment()}

    def log(self):
        with open(os.path.join(self.directory, 'cairn.log'), errors='replace') as log:
            return log.read()[-1000:]

    def cpu_seconds(self):
        with open(f'/proc/{self.cairn.pid}/stat') as file:
            fields = file.read().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop_cairn(self):
        if self.cairn:
            self.cairn.terminate()
            self.cairn.wait()
        self.cairn = None

    def stop(self):
        self.stop_cairn()
        self.proxy.stop()
        if self.server:
            self.server.stop()


def timed(action, *arguments):
    began = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - began


def take_turns(rounds, ours, theirs):
    """([seconds], [seconds]) of two that are called by turns, after one call that does not count."""
    found = [], []
    ours(0), theirs(0)
    for number in range(1, rounds + 1):
        for side in (0, 1) if number % 2 else (1, 0):
            found[side].append((ours, theirs)[side](number))
    return found


def quantiles(seconds):
    ordered = sorted(seconds)
    return {'p50_ms': statistics.median(ordered) * 1e3, 'p95_ms': ordered[len(ordered) * 95 // 100] * 1e3}


def small_flush(far, disk, rounds):
    """4 KiB written and flushed, beside a PUT of these 4 KiB."""
    client = far.client()

    def ours(number):
        page = random.randrange(VOLUME_MB * MIB // SMALL_BYTES)
        message = BareNbd.request(WRITE, page * SMALL_BYTES, SMALL_BYTES) + random.randbytes(SMALL_BYTES)
        return timed(lambda: (disk.send_writes(message, 1), disk.flush()))

    def theirs(number):
        prepared = client.prepare('PUT', f'{PATH}log/{number}', random.randbytes(SMALL_BYTES))
        return timed(client.exchange, prepared)

    return take_turns(rounds * 10, ours, theirs)


def random_flush(far, disk, rounds):
    """1,000 pages written at random and flushed, beside one PUT of as many bytes."""
    client = far.client()
    body = random.randbytes(RANDOM_WRITES * SMALL_BYTES)
    digest = hashlib.sha256(body).hexdigest()

    def ours(number):
        pages = random.sample(range(VOLUME_MB * MIB // SMALL_BYTES), RANDOM_WRITES)
        message = b''.join(BareNbd.request(WRITE, page * SMALL_BYTES, SMALL_BYTES) + random.randbytes(SMALL_BYTES)
                           for page in pages)
        return timed(lambda: (disk.send_writes(message, RANDOM_WRITES), disk.flush()))

    def theirs(number):
        prepared = client.prepare('PUT', f'{PATH}log/{number}', body, digest=digest)
        return timed(client.exchange, prepared)

    return take_turns(rounds, ours, theirs)


def stream(far, disk, rounds):
    """256 MiB written in order and flushed, beside as much in PUTs of 8 MiB by 16 clients."""
    clients = [far.client() for _ in range(STREAMS)]
    body = random.randbytes(STREAM_PUT_BYTES)
    digest = hashlib.sha256(body).hexdigest()
    twice = memoryview(random.randbytes(2 * MIB))

    def ours(number):
        # Different bytes everywhere, out of one buffer.
        message = []
        for at in range(0, STREAM_BYTES, MIB):
            shift = random.randrange(MIB)
            message += [BareNbd.request(WRITE, at, MIB), twice[shift:shift + MIB]]
        return timed(lambda: (disk.send_writes(message, STREAM_BYTES // MIB), disk.flush()))

    def theirs(number):
        each = STREAM_BYTES // STREAM_PUT_BYTES // STREAMS
        ready = threading.Barrier(STREAMS + 1)

        def one(which):
            prepared = [clients[which].prepare('PUT', f'{PATH}data/{which}/{number * each + turn}', body,
                                               digest=digest) for turn in range(each)]
            ready.wait()
            for request in prepared:
                clients[which].exchange(request)

        threads = [threading.Thread(target=one, args=(which,)) for which in range(STREAMS)]
        for thread in threads:
            thread.start()
        ready.wait()
        return timed(lambda: [thread.join() for thread in threads])

    return take_turns(rounds, ours, theirs)


def cold_read(far, path):
    """Pages that are in no memory, each in a frame of its own, beside a GET of 4 KiB; and the requests that it took."""
    step = VOLUME_MB * MIB // COLD_READS // MIB * MIB
    content = [random.randbytes(SMALL_BYTES) for _ in range(COLD_READS)]
    disk = BareNbd(path, 'cold')
    for number, page in enumerate(content):
        disk.send_writes(BareNbd.request(WRITE, number * step, SMALL_BYTES) + page, 1)
    disk.flush()
    disk.close()
    far.stop_cairn()
    client = far.client()
    client.request('PUT', f'{PATH}log/1', content[0])
    far.proxy.reset()
    fresh = BareNbd(far.start_cairn(), 'cold')
    start = far.proxy.counts()
    far.proxy.reset()
    found = [], []
    for number, page in enumerate(content):
        found[0].append(timed(lambda: check(fresh.read(number * step, SMALL_BYTES) == page)))
    spent = far.proxy.counts()
    for _ in content:
        found[1].append(timed(client.exchange, client.prepare('GET', f'{PATH}log/1',
                                                              headers={'range': f'bytes=0-{SMALL_BYTES - 1}'})))
    return found, start, spent


def check(good):
    if not good:
        raise SystemExit('what was read is not what was written')


# name, what measures it, the least or most that the ratio may be
ROWS = (
    ('4 KiB write + FLUSH, of a bare 4 KiB PUT', small_flush, 'most', 1.1),
    ('1,000 random 4 KiB writes + FLUSH, of a bare 4 MiB PUT', random_flush, 'most', 1.3),
    ('256 MiB in order + FLUSH, of the throughput of 16 x 8 MiB PUT', stream, 'least', 0.8),
)
COLD = 'cold 4 KiB read, GETs each'


def print_row(name, sign, target, ratio, ours, theirs, more=''):
    missed = ratio > target if sign == 'most' else ratio < target
    print(f'{name:<64} {"<=" if sign == "most" else ">="} {target:4.2f} {ratio:7.3f} '
          f'{"MISSED" if missed else "ok":<6} {ours["p50_ms"]:8.2f} {theirs["p50_ms"]:8.2f}  {more}', flush=True)
    return {'row': name, sign: target, 'ratio': ratio, 'met': not missed, 'cairn': ours, 'bare': theirs}


def run_row(far, disk, row, rounds):
    name, measure, sign, target = row
    far.proxy.reset()
    before = far.cpu_seconds()
    ours, theirs = measure(far, disk, rounds)
    cpu = (far.cpu_seconds() - before) / (len(ours) + 1) * 1e3
    counts = far.proxy.counts()
    ours, theirs = quantiles(ours), quantiles(theirs)
    # Of times the ratio as it is; of throughputs the other way round, since both moved the same.
    ratio = ours['p50_ms'] / theirs['p50_ms']
    line = print_row(name, sign, target, ratio if sign == 'most' else 1 / ratio, ours, theirs,
                     f'p95 {ours["p95_ms"]:.2f} and {theirs["p95_ms"]:.2f}; {cpu:.2f} ms of CPU a round')
    return {**line, 'cpu_ms': cpu, 'requests': counts.requests(), 'at_once': counts.told['at_once']}


def run_cold(far, path):
    (ours, theirs), start, spent = cold_read(far, path)
    gets = spent.total('GET') / COLD_READS
    ours, theirs = quantiles(ours), quantiles(theirs)
    line = print_row(COLD, 'most', 1, gets, ours, theirs, f'a start on that volume: {start}')
    return {**line, 'requests': spent.requests(), 'start': start.requests()}


def run(arguments, directory):
    table = []
    far = Far(arguments.backend, directory, arguments.trace)
    try:
        print(f'{"":<64} {"target":>7} {"ratio":>7} {"":<6} {"cairn":>8} {"bare":>8}  ms, medians')
        path = far.start_cairn()
        disk = BareNbd(path, 'disk')
        for row in ROWS:
            if not arguments.only or arguments.only in row[0]:
                table.append(run_row(far, disk, row, arguments.rounds))
        if not arguments.only or arguments.only in COLD:
            table.append(run_cold(far, path))
    finally:
        far.stop()
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=20, help='of each row; the shortest has ten times as many (20)')
    parser.add_argument('--only', help='rows whose name holds this text')
    parser.add_argument('--backend', default='sink', choices=('sink', *stores.REAL_KINDS),
                        help='what stores the objects: the proxy itself, in memory (sink), or a server behind it')
    parser.add_argument('--json', metavar='FILE', help='write the table there as well')
    parser.add_argument('--trace', metavar='FILE', help='the proxy\'s line for each request')
    arguments = parser.parse_args()
    for program in (CAIRN, PROGRAM):
        if not os.access(program, os.X_OK):
            raise SystemExit(f'{program} is not there: build it with `tools/build release`')
    directory = tempfile.mkdtemp(prefix='cairn-bench.')
    try:
        table = run(arguments, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if arguments.json:
        with open(arguments.json, 'w') as file:
            json.dump(table, file, indent=2)


if __name__ == '__main__':
    sys.exit(main())
