"""Who may have a disk at once, and what becomes of it when a client goes in one way or another."""

import ctypes
import os
import socket
import struct
import time

import nbd

from harness import REPOSITORY, Server, Skip, need_root, need_tool, wait_until
from wire import (DISCONNECT, ERROR_POLICY, FLUSH, OPTION_EXPORT_NAME, OPTION_GO, OPTION_INFO, OPTION_LIST, READ,
                  REPLY_ACK, REPLY_SERVER, SIMPLE_MAGIC, WRITE, Closed, Wire)

ON = ('dir',)  # what clients do to each other is not about where disks are kept
PAGE = 4096
NOBODY = 65534


def tcp(server, source):
    return Wire(('127.0.0.1', server.port), source=source)


def told(reply):
    """The text of a refusal."""
    kind, text = reply
    assert kind == ERROR_POLICY, hex(kind)
    return text.decode()


def attached(wire, export=b'disk'):
    kind, data = wire.go(export)
    assert kind == REPLY_ACK, (hex(kind), data)
    return wire


def answer(wire):
    magic, error, _ = struct.unpack('>IIQ', wire.receive(16))
    assert magic == SIMPLE_MAGIC, hex(magic)
    return error


# ---- who may share ----


def test_peer(t):
    """Any number of connections from one address; another address is told who is in; looking is free."""
    server = t.server(tcp=True)
    first, second = attached(tcp(server, '127.0.0.1')), attached(tcp(server, '127.0.0.1'))
    stranger = tcp(server, '127.0.0.2')
    text = told(stranger.go(b'disk'))
    assert "volume 'disk' is in use by 127.0.0.1 since " in text and 'with 2 connections' in text, text
    assert '--sharing=any' in text, text
    assert stranger.go(b'disk', OPTION_INFO)[0] == REPLY_ACK
    assert [kind for kind, _ in stranger.option(OPTION_LIST)] == [REPLY_SERVER, REPLY_ACK]
    wait_until(lambda: "refused: volume 'disk' is in use by 127.0.0.1" in server.process.stderr(), 'the log tells')
    old_way = tcp(server, '127.0.0.2')
    old_way.send(old_way.option_bytes(OPTION_EXPORT_NAME, b'disk'))
    old_way.closed()
    # Somebody else's disk is another matter, and so is this one when it is free.
    other = attached(tcp(server, '127.0.0.2'), b'other')
    assert first.request(WRITE, 0, PAGE, payload=b'1' * PAGE)[0] == 0
    assert second.request(READ, 0, PAGE) == (0, b'1' * PAGE)
    first.send(first.request_bytes(DISCONNECT))
    first.closed()
    assert 'connections' not in told(stranger.go(b'disk')).split(':')[1]
    second.close()
    wait_until(lambda: stranger.go(b'disk')[0] == REPLY_ACK, 'the next one gets it')
    assert stranger.request(READ, 0, PAGE) == (0, b'1' * PAGE)
    other.close()
    server.stop()


def test_peer_users(t):
    """On a unix socket it is the user that counts; TCP is somebody else."""
    need_root()
    server = t.server(tcp=True)
    for path, mode in ((t.dir, 0o711), (server.socket, 0o777)):
        os.chmod(path, mode)

    def as_nobody():
        here = os.getcwd()
        os.chdir(t.dir)  # the directories above may be closed to it
        os.seteuid(NOBODY)
        try:
            return Wire(os.path.basename(server.socket))
        finally:
            os.seteuid(0)
            os.chdir(here)

    first, second = attached(as_nobody()), attached(as_nobody())
    for stranger in (Wire(server.socket), tcp(server, '127.0.0.1')):
        text = told(stranger.go(b'disk'))
        assert f'in use by unix uid {NOBODY} since' in text, text
    for wire in (first, second):
        wire.close()
    server.stop()


def test_single(t):
    server = t.server(tcp=True, arguments=['--sharing', 'single'])
    first = attached(tcp(server, '127.0.0.1'))
    second = tcp(server, '127.0.0.1')
    text = told(second.go(b'disk'))
    assert "volume 'disk' is in use by 127.0.0.1:" in text and 'one connection at a time' in text, text
    first.send(first.request_bytes(DISCONNECT))
    first.closed()
    attached(second)
    # One tool after the other, as scripts run them.
    second.close()
    for _ in range(20):
        handle = nbd.NBD()
        handle.connect_uri(server.tcp_uri())
        handle.pwrite(b'x' * PAGE, 0)
        handle.shutdown()
    server.stop()


