"""Starting, stopping, and two servers beside each other."""

import json
import os
import random
import signal
import socket
import time

import nbd

from disk_model import Disk
from harness import CAIRN, on, parse_statistics, wait_until
from load import Load, Steady, connect, refused

MIB = 1 << 20


def test_terminate_with_clients(t):
    """SIGTERM under load: what was answered is in the store afterwards, without any flush; exit status 0."""
    for number, kind in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGTERM)):
        server = t.server(store=f'store{number}', size=str(8 * MIB), name=f'cairn{number}')
        disk = Disk(8 * MIB)
        load = Load(disk, random.Random(number), flushes=0)
        load.connect(server.uri(), 3)
        end = time.monotonic() + 0.3
        load.work(lambda: time.monotonic() > end)
        server.process.signal(kind)
        load.drain(time.monotonic, 30)
        assert server.process.wait(60) == 0, server.process.stderr()
        load.drain(time.monotonic, 30)
        assert load.answers > 10
        # Everything that was answered counts as flushed now.
        disk.flush_succeeded(disk.begin_flush())
        load.close()
        server.start()
        handle = connect(server)
        disk.settle(lambda offset, length: handle.pread(length, offset))
        handle.shutdown()
        server.stop()


def test_terminate_idle_clients(t):
    """Clients that are attached and say nothing do not hold up the end."""
    server = t.server()
    handles = [connect(server) for _ in range(3)]
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(server.socket)
    handles[0].pwrite(b'dirty', 4096)
    server.stop(timeout=20)
    assert not os.path.exists(server.socket), 'the socket was left behind'
    server.start()
    assert connect(server).pread(5, 4096) == b'dirty'
    server.stop()


@on('dir', 'fake')
def test_second_signal(t):
    """A second signal hurries: the server ends even though its store cannot be written."""
    from test_memory import stallable
    server, stall = stallable(t, arguments=['--shutdown-deadline', '300s'])
    handle = connect(server)
    handle.pwrite(b'kept', 0)
    handle.flush()
    stall.begin()
    handle.pwrite(b'lost', 8192)
    server.process.signal(signal.SIGTERM)
    time.sleep(0.5)
    assert server.process.running(), 'ended though data is unwritten: ' + server.process.stderr()
    server.process.signal(signal.SIGTERM)
    time.sleep(0.2)
    stall.end()
    status = server.process.wait(60)
    assert status in (0, 1), (status, server.process.stderr())
    if status == 1:
        assert "'disk'" in server.process.stderr(), 'it does not say what was lost: ' + server.process.stderr()
    server.start()
    assert connect(server).pread(4, 0) == b'kept'
    server.stop()


def test_statistics(t):
    """SIGUSR1 prints statistics and disturbs nobody; the end prints them once more."""
    server = t.server()
    handle = connect(server)
    for number in range(10):
        handle.pwrite(b'x' * 512, number * 4096)
    handle.flush()
    handle.pread(512, 0)
    numbers = server.statistics()
    assert numbers['requests']['write'] == 10 and numbers['requests']['flush'] == 1, numbers
    assert numbers['requests']['read'] == 1 and numbers['requests']['errors'] == 0, numbers
    assert numbers['connections']['open'] == 1, numbers
    assert numbers['store']['puts'] >= 1, numbers
    handle.pwrite(b'x' * 512, 0)
    handle.shutdown()
    server.stop()
    numbers = parse_statistics(server.process.stderr())
    assert numbers['requests']['write'] == 11, numbers


def test_log_json(t):
    """With --log-format json every line is an object."""
    server = t.server(arguments=['--log-format', 'json', '--log-level', 'DEBUG'])
    handle = connect(server)
    handle.pwrite(b'x', 0)
    handle.shutdown()
    server.process.signal(signal.SIGUSR1)
    time.sleep(0.1)
    server.stop()
    lines = server.process.stderr().splitlines()
    assert lines
    for line in lines:
        entry = json.loads(line)
        assert {'time', 'level', 'subject', 'text'} <= set(entry), line


