"""The measuring proxy itself (bench/s3_proxy): messages pass unchanged however they are framed, and are counted."""

import os
import socket
import threading

from harness import PATIENCE_S, Skip
import s3_proxy

ON = ('dir',)

KEY = f'/bucket/some/prefix/v/{"a" * 36}'


def make_proxy(t, *arguments, **options):
    if not os.access(s3_proxy.PROGRAM, os.X_OK):
        raise Skip(f'{s3_proxy.PROGRAM} is not built')
    proxy = s3_proxy.Proxy(*arguments, **options)
    t.later(lambda: proxy.popen.poll() is None and proxy.popen.kill())
    return proxy


class Script:
    """A server that takes one connection and plays a part: a list of ('expect', bytes) and ('send', bytes)."""

    def __init__(self, *parts):
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.problem = None
        self.thread = threading.Thread(target=self.play, args=(parts,), daemon=True)
        self.thread.start()

    def play(self, parts):
        peer, _ = self.listener.accept()
        peer.settimeout(PATIENCE_S)
        try:
            for what, data in parts:
                if what == 'send':
                    peer.sendall(data)
                else:
                    got = receive(peer, len(data))
                    assert got == data, f'the server got {got[:200]!r} instead of {data[:200]!r}'
        except (AssertionError, OSError) as problem:
            self.problem = problem
        peer.close()

    def end(self):
        self.thread.join(PATIENCE_S)
        self.listener.close()
        assert self.problem is None, self.problem


def receive(peer, length):
    data = b''
    while len(data) < length:
        more = peer.recv(length - len(data))
        if not more:
            break
        data += more
    return data


def connect(proxy):
    client = socket.create_connection(('127.0.0.1', proxy.port))
    client.settimeout(PATIENCE_S)
    return client


def expect(client, data):
    got = receive(client, len(data))
    assert got == data, f'the client got {got[:200]!r} instead of {data[:200]!r}'


def request(method, path, body=b'', fields=''):
    length = f'Content-Length: {len(body)}\r\n' if body or method == 'PUT' else ''
    return f'{method} {path} HTTP/1.1\r\nHost: anybody:1\r\n{fields}{length}\r\n'.encode() + body


def answer(status, body=b'', fields=''):
    return f'HTTP/1.1 {status} so\r\n{fields}Content-Length: {len(body)}\r\n\r\n'.encode() + body


def test_framing(t):
    """Lengths, chunks both ways, interim answers, HEAD, and two requests at once on one connection."""
    big = os.urandom(3 << 20)
    chunks = b'5;some=thing\r\nhello\r\n%x\r\n' % len(big) + big + b'\r\n0\r\nTrailer: x\r\n\r\n'
    put = request('PUT', f'{KEY}/data/1/2', big, 'Expect: 100-continue\r\n')
    chunked = b'PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n' + chunks
    two = request('GET', f'{KEY}/log/1') + request('HEAD', '/b/k')
    head = b'HTTP/1.1 200 so\r\nContent-Length: 77\r\n\r\n'
    listing = b'HTTP/1.1 200 so\r\nTransfer-Encoding: chunked\r\n\r\n' + chunks
    go_on = b'HTTP/1.1 100 Continue\r\n\r\n'
    at = put.index(big)
    first, second = request('GET', f'{KEY}/log/1'), request('HEAD', '/b/k')
    server = Script(('expect', put[:at]), ('send', go_on), ('expect', big), ('send', answer(200)),
                    ('expect', chunked), ('send', answer(412, b'no')),
                    ('expect', first), ('send', answer(206, big)), ('expect', second), ('send', head),
                    ('expect', request('GET', '/b?list-type=2')), ('send', listing))
    proxy = make_proxy(t, server.port, put_ms=2, get_ms=1)
    client = connect(proxy)
    client.sendall(put[:at])
    expect(client, go_on)
    client.sendall(big)
    expect(client, answer(200))
    client.sendall(chunked)
    expect(client, answer(412, b'no'))
    client.sendall(two)
    expect(client, answer(206, big) + head)
    client.sendall(request('GET', '/b?list-type=2'))
    expect(client, listing)
    server.end()
    client.close()
    counts = proxy.stop()
    assert counts.requests() == {'GET log': 1, 'PUT data': 1, 'PUT other': 1, 'LIST other': 1, 'HEAD other': 1}
    assert counts.total('PUT', 'data', 'sent') == len(big) and counts.total('GET', 'log', 'received') == len(big)
    assert counts.told['statuses'] == {'200': 3, '206': 1, '412': 1} and counts.told['connections'] == 1


def test_early_answer(t):
    """A server that refuses before it has read all, and hangs up: the client is told what it said."""
    body = os.urandom(8 << 20)
    put = request('PUT', '/b/k', body)
    server = Script(('expect', put[:1000]), ('send', answer(403, b'never')))
    proxy = make_proxy(t, server.port)
    client = connect(proxy)
    client.sendall(put)
    expect(client, answer(403, b'never'))
    server.end()
    assert proxy.stop().told['statuses'] == {'403': 1}


