#!/usr/bin/python3
"""Kills the server under verified load, again and again.

    kill_loop.py [--rounds N] [--takeover] [--seed N]

A round: a client keeps writes of unique content, parts of pages, trims, zeroes,
reads and flushes under way on several connections; the server gets SIGKILL at a
random moment (also while it starts, or just after a flush was sent or
answered); it is started anew on the same store; every page that was ever
touched must hold what it held at the last flush that succeeded, or a later
write's content (test/lib/disk_model.py has the exact rule).  The next round
goes on with what is there.  Now and then the store is a fresh one, with other
settings, and the disk a larger one with large requests, so that data objects
are made.

With --takeover the first server is not killed: `cairn break-lease` and a second
server take the volume from it while its clients work on, or while it is
stopped by a signal and continues later.  Its clients must get errors; what it
said was flushed must be there for the second; and what it does afterwards must
never be seen.

The moments depend on the machine's load, so a seed repeats the requests but not
the timing."""

import argparse
import os
import random
import shutil
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib'))
sys.dont_write_bytecode = True

import nbd  # noqa: E402

import by_hand  # noqa: E402
import stores  # noqa: E402
from disk_model import Disk, Violation  # noqa: E402
from harness import CAIRN, PATIENCE_S, Server, wait_until  # noqa: E402
from load import Load, read_all  # noqa: E402

VOLUME = 'disk'
ROUNDS_PER_STORE = 20
# A takeover reads the whole log while the first owner goes on writing it; where a request takes long, the second catches
# up slowly with a long one.
TAKEOVERS_PER_STORE = 5
ROUNDS_PER_PROCESS = 250  # libnbd's Python module (1.14) does not give buffers back
# MinIO lets nobody read or write a key while an upload to it is under way, for 30 s when the client is stopped in it.
TAKEOVER_S = 120
LOAD_S = 0.15  # the longest that a client works before the blow
SMALL = {'size': 4 << 20, 'depth': 8, 'flushes': 0.05, 'counts': (1, 1, 1, 1, 2, 3, 8, 40)}
# Settings that a store's servers run with, one of these: commits that come by themselves all the time, volumes that are
# let go and taken again at once, a cache that is too small for a large disk; checkpoints all the time, or never.
ARGUMENTS = (['--checkpoint-entries', '65536'], ['--batch-age', '20ms'], ['--checkpoint-entries', '5'],
             ['--batch-age', '20ms', '--release-grace', '0', '--checkpoint-entries', '20'],
             ['--memory', '128MB', '--checkpoint-bytes', '2MB'])
# A server that was overtaken refuses whoever asks for the volume, but only after it has waited for it to become free.
IMPATIENT = ['--owner-wait', '500ms']
# In rounds of killing, a server of another host now and then: it knows nothing of the old one's end, and waits for its
# lease to run out.
SHORT_LEASE = ['--lease', '1s']
SHARE_ELSEWHERE = 0.03
LARGE = {'size': 48 << 20, 'depth': 4, 'flushes': 0.01, 'counts': (1, 8, 64, 256)}


