"""Stores, objects, settings and clients that are not as they should be."""

import os
import random
import socket
import struct
import time

import nbd

import store_tree
from harness import CAIRN, Skip, free_port, need_root, need_tool, on, wait_until
from load import Steady, connect, refused
from stores import DirStore
from wire import (ERROR_INVALID, ERROR_TOO_BIG, OPTION_GO, OPTION_INFO, READ, REPLY_ACK, WRITE, Closed, Wire)

MIB = 1 << 20


def serve_refused(t, *arguments, store, status=1, timeout=30):
    """`cairn serve` must end by itself, with `status` and one line on stderr; returns the line."""
    words = ['--unix', t.path('refused.sock')] + list(arguments)
    words += (DirStore(store) if isinstance(store, str) else store).words()
    done = t.cairn('serve', *words, check=False, timeout=timeout)
    assert done.returncode == status, f'status {done.returncode}, not {status}: {done.stderr}'
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, f'not one line: {done.stderr}'
    return lines[0]


# ---- stores ----


@on('dir')
def test_foreign_directory(t):
    """A directory with other people's files: refused, nothing of it touched."""
    store = t.path('home')
    os.makedirs(os.path.join(store, 'photos'))
    with open(os.path.join(store, 'photos', 'cat.jpg'), 'w') as file:
        file.write('cat')
    before = store_tree.fingerprint(store)
    line = serve_refused(t, store=store)
    assert store in line, line
    assert store_tree.fingerprint(store) == before


@on('dir')
def test_store_is_a_file(t):
    with open(t.path('file'), 'w') as file:
        file.write('something')
    line = serve_refused(t, store=t.path('file'))
    assert t.path('file') in line, line
    with open(t.path('file')) as file:
        assert file.read() == 'something'
    line = serve_refused(t, store=t.path('file', 'below'))
    assert t.path('file') in line, line


@on('dir')
def test_store_not_writable(t):
    """Permissions do not bind root: where that is all there is, a read-only file system does."""
    store = t.path('store')
    t.server(store=store).stop()
    if os.geteuid() == 0:
        need_tool('setpriv')
        os.chmod(t.dir, 0o755)
        words = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', CAIRN]
        probe = t.run(words + ['--version'], check=False)
        if probe.returncode != 0:
            raise Skip('nobody may not run the server where it lies')
    else:
        words = [CAIRN]
        for directory, _, _ in os.walk(store):
            os.chmod(directory, 0o555)
    port = free_port()
    done = t.run(words + ['serve', '--store', 'dir:' + store, '--host', '127.0.0.1', '--port', port], check=False,
                 timeout=30)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert store in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def mount(t, name, *words):
    """A mount that goes with the test."""
    need_root()
    need_tool('mount')
    directory = t.path(name)
    os.makedirs(directory, exist_ok=True)
    if t.run(['mount', *words, directory], check=False).returncode != 0:
        raise Skip('mounting is not allowed here')
    t.later(lambda: t.run(['umount', '-l', directory], check=False))
    return directory


@on('dir')
def test_read_only_file_system(t):
    directory = mount(t, 'mnt', '-t', 'tmpfs', '-o', 'size=32m', 'tmpfs')
    store = os.path.join(directory, 'store')
    server = t.server(store=store, size='16MB')
    handle = connect(server)
    handle.pwrite(b'kept', 0)
    handle.flush()
    handle.shutdown()
    server.stop()
    t.run(['mount', '-o', 'remount,ro', directory])
    before = store_tree.fingerprint(store)
    line = serve_refused(t, store=store)
    assert store in line and 'ead-only' in line, line
    # Looking needs no writing.
    for words in (['list'], ['info', 'disk'], ['dump', 'volumes/n.disk']):
        assert 'disk' in t.cairn(*words, '--store', f'dir:{store}').stdout, words
    assert store_tree.fingerprint(store) == before
    t.run(['mount', '-o', 'remount,rw', directory])
    server.start()
    assert connect(server).pread(4, 0) == b'kept'
    server.stop()


