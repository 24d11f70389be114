"""NBD by hand: bytes in and out, with no opinion about what is right.

The checks build every message themselves, so that they can send wrong ones; what comes back is taken apart only as far
as its framing goes.  Source of all numbers: doc/proto.md of the NetworkBlockDevice project."""

import socket
import struct

NBDMAGIC = b'NBDMAGIC'
IHAVEOPT = b'IHAVEOPT'
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF

FIXED_NEWSTYLE, NO_ZEROES = 1, 2

EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED_REPLY = 1, 2, 3, 5, 6, 7, 8
LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS = 9, 10, 11

REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = 1, 2, 3, 4
(ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_PLATFORM, ERR_TLS_REQD, ERR_UNKNOWN, ERR_SHUTDOWN, ERR_BLOCK_SIZE_REQD,
 ERR_TOO_BIG, ERR_EXT_HEADER_REQD) = (0x80000000 + n for n in range(1, 11))
REP_NAMES = {1: 'ACK', 2: 'SERVER', 3: 'INFO', 4: 'META_CONTEXT', ERR_UNSUP: 'ERR_UNSUP', ERR_POLICY: 'ERR_POLICY',
             ERR_INVALID: 'ERR_INVALID', ERR_PLATFORM: 'ERR_PLATFORM', ERR_TLS_REQD: 'ERR_TLS_REQD',
             ERR_UNKNOWN: 'ERR_UNKNOWN', ERR_SHUTDOWN: 'ERR_SHUTDOWN', ERR_BLOCK_SIZE_REQD: 'ERR_BLOCK_SIZE_REQD',
             ERR_TOO_BIG: 'ERR_TOO_BIG', ERR_EXT_HEADER_REQD: 'ERR_EXT_HEADER_REQD'}

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

(HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, ROTATIONAL, SEND_TRIM, SEND_WRITE_ZEROES, SEND_DF, CAN_MULTI_CONN,
 SEND_RESIZE, SEND_CACHE, SEND_FAST_ZERO, BLOCK_STATUS_PAYLOAD) = (1 << n for n in range(13))

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
COMMAND_NAMES = ['READ', 'WRITE', 'DISC', 'FLUSH', 'TRIM', 'CACHE', 'WRITE_ZEROES', 'BLOCK_STATUS']
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << n for n in range(6))

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108

CHUNK_DONE = 1
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_ERROR, CHUNK_ERROR_OFFSET = 0, 1, 2, 0x8001, 0x8002

PATIENCE_S = 30  # what is not a failure on a machine with much to do


class Gone(Exception):
    """There is no server any more."""


class Deviation(Exception):
    """The server did something that the protocol does not allow."""


class Closed(Deviation):
    """The server hung up."""


class Silent(Deviation):
    """The server did not answer."""


def expect(condition, text):
    if not condition:
        raise Deviation(text)


def rep_name(reply):
    return REP_NAMES.get(reply, hex(reply))


class Reply:
    """The whole answer to one request: its error, and for a READ its data."""

    def __init__(self, cookie, error, data=None, chunks=0, message=''):
        self.cookie, self.error, self.data, self.chunks, self.message = cookie, error, data, chunks, message