class Loop:
    def __init__(self, bench, dice, takeover):
        self.bench = bench
        self.random = dice
        self.takeover = takeover
        self.stores = 0
        self.server = None
        self.disk = None
        self.shape = None
        self.arguments = []
        self.totals = {'answers': 0, 'flushes': 0, 'pages': 0, 'early kills': 0, 'elsewhere': 0}
        self.starts = 0

    def fresh_store(self):
        """The next rounds have a store of their own; the old one goes."""
        if self.server:
            self.server.process.kill()
            self.server.store.drop()
        self.stores += 1
        self.shape = LARGE if self.stores % 4 == 0 else SMALL
        self.arguments = self.random.choice(ARGUMENTS)
        self.disk = Disk(self.shape['size'])
        self.server = self.new_server(self.bench.store(f'store{self.stores}'))

    def new_server(self, store):
        self.starts += 1
        # Names alternate, so that two servers side by side have different sockets.
        return Server(self.bench, store=store, size=str(self.shape['size']), name=f'cairn{self.starts % 2}',
                      arguments=self.arguments + (IMPATIENT if self.takeover else SHORT_LEASE), start=False)

    def forget_outputs(self):
        """Checks and drops what ended processes have said, so that thousands of rounds do not pile it up."""
        for process in [process for process in self.bench.processes if not process.running()]:
            process.check_complaints()
            os.unlink(process.stdout_path)
            os.unlink(process.stderr_path)
            self.bench.processes.remove(process)

    # A round.

    def blow(self, delay):
        """SIGKILL after a while, whatever the client does then."""
        process = self.server.process
        timer = threading.Timer(delay, lambda: process.running() and os.kill(process.pid, signal.SIGKILL))
        timer.start()
        return timer

    def settle(self):
        """Connects and holds every touched page against the model."""
        handle = nbd.NBD()
        handle.connect_uri(self.server.uri(VOLUME))
        self.totals['pages'] += self.disk.settle(lambda offset, length: handle.pread(length, offset))
        handle.shutdown()

    def start_and_settle(self):
        """Starts the server; sometimes the blow falls while it starts or recovers: then once more."""
        if self.random.random() < SHARE_ELSEWHERE:
            shutil.rmtree(self.bench.path('locks'))  # what tells of the dead on this host
            self.totals['elsewhere'] += 1
        while self.random.random() < 0.15:
            self.server.start(ready=False)
            timer = self.blow(self.random.uniform(0, 0.05))
            try:
                self.server.wait_ready()
                self.settle()
            except Violation:
                raise
            except (nbd.Error, AssertionError):
                pass  # it was killed before it was done
            timer.join()
            status = self.server.process.wait()
            assert status == -signal.SIGKILL, f'ended with {status}: {self.server.process.stderr()[-2000:]}'
            self.totals['early kills'] += 1
        self.server.start()
        self.settle()

    def new_load(self):
        load = Load(self.disk, self.random, depth=self.shape['depth'], flushes=self.shape['flushes'],
                    counts=self.shape['counts'])
        load.connect(self.server.uri(VOLUME), self.random.choice((1, 2, 4)))
        return load

    def kill_round(self):
        load = self.new_load()
        kind = self.random.choice(('moment', 'moment', 'flush sent', 'flush answered'))
        end = time.monotonic() + self.random.uniform(0, LOAD_S)
        count = self.random.randrange(1, 12)
        if kind == 'moment':
            timer = self.blow(end - time.monotonic())
            load.work(lambda: not timer.is_alive())
        elif kind == 'flush sent':
            load.work(lambda: load.flushes_sent >= count or time.monotonic() > end)
            timer = self.blow(self.random.uniform(0, 0.004))
        else:
            load.work(lambda: load.flush_answers >= count or time.monotonic() > end)
            timer = self.blow(0)
        timer.join()
        status = self.server.process.wait()
        assert status == -signal.SIGKILL, f'ended with {status}: {self.server.process.stderr()[-2000:]}'
        load.drain(time.monotonic, PATIENCE_S)  # answers that it had sent before are answers
        assert not load.busy(), 'requests neither answered nor failed though the server is gone'
        self.finish(load)
        self.start_and_settle()

    def takeover_round(self):
        first, load = self.server, self.new_load()
        moment = time.monotonic() + self.random.uniform(0, LOAD_S)
        load.work(lambda: time.monotonic() > moment)
        stopped = self.random.random() < 0.4
        if stopped:
            first.process.signal(signal.SIGSTOP)
        while not self.break_lease(first, load, stopped):
            first.process.signal(signal.SIGCONT)
            time.sleep(self.random.uniform(0, 0.01))
            first.process.signal(signal.SIGSTOP)
        second = self.server = self.new_server(first.store)
        second.start(ready=False)
        self.work_until(load, second.answers, stopped)

        handle = nbd.NBD()
        handle.connect_uri(second.uri(VOLUME))
        taken = read_all(handle, self.disk.size)
        if stopped:
            first.process.signal(signal.SIGCONT)
        end = time.monotonic() + PATIENCE_S
        load.work(lambda: time.monotonic() > end)
        load.drain(time.monotonic, 1)
        assert not load.alive(), f'the first server still serves after {PATIENCE_S} s, though the volume was taken'
        if self.random.random() < 0.25:
            self.expect_refusal(first)
        self.totals['pages'] += self.disk.settle(lambda offset, length: taken[offset:offset + length])
        if self.random.random() < 0.5:
            first.process.signal(signal.SIGTERM)
            first.process.wait(60)
        else:
            first.process.kill()
        assert read_all(handle, self.disk.size) == taken, 'the disk of the second server changed by itself'
        handle.shutdown()
        self.finish(load)

    def break_lease(self, first, load, stopped):
        """False: the first was stopped in the moment in which it held a directory store's lock on the register."""
        breaker = self.bench.start('break-lease',
                                   [CAIRN, 'break-lease', *first.store.words(), '--yes', VOLUME])
        self.work_until(load, lambda: not breaker.running(), stopped)
        if breaker.wait() != 0 and stopped and f'by process {first.process.pid}: is it stopped?' in breaker.stderr():
            return False
        assert breaker.wait() == 0, f'break-lease failed: {breaker.stderr()}'
        return True

    def work_until(self, load, until, stopped):
        """While the first server is stopped its client sends nothing more: it would only wait."""
        if stopped:
            wait_until(until, 'takeover', TAKEOVER_S)
            return
        end = time.monotonic() + PATIENCE_S
        load.work(lambda: until() or time.monotonic() > end)
        wait_until(until, 'takeover', TAKEOVER_S)

    def expect_refusal(self, first):
        assert first.process.running(), f'the fenced server ended: {first.process.stderr()[-2000:]}'
        handle = nbd.NBD()
        try:
            handle.connect_uri(first.uri(VOLUME))
        except nbd.Error:
            return
        raise AssertionError('the fenced server accepts clients of a volume that another owns')

    def finish(self, load):
        self.totals['answers'] += load.answers
        self.totals['flushes'] += load.flush_answers
        load.close()
        self.forget_outputs()

    def run(self, rounds, progress):
        for number in range(rounds):
            if number % (TAKEOVERS_PER_STORE if self.takeover else ROUNDS_PER_STORE) == 0:
                self.fresh_store()
                self.server.start()
            try:
                self.takeover_round() if self.takeover else self.kill_round()
            except BaseException:
                print(f'round {number + 1}, store {self.server.store.url}', file=sys.stderr)
                raise
            if progress and (number + 1) % 100 == 0:
                print(f'\r{number + 1} of {rounds} rounds', end='', file=sys.stderr, flush=True)
        if progress:
            print(file=sys.stderr)


