"""A store that misbehaves, under verified load: nothing false is acknowledged, nothing is lost or wrong, work goes on
soon after it has ended, memory stays bounded, and the log tells changes and not retries.

Every request of the server is thrown dice for.  What the disk may hold is decided by disk_model.py; what the store was
asked to do is looked at in the store."""

import collections
import errno
import os
import random
import re
import time

import nbd

from disk_model import Disk, Violation
from harness import sanitized
from load import Load
from stores import FakeServer

ON = ('fake',)
MIB = 1 << 20
SIZE = 8 * MIB
SHARES = (0.01, 0.1)
# Of requests for the same: fewer than the attempts of a server that starts, which fails rightly after so many.
IN_A_ROW = 3
LOAD_S = 1.2
# Service resumes within this time of a fault's end; 60 s of outage are a test by hand.
RESUME_S = 30
OUTAGE_S = float(os.environ.get('CAIRN_TEST_OUTAGE_S', '5'))
START_S = 60  # of a server whose store stalls now and then, which takes ten seconds to be noticed each time
MEMORY = 128 * MIB
SLACK = 64 * MIB
ARGUMENTS = ['--memory', '128MB', '--threads', '1', '--batch-age', '100ms']


class Scene:
    """A fake store, a server on it, a disk and its model."""

    def __init__(self, t, *arguments, control=None):
        self.fake = FakeServer(t)
        self.fake.control(**(control or {}))
        self.store = self.fake.store()
        self.server = t.server(store=self.store, size=str(SIZE), arguments=ARGUMENTS + list(arguments))
        self.disk = Disk(SIZE)
        self.random = random.Random(int.from_bytes(os.urandom(4)))
        self.load = None

    def connect(self, depth=8):
        self.load = Load(self.disk, self.random, depth=depth)
        self.load.connect(self.server.uri(), 3)

    def work(self, seconds):
        end = time.monotonic() + seconds
        self.load.work(lambda: time.monotonic() > end)

    def resume(self):
        """The fault has ended: everything that is under way is answered in time, without an error."""
        self.load.drain(time.monotonic, RESUME_S)
        assert not self.load.busy(), f'requests are not answered {RESUME_S} s after the end of the fault'
        assert not self.load.errors, f'clients saw errors: {collections.Counter(self.load.errors)}'
        self.load.close()

    def settle(self):
        """Every page that was ever touched, read from the store by a server that is new."""
        handle = nbd.NBD()
        handle.connect_uri(self.server.uri())
        self.disk.settle(lambda offset, length: handle.pread(length, offset))
        handle.shutdown()

    def revive(self):
        """kill -9, start, check."""
        self.server.kill()
        self.server.start(ready=False)
        self.server.wait_ready(START_S)
        self.settle()

    def check(self):
        """What must be so whatever happened."""
        check_log(self.server)
        if not sanitized():
            most = self.server.process.memory('VmHWM')
            assert most <= MEMORY + SLACK, f'{most >> 20} MiB resident at most'
        for key, record in self.fake.history().items():
            if '/log/' in key or '/data/' in key:
                assert record['puts'] == 1, f'{key} was written {record["puts"]} times'
            if '/log/' in key or '/data/' in key or '/volumes/' in key:
                assert not record['unconditional'], f'{key} was put without a condition'

    def finish(self):
        self.check()
        self.server.stop()


def check_log(server):
    """No subject says the same trouble twice in a row: after the first time only a change is news."""
    last = {}
    for line in server.process.stderr().splitlines():
        found = re.match(r'\S+ \S+ (DEBUG|INFO|WARNING|ERROR) +(.*)', line)
        assert found, f'a line of no form: {line}'
        level, text = found.groups()
        subject, _, rest = re.match(r"(volume '[^']*'|client .*? pid \d+|s3://.*? at \S+|[^:]*)(: | )(.*)", text).groups()
        trouble = rest[:30] if level in ('WARNING', 'ERROR') else None
        assert trouble is None or trouble != last.get(subject), f'said twice in a row: {line}'
        last[subject] = trouble


def some(rule, share):
    """Of the requests that it fits, those that the dice say."""
    return {**rule, 'probability': share, 'in_a_row': IN_A_ROW}


def faults(t, control=None, start_shares=SHARES, surely=None, **rule):
    """start_shares: with which of the shares a server also starts, and reads all of the log anew; not the larger one
    where each hit costs a second or more.  surely: which requests the first hit is one of, if not any of the rule's."""
    scene = Scene(t, control=control)

    def hits():
        return scene.fake.state()['faults'].get(rule['fault'], 0)

    def begin(share):
        """Requests may be so few, of a slow store or on a slow machine, that chance would pass them by."""
        first = [] if hits() else [{**rule, **(surely or {}), 'times': 1}]
        scene.fake.rules(*first, some(rule, share))

    for share in SHARES:
        begin(share)
        scene.connect()
        scene.work(LOAD_S)
        scene.fake.rules()
        scene.resume()
        scene.check()
        if share in start_shares:
            begin(share)
        scene.revive()
        scene.fake.rules()
    assert hits() > 0, 'nothing was hit'
    scene.finish()
    print(f'{hits()} requests hit, {scene.disk.operations} changes')