@on('dir')
def test_becomes_read_only(t):
    """The file system goes read-only under a server that has unwritten data, and comes back."""
    directory = mount(t, 'mnt', '-t', 'tmpfs', '-o', 'size=64m', 'tmpfs')
    server = t.server(store=os.path.join(directory, 'store'), size='16MB', arguments=['--flush-deadline', '2s'])
    handle = connect(server)
    handle.pwrite(b'before', 0)
    handle.flush()
    t.run(['mount', '-o', 'remount,ro', directory])
    handle.pwrite(b'during', 8192)
    try:
        handle.flush()
        raise AssertionError('a flush succeeded though nothing can be written')
    except nbd.Error:
        pass
    assert handle.pread(6, 8192) == b'during'
    t.run(['mount', '-o', 'remount,rw', directory])
    wait_until(lambda: flush_succeeds(handle), 'a flush succeeds again')
    server.kill()
    server.start()
    handle = connect(server)
    assert handle.pread(6, 0) == b'before' and handle.pread(6, 8192) == b'during'
    server.stop()


def flush_succeeds(handle):
    try:
        handle.flush()
        return True
    except nbd.Error:
        return False


@on('dir')
def test_full_disk(t):
    """No space during a flush: it fails, says so, the data stays; with room made a later flush succeeds."""
    directory = mount(t, 'mnt', '-t', 'tmpfs', '-o', 'size=24m', 'tmpfs')
    ballast = os.path.join(directory, 'ballast')
    server = t.server(store=os.path.join(directory, 'store'), size='64MB', arguments=['--flush-deadline', '3s'])
    handle = connect(server)
    handle.pwrite(b'a' * 4096, 0)
    handle.flush()
    with open(ballast, 'wb') as file:
        try:
            while True:
                file.write(bytes(65536))
                file.flush()
        except OSError:
            pass
    dice = random.Random(5)
    data = dice.randbytes(6 * MIB)
    handle.pwrite(data, MIB)
    failures = 0
    for _ in range(2):
        try:
            handle.flush()
        except nbd.Error as error:
            failures += 1
            assert error.errnum in (28, 5), error
    assert failures == 2, 'a flush succeeded though the disk is full'
    assert handle.pread(len(data), MIB) == data
    assert 'o space left' in server.process.stderr(), server.process.stderr()
    os.unlink(ballast)
    wait_until(lambda: flush_succeeds(handle), 'a flush succeeds when there is room')
    server.kill()
    server.start()
    handle = connect(server)
    assert handle.pread(len(data), MIB) == data and handle.pread(4096, 0) == b'a' * 4096
    handle.shutdown()
    server.stop()


