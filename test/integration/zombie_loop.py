#!/usr/bin/python3
"""Makes zombies: stops the server that owns a volume for longer than its lease, or cuts it off from the store, lets
another one take the volume, and wakes the first up.

    zombie_loop.py [--rounds N] [--cut] [--lease SECONDS] [--seed N]

A round: clients keep writes of unique content, parts of pages, trims, zeroes, reads and flushes under way on several
connections of the owner; it gets SIGSTOP at a random moment.  A client of a second server, which knows of no more
than the lease, is let in when that has run out; what it finds is read, and clients of the second begin to work on
that, each answer held against a model of the disk (test/lib/disk_model.py).  Then the first gets SIGCONT while its
clients go on sending.  In some rounds it is stopped for about as long as its lease lasts, again and again, so that
both outcomes occur and the takeover meets it awake.

With --cut each server is on a host of its own (test/lib/network.py), and in place of the signals packets are dropped
between the first and the store: those that it sends, those that it is sent, or both.  It goes on answering its
clients then, until its lease is in doubt.

What must hold: every flush that the first has answered, at any time, is in what the second found.  Once the second
serves, the first answers nothing as done, but for the one batch of replies that it was stopped in the middle of
sending; its clients are dropped; it says who has taken the volume; nothing of what it does then is ever seen.  It may
be the next round's second.

CAIRN_TEST_STORE says on what kind of store.  The moments depend on the machine's load, so a seed repeats the requests
but not the timing."""

import argparse
import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib'))
sys.dont_write_bytecode = True

import nbd  # noqa: E402

import by_hand  # noqa: E402
import stores  # noqa: E402
from disk_model import Disk  # noqa: E402
from harness import PATIENCE_S, Server, wait_until  # noqa: E402
from kill_loop import ARGUMENTS, LARGE, SMALL, VOLUME  # noqa: E402
from load import Load, Opening, read_all  # noqa: E402
from network import HostServer, Network  # noqa: E402

ROUNDS_PER_STORE = 10
ROUNDS_PER_PROCESS = 100  # libnbd's Python module (1.14) does not give buffers back
LOAD_S = 0.3  # the longest that clients work between two events
# Slow stores renew slowly, and their owners shall not lose their leases by that.
LEASE_S = {'rgw': 2, 'minio': 2}
# What is said of a process that was stopped in the moment in which it held a directory store's lock.
STOPPED_WITH_LOCK = 'is it stopped?'
# A client waits for the volume through several leases, if it must.
TAKEOVER_LEASES, TAKEOVER_LEAST_S = 20, 120
OWNER_WAIT = ['--owner-wait', '10m']
# More numbers than the first server's clients use up while it is a zombie.
OPERATIONS_APART = 1 << 24


def lease_of_kind():
    return LEASE_S.get(stores.kind(), 1)


def stop(process):
    """SIGSTOP; returns when it stands still."""
    process.signal(signal.SIGSTOP)

    def stands():
        for task in os.listdir(f'/proc/{process.pid}/task'):
            with open(f'/proc/{process.pid}/task/{task}/stat') as file:
                if file.read().rpartition(')')[2].split()[0] != 'T':
                    return False
        return True
    wait_until(stands, f'{process.name} stands still')


class Zombie:
    """The clients of a server that has lost its volume, and what is answered to them from that moment on."""

    def __init__(self, load):
        self.load = load
        self.answered = {}  # connection: requests that were said to be done
        load.take_arrived()
        load.watch = self.told

    def told(self, handle, error):
        if not error:
            self.answered[id(handle)] = self.answered.get(id(handle), 0) + 1

    def check(self):
        """One batch may have been on its way into the socket when the process was stopped: then the owner had looked at
        its lease before."""
        assert len(self.answered) <= 1, f'the zombie has answered on {len(self.answered)} connections: {self.answered}'

    def late(self):
        return sum(self.answered.values())


class Stopped:
    """A server stands still."""

    awake = False

    def __init__(self, bench, dice):
        self.bench = bench

    def server(self, number, store, **options):
        return Server(self.bench, store=store, **options)

    def begin(self, server):
        stop(server.process)

    def end(self, server):
        server.process.signal(signal.SIGCONT)


class CutOff:
    """A server and the store do not hear each other, in one direction or both."""

    awake = True

    def __init__(self, bench, dice):
        self.bench = bench
        self.random = dice
        self.network = Network(bench, 2)
        self.relayed = False

    def server(self, number, store, **options):
        if not self.relayed:
            self.network.relay(store.server.port)
            self.relayed = True
        return HostServer(self.network, number, store, **options)

    def begin(self, server):
        requests, answers = self.random.choice(((True, False), (False, True), (True, True)))
        self.network.cut(server.host, requests, answers)

    def end(self, server):
        self.network.heal(server.host)


