"""The register and the checkpoints of a volume, harmed behind the server's back, while somebody owns the volume and
while nobody does; and what owning a volume costs.

What takes long runs on some kinds of store only: these are not about what stores do wrong, for which there is the
fake."""

import os
import random
import signal
import time

import nbd

import store_tree
from harness import Skip, on, wait_until
from load import connect, refused
from s3_proxy import PROGRAM, Proxy
from stores import S3Server, S3Store
from zombie_loop import stop

MIB = 1 << 20
PAGE = 4096
REGISTER = 'volumes/n.disk'
LEASE = ['--lease', '1s']
EPOCHS = 3


class Volume:
    """What a volume holds, by what was flushed."""

    def __init__(self, server, export):
        self.server, self.export = server, export
        self.pages = {}
        self.count = 0

    def write(self, handle, pages=1):
        """New pages, flushed; they count when the flush was answered."""
        fresh = {}
        for _ in range(pages):
            self.count += 1
            offset = self.count * 7 * MIB % (61 * MIB) + self.count * PAGE
            fresh[offset] = random.Random(f'{self.export} {self.count}').randbytes(PAGE)
            handle.pwrite(fresh[offset], offset)
        handle.flush()
        self.pages.update(fresh)

    def verify(self, handle):
        """Wrong bytes fail; returns how many pages could not be read."""
        unreadable = 0
        for offset, content in self.pages.items():
            try:
                assert handle.pread(PAGE, offset) == content, f'{self.export}: wrong bytes at {offset}'
            except nbd.Error as error:
                assert error.errnum == 5, error
                unreadable += 1
        return unreadable

    def sound(self):
        handle = connect(self.server, self.export)
        assert self.verify(handle) == 0
        self.write(handle)
        handle.shutdown()


class Made:
    """A server with two volumes that have had several owners, each of which left a checkpoint, and a log behind it;
    and the registers of 'disk' as they were at the end of each."""

    def __init__(self, t):
        self.t = t
        self.server = t.server(size='64MB', arguments=[*LEASE, '--release-grace', '0'])
        self.store = self.server.store
        self.disk, self.other = Volume(self.server, 'disk'), Volume(self.server, 'other')
        self.registers, self.checkpoints = [], []
        for _ in range(EPOCHS):
            for volume in (self.disk, self.other):
                handle = connect(self.server, volume.export)
                for _ in range(5):
                    volume.write(handle)
                handle.shutdown()
            self.server.restart()
            self.registers.append(self.store.read(REGISTER))
            self.checkpoints.append(sorted(self.data())[-1])

    def uuid(self, export='disk'):
        return self.t.cairn_json('info', *self.store.words(), export)['uuid']

    def data(self, export='disk'):
        uuid = self.uuid(export)
        return [key for key in self.store.objects() if key.startswith(f'v/{uuid}/data/')]

    def put(self, key, content):
        if content is None:
            self.store.remove(key)
        else:
            self.store.write(key, content)

    def get(self, key):
        return self.store.read(key) if key in self.store.objects() else None

    def others_work(self):
        """Nobody else is harmed."""
        self.other.sound()

    def fields(self, *names):
        """Of the register, as `cairn dump` tells them."""
        lines = self.t.cairn('dump', *self.store.words(), REGISTER).stdout.splitlines()
        return [line for line in lines if line.startswith(names)]


def harms_of_register(made):
    """{what: (the register's new content, what must be said)}"""
    return {
        'damaged': (store_tree.flip(300), ('damaged', REGISTER)),
        'truncated': (lambda newest: newest[:100], ('damaged', REGISTER)),
        'newer': (store_tree.flip(8, 1), ('newer', REGISTER)),
        'of another volume': (lambda newest: made.store.read('volumes/n.other'), ('another volume', REGISTER)),
        'of an earlier owner': (lambda newest: made.registers[-2], ('older state', 'put the newest one back')),
        'removed': (lambda newest: None, ('register', 'put it back')),
    }


def said(text, words, what):
    for word in words:
        assert word in text, f'{what}: {word!r} is not in: {text}'


# ---- the register ----


def settled(store):
    """The register, when nothing that was sent before is on its way any more."""
    while True:
        found = store.read(REGISTER)
        time.sleep(0.1)
        if store.read(REGISTER) == found:
            return found


def harm_while_owned(made, what, harm, words):
    server, disk, store = made.server, made.disk, made.store
    told_before = len(server.process.stderr())
    handle = connect(server)
    disk.write(handle)
    # While the server writes nothing, so that it is its newest register that is harmed and put back.
    stop(server.process)
    newest = settled(store)
    harmed = harm(newest)
    made.put(REGISTER, harmed)
    server.process.signal(signal.SIGCONT)

    def dropped():
        try:
            disk.write(handle)  # the log decides: as long as it takes them they are kept
            time.sleep(0.02)
            return False
        except nbd.Error:
            return True
    wait_until(dropped, f'{what}: the clients are dropped')
    wait_until(lambda: 'its clients are dropped' in server.process.stderr()[told_before:], f'{what}: the log tells')
    said(server.process.stderr()[told_before:], words, what)
    assert made.get(REGISTER) == harmed, f'{what}: the register was written over'
    said(refused(server) + server.process.stderr()[told_before:], words, what)
    made.others_work()
    assert made.get(REGISTER) == harmed, f'{what}: the register was written over'
    made.put(REGISTER, newest)
    disk.sound()