def test_hanging_up(t):
    """A server that vanishes, in an answer or without one: so does the proxy. One that is not there likewise."""
    for parts in (('send', b''), ('send', b'HTTP/1.1 200 so\r\nContent-Length: 9\r\n\r\nhal')):
        server = Script(('expect', request('GET', '/b/k')), parts)
        proxy = make_proxy(t, server.port)
        client = connect(proxy)
        client.sendall(request('GET', '/b/k'))
        expect(client, parts[1])
        assert client.recv(1) == b''
        server.end()
        client = connect(proxy)
        client.sendall(request('GET', '/b/k'))
        assert client.recv(1) == b''
        assert proxy.stop().told['statuses'] == {'0': 2}


def test_sink(t):
    """The proxy as a store: conditions, ranges, lists, and bodies that are dropped."""
    proxy = make_proxy(t, keep=100000)
    client = connect(proxy)

    def ask(method, path, body=b'', fields=''):
        client.sendall(request(method, path, body, fields))
        data = b''
        while b'\r\n\r\n' not in data:
            data += client.recv(65536)
        head, _, data = data.partition(b'\r\n\r\n')
        lines = head.decode().lower().split('\r\n')
        found = dict(line.split(': ', 1) for line in lines[1:])
        if method != 'HEAD':
            data += receive(client, int(found.get('content-length', 0)) - len(data))
        return int(lines[0].split()[1]), found, data

    absent = 'If-None-Match: *\r\n'
    body = os.urandom(5000)
    assert ask('PUT', '/b/a%2Fb/c', body, absent)[0] == 200
    assert ask('PUT', '/b/a/b/c', b'other', absent)[0] == 412
    assert ask('PUT', '/b/none', b'other', 'If-Match: "x"\r\n')[0] == 404
    status, found, data = ask('GET', '/b/a/b/c')
    assert (status, data) == (200, body)
    assert ask('PUT', '/b/a/b/c', body, 'If-Match: "x"\r\n')[0] == 412
    assert ask('PUT', '/b/a/b/c', body, f'If-Match: {found["etag"]}\r\n')[0] == 200
    assert ask('PUT', '/b/a/b/c', body, f'If-Match: {found["etag"]}\r\n')[0] == 412
    for asked, told, part in (('1-3', '1-3', body[1:4]), ('4990-6000', '4990-4999', body[-10:]),
                              ('-7', '4993-4999', body[-7:]), ('9-', '9-4999', body[9:])):
        status, found, data = ask('GET', '/b/a/b/c', fields=f'Range: bytes={asked}\r\n')
        assert (status, found['content-range'], data) == (206, f'bytes {told}/5000', part), (asked, found)
    assert ask('GET', '/b/a/b/c', fields='Range: bytes=5000-\r\n')[0] == 416
    assert ask('HEAD', '/b/a/b/c')[1]['content-length'] == '5000'
    assert ask('HEAD', '/b')[0] == 200 and ask('GET', '/b/none')[0] == 404
    assert ask('PUT', '/b/big', bytes(200000))[0] == 200 and ask('GET', '/b/big')[0] == 500
    assert ask('PUT', '/b2/x', b'y')[0] == 200
    _, _, page = ask('GET', '/b?list-type=2&max-keys=1')
    assert b'<Key>a/b/c</Key>' in page and b'<IsTruncated>true<' in page and b'big' not in page
    _, _, page = ask('GET', '/b?list-type=2&continuation-token=a%2Fb%2Fc')
    assert b'<Key>big</Key>' in page and b'<IsTruncated>false<' in page and b'a/b' not in page
    _, _, page = ask('GET', '/b?list-type=2&prefix=a%2F&start-after=a')
    assert b'<KeyCount>1<' in page and b'a/b/c' in page
    assert ask('DELETE', '/b/a/b/c')[0] == 204 and ask('GET', '/b/a/b/c')[0] == 404
    proxy.reset()
    assert proxy.counts().requests() == {} and str(proxy.stop()) == 'nothing'


def test_many_connections(t):
    """Hundreds of clients, each with several requests; some leave in the middle."""
    proxy = make_proxy(t, put_ms=1, get_ms=1, mbps=80)
    body = os.urandom(40000)
    clients = [connect(proxy) for _ in range(300)]
    for _ in range(3):
        for number, client in enumerate(clients):
            client.sendall(request('PUT', f'{KEY}/log/{number}', body) + request('GET', f'{KEY}/log/{number}'))
        for client in clients[::10]:
            client.close()
        clients = [client for client in clients if client.fileno() >= 0]
        for client in clients:
            data = b''
            while data.count(b'\r\n\r\n') < 2:
                data += client.recv(65536)
            rest = data.split(b'\r\n\r\n', 2)[2]
            rest += receive(client, len(body) - len(rest))
            assert rest == body
    counts = proxy.stop()
    assert counts.told['connections'] == 300
    assert counts.total('PUT') >= 3 * len(clients)