class Waiting:
    """A client that wants the volume at a server.  Where somebody is stopped with the lock of a directory store it is
    refused: it comes again, but somebody must go on first."""

    def __init__(self, server):
        self.server = server
        self.told = len(server.process.stderr())
        self.opening = Opening(server.uri(VOLUME))

    def is_over(self, wait_ms=0):
        """It is let in, or must come again."""
        try:
            return self.opening.ready(wait_ms)
        except nbd.Error:
            if STOPPED_WITH_LOCK not in self.server.process.stderr()[self.told:]:
                raise
            self.told = len(self.server.process.stderr())
            self.opening = Opening(self.server.uri(VOLUME))
            return True

    def let_in(self):
        return self.is_over() and self.opening.handle.aio_is_ready()


class Loop:
    def __init__(self, bench, dice, lease_s, mishap):
        self.bench = bench
        self.random = dice
        self.lease_s = lease_s
        self.mishap = mishap(bench, dice)
        self.stores = 0
        self.servers = []  # two; the first has the volume
        self.disk = None
        self.totals = {'answers': 0, 'flushes': 0, 'pages': 0, 'late': 0, 'wakes': 0, 'held': 0}

    def fresh_store(self):
        self.drop_store()
        self.stores += 1
        self.shape = LARGE if self.stores % 4 == 0 else SMALL
        self.disk = Disk(self.shape['size'])
        store = self.bench.store(f'store{self.stores}')
        arguments = [*self.random.choice(ARGUMENTS), *OWNER_WAIT, '--lease', f'{self.lease_s}s']
        self.servers = [self.mishap.server(number, store, size=str(self.shape['size']), name=f'cairn{number}',
                                           arguments=arguments) for number in range(2)]
        self.store = store

    def drop_store(self):
        for server in self.servers:
            server.process.kill()
        if self.servers:
            self.bench.cairn('check', *self.store.words(), VOLUME, env=self.store.environment())
            self.store.drop()
        self.servers = []
        self.forget_outputs()

    def forget_outputs(self):
        for process in [process for process in self.bench.processes if not process.running()]:
            process.check_complaints()
            if process.name.startswith('cairn'):
                os.unlink(process.stdout_path)
                os.unlink(process.stderr_path)
                self.bench.processes.remove(process)

    def new_load(self, server, disk):
        load = Load(disk, self.random, depth=self.shape['depth'], flushes=self.shape['flushes'],
                    counts=self.shape['counts'])
        load.connect(server.uri(VOLUME), self.random.choice((1, 2, 4)))
        return load

    def work(self, *loads, until=lambda: False, limit=None):
        """All of them at once, for a while, or until something is so."""
        end = time.monotonic() + (self.random.uniform(0, LOAD_S) if limit is None else limit)
        while not until() and time.monotonic() < end:
            for load in loads:
                load.fill()
                load.poll(1)

    # A round.

    def zombie_round(self):
        first, second = self.servers
        if not second.process.running():
            second.start()
        load = self.new_load(first, self.disk)
        self.work(load)
        if self.random.random() < 0.4:  # a commit is on its way when the blow falls
            for handle in load.handles:
                load.flush(handle)
            self.work(load, limit=self.random.uniform(0, 0.004))
        told_before = len(first.process.stderr())
        self.mishap.begin(first)
        handle = self.take_over(first, second, load)

        zombie = Zombie(load)
        content = read_all(handle, self.disk.size)
        found = self.disk.as_found(content, self.disk.operations + OPERATIONS_APART)
        successor = self.new_load(second, found)
        self.work(successor)
        self.mishap.end(first)
        self.work(load, successor, until=lambda: not load.alive(), limit=PATIENCE_S)
        assert not load.alive(), f'the first server still serves {PATIENCE_S} s after the takeover'
        assert not load.busy(), 'requests neither answered nor failed though the connections are gone'
        zombie.check()
        self.check_story(first, second, told_before)
        self.work(successor)

        self.totals['pages'] += self.disk.settle(lambda offset, length: content[offset:offset + length])
        self.totals['late'] += zombie.late()
        self.end_round(handle, successor, found)
        self.count(load)
        handle.shutdown()
        self.disk = found
        self.servers.reverse()
        self.bury(first)

    def take_over(self, first, second, load):
        """Returns a connection to the second once it has the volume; for the first the mishap may be over by then."""
        waiting = Waiting(second)
        wakes = self.random.random() < 0.4
        most_s = max(TAKEOVER_LEAST_S, TAKEOVER_LEASES * self.lease_s)
        give_up = time.monotonic() + most_s
        while True:
            load.take_arrived()
            limit = self.lease_s * self.random.uniform(0.7, 1.3) if wakes else most_s
            end = time.monotonic() + limit
            while not waiting.is_over(20) and time.monotonic() < end:
                if self.mishap.awake:
                    load.fill()
                    load.poll(1)
            if waiting.let_in():
                return waiting.opening.handle
            assert time.monotonic() < give_up, f'no takeover within {most_s} s'
            self.totals['wakes'] += 1
            self.mishap.end(first)
            self.work(load, until=waiting.let_in)
            if waiting.let_in():
                return waiting.opening.handle
            self.mishap.begin(first)

    def check_story(self, first, second, told_before):
        """What the first has said: that it was taken, and by whom."""
        def told():
            said = first.process.stderr()[told_before:]
            return 'another owner has taken it' in said and f'process {second.process.pid} on host' in said
        wait_until(told, f'{first.name} tells that process {second.process.pid} has taken the volume')
        self.totals['held'] += 'replies are held' in first.process.stderr()[told_before:]

    def end_round(self, handle, successor, found):
        """The second has lost nothing and let nothing in: as it is, flushed, or after a crash."""
        assert not successor.errors, f'the second server has failed requests: {successor.errors[:5]}'
        server, dice = self.servers[1], self.random.random()
        if dice < 0.2:
            server.kill()
            successor.drain(time.monotonic, PATIENCE_S)
            server.start()
            handle = nbd.NBD()
            handle.connect_uri(server.uri(VOLUME))
        else:
            successor.drain(time.monotonic, PATIENCE_S)
            if dice < 0.6:
                successor.flush(successor.handles[0])
                successor.drain(time.monotonic, PATIENCE_S)
            assert not successor.errors, f'the second server has failed requests: {successor.errors[:5]}'
        assert not successor.busy(), 'the second server does not answer'
        if dice < 0.6:
            self.totals['pages'] += found.settle(lambda offset, length: handle.pread(length, offset))
        self.count(successor)

    def count(self, load):
        self.totals['answers'] += load.answers
        self.totals['flushes'] += load.flush_answers
        load.watch = None
        load.close()

    def bury(self, server):
        """It may go on, and take the volume back; or it is ended in one way or the other."""
        dice = self.random.random()
        if dice < 0.25:
            server.kill()
        elif dice < 0.5:
            server.stop()
        self.forget_outputs()

    def run(self, rounds, progress):
        for number in range(rounds):
            if number % ROUNDS_PER_STORE == 0:
                self.fresh_store()
            try:
                self.zombie_round()
            except BaseException:
                print(f'round {number + 1}, store {self.store.url}', file=sys.stderr)
                raise
            if progress and (number + 1) % 10 == 0:
                print(f'\r{number + 1} of {rounds} rounds', end='', file=sys.stderr, flush=True)
        if progress:
            print(file=sys.stderr)
        self.drop_store()