@on('dir', 'versitygw', 'minio', 'rgw')
def test_register_while_owned(t):
    """Whoever finds that its register is not what it wrote gives the volume up, names the reason, and writes nothing
    over it; what was flushed until then is there when the register is."""
    made = Made(t)
    for what, (harm, words) in harms_of_register(made).items():
        harm_while_owned(made, what, harm, words)
    made.server.stop()


@on('dir', 'versitygw', 'minio', 'rgw')
def test_register_put_back_while_owned(t):
    """An older version of its own register, as of minutes before: of the same owner, with a lower counter."""
    made = Made(t)
    server = made.server
    handle = connect(server)
    made.disk.write(handle)
    older = made.store.read(REGISTER)
    wait_until(lambda: made.fields('counter')[0] != f'counter: {counter_of(made, older)}', 'it renews its lease')
    harm_while_owned(made, 'of the same owner', lambda newest: older, ('older state', 'put the newest one back'))
    server.stop()


def counter_of(made, register):
    path = made.t.path('register')
    with open(path, 'wb') as file:
        file.write(register)
    text = made.t.cairn('dump', '--file', path, REGISTER).stdout
    return next(line for line in text.splitlines() if line.startswith('counter')).split()[1]


@on('dir', 'versitygw', 'minio', 'rgw')
def test_register_while_free(t):
    """Nobody has the volume.  The server that wrote the register last is asked, and then another, which knows nothing
    but what lies in the store."""
    made = Made(t)
    server, store = made.server, made.store
    made.disk.sound()  # the server has written it
    wait_until(lambda: made.fields('held') == ['held: no'], 'it is released')
    newest = store.read(REGISTER)
    for anew in (False, True):
        for what, (harm, words) in harms_of_register(made).items():
            if anew:
                if what == 'removed':
                    continue  # nothing tells a new server that there was one
                server.stop()
            told_before = 0 if anew else len(server.process.stderr())
            harmed = harm(newest)
            made.put(REGISTER, harmed)
            if anew:
                server.start()
            log_before = [key for key in store.objects() if '/log/' in key]
            said(refused(server) + server.process.stderr()[told_before:], words, what)
            if anew and what == 'of an earlier owner':  # only who has taken it can tell by the log
                wait_until(lambda: made.fields('held') == ['held: no'], 'it is left as it was')
            else:
                assert made.get(REGISTER) == harmed, f'{what}: the register was written over'
            assert [key for key in store.objects() if '/log/' in key] == log_before, f'{what}: the log was written to'
            made.others_work()
            made.put(REGISTER, newest)
    made.disk.sound()
    server.stop()


# ---- checkpoints ----


