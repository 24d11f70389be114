"""Hosts with a network between them and an S3 store, whose lines can be cut in one direction or both.

Each host is a network namespace.  All are joined by a router, another one, and it is there that packets are dropped, so
that nobody is told anything about them:

    host 0 ── 10.231.0.0/24 ──┐
    host 1 ── 10.231.1.0/24 ──┤ router ── 10.231.100.0/24 ── store
    ...                       ┘

Every host has an address of its own for the store, 10.231.101.N, so that what goes there can be dropped for one host
alone.  The store itself is the one of the test, on the loopback of the world outside; a relay in the store's namespace
passes connections on.  Nothing of this can be reached from outside the namespaces.

Needs root, `ip`, and a kernel that lets us make namespaces; otherwise the test is skipped."""

import ctypes
import os
import socket
import sys
import threading

from harness import Server, Skip, need_root, need_tool
from stores import S3Server, S3Store

RELAY_PORT = 9000
CLONE_NEWNET = 0x40000000
RELAY_BYTES = 65536


class Network:
    def __init__(self, t, hosts):
        need_root()
        need_tool('ip')
        self.t = t
        self.count = hosts
        self.dropped = set()
        self.names = {}
        for name in ['router', 'store', *(f'host{number}' for number in range(hosts))]:
            self.add(name)
        self.cable('store', '10.231.100.2', '10.231.100.1')
        self.ip('router', 'route', 'add', '10.231.101.0/24', 'via', '10.231.100.2')
        for number in range(hosts):
            self.cable(f'host{number}', f'10.231.{number}.2', f'10.231.{number}.1')
            self.ip('store', 'address', 'add', f'10.231.101.{number}/32', 'dev', 'lo')
        self.try_to([*self.enter('router'), 'sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward'])

    def try_to(self, words):
        """What a container may not be allowed."""
        done = self.t.run(words, check=False)
        if done.returncode != 0:
            raise Skip(f'{" ".join(words[:4])}: {done.stderr.strip()}')

    def add(self, name):
        namespace = f'cairn-{os.getpid()}-{name}'
        self.try_to(['ip', 'netns', 'add', namespace])
        self.names[name] = namespace
        self.t.later(lambda: self.t.run(['ip', 'netns', 'delete', namespace]))
        self.ip(name, 'link', 'set', 'lo', 'up')

    def ip(self, name, *words):
        self.t.run(['ip', '-n', self.names[name], *words])

    def cable(self, name, address, router):
        """Between a namespace, whose end is called `cable`, and the router, whose end has the other's name."""
        self.try_to(['ip', '-n', self.names[name], 'link', 'add', 'cable', 'type', 'veth', 'peer', 'name', name,
                     'netns', self.names['router']])
        self.ip(name, 'address', 'add', f'{address}/24', 'dev', 'cable')
        self.ip(name, 'link', 'set', 'cable', 'up')
        self.ip('router', 'address', 'add', f'{router}/24', 'dev', name)
        self.ip('router', 'link', 'set', name, 'up')
        self.ip(name, 'route', 'add', 'default', 'via', router)

    def enter(self, name):
        return ['ip', 'netns', 'exec', self.names[name]]

    def address(self, host):
        return f'10.231.{host}.2'

    # Lines.

    def drop(self, destination):
        if destination not in self.dropped:
            self.ip('router', 'route', 'add', 'blackhole', f'{destination}/32')
            self.dropped.add(destination)

    def cut(self, host, requests=True, answers=True):
        """Between the host and the store: what it sends, what it is sent, or both."""
        if requests:
            self.drop(f'10.231.101.{host}')
        if answers:
            self.drop(self.address(host))

    def unplug(self, host):
        """From everything."""
        self.ip('router', 'link', 'set', f'host{host}', 'down')

    def deafen(self, host):
        """Nothing reaches it; what it sends arrives."""
        self.drop(self.address(host))

    def mute(self, host):
        """What it sends reaches nobody; it hears."""
        self.ip(f'host{host}', 'route', 'replace', 'blackhole', 'default')

    def heal(self, host):
        """What cut() and deafen() have done to it."""
        for destination in (f'10.231.101.{host}', self.address(host)):
            if destination in self.dropped:
                self.ip('router', 'route', 'delete', 'blackhole', f'{destination}/32')
                self.dropped.remove(destination)

    # The store.

    def listener(self, name, port):
        """A socket that listens in a namespace."""
        found = []

        def listen():
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f'/run/netns/{self.names[name]}') as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET) < 0:
                    return
            listening = socket.socket()
            listening.bind(('0.0.0.0', port))
            listening.listen(128)
            found.append(listening)
        thread = threading.Thread(target=listen)  # the namespace is that of a thread
        thread.start()
        thread.join()
        if not found:
            raise Skip('a namespace cannot be entered')
        return found[0]

    def relay(self, port):
        """Passes connections from the store's namespace on to a port of our loopback."""
        listening = self.listener('store', RELAY_PORT)
        os.set_inheritable(listening.fileno(), True)
        self.t.start('relay', [sys.executable, '-B', os.path.abspath(__file__), listening.fileno(), port],
                     pass_fds=[listening.fileno()])
        listening.close()

    def store_of(self, host, store):
        """The store as that host sees it; a directory is the same for all."""
        if not isinstance(store, S3Store):
            return store
        server = S3Server(RELAY_PORT, f'10.231.101.{host}', access_key=store.server.access_key,
                          secret_key=store.server.secret_key)
        return HostStore(server, store)


class HostStore(S3Store):
    """Commands of the server go through the network, those of the test do not."""

    def __init__(self, server, store):
        super().__init__(server, store.prefix, store.bucket)
        self.client = store.client


class HostServer(Server):
    """On a unix socket, which is in the file system: clients need no network."""

    def __init__(self, network, host, store, **options):
        self.network, self.host = network, host
        super().__init__(network.t, store=network.store_of(host, store), **options)

    def argv(self):
        return [*self.network.enter(f'host{self.host}'), *super().argv()]


# ---- the relay, a process of its own ----


def pump(source, sink):
    try:
        while True:
            data = source.recv(RELAY_BYTES)
            if not data:
                break
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def serve(near, port):
    with near:
        try:
            far = socket.create_connection(('127.0.0.1', port))
        except OSError:
            return
        with far:
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join()


def main(descriptor, port):
    listening = socket.socket(fileno=descriptor)
    while True:
        near, _ = listening.accept()
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(near, port), daemon=True).start()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]))
