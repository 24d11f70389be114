"""The barest S3 client: one kept connection, one signed request at a time.

What a store can do is measured with it, so it must not be the bottleneck
itself: heads are signed, and bodies hashed, before the clock starts; sending is
one or two system calls, and an answer is read until its length."""

import hashlib
import socket
import time

import s3_signature  # test/lib


class Refused(Exception):
    """The store answered, but not with a success."""

    def __init__(self, status, body):
        super().__init__(f'status {status}: {body[:500].decode(errors="replace")}')
        self.status = status


class BareClient:
    def __init__(self, port, access_key, secret_key, region='us-east-1'):
        self.host = f'127.0.0.1:{port}'
        self.keys = access_key, secret_key, region
        self.socket = socket.create_connection(('127.0.0.1', port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        self.socket.close()

    def prepare(self, method, path, body=b'', query='', headers=None, digest=None):
        """What exchange() takes, ready to be sent within the next minutes; `path` holds nothing to be encoded."""
        digest = digest or hashlib.sha256(body).hexdigest()
        fields = s3_signature.sign(method, path, query, {'host': self.host, **(headers or {})}, digest, *self.keys,
                                   time.time())
        lines = [f'{method} {path}{"?" + query if query else ""} HTTP/1.1', f'content-length: {len(body)}']
        lines += [f'{name}: {value}' for name, value in fields.items()]
        return '\r\n'.join(lines).encode() + b'\r\n\r\n', body

    def exchange(self, prepared):
        """The answer's body; Refused unless its status is 2xx."""
        head, body = prepared
        if len(body) < 65536:
            self.socket.sendall(head + body)
        else:
            self.socket.sendall(head)
            self.socket.sendall(body)
        status, answer = self.receive()
        if not 200 <= status < 300:
            raise Refused(status, answer)
        return answer

    def request(self, *arguments, **options):
        return self.exchange(self.prepare(*arguments, **options))

    def receive(self):
        """Answers of stores to GET and PUT have a length; one in chunks is not for this client."""
        data = self.more()
        while b'\r\n\r\n' not in data:
            data += self.more()
        head, _, body = data.partition(b'\r\n\r\n')
        lines = head.decode('latin-1').lower().split('\r\n')
        fields = dict(line.split(':', 1) for line in lines[1:])
        left = int(fields['content-length']) - len(body)
        parts = [body]
        while left > 0:
            parts.append(self.more())
            left -= len(parts[-1])
        return int(lines[0].split()[1]), b''.join(parts)

    def more(self):
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError('the store closed the connection')
        return data
