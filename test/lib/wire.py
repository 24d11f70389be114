"""NBD by hand: a client that says exactly what it is told, right or wrong."""

import socket
import struct

from harness import PATIENCE_S

OPTION_MAGIC = 0x49484156454F5054  # IHAVEOPT
REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698

OPTION_EXPORT_NAME, OPTION_ABORT, OPTION_LIST, OPTION_INFO, OPTION_GO, OPTION_STRUCTURED = 1, 2, 3, 6, 7, 8
REPLY_ACK, REPLY_SERVER, REPLY_INFO = 1, 2, 3
ERROR_UNSUPPORTED, ERROR_POLICY, ERROR_INVALID, ERROR_UNKNOWN, ERROR_TOO_BIG = (
    (1 << 31) + number for number in (1, 2, 3, 6, 9))

READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, WRITE_ZEROES = range(7)


class Closed(Exception):
    """The server hung up."""


class Wire:
    """`where`: a unix socket's path, or (host, port); then `source` may name the address to come from."""

    def __init__(self, where, greet=True, source=None):
        self.socket = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
        self.socket.settimeout(PATIENCE_S)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(where)
        self.cookie = 0
        if greet:
            self.receive(18)
            self.send(struct.pack('>I', 3))  # fixed newstyle, no zeroes

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, length):
        data = b''
        while len(data) < length:
            try:
                more = self.socket.recv(length - len(data))
            except ConnectionResetError:
                raise Closed('reset') from None
            if not more:
                raise Closed(f'after {len(data)} of {length} bytes')
            data += more
        return data

    def option_bytes(self, option, data=b'', length=None):
        return struct.pack('>QII', OPTION_MAGIC, option, len(data) if length is None else length) + data

    def option(self, option, data=b''):
        """Sends it and returns all replies up to the last: a list of (type, data)."""
        self.send(self.option_bytes(option, data))
        replies = []
        while True:
            magic, echoed, kind, length = struct.unpack('>QIII', self.receive(20))
            assert magic == REPLY_MAGIC and echoed == option, (hex(magic), echoed)
            replies.append((kind, self.receive(length)))
            if kind == REPLY_ACK or kind & 1 << 31:
                return replies

    def go(self, name, option=OPTION_GO):
        """The last reply's type, and its data."""
        return self.option(option, struct.pack('>I', len(name)) + name + struct.pack('>H', 0))[-1]

    def request_bytes(self, command, offset=0, length=0, flags=0):
        self.cookie += 1
        return struct.pack('>IHHQQI', REQUEST_MAGIC, flags, command, self.cookie, offset, length)

    def request(self, command, offset=0, length=0, flags=0, payload=b''):
        """Sends one and waits for its simple reply: (error, data)."""
        self.send(self.request_bytes(command, offset, length, flags) + payload)
        magic, error, cookie = struct.unpack('>IIQ', self.receive(16))
        assert magic == SIMPLE_MAGIC and cookie == self.cookie, (hex(magic), cookie)
        return error, self.receive(length) if command == READ and not error else b''

    def closed(self):
        """Waits until the server has hung up; what it still sent is thrown away."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            raise AssertionError(f'the server did not hang up within {PATIENCE_S} s') from None
