#!/usr/bin/python3
"""Lets several servers fight for one volume.

    fight_loop.py [--seconds N] [--servers N] [--cut] [--lease SECONDS] [--seed N]

At each server there is a client that wants the volume all the time: it asks to be let in, works when it is (writes of
unique content, parts of pages, trims, zeroes, reads and flushes on several connections), and asks again when it was
dropped or refused.  Meanwhile, at random: servers get SIGKILL and are started anew, are stopped by a signal for up to
a few leases and go on, are ended in good order; leases are broken; clients hang up.  With --cut each server is on a
host of its own (test/lib/network.py), and is cut off from the store, in one direction or both, for as long.

The history that must hold: whoever is let in reads the whole disk at first.  Takeovers are numbered by the epoch that
servers tell of.  What one owner's clients found must hold everything that was flushed by clients of the owner before,
at whatever time they were told so, and nothing that was sent after; within one owner's time each answer is held
against a model of the disk (test/lib/disk_model.py).  At the end one more server opens the volume, which `cairn
check` must find sound.

CAIRN_TEST_STORE says on what kind of store.  A seed repeats the choices but not the timing."""

import argparse
import os
import random
import re
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib'))
sys.dont_write_bytecode = True

import nbd  # noqa: E402

import by_hand  # noqa: E402
import stores  # noqa: E402
from disk_model import Disk  # noqa: E402
from harness import CAIRN, PATIENCE_S, Server  # noqa: E402
from kill_loop import SMALL, VOLUME  # noqa: E402
from load import Load, Opening, read_all  # noqa: E402
from network import HostServer, Network  # noqa: E402
from zombie_loop import lease_of_kind, stop  # noqa: E402

SIZE = SMALL['size']
# More numbers than the clients of one reign use up.
OPERATIONS_APART = 1 << 24
PAUSE_S = 0.25  # between two mishaps, on average
AWAY_LEASES = 3  # a server stands still, or is cut off, for so many at most
SHARE_OF_MISHAPS = {'kill': 4, 'stop': 8, 'break': 4, 'hang up': 4, 'terminate': 2}
CUTS = {'cut': 8}
END_S = 120  # until all have come to rest


class Reign:
    """The time of one client at one owner: what it found, and a model of what it did to it."""

    def __init__(self, epoch, attached, content, disk, load):
        self.epoch, self.attached = epoch, attached
        self.content = content
        self.disk = disk
        self.load = load
        load.disk = disk

    def order(self):
        return self.epoch, self.attached

    def over(self):
        return not self.load.alive() and not self.load.busy()