def test_any(t):
    server = t.server(tcp=True, env={'NBD_SHARING': 'any'})
    wires = [attached(tcp(server, f'127.0.0.{number}')) for number in range(1, 6)] + [attached(Wire(server.socket))]
    for number, wire in enumerate(wires):
        assert wire.request(WRITE, number * PAGE, PAGE, payload=b'%d' % number * PAGE)[0] == 0
    for number in range(len(wires)):
        assert wires[-1 - number].request(READ, number * PAGE, PAGE) == (0, b'%d' % number * PAGE)
    server.stop()


# ---- a client that comes back ----


def check_page(server, content):
    """What a later connection reads, and what the store keeps."""
    for _ in range(2):
        wire = attached(Wire(server.socket))
        assert wire.request(READ, 0, PAGE) == (0, content)
        wire.close()
        server.restart()


def test_old_write_stalled(t):
    """Half a WRITE on a connection that is silent: the next connection's WRITE to the same place is the one that counts,
    whatever the first does later."""
    server = t.server()
    old = attached(Wire(server.socket))
    old.send(old.request_bytes(WRITE, 0, PAGE) + b'o' * (PAGE // 2))
    wait_until(lambda: server.statistics()['requests']['write'] == 1, 'its header is there')
    new = attached(Wire(server.socket))
    assert new.request(WRITE, 0, PAGE, payload=b'n' * PAGE)[0] == 0
    try:
        old.send(b'o' * (PAGE // 2))
        old.receive(16)
    except (Closed, BrokenPipeError, ConnectionResetError):
        pass
    else:
        raise AssertionError('the old WRITE was answered')
    assert 'gave way to a newer connection of its client' in server.process.stderr()
    assert new.request(READ, 0, PAGE) == (0, b'n' * PAGE)
    new.close()
    check_page(server, b'n' * PAGE)


def test_old_write_slow(t):
    """The rest of it comes: then it was first, and both are answered."""
    server = t.server()
    old = attached(Wire(server.socket))
    old.send(old.request_bytes(WRITE, 0, PAGE) + b'o' * (PAGE // 2))
    wait_until(lambda: server.statistics()['requests']['write'] == 1, 'its header is there')
    new = attached(Wire(server.socket))
    new.send(new.request_bytes(WRITE, 0, PAGE) + b'n' * PAGE)
    time.sleep(1)
    assert server.statistics()['requests']['write'] == 1, 'the new connection did not wait'
    old.send(b'o' * (PAGE // 2))
    assert answer(old) == 0 and answer(new) == 0
    old.close()
    new.close()
    check_page(server, b'n' * PAGE)


def test_old_write_cut(t):
    """A client whose process died: nobody waits for anything."""
    server = t.server()
    for number in range(20):
        old = attached(Wire(server.socket))
        old.send(old.request_bytes(WRITE, 0, PAGE) + b'o' * (PAGE // 2))
        old.close()
        new = attached(Wire(server.socket))
        assert new.request(WRITE, 0, PAGE, payload=b'%d' % (number % 10) * PAGE)[0] == 0
        new.close()
    assert 'gave way' not in server.process.stderr()
    check_page(server, b'9' * PAGE)


def test_old_writes_unread(t):
    """A client that takes no replies until the server reads no more; then it comes back.  What it had sent on the old
    connection is done before, or never."""
    server = t.server()
    mebibyte = 1 << 20
    old = attached(Wire(server.socket))
    for _ in range(64):
        old.send(old.request_bytes(READ, mebibyte, mebibyte))
    old.send(old.request_bytes(WRITE, 0, PAGE) + b'o' * PAGE)
    wait_until(lambda: server.statistics()['requests']['read'] > 1, 'it is being served')
    assert server.statistics()['requests']['write'] == 0, 'its WRITE has been read: nothing is tested'
    new = attached(Wire(server.socket))
    assert new.request(WRITE, 0, PAGE, payload=b'n' * PAGE)[0] == 0
    assert server.statistics()['requests']['write'] == 1
    try:
        while True:
            old.receive(mebibyte)  # now it takes them
    except Closed:
        pass
    assert 'gave way to a newer connection of its client' in server.process.stderr()
    new.close()
    check_page(server, b'n' * PAGE)


def test_many_at_once(t):
    """A client with several connections: none waits for another, and all may write."""
    server = t.server()
    wires = [Wire(server.socket) for _ in range(16)]
    for wire in wires:
        wire.send(wire.option_bytes(OPTION_GO, struct.pack('>I', 4) + b'disk' + struct.pack('>H', 0)))
    for number, wire in enumerate(wires):
        while True:
            _, _, kind, length = struct.unpack('>QIII', wire.receive(20))
            wire.receive(length)
            if kind == REPLY_ACK:
                break
        wire.send(wire.request_bytes(WRITE, number * PAGE, PAGE) + b'%c' % (97 + number) * PAGE)
    for wire in wires:
        assert answer(wire) == 0
    assert wires[0].request(READ, 0, 16 * PAGE) == (0, b''.join(b'%c' % (97 + number) * PAGE for number in range(16)))
    server.stop()


# ---- waiting for an owner ----


def test_hang_up_while_waiting(t):
    """Another server has the disk.  A client that waits for it may go; its server does not go on for nobody."""
    owner, waiting = t.server(name='owner'), t.server(name='waiting', arguments=['--owner-wait', '10m'])
    holder = attached(Wire(owner.socket))
    assert holder.request(WRITE, 0, PAGE, payload=b'h' * PAGE)[0] == 0
    visitor = Wire(waiting.socket)
    visitor.send(visitor.option_bytes(OPTION_GO, struct.pack('>I', 4) + b'disk' + struct.pack('>H', 0)))
    wait_until(lambda: waiting.statistics()['store']['gets'] > 0, 'it looks')
    assert waiting.statistics()['connections']['open'] == 1
    # Looking is free meanwhile.
    other = Wire(waiting.socket)
    assert other.go(b'disk', OPTION_INFO)[0] == REPLY_ACK
    other.close()
    visitor.close()
    wait_until(lambda: waiting.statistics()['connections']['open'] == 0, 'its connection is gone')
    # One that stays gets it when it is released.
    visitor = Wire(waiting.socket)
    visitor.send(visitor.option_bytes(OPTION_GO, struct.pack('>I', 4) + b'disk' + struct.pack('>H', 0)))
    time.sleep(0.5)
    holder.close()
    owner.stop()
    while True:
        _, _, kind, length = struct.unpack('>QIII', visitor.receive(20))
        visitor.receive(length)
        if kind == REPLY_ACK:
            break
    assert visitor.request(READ, 0, PAGE) == (0, b'h' * PAGE)
    waiting.stop()


def test_stopped_while_waiting(t):
    """A server that is told to stop does not wait for another one's disk."""
    owner, waiting = t.server(name='owner'), t.server(name='waiting', arguments=['--owner-wait', '10m'])
    holder = attached(Wire(owner.socket))
    visitor = Wire(waiting.socket)
    visitor.send(visitor.option_bytes(OPTION_GO, struct.pack('>I', 4) + b'disk' + struct.pack('>H', 0)))
    wait_until(lambda: waiting.statistics()['store']['gets'] > 0, 'it looks')
    waiting.stop()
    assert holder.request(FLUSH)[0] == 0
    owner.stop()


def test_refused_by_owner(t):
    """With no time to wait: the client is told who has it."""
    owner, refusing = t.server(name='owner'), t.server(name='refusing', env={'NBD_OWNER_WAIT': '0'})
    holder = attached(Wire(owner.socket))
    text = told(Wire(refusing.socket).go(b'disk'))
    assert socket.gethostname() in text and f'process {owner.process.pid} ' in text, text
    assert 'break-lease' in text, text
    assert holder.request(FLUSH)[0] == 0


# ---- clients that vanish ----


def sockets_of(pid):
    """Duplicates of its sockets."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    found = []
    for name in os.listdir(f'/proc/{pid}/fd'):
        try:
            if os.readlink(f'/proc/{pid}/fd/{name}').startswith('socket:'):
                fd = libc.syscall(438, process, int(name), 0)  # pidfd_getfd
                if fd < 0:
                    raise Skip(f'pidfd_getfd: {os.strerror(ctypes.get_errno())}')
                found.append(socket.socket(fileno=fd))
        except FileNotFoundError:
            pass  # closed meanwhile
    os.close(process)
    return found


def option_values(server, wire):
    """Of the server's end of the connection."""
    for found in sockets_of(server.process.pid):
        with found:
            try:
                if found.family != socket.AF_INET or found.getpeername() != wire.socket.getsockname():
                    continue
            except OSError:
                continue  # a listener
            numbers = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT,
                       socket.TCP_NODELAY)
            return (found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    *(found.getsockopt(socket.IPPROTO_TCP, number) for number in numbers))
    raise AssertionError('the server has no such connection')


def test_options(t):
    """What the settings say is what the kernel was told, also after a connection has moved to its disk's thread."""
    words = ['--keepalive-idle', '7', '--keepalive-interval', '3', '--keepalive-probes', '4', '--tcp-user-timeout', '9s']
    server = t.server(tcp=True)
    wires = [attached(tcp(server, '127.0.0.1'), b'disk %d' % number) for number in range(4)]
    assert {option_values(server, wire) for wire in wires} == {(1, 60, 10, 6, 110000, 1)}
    server.stop()
    server = t.server(tcp=True, arguments=words, name='other')
    wires = [attached(tcp(server, '127.0.0.1'), b'disk %d' % number) for number in range(4)]
    assert {option_values(server, wire) for wire in wires} == {(1, 7, 3, 4, 9000, 1)}
    server.stop()
    server = t.server(tcp=True, arguments=['--keepalive-idle', '0', '--tcp-user-timeout', '0'], name='none')
    values = option_values(server, attached(tcp(server, '127.0.0.1')))
    assert values[0] == 0 and values[4] == 0, values
    server.stop()


class Net:
    """Two hosts, each a network namespace, and a cable."""

    HERE, THERE = '10.231.7.1', '10.231.7.2'

    def __init__(self, t):
        self.t = t
        self.names = [f'cairn-{os.getpid()}-{side}' for side in 'ab']
        for name in self.names:
            t.run(['ip', 'netns', 'add', name])
            t.later(lambda name=name: t.run(['ip', 'netns', 'delete', name]))
        here, there = self.names
        t.run(['ip', '-n', here, 'link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'cable', 'netns', there])
        for name, address in zip(self.names, (self.HERE, self.THERE)):
            t.run(['ip', '-n', name, 'address', 'add', f'{address}/24', 'dev', 'cable'])
            t.run(['ip', '-n', name, 'link', 'set', 'cable', 'up'])

    def enter(self, side):
        return ['ip', 'netns', 'exec', self.names[side]]

    def deafen_client(self):
        """Nothing of the client's reaches anybody; it still hears."""
        self.t.run(['ip', '-n', self.names[1], 'route', 'add', 'blackhole', f'{self.HERE}/32'])

    def cut(self):
        self.t.run(['ip', '-n', self.names[1], 'link', 'set', 'cable', 'down'])


class DistantServer(Server):
    def __init__(self, net, **options):
        self.net = net
        super().__init__(net.t, tcp=True, **options)

    def argv(self):
        return self.net.enter(0) + [Net.HERE if word == '127.0.0.1' else word for word in super().argv()]

    def answers(self):
        if not self.process.running():
            raise AssertionError(f'it ended: {self.process.stderr()[-2000:]}')
        return 'serving disks' in self.process.stderr()


CLIENT = """
import socket, sys
sys.path.insert(0, %r)
from wire import *
wire = Wire((%r, %d))
assert wire.go(b'disk')[0] == REPLY_ACK
assert wire.request(WRITE, 0, 4096, payload=b'v' * 4096)[0] == 0
if %r == 'deaf':
    for number in range(64):
        wire.send(wire.request_bytes(READ, 0, 1 << 20))
print('attached', flush=True)
wire.socket.settimeout(None)
import time
time.sleep(1000)
"""


def vanishing(t, kind, cut):
    need_root()
    need_tool('ip')
    net = Net(t)
    words = ['--keepalive-idle', '1', '--keepalive-interval', '1', '--tcp-user-timeout', '3s', '--release-grace', '60m']
    server = DistantServer(net, arguments=words)
    script = CLIENT % (os.path.join(REPOSITORY, 'test', 'lib'), Net.HERE, server.port, kind)
    client = t.start('client', net.enter(1) + ['/usr/bin/python3', '-c', script])
    wait_until(lambda: 'attached' in client.stdout(), 'the client is in')
    assert volume_of(server)['owner'], 'nobody owns the disk'
    cut(net)
    wait_until(lambda: 'vanished' in server.process.stderr(), 'it is noticed')
    wait_until(lambda: not volume_of(server)['owner'], 'the disk is free, without any grace')
    assert client.running()
    server.stop()


def volume_of(server):
    return server.bench.cairn_json('info', *server.store.words(), 'disk', env=server.env)


def test_vanished(t):
    """A silent client whose network is cut: only the probes can tell."""
    vanishing(t, 'silent', Net.cut)


def test_vanished_in_replies(t):
    """One that was being sent replies, and whose acknowledgements do not come."""
    vanishing(t, 'deaf', Net.deafen_client)