def harms_of_checkpoint(made):
    newest = made.checkpoints[-1]
    theirs = made.store.read(sorted(made.data('other'))[-1])
    return {
        'removed': lambda content: None,
        'truncated': lambda content: content[:len(content) // 2],
        'empty': lambda content: b'',
        'of another volume': lambda content: theirs,
        'of an earlier checkpoint': lambda content: made.store.read(made.checkpoints[-2]),
        **{f'damaged at {at}': store_tree.flip(at) for at in range(40, len(made.store.read(newest)), 300)},
        'newer': store_tree.flip(8, 1),
    }


def check_noticed(made, key, harmed, what):
    """The volume is refused, or reads of what cannot be known are: never wrong bytes, and the object is named."""
    text = ''
    try:
        handle = connect(made.server)
    except nbd.Error as error:
        text = str(error)
    else:
        assert made.disk.verify(handle) > 0, f'{what}: nobody noticed'
        handle.shutdown()
    text += made.server.process.stderr()
    assert key in text, f'{what}: {key} is not named in: {text}'
    assert made.get(key) == harmed, f'{what}: the object was written over'


@on('dir', 'versitygw', 'minio', 'rgw')
def test_checkpoint_while_free(t):
    made = Made(t)
    server, store = made.server, made.store
    made.disk.write(connect(server))
    server.kill()  # so that there are entries behind the newest checkpoint
    before = {key: store.read(key) for key in store.objects()}
    key = made.checkpoints[-1]
    for what, harm in harms_of_checkpoint(made).items():
        harmed = harm(before[key])
        made.put(key, harmed)
        server.start()
        check_noticed(made, key, harmed, what)
        server.kill()
        # All as it was, also what opening the volume has left.
        for name in store.objects():
            if name not in before:
                store.remove(name)
            elif '/log/' not in name and store.read(name) != before[name]:
                store.write(name, before[name])
        made.put(key, before[key])
    server.start()
    made.disk.sound()
    made.others_work()
    server.stop()


@on('dir', 'versitygw', 'minio', 'rgw')
def test_checkpoint_while_owned(t):
    """All checkpoints are harmed while a server has the volume open.  What it has in memory it goes on with, the rest
    is EIO; what is flushed then is kept, and all of it is there when the checkpoints are mended."""
    made = Made(t)
    server, store, disk = made.server, made.store, made.disk
    for what, harm in {'damaged': store_tree.flip(60), 'removed': lambda content: None}.items():
        handle = connect(server)
        assert disk.verify(handle) == 0
        keys = made.data()
        before = {key: store.read(key) for key in keys}
        for key in keys:
            made.put(key, harm(before[key]))
        for _ in range(5):
            disk.write(handle)
        disk.verify(handle)
        server.kill()
        server.start()
        try:
            handle = connect(server)
            assert disk.verify(handle) > 0, f'{what}: nobody noticed'
        except nbd.Error:
            pass
        assert any(key in server.process.stderr() for key in keys), f'{what}: no key of {keys} is named: ' \
            + server.process.stderr()
        for key in keys:
            assert made.get(key) == harm(before[key]), f'{what}: the object was written over'
            made.put(key, before[key])
        server.kill()
        server.start()
        disk.sound()
    server.stop()


# ---- costs ----


def behind_proxy(t, **options):
    """(proxy, the run's store as seen through it)"""
    if not os.access(PROGRAM, os.X_OK):
        raise Skip(f'{PROGRAM} is not built')
    store = t.store()
    proxy = Proxy(store.server.port, **options)
    t.later(lambda: proxy.popen.poll() is None and proxy.popen.kill())
    return proxy, S3Store(S3Server(proxy.port, access_key=store.server.access_key, secret_key=store.server.secret_key),
                          store.prefix)


LEASE_S = float(os.environ.get('CAIRN_TEST_LEASE_S', '2'))
RENEWALS = int(os.environ.get('CAIRN_TEST_RENEWALS', '5'))


@on('fake', 'minio', 'rgw')
def test_idle_costs(t):
    """A volume that is attached and idle costs a write for each half of its lease and nothing else, so 4 a minute with
    30 s; one that was released costs nothing.  CAIRN_TEST_LEASE_S=30 CAIRN_TEST_RENEWALS=4 measures just that."""
    proxy, store = behind_proxy(t)
    server = t.server(store=store, arguments=['--lease', f'{int(LEASE_S * 1000)}ms', '--release-grace', '0'])
    handle = connect(server)
    handle.pwrite(b'x', 0)
    handle.flush()
    wait_until(lambda: proxy.counts().total('PUT', 'volumes') > 1, 'it renews', timeout=10 * LEASE_S)
    failed_before = server.statistics()['store']['failed']
    proxy.reset()
    began = time.monotonic()
    wait_until(lambda: proxy.counts().total('PUT', 'volumes') >= RENEWALS, 'it renews', timeout=10 * RENEWALS * LEASE_S)
    found, seconds = proxy.counts(), time.monotonic() - began
    # What a slow store did not answer in time is looked for and sent again.
    failed = server.statistics()['store']['failed'] - failed_before
    assert sum(found.requests().values()) == RENEWALS or failed, found
    assert found.requests().keys() <= {'PUT volumes', 'GET volumes'}, found
    # Each is sent at least half a lease after the one before; the first answers may be to what was sent earlier.
    assert seconds > (RENEWALS - 2) * LEASE_S / 2 or failed, f'{RENEWALS} in {seconds} s'
    print(f'idle: {found} in {seconds:.1f} s with a lease of {LEASE_S} s')
    handle.shutdown()
    wait_until(lambda: 'released at log entry' in server.process.stderr(), 'it is released')
    proxy.reset()
    time.sleep(2 * LEASE_S)
    assert proxy.counts().requests() == {}, f'released: {proxy.counts()}'
    server.stop()


@on('s3')
def test_opening_costs(t):
    """A server starts on a store with a released volume by at most 12 requests, and opens it by at most 40."""
    proxy, store = behind_proxy(t)
    server = t.server(store=store, size='1GB', arguments=['--s3-hedge', '0', '--release-grace', '0'])
    volume = Volume(server, 'disk')
    for number in range(3):
        handle = connect(server)
        for _ in range(40):
            volume.write(handle, 3)
        handle.shutdown()
        server.stop()
        proxy.reset()
        server.start()
        started = proxy.counts()
        assert sum(started.requests().values()) <= 12, started
        proxy.reset()
        handle = connect(server)
        assert handle.pread(PAGE, 0) is not None
        opened = proxy.counts()
        assert sum(opened.requests().values()) <= 40, opened
        assert volume.verify(handle) == 0
        handle.shutdown()
    print(f'start: {started}; open, and the first read: {opened}')
    server.stop()


def test_no_wait_after_kill(t):
    """A server that was killed is waited for by nobody on its host: with no time to wait, the volume opens."""
    server = t.server(arguments=['--lease', '10m', '--owner-wait', '0'])
    volume = Volume(server, 'disk')
    for _ in range(3):
        volume.write(connect(server))
        server.kill()
        server.start()
        assert volume.verify(connect(server)) == 0
        assert 'that process is gone' in server.process.stderr(), server.process.stderr()
    server.stop()