class Corner:
    """A server, and the client that wants the volume there."""

    def __init__(self, fight, number):
        self.fight = fight
        self.number = number
        options = {'size': str(SIZE), 'name': f'cairn{number}', 'arguments': fight.arguments}
        if fight.network:
            self.server = HostServer(fight.network, number, fight.store, **options)
        else:
            self.server = Server(fight.bench, store=fight.store, **options)
        self.opening = None
        self.reign = None
        self.epoch = None  # of the last reign
        self.ending = False  # the server was told to end, or killed
        self.goes_on = None  # stopped until then
        self.heals = None  # cut off until then
        self.again = 0  # the client waits until then

    def stands_still(self):
        return self.goes_on is not None

    def rest(self, seconds):
        self.again = time.monotonic() + seconds

    # The client.

    def step(self):
        if self.stands_still() and time.monotonic() > self.goes_on:
            self.go_on()
        if self.heals is not None and time.monotonic() > self.heals:
            self.heal()
        if self.reign:
            self.work()
        elif self.stands_still() or time.monotonic() < self.again:
            pass
        elif not self.server.process.running():
            assert self.ending, f'{self.server.name} ended by itself: {self.server.process.stderr()[-2000:]}'
            self.ending = False
            self.heal()
            self.server.start()
        else:
            self.knock()

    def knock(self):
        try:
            self.opening = self.opening or Opening(self.server.uri(VOLUME))
            ready = self.opening.ready()
        except nbd.Error:
            self.fight.totals['refused'] += 1
            self.forget_opening()
            return
        if ready:
            handle, self.opening = self.opening.handle, None
            self.begin(handle)

    def forget_opening(self):
        self.opening = None
        self.rest(0.1)

    def begin(self, handle):
        """Let in: reads everything, which may be cut short, and goes to work.  All connections are of one reign, since
        the first is there before and after the others."""
        epoch = int(re.findall(rf"volume '{VOLUME}': open: epoch (\d+),", self.server.process.stderr())[-1])
        load = Load(None, self.fight.random, depth=SMALL['depth'], flushes=SMALL['flushes'], counts=SMALL['counts'])
        load.adopt(handle)
        self.heal()  # nobody else gets on until all is read
        try:
            for _ in range(self.fight.random.choice((0, 1, 3))):
                more = nbd.NBD()
                more.connect_uri(self.server.uri(VOLUME))
                load.adopt(more)
            if epoch == self.epoch:  # what is there may not be in the store yet
                handle.flush()
            content = read_all(handle, SIZE)
        except nbd.Error:
            self.rest(0.1)
            return
        self.epoch = epoch
        self.reign = self.fight.found(epoch, content, load)

    def work(self):
        load = self.reign.load
        if not self.stands_still():
            load.fill()
        load.poll(1)
        if self.reign.over():
            self.leave()

    def leave(self):
        self.fight.ended(self.reign)
        self.reign = None

    def hang_up(self):
        """In the middle of everything.  What was under way may happen or not."""
        if self.reign:
            self.reign.load.take_arrived()
            self.leave()
        self.opening = None

    # Mishaps.

    def kill(self):
        if self.stands_still():
            self.goes_on = None
        self.ending = True
        if self.server.process.running():
            self.server.kill()
        self.opening = None
        self.rest(self.fight.random.uniform(0, 1))

    def stop(self, seconds):
        if self.server.process.running() and not self.stands_still():
            stop(self.server.process)
            self.goes_on = time.monotonic() + seconds

    def go_on(self):
        self.server.process.signal(signal.SIGCONT)
        self.goes_on = None

    def cut(self, seconds):
        if self.heals is None and self.server.process.running():
            requests, answers = self.fight.random.choice(((True, False), (False, True), (True, True)))
            self.fight.network.cut(self.number, requests, answers)
            self.heals = time.monotonic() + seconds

    def heal(self):
        if self.heals is not None:
            self.fight.network.heal(self.number)
            self.heals = None

    def terminate(self):
        """In good order; it ends while the others go on."""
        if self.server.process.running() and not self.stands_still():
            self.opening = None
            self.ending = True
            self.server.process.signal(signal.SIGTERM)