@on('dir')
def test_full_disk_at_stop(t):
    """Stopped with data that cannot be saved: exit status 1, and it says what was lost."""
    directory = mount(t, 'mnt', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs')
    server = t.server(store=os.path.join(directory, 'store'), size='64MB', arguments=['--shutdown-deadline', '2s'])
    handle = connect(server)
    handle.pwrite(b'a' * 4096, 0)
    handle.flush()
    handle.pwrite(random.randbytes(20 * MIB), MIB)
    server.stop(expect=1)
    assert "'disk'" in server.process.stderr(), server.process.stderr()
    t.run(['mount', '-o', 'remount,size=64m', directory])
    server.start()
    assert connect(server).pread(4096, 0) == b'a' * 4096
    server.stop()


# ---- objects ----


def make_store(t):
    """A store with two volumes: 'bad', whose objects a test harms, has commits and a data object; 'good' lives on.  The
    server is killed, so there is no checkpoint that would stand for the commits."""
    server = t.server(size='64MB')
    for export in ('bad', 'good'):
        handle = connect(server, export)
        for number in range(3):
            handle.pwrite(random.Random(number).randbytes(8192), number * MIB)
            handle.flush()
        if export == 'bad':
            handle.pwrite(random.Random(9).randbytes(12 * MIB), 16 * MIB)
            handle.flush()
    server.kill()
    return server


def keys_of_bad(server, part):
    """Keys of 'bad' that hold `part`: its UUID is the one that has data objects."""
    made = server.store.written_once()
    data = [key for key in made if '/data/' in key]
    assert data, f'no data object was made: {made}'
    root = data[0][:data[0].index('/data/')]
    return sorted(key for key in made if key.startswith(root) and part in key)


def check_harmed(t, server, key, harm, what):
    """'bad' with the object `key` harmed is refused, or its harmed part is (EIO, never wrong bytes); what is wrong is
    named, nothing is overwritten, 'good' works on; then it is mended.  Returns what was said."""
    whole = {name: server.store.read(name) for name in server.store.contents()}
    server.store.write(key, harm(whole[key]))
    before = server.store.contents()
    dumped = t.cairn('dump', *server.store.words(), key, check=False)
    assert dumped.returncode == 1, f'{what}: dump of {key} says nothing is wrong: {dumped.stdout}'
    server.start()
    said = ''
    try:
        handle = connect(server, 'bad')
    except nbd.Error as error:
        said = str(error)
    else:
        assert '/log/' in key, f'{what}: was accepted'
        wrong = read_bad(handle)
        assert wrong, f'{what}: nobody noticed'
        handle.shutdown()
    said += server.process.stderr()
    named = key in said or "'bad'" in said and f'log entry {key.rpartition("/")[2].lstrip("0")} ' in said
    assert named, f'{what}: {key} is not named in: {said}'
    server.stop()  # so that nothing is under way
    after = server.store.contents()
    changed = [name for name in before if before[name] != after.get(name)]
    # Who takes a volume over writes its register; what is damaged is never touched, nor is what is written once.
    assert key not in changed, f'{what}: it was overwritten'
    assert [name for name in changed if name.startswith('v/')] == [], f'{what}: changed: {changed}'
    server.start()
    good = connect(server, 'good')
    assert good.pread(8192, MIB) == random.Random(1).randbytes(8192), what
    good.pwrite(b'on', 32 * MIB)
    good.flush()
    good.shutdown()
    server.stop()
    put_back(server.store, whole)
    return said


def put_back(store, whole):
    """All objects as they were."""
    for name in store.contents():
        if name not in whole:
            store.remove(name)
    for name, content in whole.items():
        store.write(name, content)


def read_bad(handle):
    """Reads what make_store() wrote; wrong bytes fail.  Returns how many reads were answered with EIO."""
    errors = 0
    expected = [(number * MIB, random.Random(number).randbytes(8192)) for number in range(3)]
    expected.append((16 * MIB, random.Random(9).randbytes(12 * MIB)))
    for offset, content in expected:
        # Every page of the small ones; of the large one a page of every other frame.
        for at in range(0, len(content), 4096 if len(content) < MIB else 260 << 10):
            try:
                assert handle.pread(4096, offset + at) == content[at:at + 4096], 'wrong bytes'
            except nbd.Error as error:
                assert error.errnum == 5, error
                errors += 1
    return errors


def harms():
    return {'truncated': lambda content: content[:len(content) // 2],
            'empty': lambda content: b'',
            'a bit flipped in the middle': lambda content: store_tree.flip(min(len(content) // 2, 200))(content),
            'a bit flipped at the front': store_tree.flip(0),
            'foreign': lambda content: b'GIF89a' + random.Random(1).randbytes(len(content))}


def test_damaged_register(t):
    server = make_store(t)
    for what, harm in harms().items():
        check_harmed(t, server, 'volumes/n.bad', harm, 'register ' + what)
    mended(t, server)


def test_damaged_commit(t):
    server = make_store(t)
    keys = keys_of_bad(server, '/log/')
    for what, harm in harms().items():
        for key in (keys[1], keys[-2]):
            check_harmed(t, server, key, harm, 'commit ' + what)
    mended(t, server)


def test_missing_commit(t):
    """A hole in the log is damage, never the end of the disk."""
    server = make_store(t)
    store = server.store
    key = keys_of_bad(server, '/log/')[2]
    hidden = store.read(key)
    store.remove(key)
    before = store.contents()
    server.start()
    refused(server, 'bad')
    connect(server, 'good').shutdown()
    after = store.contents()
    for name, state in before.items():
        if '/log/' in name:
            assert after.get(name) == state, name
    assert key not in after, 'something was put where the commit is missing'
    server.stop()
    store.write(key, hidden)
    mended(t, server)


def test_misplaced_commit(t):
    """A sound entry under another's key."""
    server = make_store(t)
    keys = keys_of_bad(server, '/log/')
    other = server.store.read(keys[-2])
    check_harmed(t, server, keys[1], lambda content: other, 'commit of another slot')
    mended(t, server)


def test_damaged_data(t):
    """A data object's damage is found by who reads it: EIO for that, never wrong bytes, all else works."""
    server = make_store(t)
    key = keys_of_bad(server, '/data/')[0]
    sound = server.store.read(key)
    for what, harm in harms().items():
        harmed = harm(sound)
        server.store.write(key, harmed)
        server.start()
        handle = connect(server, 'bad')
        assert handle.pread(8192, 0) == random.Random(0).randbytes(8192)
        assert read_bad(handle), f'{what}: nobody noticed'
        handle.pwrite(b'x', 40 * MIB)
        handle.flush()
        handle.shutdown()
        connect(server, 'good').shutdown()
        assert server.store.read(key) == harmed, f'{what}: it was overwritten'
        server.stop()
    server.store.write(key, sound)
    mended(t, server)


def test_newer_format(t):
    """A register or a commit of a later version of the format is left alone, and is said to be newer."""
    server = make_store(t)
    # The version is the number behind the eight bytes of magic; what it covers may differ, so it is looked at first.
    for key in ('volumes/n.bad', keys_of_bad(server, '/log/')[1]):
        text = check_harmed(t, server, key, store_tree.flip(8, 1), 'newer format')
        assert 'newer' in text, text
    mended(t, server)


def test_damaged_marker(t):
    server = make_store(t)
    mended(t, server)  # and stopped in good order, so that nothing is left of it to clean up
    sound = server.store.read('cairn')
    for what, content in {'empty': b'', 'foreign': b'hello\n', 'newer': sound.replace(b'format: 1', b'format: 9')}.items():
        server.store.write('cairn', content)
        before = server.store.fingerprint()
        line = serve_refused(t, store=server.store)
        assert server.store.place in line, f'{what}: {line}'
        assert server.store.fingerprint() == before, what
    server.store.write('cairn', sound)
    mended(t, server)


def mended(t, server):
    """With all objects sound again everything is as it was."""
    server.start()
    for export in ('bad', 'good'):
        handle = connect(server, export)
        for number in range(3):
            assert handle.pread(8192, number * MIB) == random.Random(number).randbytes(8192)
        handle.shutdown()
    server.stop()


# ---- settings ----


def test_sizes(t):
    for size in ('', '0', '0MB', '-1', 'big', '1XB', '1.5GB', '12345', '65TB', '99999999999999999999', '1GB1', ' '):
        line = serve_refused(t, '--size', size, store=t.store(), status=2)
        assert '--size' in line, line
        assert not t.store().exists(), size
    for size, wanted in {'512': 512, '1K': 1024, '128K': 128 << 10, '512MB': 512 << 20, '2TB': 2 << 40,
                         '64TB': 64 << 40, '1536': 1536}.items():
        server = t.server(store='store' + size, size=size)
        handle = connect(server)
        assert handle.get_size() == wanted, size
        handle.pwrite(b'z', wanted - 1)
        handle.flush()
        assert handle.pread(1, wanted - 1) == b'z'
        handle.shutdown()
        server.stop()


def test_port_in_use(t):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = serve_refused(t, '--host', '127.0.0.1', '--port', port, store=t.store())
        assert str(port) in line and '--port' in line, line


def test_unix_path(t):
    """A socket that lives is left alone; one that was left behind is replaced; no other file ever is."""
    server = t.server()
    connect(server).shutdown()
    done = t.cairn('serve', *t.store('other').words(), '--unix', server.socket, check=False, timeout=30)
    assert done.returncode == 1 and server.socket in done.stderr, done.stderr
    connect(server).shutdown()
    server.kill()
    assert os.path.exists(server.socket)
    server.start()
    server.stop()
    with open(t.path('precious'), 'w') as file:
        file.write('precious')
    done = t.cairn('serve', *t.store('other').words(), '--unix', t.path('precious'), check=False, timeout=30)
    assert done.returncode == 1 and t.path('precious') in done.stderr, done.stderr
    with open(t.path('precious')) as file:
        assert file.read() == 'precious'
    done = t.cairn('serve', *t.store('other').words(), '--unix', t.path('x' * 200), check=False, timeout=30)
    assert done.returncode in (1, 2) and 'x' * 20 in done.stderr, done.stderr


def test_names(t):
    """Names of any shape are volumes inside the store, or are refused; nothing is made outside of it."""
    os.mkdir(t.path('parent'))
    server = t.server(store='parent/store', size='1MB')
    good = [b'x' * 4096, b'a/b/c', b'/etc/passwd', b'..', b'../../evil', b'.', b'./x', b'a' * 201, b'%2e%2e', b'n.x',
            b'\xc3\xa4', b'con', b'-', b'\x01', b'\n', b' ', b'h.' + b'0' * 64]
    for name in good:
        wire = Wire(server.socket)
        kind, _ = wire.go(name)
        assert kind == REPLY_ACK, (name, kind)
        error, _ = wire.request(WRITE, 0, 8, payload=struct.pack('>Q', hash(name) & 0xffffffff))
        assert error == 0
        assert wire.request(3)[0] == 0
        wire.close()
    bad = {b'a\0b': ERROR_INVALID, b'\0': ERROR_INVALID, b'\xff\xfe': ERROR_INVALID, b'a\xc3': ERROR_INVALID,
           b'\xed\xa0\x80': ERROR_INVALID, b'\xc0\xaf': ERROR_INVALID}
    for name, wanted in bad.items():
        for option in (OPTION_GO, OPTION_INFO):
            wire = Wire(server.socket)
            kind, _ = wire.go(name, option)
            assert kind == wanted, (name, hex(kind))
            assert wire.go(b'fine')[0] == REPLY_ACK  # in sync still
            wire.close()
    wire = Wire(server.socket)
    kind, _ = wire.go(b'x' * 4097)
    assert kind in (ERROR_INVALID, ERROR_TOO_BIG), hex(kind)
    assert wire.go(b'fine')[0] == REPLY_ACK
    wire.close()
    server.restart()
    for name in good:
        wire = Wire(server.socket)
        assert wire.go(name)[0] == REPLY_ACK
        assert wire.request(READ, 0, 8) == (0, struct.pack('>Q', hash(name) & 0xffffffff)), name
        wire.close()
    server.stop()
    assert server.store.beside() == []
    listed = t.cairn_json('list', *server.store.words())
    volumes = listed['volumes'] if isinstance(listed, dict) else listed
    assert len(volumes) == len(good) + 1, listed


# ---- clients, while another works ----


class Company:
    """A verified client beside the one that misbehaves."""

    def __init__(self, server):
        self.steady = Steady(server.uri('steady'), random.Random(1), 16 * MIB)

    def check(self, steps=10):
        for _ in range(steps):
            self.steady.step()


def serve_company(t, *arguments):
    server = t.server(size='16MB', arguments=list(arguments))
    company = Company(server)
    company.check()
    return server, company


def finish_company(server, company):
    company.check()
    company.steady.verify_all()
    company.steady.handle.shutdown()
    server.stop()


def test_random_bytes(t):
    server, company = serve_company(t)
    dice = random.Random(3)
    for number in range(60):
        wire = Wire(server.socket, greet=number % 2 == 0)
        try:
            if number % 3 == 0:
                wire.go(b'victim')
            wire.send(dice.randbytes(dice.choice((1, 20, 1000, 100000))))
        except (Closed, BrokenPipeError, ConnectionResetError):
            pass
        wire.close()
        company.check(1)
    finish_company(server, company)


def test_silence(t):
    """Half a handshake and silence: hung up on at the deadline, and until then no bother to others."""
    server, company = serve_company(t, '--handshake-deadline', '1s')
    silent = [Wire(server.socket, greet=False)]
    for part in (b'', b'IHAVEOPT', Wire.option_bytes(None, OPTION_GO, b'', 100) + b'half'):
        wire = Wire(server.socket)
        wire.send(part)
        silent.append(wire)
    company.check()
    for wire in silent:
        wire.closed()
    finish_company(server, company)


def test_payload_that_does_not_come(t):
    """A WRITE header and part of its payload: nobody waits for it, a flush of others neither, and nothing of it is
    seen."""
    server, company = serve_company(t)
    stuck = []
    for length in (4096, MIB, 32 * MIB):
        wire = Wire(server.socket)
        assert wire.go(b'steady')[0] == REPLY_ACK if length <= MIB else wire.go(b'other')[0] == REPLY_ACK
        wire.send(wire.request_bytes(WRITE, 0, min(length, 16 * MIB)) + b'\xee' * (length // 2))
        stuck.append(wire)
    company.check()
    company.steady.verify_all()
    for wire in stuck:
        wire.close()
    finish_company(server, company)


def test_tiny_options(t):
    """Options without end: answered or hung up on, nobody else notices, memory does not grow."""
    server, company = serve_company(t)
    before = server.process.memory('VmRSS')
    wire = Wire(server.socket)
    one = wire.option_bytes(77)
    sent = 0
    wire.socket.setblocking(False)
    end = time.monotonic() + 20
    while sent < 1000000 and time.monotonic() < end:
        try:
            wire.socket.send(one * 1000)
            sent += 1000
        except BlockingIOError:
            try:
                if not wire.socket.recv(1 << 20):
                    break
            except BlockingIOError:
                time.sleep(0.001)
            except ConnectionResetError:
                break
        except (BrokenPipeError, ConnectionResetError):
            break
        if sent % 100000 == 0:
            company.check(1)
    grown = server.process.memory('VmRSS') - before
    assert grown < 32 * MIB, f'{grown >> 20} MiB more after {sent} options'
    wire.close()
    finish_company(server, company)


def test_never_reads(t):
    """A client that asks for much and reads nothing: its replies do not pile up in memory."""
    server, company = serve_company(t)
    before = server.process.memory('VmRSS')
    greedy = []
    for _ in range(4):
        wire = Wire(server.socket)
        assert wire.go(b'greedy')[0] == REPLY_ACK
        assert wire.request(WRITE, 0, 8 * MIB, payload=b'g' * (8 * MIB))[0] == 0
        wire.socket.setblocking(False)
        try:
            for _ in range(2000):
                wire.send(wire.request_bytes(READ, 0, 8 * MIB))
        except BlockingIOError:
            pass  # the server has stopped reading, as it should
        greedy.append(wire)
    company.check(50)
    grown = server.process.memory('VmRSS') - before
    assert grown < 256 * MIB, f'{grown >> 20} MiB more'
    for wire in greedy:
        wire.close()
    finish_company(server, company)


def test_hangs_up(t):
    """Clients that vanish in the middle of everything."""
    server, company = serve_company(t)
    dice = random.Random(4)
    for number in range(50):
        wire = Wire(server.socket)
        assert wire.go(b'victim')[0] == REPLY_ACK
        requests = b''
        for _ in range(20):
            command = dice.choice((READ, WRITE, 3, 4, 5, 6))
            length = 0 if command == 3 else dice.randrange(1, 65536)
            offset = 0 if command == 3 else dice.randrange(8 * MIB)
            requests += wire.request_bytes(command, offset, length)
            if command == WRITE:
                requests += dice.randbytes(length)
        wire.send(requests[:dice.randrange(len(requests))])
        wire.close()
        if number % 5 == 0:
            company.check(1)
    finish_company(server, company)


def test_many_connections(t):
    """Over the cap of connections: the newcomers are hung up on, those who are in work on."""
    server, company = serve_company(t, '--connections', '20', '--threads', '1')
    crowd = []
    for _ in range(60):
        wire = Wire(server.socket, greet=False)
        crowd.append(wire)
    greeted = 0
    for wire in crowd:
        try:
            wire.receive(18)
            greeted += 1
        except Closed:
            pass
    assert 1 <= greeted <= 20, greeted
    company.check()
    for wire in crowd:
        wire.close()
    finish_company(server, company)