def run(bench, rounds, mishap, lease_s, seed, progress=False):
    """All rounds; returns a line that counts what was done."""
    loop = Loop(bench, random.Random(seed), lease_s, mishap)
    began = time.monotonic()
    loop.run(rounds, progress)
    seconds = time.monotonic() - began
    totals = loop.totals
    what = 'cut off' if mishap is CutOff else 'stopped'
    return (f'{rounds} servers {what}, on {stores.kind()}, lease {lease_s} s; '
            f'back {totals["wakes"]} times before they had lost; '
            f'{loop.stores} stores; {totals["answers"]} requests answered, {totals["flushes"]} flushes, '
            f'replies held in {totals["held"]} rounds, {totals["late"]} were on their way; '
            f'{totals["pages"]} pages checked; '
            f'{seconds / rounds:.2f} s a round; seed {seed}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=100, metavar='N')
    parser.add_argument('--cut', action='store_true', help='cut off from the store, instead of stopped')
    parser.add_argument('--lease', type=int, default=lease_of_kind(), metavar='SECONDS', help='of the servers')
    parser.add_argument('--seed', type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # what was started is ended
    shared = stores.Shared(stores.kind())
    try:
        if arguments.rounds > ROUNDS_PER_PROCESS:
            by_hand.rounds_in_processes(__file__, arguments.rounds, ROUNDS_PER_PROCESS, arguments.seed,
                                        '--lease', str(arguments.lease), *['--cut'] * arguments.cut)
        else:
            with by_hand.bench('zombie', arguments.seed) as bench:
                mishap = CutOff if arguments.cut else Stopped
                print(run(bench, arguments.rounds, mishap, arguments.lease, arguments.seed, sys.stderr.isatty()))
    finally:
        shared.stop()


if __name__ == '__main__':
    main()