class Fight:
    def __init__(self, bench, dice, servers, lease_s, cuts):
        self.bench = bench
        self.random = dice
        self.lease_s = lease_s
        self.store = bench.store('fight')
        self.network = None
        self.mishaps = {**SHARE_OF_MISHAPS, **(CUTS if cuts else {})}
        if cuts:
            self.network = Network(bench, servers)
            self.network.relay(self.store.server.port)
        self.arguments = ['--lease', f'{lease_s}s', '--release-grace', '100ms', '--batch-age', '50ms',
                          '--owner-wait', f'{2 * lease_s}s', '--checkpoint-entries', '20']
        self.history = []  # reigns, by epoch
        self.operations = 0
        self.breaker = None
        self.totals = {name: 0 for name in (*self.mishaps, 'reigns', 'refused', 'answers', 'flushes', 'pages')}
        self.corners = [Corner(self, number) for number in range(servers)]

    # The history.

    def found(self, epoch, content, load):
        """Somebody has read this; what he does has numbers of its own."""
        self.operations += OPERATIONS_APART
        reign = Reign(epoch, self.totals['reigns'], content, Disk(SIZE).as_found(content, self.operations), load)
        self.totals['reigns'] += 1
        self.history.append(reign)
        self.history.sort(key=Reign.order)
        return reign

    def ended(self, reign):
        self.totals['answers'] += reign.load.answers
        self.totals['flushes'] += reign.load.flush_answers
        reign.load.close()
        self.settle()

    def settle(self):
        """Holds each reign that is over against what the next one found; the newest is left."""
        while len(self.history) > 1 and self.history[0].over():
            self.check(self.history[0], self.history[1].content)
            self.history.pop(0)

    def check(self, reign, content):
        self.totals['pages'] += reign.disk.settle(lambda offset, length: content[offset:offset + length])

    def flushes(self):
        return self.totals['flushes'] + sum(corner.reign.load.flush_answers for corner in self.corners if corner.reign)

    # What happens.

    def mishap(self):
        kinds = list(self.mishaps)
        kind = self.random.choices(kinds, [self.mishaps[name] for name in kinds])[0]
        reigning = [corner for corner in self.corners if corner.reign]
        # Mostly to somebody who has, or believes to have, the volume.
        corner = self.random.choice(reigning if reigning and self.random.random() < 0.8 else self.corners)
        self.totals[kind] += 1
        if kind == 'kill':
            corner.kill()
        elif kind == 'stop':
            corner.stop(self.random.uniform(0, AWAY_LEASES * self.lease_s))
        elif kind == 'cut':
            corner.cut(self.random.uniform(0, AWAY_LEASES * self.lease_s))
        elif kind == 'hang up':
            corner.hang_up()
        elif kind == 'terminate':
            corner.terminate()
        elif self.breaker is None:
            self.breaker = self.bench.start('break-lease', [CAIRN, 'break-lease', *self.store.words(), '--yes', VOLUME])

    def look_after(self):
        """Those who come and go by themselves."""
        if self.breaker and not self.breaker.running():
            # It may be overtaken by one of the servers, which it tells; then it has failed.
            assert self.breaker.wait() in (0, 1), self.breaker.stderr()
            self.breaker = None
        current = [corner.server.process for corner in self.corners] + [self.breaker]
        for process in [process for process in self.bench.processes if not process.running()]:
            if process not in current and process.name.startswith(('cairn', 'break')):
                assert process.popen.returncode in (0, 1, -signal.SIGKILL), \
                    f'{process.name} ended with {process.popen.returncode}: {process.stderr()[-2000:]}'
                process.check_complaints()
                os.unlink(process.stdout_path)
                os.unlink(process.stderr_path)
                self.bench.processes.remove(process)

    def go_on(self, seconds, mishaps=True, until=lambda: False):
        end = time.monotonic() + seconds
        due = time.monotonic()
        while time.monotonic() < end and not until():
            for corner in self.corners:
                corner.step()
            if mishaps and time.monotonic() > due:
                self.mishap()
                due = time.monotonic() + self.random.expovariate(1 / PAUSE_S)
            self.look_after()
            if not any(corner.reign for corner in self.corners):
                time.sleep(0.005)

    def run(self, seconds):
        self.go_on(seconds)
        # In peace: somebody must get the volume, and be told that his flushes are done.
        for corner in self.corners:
            if corner.stands_still():
                corner.go_on()
            corner.heal()
        before = self.flushes()
        self.go_on(END_S, False, lambda: self.flushes() > before + 10)
        assert self.flushes() > before + 10, f'nobody has the volume within {END_S} s of peace'
        self.end()

    def end(self):
        for corner in self.corners:
            corner.kill()
        for corner in self.corners:
            if corner.reign:
                corner.reign.load.drain(time.monotonic, PATIENCE_S)
                corner.leave()
        if self.breaker:
            self.breaker.wait(END_S)
        server = self.corners[0].server
        server.start()
        handle = nbd.NBD()
        handle.connect_uri(server.uri(VOLUME))
        content = read_all(handle, SIZE)
        self.settle()
        assert len(self.history) == 1, self.history
        self.check(self.history[0], content)
        handle.shutdown()
        server.stop()
        self.bench.cairn('check', '--data', *self.store.words(), VOLUME, env=self.store.environment())


def run(bench, seconds, servers, lease_s, seed, cuts=False):
    """Returns a line that counts what was done."""
    fight = Fight(bench, random.Random(seed), servers, lease_s, cuts)
    fight.run(seconds)
    totals = fight.totals
    epoch = bench.cairn_json('info', *fight.store.words(), VOLUME, env=fight.store.environment())['epoch']
    mishaps = ', '.join(f'{totals[name]} x {name}' for name in fight.mishaps)
    return (f'{servers} servers for {seconds} s on {stores.kind()}, lease {lease_s} s: {epoch} epochs, '
            f'{totals["reigns"]} times clients were let in, {totals["refused"]} times refused; {mishaps}; '
            f'{totals["answers"]} requests answered, {totals["flushes"]} flushes; {totals["pages"]} pages checked; '
            f'seed {seed}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--seconds', type=int, default=600, metavar='N')
    parser.add_argument('--servers', type=int, default=3, metavar='N')
    parser.add_argument('--cut', action='store_true', help='servers are also cut off from the store')
    parser.add_argument('--lease', type=int, default=lease_of_kind(), metavar='SECONDS', help='of the servers')
    parser.add_argument('--seed', type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # what was started is ended
    shared = stores.Shared(stores.kind())
    try:
        with by_hand.bench('fight', arguments.seed) as bench:
            print(run(bench, arguments.seconds, arguments.servers, arguments.lease, arguments.seed, arguments.cut))
    finally:
        shared.stop()


if __name__ == '__main__':
    main()
