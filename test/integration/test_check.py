"""cairn check: sound volumes pass; whatever is done to one behind its server's back is named, and nothing is changed."""

import json
import os
import random
import threading
import time

from harness import on, wait_until
from load import Steady, connect

MIB = 1 << 20
PAGE = 4096


def check(t, store, *words, volume='disk'):
    """(exit status, the report of --json)"""
    done = t.cairn('check', '--json', *words, *store.words(), volume, check=False)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report['sound'] == (done.returncode == 0), done.stdout
    assert report['sound'] == (report['findings_total'] == 0) and report['complete'], done.stdout
    assert (done.stderr == '') == report['sound'], done.stderr
    return done.returncode, report


def sound(t, store, *words, volume='disk'):
    status, report = check(t, store, *words, volume=volume)
    assert status == 0, report
    return report


def fill(t, rounds=3, export='disk'):
    """A volume with `rounds` checkpoints, a log behind the last, pages inline and in data objects; none of them twice,
    so that every frame is in use."""
    server = t.server(size=str(64 * MIB), arguments=['--release-grace', '0'])
    pages = list(range(64 * MIB // PAGE))
    random.Random(1).shuffle(pages)
    for number in range(rounds + 1):
        handle = connect(server, export)
        for flush in range(5):
            for _ in range(1600 if flush == 2 and number % 2 == 0 else 3):
                handle.pwrite(os.urandom(PAGE), pages.pop() * PAGE)
            handle.flush()
        if number == rounds:
            server.kill()
            break
        handle.shutdown()
        server.restart()
    return server.store


def named(report, key):
    return [finding for finding in report['findings'] if finding['object'] == key]


# ---- sound ones ----


def test_sound(t):
    """Empty, written, released, killed and taken over: sound at every step, with and without the pages."""
    server = t.server(size=str(64 * MIB), arguments=['--release-grace', '0'])
    handle = connect(server)
    report = sound(t, server.store)
    assert report['size'] == 64 * MIB and report['checkpoints'] == 0, report
    rng = random.Random(2)
    checkpoints = 0
    for number in range(4):
        for _ in range(12):
            for _ in range(rng.choice((1, 5, 300))):
                count = rng.choice((1, 1, 3, 32))
                handle.pwrite(os.urandom(count * PAGE), rng.randrange(64 * MIB // PAGE - count) * PAGE)
            handle.zero(2 * MIB, rng.randrange(31) * 2 * MIB)
            handle.flush()
        if number == 2:
            server.kill()
            sound(t, server.store)
            server.start()
        else:
            handle.shutdown()
            server.restart()
        report = sound(t, server.store, '--data')
        assert report['checkpoints'] >= checkpoints, report
        checkpoints = report['checkpoints']
        handle = connect(server)
    assert checkpoints > 1 and report['frames_read'] > 0 and report['log_entries'] > 48, report
    handle.shutdown()
    server.stop()
    before = server.store.fingerprint()
    text = t.cairn('check', '--data', *server.store.words(), 'disk').stdout
    assert text.endswith('\nsound\n') and 'frames of pages read' in text, text
    assert server.store.fingerprint() == before


def test_beside_a_server(t):
    """While a server writes, commits and takes checkpoints.  Not as fast as it can: the check reads the whole log, each
    entry by a request."""
    server = t.server(size=str(64 * MIB), arguments=['--release-grace', '0', '--checkpoint-entries', '20'])
    for number in range(3):
        volume = f'disk{number}'
        steady = Steady(server.uri(volume), random.Random(number), 64 * MIB)
        over = threading.Event()
        failures = []

        def work():
            try:
                while not over.is_set():
                    steady.step()
                    time.sleep(0.005)
                steady.handle.shutdown()
            except Exception as failure:
                failures.append(failure)
        worker = threading.Thread(target=work)
        worker.start()
        try:
            wait_until(lambda: steady.disk.operations > 3 or failures, 'the load is under way')
            for _ in range(3):
                sound(t, server.store, '--data', volume=volume)
        finally:
            over.set()
            worker.join()
        assert not failures, failures
        sound(t, server.store, '--data', volume=volume)  # its checkpoint may be under way
    server.stop()


def test_other_volumes(t):
    """Each volume is judged by itself."""
    server = t.server(size=str(16 * MIB))
    for name in ('disk', 'Other disk'):
        handle = connect(server, name)
        handle.pwrite(b'x' * PAGE, 0)
        handle.flush()
        handle.shutdown()
    server.stop()
    sound(t, server.store, volume='Other disk')
    for key in [key for key in server.store.objects() if '/log/' in key]:
        server.store.remove(key)
    assert check(t, server.store)[0] == 1
    assert check(t, server.store, volume='Other disk')[0] == 1


def test_usage(t):
    server = t.server(size='1MB')
    server.stop()
    words = server.store.words()
    assert t.cairn('check', check=False).returncode == 2
    assert t.cairn('check', *words, check=False).returncode == 2
    assert t.cairn('check', '--fix', *words, 'disk', check=False).returncode == 2
    for flags in ([], ['--json']):
        done = t.cairn('check', *flags, *words, 'absent', check=False)
        assert done.returncode == 1 and done.stdout == '' and "no volume 'absent'" in done.stderr, done
    assert t.cairn('check', '--store', 'dir:' + t.path('nothing'), 'disk', check=False).returncode == 1


# ---- damage ----


def harmed(t, store, key, content, *words):
    """What the check says of the volume while an object has this content (None: while it is not there)."""
    was = store.read(key)
    if content is None:
        store.remove(key)
    else:
        store.write(key, content)
    status, report = check(t, store, *words)
    store.write(key, was)
    return report


def kinds(report, key):
    return {finding['kind'] for finding in named(report, key)}


@on('dir', 'fake')
def test_objects_removed_and_truncated(t):
    """Every single object that can be lost, or its end; but for the last log entry, whose loss nobody can know of."""
    store = fill(t, rounds=2)
    sound(t, store, '--data')
    rng = random.Random(5)
    last = max(key for key in store.written_once() if '/log/' in key)
    for key in store.written_once():
        report = harmed(t, store, key, None)
        assert kinds(report, key) == (set() if key == last else {'missing'}), (key, report)
        content = store.read(key)
        content = rng.choice((content[:len(content) // 2], content[:-64], b'', content + bytes(64)))
        report = harmed(t, store, key, content)
        assert kinds(report, key) == {'damaged'}, (key, len(content), report)
    key = 'volumes/n.disk'
    assert kinds(harmed(t, store, key, store.read(key)[:-8]), key) == {'damaged'}
    sound(t, store, '--data')


@on('dir')
def test_flipped_bits(t):
    """A bit of any object: each page is in use, so all of them count."""
    store = fill(t, rounds=2)
    rng = random.Random(3)
    for key in ['volumes/n.disk', *store.written_once()]:
        content = store.read(key)
        for at in (rng.randrange(64), rng.randrange(len(content)), len(content) - 1):
            changed = bytearray(content)
            changed[at] ^= 1 << rng.randrange(8)
            report = harmed(t, store, key, bytes(changed), '--data')
            assert named(report, key), (key, at, report)
    sound(t, store, '--data')


def test_several_at_once(t):
    """All are told, and the same one once, though four checkpoints name it."""
    store = fill(t)
    objects = sorted(store.written_once())  # data objects first; the last log entry last
    chosen = [objects[0], *random.Random(4).sample(objects[1:-1], 3)]
    for key in chosen:
        store.remove(key)
    _, report = check(t, store)
    assert {finding['object'] for finding in report['findings'] if finding['kind'] == 'missing'} == set(chosen), report
    assert len({json.dumps(finding) for finding in report['findings']}) == len(report['findings']), report
    text = t.cairn('check', *store.words(), 'disk', check=False)
    assert text.returncode == 1 and text.stdout.endswith('NOT SOUND\n'), text
    assert all(key in text.stdout for key in chosen), text.stdout


# ---- what belongs elsewhere ----


def sorted_by(store, part, uuid):
    return sorted(key for key in store.written_once() if key.startswith(f'v/{uuid}/{part}/'))


def test_of_another_volume(t):
    """Entries, pieces, pages and a register of another volume, put in the place of the right ones."""
    server = t.server(size=str(64 * MIB), arguments=['--release-grace', '0'])
    for name in ('disk', 'other'):
        handle = connect(server, name)
        for number in range(6):
            handle.pwrite(os.urandom(7 * MIB if number == 2 else PAGE), number * 8 * MIB)
            handle.flush()
        handle.shutdown()
    server.stop()
    store = server.store
    words = store.words()
    ours = t.cairn_json('info', *words, 'disk')['uuid']
    theirs = t.cairn_json('info', *words, 'other')['uuid']
    for part in ('log', 'data'):
        mine, other = sorted_by(store, part, ours), sorted_by(store, part, theirs)
        assert len(mine) == len(other) > 1
        for key, copy in zip(mine, other):
            report = harmed(t, store, key, store.read(copy), '--data')
            assert 'foreign' in kinds(report, key), (key, report)
        # And of the same volume, of another place.
        report = harmed(t, store, mine[1], store.read(mine[0]), '--data')
        assert kinds(report, mine[1]) & {'foreign', 'damaged'}, report
    report = harmed(t, store, 'volumes/n.disk', store.read('volumes/n.other'))
    assert kinds(report, 'volumes/n.disk') == {'foreign'}, report
    sound(t, store, '--data')


def test_register_put_back(t):
    """Somebody restores an older version of the register."""
    server = t.server(size=str(16 * MIB), arguments=['--release-grace', '0'])
    handle = connect(server)
    handle.pwrite(b'x', 0)
    handle.flush()
    older = server.store.read('volumes/n.disk')
    server.kill()
    server.start()
    connect(server).shutdown()
    server.stop()
    sound(t, server.store)
    server.store.write('volumes/n.disk', older)
    _, report = check(t, server.store)
    findings = named(report, 'volumes/n.disk')
    assert len(findings) == 1 and 'put back to an older state' in findings[0]['detail'], report


def test_newer(t):
    """Of a later version: said to be so, not called damage."""
    store = fill(t, rounds=1)
    content = bytearray(store.read('volumes/n.disk'))
    content[8] = 9
    report = harmed(t, store, 'volumes/n.disk', bytes(content))
    assert kinds(report, 'volumes/n.disk') == {'newer'}, report
    key = sorted(key for key in store.written_once() if '/log/' in key)[0]
    content = bytearray(store.read(key))
    content[8] = 9
    report = harmed(t, store, key, bytes(content))
    assert kinds(report, key) == {'newer'}, report