def test_notify(t):
    """Readiness is told to systemd when the server can be connected to, and stopping when it stops."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(t.path('notify'))
    notify.settimeout(30)
    server = t.server(env={'NOTIFY_SOCKET': t.path('notify')}, ready=False)
    told = b''
    while b'READY=1' not in told:
        told = notify.recv(4096)
    connect(server).shutdown()
    server.stop()
    told = b''
    while b'STOPPING=1' not in told:
        told = notify.recv(4096)


def test_start_line(t):
    """What is served, where, and how to connect, in one line."""
    server = t.server(tcp=True)
    connect(server).shutdown()
    server.stop()
    text = server.process.stdout() + server.process.stderr()
    lines = [line for line in text.splitlines() if server.store.place in line and str(server.port) in line]
    assert lines, text


def test_socket_activation(t):
    """A socket that systemd opened is served."""
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen()
    port = listener.getsockname()[1]
    # A shell in between, because LISTEN_PID must be the server's own.
    process = t.start('cairn', ['sh', '-c', f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"',
                                CAIRN, 'serve', *t.store().words()], pass_fds=[listener.fileno()])
    listener.close()
    handle = nbd.NBD()
    handle.connect_uri(f'nbd://127.0.0.1:{port}/disk')
    handle.pwrite(b'x', 0)
    handle.flush()
    handle.shutdown()
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, process.stderr()


def test_two_servers(t):
    """Two servers share a store: different volumes side by side; the same volume is refused with a message that
    names the holder and the way out."""
    first = t.server(size='16MB', name='first')
    second = t.server(size='16MB', name='second', arguments=['--owner-wait', '1s'])
    assert first.store == second.store
    clients = [Steady(server.uri(f'disk{number}'), random.Random(number), 16 * MIB)
               for number, server in enumerate((first, second))]
    for _ in range(50):
        for client in clients:
            client.step()
    try:
        connect(second, 'disk0')
        raise AssertionError('a volume was served twice')
    except nbd.Error as error:
        message = str(error) + second.process.stderr()
    for word in ('break-lease', str(first.process.pid), socket.gethostname()):
        assert word in message, f'{word} is not in: {message}'
    for client in clients:
        client.step()
        client.verify_all()
        client.handle.shutdown()
    first.stop()
    handle = connect(second, 'disk0')  # released
    clients[0].handle = handle
    clients[0].verify_all()
    handle.shutdown()
    second.stop()


def test_release_after_grace(t):
    """A volume that nobody uses any more is let go, and another server takes it without a word."""
    first = t.server(size='16MB', name='first', arguments=['--release-grace', '100ms'])
    second = t.server(size='16MB', name='second')
    handle = connect(first)
    handle.pwrite(b'passed on', 0)
    handle.shutdown()

    def taken():
        try:
            return connect(second)
        except nbd.Error:
            return None
    handle = wait_until(taken, 'the second server gets the volume')
    assert handle.pread(9, 0) == b'passed on'
    handle.shutdown()
    first.stop()
    second.stop()


def test_restart_at_once(t):
    """After SIGKILL the next server on the same host takes over by itself, and says nothing of break-lease."""
    server = t.server(size='16MB')
    for number in range(10):
        handle = connect(server)
        handle.pwrite(bytes([number]) * 4096, number * 4096)
        handle.flush()
        server.kill()
        server.start()
        handle = connect(server)
        assert handle.pread(4096, number * 4096) == bytes([number]) * 4096
        handle.shutdown()
        server.kill()
        server.start()
    server.stop()


def test_stopped_owner_is_not_dead(t):
    """A server that is stopped by a signal still owns its volumes, as long as its lease lasts."""
    first = t.server(size='16MB', name='first')
    handle = connect(first)
    handle.pwrite(b'mine', 0)
    handle.flush()
    first.process.signal(signal.SIGSTOP)
    second = t.server(size='16MB', name='second', arguments=['--owner-wait', '1s'])
    assert refused(second), 'the volume of a live owner was taken'
    first.process.signal(signal.SIGCONT)
    handle.pwrite(b'here', 0)
    handle.flush()
    assert handle.pread(4, 0) == b'here'
    handle.shutdown()
    first.stop()
    second.stop()


def test_break_lease(t):
    """The step that the refusal names works, and the first server's client is told."""
    first = t.server(size='16MB', name='first')
    handle = connect(first)
    handle.pwrite(b'flushed', 0)
    handle.flush()
    second = t.server(size='16MB', name='second', arguments=['--owner-wait', '1s'])
    asked = t.cairn('break-lease', *first.store.words(), 'disk', check=False)
    assert asked.returncode == 2 and '--yes' in asked.stderr, asked.stderr
    assert refused(second), 'taken though nobody said yes'
    t.cairn('break-lease', *first.store.words(), '--yes', 'disk')
    taken = connect(second)
    assert taken.pread(7, 0) == b'flushed'
    try:
        handle.pwrite(b'too late', 4096)
        handle.flush()
        raise AssertionError('a flush of the first server succeeded after the takeover')
    except nbd.Error:
        pass
    assert taken.pread(8, 4096) == bytes(8)
    taken.pwrite(b'second', 8192)
    taken.flush()
    taken.shutdown()
    second.stop()
    first.process.signal(signal.SIGTERM)
    first.process.wait(60)
    second.start()
    assert connect(second).pread(6, 8192) == b'second'
    second.stop()


def test_reconnect(t):
    """A client that hangs up without a word and comes back at once sees all that it was told is done."""
    server = t.server(size='16MB')
    expected = {}
    for number in range(60):
        handle = connect(server)
        page = number * 7 % 40
        handle.pwrite(bytes([number]) * 4096, page * 4096)
        expected[page] = number
        del handle
        handle = connect(server)
        for page, value in expected.items():
            assert handle.pread(4096, page * 4096) == bytes([value]) * 4096
    server.stop()


def test_nothing_left_open(t):
    """Connections that came and went leave no file descriptors behind."""
    server = t.server(size='16MB')
    connect(server).shutdown()

    def descriptors():
        return len(os.listdir(f'/proc/{server.process.pid}/fd'))
    time.sleep(0.2)
    before = descriptors()
    for _ in range(200):
        connect(server).shutdown()
    wait_until(lambda: descriptors() <= before + 4, 'descriptors are closed')
    server.stop()
    assert server.store.objects()