# Errors.


def test_slow_down(t):
    faults(t, fault='slow_down', start_shares=SHARES[:1])


def test_throttled(t):
    faults(t, fault='throttled', start_shares=SHARES[:1])


def test_conflict(t):
    faults(t, fault='conflict', on=['PUT'])


def test_internal_error(t):
    faults(t, fault='internal_error')


def test_internal_error_applied(t):
    """It says that it failed, though it did not."""
    faults(t, fault='internal_error', apply='yes')


def test_unavailable_early(t):
    """Answered and hung up on before the body has come."""
    faults(t, fault='unavailable', early=True)


def test_request_timeout(t):
    faults(t, fault='request_timeout', on=['PUT'])


def test_bad_gateway(t):
    faults(t, fault='bad_gateway')


def test_html(t):
    """200, with somebody's web page."""
    faults(t, fault='html')


def test_error_in_200(t):
    faults(t, fault='error_in_200')


# Connections that end.


def test_reset(t):
    faults(t, fault='reset')


def test_truncate(t):
    faults(t, fault='truncate')


def test_reset_upload(t):
    faults(t, fault='reset_upload', on=['PUT'])


def test_fragments(t):
    """The same with a server that takes what has come for the whole, unless it can tell, as versitygw does."""
    faults(t, {'keeps_fragments': True}, fault='reset_upload', on=['PUT'])


def test_fragments_by_hash(t):
    """Such a server that knows of no checksums."""
    faults(t, {'keeps_fragments': True, 'checksums': 'ignored'}, fault='reset_upload', on=['PUT'])


def test_drop(t):
    """The answer is lost, the request was applied."""
    faults(t, fault='drop')


def test_drop_before(t):
    faults(t, fault='drop', apply='no', reset=True)


def test_late(t):
    """The connection is closed, and the request is applied seconds later."""
    faults(t, fault='late', apply=2.0)


# Silence and slowness.


def test_stall(t):
    faults(t, fault='stall', start_shares=SHARES[:1])


def test_stall_applied(t):
    faults(t, fault='stall', apply='yes', on=['PUT'])


def test_drip(t):
    faults(t, fault='drip', rate=500, on=['GET', 'LIST'], start_shares=SHARES[:1],
           surely={'on': ['GET'], 'keys': '/log/'})


def test_slow_upload(t):
    faults(t, fault='slow_upload', rate=100000, on=['PUT'])


def test_delay(t):
    faults(t, fault='delay', seconds=0.5)


# Answers that are wrong.


def test_short(t):
    faults(t, fault='short', on=['GET'])


def test_wrong_range(t):
    faults(t, fault='wrong_range', on=['GET'])


def test_whole(t):
    """200 with the whole object where a part was asked for, which is allowed."""
    faults(t, fault='whole', on=['GET'])


def test_listings(t):
    """Lists are few, so each is hit twice: of a volume that is opened, and of those that somebody asks for."""
    scene = Scene(t)
    scene.connect()
    scene.work(0.3)
    scene.resume()
    for fault in ('truncated_xml', 'html', 'error_in_200', 'truncate', 'slow_down', 'internal_error', 'drop',
                  'garbage'):
        scene.fake.rules({'fault': fault, 'on': ['LIST'], 'times': 2})
        scene.revive()
        scene.fake.rules({'fault': fault, 'on': ['LIST'], 'times': 2})
        listed = t.cairn_json('list', *scene.store.words(), env=scene.store.environment())
        assert [volume['name'] for volume in listed] == ['disk'], (fault, listed)
        assert scene.fake.state()['faults'][fault] == 4, (fault, scene.fake.state())
    scene.finish()


def test_lies_are_noticed(t):
    """A store that says "done" and forgets it: the checks above must fail, else they are worth nothing."""
    scene = Scene(t)
    scene.connect()
    scene.work(0.3)
    scene.resume()
    scene.fake.rules({'fault': 'forget', 'on': ['PUT'], 'keys': '/log/'})
    scene.connect()
    end = time.monotonic() + RESUME_S
    scene.load.work(lambda: scene.load.flush_answers > 3 or time.monotonic() > end)
    assert scene.load.flush_answers > 3, 'no flush was answered'
    scene.load.close()
    scene.fake.rules()
    try:
        scene.revive()
    except (Violation, nbd.Error):
        return
    raise AssertionError('nobody noticed that flushed data was lost')


