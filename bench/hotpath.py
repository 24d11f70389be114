#!/usr/bin/python3
"""The hot path: server CPU per request, beside nbdkit's memory plugin in the same run.

    hotpath.py [--rounds N] [--seconds S] [--only TEXT] [--json FILE] [--against-itself | --bare]

Both servers hold the same prefilled volume in memory: nbdkit in its memory
plugin, cairn in its cache, with its directory store on a tmpfs.  fio drives
each in turn, in several rounds that alternate which goes first; the figure is
utime + stime of the server's process, all threads, divided by the requests that
fio has had answered.  A write run ends with a flush, so that cairn's way to the
store is counted in full; how much of it the threads that serve clients took,
without those that write files, stands beside it.  Ratios of one run are
comparable, the times only tell what kind of machine it was.

System calls are counted in separate short runs, because counting disturbs.
README.md beside this file says what each row stands for."""

import argparse
import glob
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CAIRN = os.path.abspath(os.environ.get('CAIRN', os.path.join(REPOSITORY, 'build', 'cairn')))
BARE = os.path.join(REPOSITORY, 'build', 'bench', 'bare_nbd_server')
VOLUME_MB = 256
MEMORY = '1536MB'  # cairn's: the volume in its cache, and a write buffer that can hold as much again
WRITTEN_MB = 12288  # most that all jobs of a write run write; cairn's store keeps what is not overwritten in time, in memory
TOUCHED_MB = 3072
TICKS = os.sysconf('SC_CLK_TCK')
TCP_ALLOWANCE = 1.3

# name, fio's rw, block size, depth, jobs (a job is a connection), the most that cairn may take of nbdkit's CPU
ROWS = (
    ('4 KiB random read, depth 32', 'randread', '4k', 32, 2, 0.40),
    ('4 KiB random write, depth 32', 'randwrite', '4k', 32, 2, 0.45),
    ('4 KiB random read, depth 32, 4 connections', 'randread', '4k', 32, 4, 0.50),
    ('4 KiB random write, depth 32, 4 connections', 'randwrite', '4k', 32, 4, 0.50),
    ('4 KiB random read, depth 1, 1 connection', 'randread', '4k', 1, 1, 0.60),
    ('4 KiB random write, depth 1, 1 connection', 'randwrite', '4k', 1, 1, 0.60),
    ('4 KiB random read, depth 1, one processor', 'randread', '4k', 1, 1, 0.60),
    ('4 KiB random write, depth 1, one processor', 'randwrite', '4k', 1, 1, 0.60),
    ('128 KiB random read, depth 16', 'randread', '128k', 16, 2, 0.65),
    ('128 KiB random write, depth 16', 'randwrite', '128k', 16, 2, 0.75),
)
CALLS_TARGET = 0.8
ONE_PROCESSOR = 'one processor'  # client and server share one: what a request costs without waking another, halted one