class Partial:
    """A structured reply of which chunks are still to come."""

    def __init__(self, cookie, command, offset, length):
        self.reply = Reply(cookie, 0)
        self.command, self.offset, self.length = command, offset, length
        self.data = bytearray(length if command == READ and length <= 1 << 26 else 0)
        self.seen = []  # (offset, length) of content

    def take(self, flags, kind, payload):
        self.reply.chunks += 1
        if kind in (CHUNK_DATA, CHUNK_HOLE):
            self.take_content(kind, payload)
        elif kind in (CHUNK_ERROR, CHUNK_ERROR_OFFSET):
            self.take_error(kind, payload)
        else:
            expect(kind == CHUNK_NONE, f'a chunk of unknown type {kind}')
            expect(not payload and flags & CHUNK_DONE, 'a NONE chunk with payload, or without DONE')

    def take_content(self, kind, payload):
        expect(self.command == READ, f'a content chunk for command {self.command}')
        expect(len(payload) > 8 if kind == CHUNK_DATA else len(payload) == 12,
               f'a content chunk of {len(payload)} bytes')
        at = struct.unpack('>Q', payload[:8])[0]
        size = len(payload) - 8 if kind == CHUNK_DATA else struct.unpack('>I', payload[8:])[0]
        expect(size > 0 and self.offset <= at and at + size <= self.offset + self.length, 'a chunk outside the request')
        expect(all(at + size <= a or a + s <= at for a, s in self.seen), 'chunks that overlap')
        self.seen.append((at, size))
        if kind == CHUNK_DATA:
            self.data[at - self.offset:at - self.offset + size] = payload[8:]

    def take_error(self, kind, payload):
        expect(len(payload) >= 6, 'an error chunk that is too short')
        self.reply.error, size = struct.unpack('>IH', payload[:6])
        expect(self.reply.error != 0, 'an error chunk without an error')
        expect(len(payload) == 6 + size + (8 if kind == CHUNK_ERROR_OFFSET else 0), 'an error chunk of wrong length')
        self.reply.message = payload[6:6 + size].decode('utf-8')

    def finish(self):
        if self.command == READ and self.reply.error == 0:
            covered = sum(size for _, size in self.seen)
            expect(covered == self.length, f'a READ of {self.length} bytes got {covered}')
            self.reply.data = bytes(self.data)
        return self.reply