def test_damage(t):
    """Bits that are flipped on their way: reads may fail, and never return what was not written."""
    scene = Scene(t)
    scene.connect()
    scene.work(0.5)
    scene.resume()
    scene.server.restart()
    scene.fake.rules({'fault': 'corrupt', 'on': ['GET'], 'probability': 0.2})
    scene.load = Load(scene.disk, scene.random)
    try:
        scene.load.connect(scene.server.uri(), 3)
    except nbd.Error:
        pass  # the log could not be read: refused, for now
    scene.work(LOAD_S)
    scene.load.drain(time.monotonic, RESUME_S)
    assert set(scene.load.errors) <= {errno.EIO, errno.ENOTCONN}, collections.Counter(scene.load.errors)
    scene.load.close()
    scene.fake.rules()
    scene.revive()
    scene.server.stop()


# Outages.


def outage(t, begin, end, silent=False):
    """All of it, for a while, under load."""
    scene = Scene(t)
    scene.connect()
    scene.work(LOAD_S)
    begin(scene.fake)
    scene.work(OUTAGE_S)
    end(scene.fake)
    began = time.monotonic()
    answers = scene.load.flush_answers
    scene.load.work(lambda: scene.load.flush_answers > answers + 3 or time.monotonic() - began > RESUME_S)
    assert scene.load.flush_answers > answers + 3, f'no flush was answered {RESUME_S} s after the end of the outage'
    seconds = time.monotonic() - began
    scene.work(LOAD_S)
    scene.resume()
    scene.check()
    text = scene.server.process.stderr()
    told = [text.count(words) for words in ('the store does not answer', 'the store answers again')]
    # What is only slow is not known to be down within a few seconds.
    assert told == [1, 1] or silent and OUTAGE_S < 20 and told == [0, 0], f'said {told} times:\n{text}'
    scene.revive()
    scene.finish()
    print(f'flushes were answered again {seconds:.1f} s after an outage of {OUTAGE_S:.0f} s')


def test_outage_refused(t):
    outage(t, lambda fake: fake.control(outage='refuse'), lambda fake: fake.control(outage=None))


def test_outage_silent(t):
    outage(t, lambda fake: fake.control(outage='silent'), lambda fake: fake.control(outage=None), silent=True)


def test_outage_slow_down(t):
    outage(t, lambda fake: fake.rules({'fault': 'slow_down'}), lambda fake: fake.rules())


def test_outage_html(t):
    """Something stands before the store that says 503 to everything, in HTML."""
    outage(t, lambda fake: fake.rules({'fault': 'html_503'}), lambda fake: fake.rules())


def test_outage_answers_lost(t):
    """Everything is applied, and nothing is answered."""
    outage(t, lambda fake: fake.rules({'fault': 'drop'}), lambda fake: fake.rules())


def test_bursts(t):
    """Total outages of half a second, every second."""
    scene = Scene(t)
    scene.fake.rules({'fault': 'unavailable', 'every_s': 1, 'for_s': 0.5})
    scene.connect()
    scene.work(OUTAGE_S)
    scene.fake.rules()
    scene.resume()
    scene.revive()
    scene.finish()


# kill -9 during all of them.


KILLED_DURING = [
    {'fault': 'slow_down'}, {'fault': 'throttled'}, {'fault': 'conflict', 'on': ['PUT']}, {'fault': 'internal_error'},
    {'fault': 'internal_error', 'apply': 'yes'}, {'fault': 'html'}, {'fault': 'error_in_200'}, {'fault': 'reset'},
    {'fault': 'truncate'}, {'fault': 'reset_upload'}, {'fault': 'drop'}, {'fault': 'drop', 'apply': 'no'},
    {'fault': 'late', 'apply': 1.0}, {'fault': 'stall'}, {'fault': 'stall', 'apply': 'yes'},
    {'fault': 'stall', 'apply': 0.5}, {'fault': 'drip', 'rate': 500}, {'fault': 'delay'}, {'fault': 'short'},
    {'fault': 'wrong_range'}, {'fault': 'slow_upload', 'rate': 100000}]


SLOW = ('stall', 'drip', 'slow_down', 'throttled', 'delay')


def kill_during(t, descriptions):
    """The fault goes on while the server starts again, unless that would take long."""
    scene = Scene(t)
    for rule in descriptions:
        for share in (0.1, 1):
            scene.fake.rules(some(rule, share) if share < 1 else rule)
            scene.connect()
            scene.work(scene.random.uniform(0.1, 0.5))
            if share == 1 or rule['fault'] in SLOW:
                scene.server.kill()
                scene.fake.rules()
                scene.server.start()
                scene.settle()
            else:
                scene.revive()
            scene.load.close()
    scene.fake.rules()
    scene.finish()


def test_kill_during_errors(t):
    kill_during(t, KILLED_DURING[:7])


def test_kill_during_endings(t):
    kill_during(t, KILLED_DURING[7:13])


def test_kill_during_silence(t):
    kill_during(t, KILLED_DURING[13:])


def test_kill_during_outage(t):
    scene = Scene(t)
    for kind in ('refuse', 'silent', 'refuse'):
        scene.connect()
        scene.work(0.3)
        scene.fake.control(outage=kind)
        scene.work(0.5)
        scene.server.kill()
        scene.load.close()
        scene.fake.control(outage=None)
        scene.server.start()
        scene.settle()
    scene.finish()