class Server:
    """One server process with its volume filled."""

    def __init__(self, kind, tcp, directory):
        self.kind = kind
        self.store = tempfile.mkdtemp(prefix='store.', dir=directory)
        path = os.path.join(self.store, 'socket')
        self.address = ('127.0.0.1', free_port()) if tcp else path
        self.uri = f'nbd://127.0.0.1:{self.address[1]}/bench' if tcp else f'nbd+unix:///bench?socket={path}'
        with open(os.path.join(directory, f'{kind}.log'), 'ab') as log:
            self.popen = subprocess.Popen(self.argv(tcp), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_ready()
        fio(self, rw='write', bs='1m', iodepth=4, numjobs=1, extra=['--end_fsync=1', '--refill_buffers', '--loops=6'])
        fio(self, rw='read', bs='1m', iodepth=4, numjobs=1)

    def argv(self, tcp):
        if self.kind == 'nbdkit':
            where = ['-i', '127.0.0.1', '-p', str(self.address[1])] if tcp else ['-U', self.address]
            return ['nbdkit', '-f'] + where + ['memory', f'{VOLUME_MB}M']
        where = ['--host', '127.0.0.1', '--port', str(self.address[1])] if tcp else ['--unix', self.address]
        if self.kind == 'bare':
            return [BARE, f'127.0.0.1:{self.address[1]}' if tcp else self.address, str(VOLUME_MB << 20)]
        return [CAIRN, 'serve', '--store', 'dir:' + os.path.join(self.store, 'objects'), '--size', f'{VOLUME_MB}MB',
                '--memory', MEMORY] + where

    def wait_ready(self):
        end = time.monotonic() + 20
        while True:
            if self.popen.poll() is not None:
                raise SystemExit(f'{self.kind} ended with {self.popen.returncode} instead of serving')
            try:
                with socket.socket(socket.AF_INET if isinstance(self.address, tuple) else socket.AF_UNIX) as probe:
                    probe.connect(self.address)
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def cpu_seconds(self):
        """(of the whole process, of the threads that serve clients)."""
        whole = thread_seconds(f'/proc/{self.popen.pid}/stat')[1]
        if self.kind != 'cairn':
            return whole, whole
        threads = [thread_seconds(path) for path in glob.glob(f'/proc/{self.popen.pid}/task/*/stat')]
        return whole, sum(seconds for name, seconds in threads if name.startswith('shard'))

    def close(self):
        self.popen.kill()
        self.popen.wait()
        shutil.rmtree(self.store, ignore_errors=True)


def thread_seconds(path):
    """(name, CPU seconds) of a process or thread."""
    with open(path) as file:
        name, _, rest = file.read().rpartition(')')
    fields = rest.split()
    return name.partition('(')[2], (int(fields[11]) + int(fields[12])) / TICKS


def touch_memory(directory):
    """Memory that a virtual machine has never used is slow at first: let both servers meet it used."""
    path = os.path.join(directory, 'touched')
    with open(path, 'wb') as file:
        for _ in range(TOUCHED_MB):
            file.write(b'\xff' * (1 << 20))
    os.unlink(path)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def fio(server, rw, bs, iodepth, numjobs, seconds=None, extra=()):
    """Returns (requests answered, seconds that it took)."""
    output = os.path.join(server.store, 'fio.json')
    words = ['fio', '--name=job', '--ioengine=nbd', '--uri=' + server.uri, '--thread', '--group_reporting',
             '--norandommap', '--gtod_reduce=1', '--randrepeat=0', f'--size={VOLUME_MB}m', f'--rw={rw}', f'--bs={bs}',
             f'--iodepth={iodepth}', f'--numjobs={numjobs}', '--output-format=json', '--output=' + output, *extra]
    if seconds:
        words.append(f'--runtime={seconds * 1000:.0f}ms')
        words.append(f'--io_size={WRITTEN_MB // numjobs}m' if 'write' in rw else '--time_based')
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    if done.returncode != 0:
        raise SystemExit(f'fio failed: {done.stdout.decode()}')
    with open(output) as file:
        text = file.read()
    job = json.loads(text[text.index('{'):])['jobs'][0]
    side = job['write' if 'write' in rw else 'read']
    return side['total_ios'], side['runtime'] / 1000


def allow_processors(pid, processors):
    """Where all threads of a process may run."""
    for thread in os.listdir(f'/proc/{pid}/task'):
        os.sched_setaffinity(int(thread), processors)


def measure(server, row, seconds):
    """(microseconds of server CPU per request, of that for serving clients, requests per second)."""
    if not row[0].endswith(ONE_PROCESSOR):
        return measure_placed(server, row, seconds)
    everywhere = os.sched_getaffinity(0)
    here = {min(everywhere)}
    os.sched_setaffinity(0, here)  # fio inherits it
    allow_processors(server.popen.pid, here)
    try:
        return measure_placed(server, row, seconds)
    finally:
        os.sched_setaffinity(0, everywhere)
        allow_processors(server.popen.pid, everywhere)


def measure_placed(server, row, seconds):
    _, rw, bs, depth, jobs, _ = row
    before = server.cpu_seconds()
    requests, took = fio(server, rw, bs, depth, jobs, seconds, ['--end_fsync=1'] if 'write' in rw else [])
    whole, serving = (after - then for after, then in zip(server.cpu_seconds(), before))
    if not requests:
        raise SystemExit('no request was answered')
    return whole / requests * 1e6, serving / requests * 1e6, requests / took


def count_calls(server, row, seconds):
    """System calls per request; None where they cannot be counted."""
    _, rw, bs, depth, jobs, _ = row
    output = os.path.join(server.store, 'calls')
    if perf_works():
        words = ['perf', 'stat', '-x', ',', '-e', 'raw_syscalls:sys_enter', '-p', str(server.popen.pid), '-o', output]
    elif shutil.which('strace'):
        words = ['strace', '-c', '-f', '-p', str(server.popen.pid), '-o', output]
    else:
        return None
    counter = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    requests, _ = fio(server, rw, bs, depth, jobs, seconds)
    counter.send_signal(2)
    counter.wait()
    with open(output) as file:
        text = file.read()
    if words[0] == 'perf':
        calls = [int(line.split(',')[0]) for line in text.splitlines() if 'sys_enter' in line][0]
    else:
        # The last line: 100.00, seconds, microseconds a call, calls, perhaps errors, "total".
        calls = int([line for line in text.splitlines() if line.endswith('total')][0].split()[3])
    return calls / requests


def perf_works():
    if not hasattr(perf_works, 'answer'):
        perf_works.answer = shutil.which('perf') is not None and subprocess.run(
            ['perf', 'stat', '-e', 'raw_syscalls:sys_enter', 'true'], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL).returncode == 0
    return perf_works.answer


class Pair:
    """Both servers; a new one for every write run of cairn, whose store would grow."""

    def __init__(self, kinds, tcp, directory):
        self.kinds, self.tcp, self.directory = kinds, tcp, directory
        self.servers = {}

    def get(self, side):
        if side not in self.servers:
            self.servers[side] = Server(self.kinds[side], self.tcp, self.directory)
        return self.servers[side]

    def drop(self, side):
        if side in self.servers:
            self.servers.pop(side).close()

    def close(self):
        for side in list(self.servers):
            self.drop(side)


def run_row(pair, row, rounds, seconds):
    """Per side a list of what measure() returns, one a round."""
    results = {'ours': [], 'theirs': []}
    for number in range(rounds):
        for side in ('ours', 'theirs') if number % 2 else ('theirs', 'ours'):
            results[side].append(measure(pair.get(side), row, seconds))
            if 'write' in row[1]:
                pair.drop(side)
    return results


def median_ratio(results, field):
    return statistics.median(ours[field] / theirs[field] for ours, theirs in zip(results['ours'], results['theirs']))


def print_head(ours):
    print(f'{"":<50} {"CPU, of nbdkit":>14}        {"serving":>7} {"us a request":>17} {"requests/s":>16}')
    print(f'{"":<50} {"target":>6} {"ratio":>7}        {"alone":>7} {ours:>8} {"nbdkit":>8} {ours:>9} {"ratio":>6}')


def print_line(name, target, results):
    ratio, serving, rate = (median_ratio(results, field) for field in range(3))
    ours, theirs = (statistics.median(value[0] for value in results[side]) for side in ('ours', 'theirs'))
    rate_ours = statistics.median(value[2] for value in results['ours'])
    missed = ratio > target or 'depth 1,' in name and 'TCP' not in name and rate < 1
    print(f'{name:<50} {target:6.2f} {ratio:7.2f} {"MISSED" if missed else "ok":<6} {serving:7.2f} {ours:8.2f} '
          f'{theirs:8.2f} {rate_ours:9.0f} {rate:6.2f}', flush=True)
    return {'row': name, 'target': target, 'ratio': ratio, 'serving_ratio': serving, 'cairn_us': ours,
            'nbdkit_us': theirs, 'requests_per_second': rate_ours, 'rate_ratio': rate}


def run(arguments, directory):
    kinds = {'ours': 'nbdkit' if arguments.against_itself else 'bare' if arguments.bare else 'cairn', 'theirs': 'nbdkit'}
    table = []
    touch_memory(directory)
    print_head(kinds['ours'])
    for tcp in (False, True):
        pair = Pair(kinds, tcp, directory)
        try:
            for row in ROWS:
                name = ('TCP: ' if tcp else '') + row[0]
                if arguments.only and arguments.only not in name:
                    continue
                target = row[5] * (TCP_ALLOWANCE if tcp else 1)
                table.append(print_line(name, target, run_row(pair, row, arguments.rounds, arguments.seconds)))
        finally:
            pair.close()
    print(f'\nsystem calls a request (target at depth 32: {CALLS_TARGET}), counted by '
          f'{"perf" if perf_works() else "strace, which slows the server down"}')
    pair = Pair(kinds, False, directory)
    try:
        for row in ROWS[:5]:
            if arguments.only and arguments.only not in row[0]:
                continue
            counts = {side: count_calls(pair.get(side), row, 2) for side in ('ours', 'theirs')}
            if counts['ours'] is None:
                print('neither perf nor strace can be used here')
                break
            verdict = '' if row[3] != 32 else 'ok' if counts['ours'] <= CALLS_TARGET else 'MISSED'
            print(f'{row[0]:<50} {counts["ours"]:6.2f}  {verdict:<6} nbdkit {counts["theirs"]:.2f}', flush=True)
            table.append({'row': 'system calls: ' + row[0], 'cairn': counts['ours'], 'nbdkit': counts['theirs']})
            if 'write' in row[1]:
                pair.drop('ours')
                pair.drop('theirs')
    finally:
        pair.close()
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=3, help='runs of each row on each server (3)')
    parser.add_argument('--seconds', type=float, default=3, help='of one run (3)')
    parser.add_argument('--only', help='rows whose name holds this text')
    parser.add_argument('--json', metavar='FILE', help='write the table there as well')
    parser.add_argument('--directory', default='/dev/shm', help='a tmpfs for cairn\'s store (/dev/shm)')
    parser.add_argument('--against-itself', action='store_true', help='nbdkit on both sides: every ratio should be 1')
    parser.add_argument('--bare', action='store_true',
                        help='in cairn\'s place a server that only receives and sends: what the machine costs any')
    arguments = parser.parse_args()
    for tool in ('fio', 'nbdkit'):
        if shutil.which(tool) is None:
            raise SystemExit(f'{tool} is not installed: it is needed for the comparison')
    if arguments.bare:
        subprocess.run(['ninja', '-C', os.path.dirname(os.path.dirname(BARE)), '--quiet', 'bench/bare_nbd_server'],
                       check=True)
    if not arguments.against_itself and not os.access(CAIRN, os.X_OK):
        raise SystemExit(f'no server at {CAIRN}: build it with `make`, or name another with CAIRN=PATH')
    directory = tempfile.mkdtemp(prefix='cairn-bench.', dir=arguments.directory)
    try:
        table = run(arguments, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if arguments.json:
        with open(arguments.json, 'w') as file:
            json.dump(table, file, indent=2)


if __name__ == '__main__':
    sys.exit(main())