class Wire:
    """One connection.  It reads what was asked for and checks the framing of what it reads."""

    def __init__(self, target):
        family, address = target
        self.socket = socket.socket(family)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(address)
        self.structured = False
        self.size = self.flags = None
        self.next_cookie = 1
        self.asked = {}  # cookie: (command, offset, length)
        self.partial = {}  # cookie: Partial

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except socket.timeout:
            raise Silent('the server stopped reading') from None
        except OSError as error:
            raise Closed(f'the server hung up on us: {error}') from None

    def receive(self, length):
        parts, left = [], length
        while left > 0:
            try:
                part = self.socket.recv(min(left, 1 << 20))
            except socket.timeout:
                raise Silent(f'no answer within {PATIENCE_S} s') from None
            except OSError as error:
                raise Closed(f'the server reset the connection: {error}') from None
            if not part:
                raise Closed(f'the server hung up where {left} of {length} bytes were expected')
            parts.append(part)
            left -= len(part)
        return b''.join(parts)

    def expect_end(self, why, patience_s=PATIENCE_S):
        """The server must hang up, after whatever it was still saying."""
        self.socket.settimeout(patience_s)
        try:
            while self.socket.recv(1 << 16):
                pass
        except socket.timeout:
            raise Deviation(f'the connection was not closed: {why}') from None
        except OSError:
            pass

    # ---- handshake ----

    def greet(self, flags=FIXED_NEWSTYLE | NO_ZEROES):
        greeting = self.receive(18)
        expect(greeting[:8] == NBDMAGIC, f'the greeting begins with {greeting[:8]!r}')
        expect(greeting[8:16] == IHAVEOPT, 'the server does not speak newstyle')
        self.offered = struct.unpack('>H', greeting[16:])[0]
        if flags is not None:
            self.send(struct.pack('>I', flags))
        return self

    def option_bytes(self, option, data=b'', length=None):
        return IHAVEOPT + struct.pack('>II', option, len(data) if length is None else length) + data

    def option_reply(self, option):
        magic, echo, reply, length = struct.unpack('>QIII', self.receive(20))
        expect(magic == OPTION_REPLY_MAGIC, f'an option reply begins with {magic:#x}')
        expect(echo == option, f'a reply to option {option} names option {echo}')
        expect(length <= 1 << 20, f'an option reply of {length} bytes')
        return reply, self.receive(length)

    def option_replies(self, option):
        """All replies up to the one that ends them: [(reply, data)]."""
        replies = []
        while True:
            replies.append(self.option_reply(option))
            reply = replies[-1][0]
            if reply == REP_ACK or reply & 0x80000000:
                return replies

    def option(self, option, data=b'', length=None):
        self.send(self.option_bytes(option, data, length))
        return self.option_replies(option)

    def in_sync(self):
        """An option that no server knows must be answered in place."""
        replies = self.option(0x4242, b'sync')
        expect(replies == [(replies[-1][0], replies[-1][1])] and replies[-1][0] == ERR_UNSUP,
               f'an unknown option was answered by {[rep_name(r) for r, _ in replies]}')

    @staticmethod
    def choice(name, infos=()):
        if isinstance(name, str):
            name = name.encode()
        return struct.pack('>I', len(name)) + name + struct.pack(f'>H{len(infos)}H', len(infos), *infos)

    def go(self, name, structured=False):
        if structured:
            replies = self.option(STRUCTURED_REPLY)
            expect(replies[-1][0] == REP_ACK, f'STRUCTURED_REPLY got {rep_name(replies[-1][0])}')
            self.structured = True
        replies = self.option(GO, self.choice(name))
        expect(replies[-1][0] == REP_ACK, f'GO got {rep_name(replies[-1][0])}: {replies[-1][1]!r}')
        self.take_export(replies)
        return self

    def take_export(self, replies):
        exports = [data for reply, data in replies if reply == REP_INFO and data[:2] == b'\0\0']
        expect(len(exports) == 1 and len(exports[0]) == 12, 'not exactly one INFO_EXPORT of 12 bytes before the ACK')
        self.size, self.flags = struct.unpack('>QH', exports[0][2:])

    # ---- transmission ----

    def request_bytes(self, command, offset=0, length=0, flags=0, cookie=0, payload=b''):
        return struct.pack('>IHHQQI', REQUEST_MAGIC, flags, command, cookie, offset, length) + payload

    def ask(self, command, offset=0, length=0, flags=0, payload=b'', cookie=None):
        if cookie is None:
            cookie = self.next_cookie
            self.next_cookie += 1
        self.asked[cookie] = (command, offset, length)
        self.send(self.request_bytes(command, offset, length, flags, cookie, payload))
        return cookie

    def reply(self):
        """The next reply that is complete.  Chunks of several replies may come mixed."""
        while True:
            magic = struct.unpack('>I', self.receive(4))[0]
            if magic == SIMPLE_REPLY_MAGIC:
                return self.simple_reply()
            expect(magic == CHUNK_MAGIC, f'a reply begins with {magic:#x}')
            expect(self.structured, 'a structured reply that was not agreed on')
            reply = self.chunk()
            if reply is not None:
                return reply

    def take_asked(self, cookie):
        expect(cookie in self.asked, f'a reply to cookie {cookie:#x}, which was not asked for')
        return self.asked.pop(cookie)

    def simple_reply(self):
        error, cookie = struct.unpack('>IQ', self.receive(12))
        command, _, length = self.take_asked(cookie)
        expect(not self.structured or command != READ, 'a simple reply to READ where structured ones were agreed on')
        data = self.receive(length) if command == READ and error == 0 else None
        return Reply(cookie, error, data)

    def chunk(self):
        """Takes one chunk in; the reply, once that was the last of it."""
        flags, kind, cookie, length = struct.unpack('>HHQI', self.receive(16))
        expect(length <= (1 << 26) + 64, f'a chunk of {length} bytes')
        expect(flags & ~CHUNK_DONE == 0, f'a chunk with unknown flags {flags:#x}')
        if cookie not in self.partial:
            self.partial[cookie] = Partial(cookie, *self.take_asked(cookie))
        partial = self.partial[cookie]
        partial.take(flags, kind, self.receive(length))
        if not flags & CHUNK_DONE:
            return None
        return self.partial.pop(cookie).finish()

    def call(self, command, offset=0, length=0, flags=0, payload=b''):
        cookie = self.ask(command, offset, length, flags, payload)
        reply = self.reply()
        expect(reply.cookie == cookie, 'the reply to another request')
        return reply

    def expect_error(self, error, command, offset=0, length=0, flags=0, payload=b''):
        errors = error if isinstance(error, tuple) else (error,)
        got = self.call(command, offset, length, flags, payload).error
        expect(got in errors, f'{COMMAND_NAMES[command] if command < 8 else command} offset {offset} length {length} '
               f'flags {flags:#x}: error {got} instead of {" or ".join(map(str, errors))}')

    def usable(self):
        """Requests are still understood: the stream is in step."""
        self.expect_error(0, READ, 0, 512)