def run(bench, rounds, takeover, seed, progress=False):
    """All rounds; returns a line that counts what was done."""
    loop = Loop(bench, random.Random(seed), takeover)
    began = time.monotonic()
    loop.run(rounds, progress)
    seconds = time.monotonic() - began
    loop.server.process.kill()
    totals = loop.totals
    return (f'{rounds} {"takeovers" if takeover else "kills"}, {totals["early kills"]} more while starting, '
            f'{totals["elsewhere"]} times waited for the lease, '
            f'{loop.stores} stores; {totals["answers"]} requests answered, {totals["flushes"]} flushes, '
            f'{totals["pages"]} pages checked; {seconds / rounds:.2f} s a round; seed {seed}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=100, metavar='N')
    parser.add_argument('--takeover', action='store_true', help='a second server takes over, instead of a kill')
    parser.add_argument('--seed', type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # what was started is ended
    shared = stores.Shared(stores.kind())
    try:
        if arguments.rounds > ROUNDS_PER_PROCESS:
            by_hand.rounds_in_processes(__file__, arguments.rounds, ROUNDS_PER_PROCESS, arguments.seed,
                                        *['--takeover'] * arguments.takeover)
        else:
            with by_hand.bench('kill', arguments.seed) as bench:
                print(run(bench, arguments.rounds, arguments.takeover, arguments.seed, sys.stderr.isatty()))
    finally:
        shared.stop()


if __name__ == '__main__':
    main()
