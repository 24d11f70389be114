"""The barest NBD client: requests made ready before the clock starts, sent in one go, replies counted.

A client that does things one by one in Python would cost more than what is measured."""

import socket
import struct

OPTION_MAGIC = 0x49484156454F5054  # IHAVEOPT
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
REPLY_BYTES = 16


class BareNbd:
    def __init__(self, path, export):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.receive(18)
        name = export.encode()
        # Fixed newstyle, no zeroes; NBD_OPT_EXPORT_NAME: the server answers with size and flags.
        self.socket.sendall(struct.pack('>IQII', 3, OPTION_MAGIC, 1, len(name)) + name)
        self.size, _ = struct.unpack('>QH', self.receive(10))

    def close(self):
        self.socket.sendall(struct.pack('>IHHQQI', REQUEST_MAGIC, 0, DISCONNECT, 0, 0, 0))
        self.socket.close()

    @staticmethod
    def request(kind, offset=0, length=0):
        return struct.pack('>IHHQQI', REQUEST_MAGIC, 0, kind, offset, offset, length)

    def receive(self, length):
        parts = []
        while length > 0:
            data = self.socket.recv(length)
            if not data:
                raise ConnectionError('the server closed the connection')
            parts.append(data)
            length -= len(data)
        return b''.join(parts)

    def replies(self, count):
        """All of them must be good."""
        data = self.receive(count * REPLY_BYTES)
        for at in range(0, len(data), REPLY_BYTES):
            magic, error = struct.unpack_from('>II', data, at)
            if magic != REPLY_MAGIC or error != 0:
                raise OSError(error, 'the server answered with an error')

    def send_writes(self, message, count):
        """`message`: whole requests, one after the other, as bytes or a list of them."""
        for part in message if isinstance(message, list) else [message]:
            self.socket.sendall(part)
        self.replies(count)

    def flush(self):
        self.socket.sendall(self.request(FLUSH))
        self.replies(1)

    def read(self, offset, length):
        self.socket.sendall(self.request(READ, offset, length))
        self.replies(1)
        return self.receive(length)
