"""Clients that mean ill or are broken: the server lives on, and serves the others meanwhile."""

import random
import socket
import struct
import time

from wire import *

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@check
def random_bytes_in_the_handshake(suite):
    """Random bytes instead of a handshake."""
    dice = random.Random(1)
    for _ in range(100):
        with suite.connect() as wire:
            wire.greet(None if dice.random() < 0.5 else 3)
            try:
                wire.send(dice.randbytes(dice.randrange(1, 5000)))
            except Closed:
                pass
    suite.alive()


@check
def random_options(suite):
    """Well-framed options with random content."""
    dice = random.Random(2)
    for _ in range(60):
        with suite.connect() as wire:
            wire.greet()
            try:
                for _ in range(20):
                    option = dice.choice((LIST, STARTTLS, INFO, STRUCTURED_REPLY, LIST_META_CONTEXT,
                                          SET_META_CONTEXT, EXTENDED_HEADERS, dice.getrandbits(32)))
                    replies = wire.option(option, dice.randbytes(dice.randrange(0, 64)))
                    if option == STARTTLS and replies[-1][0] == REP_ACK:
                        break
            except Closed:
                pass
    suite.alive()


@check
def half_a_handshake_dropped(suite):
    """Connections that end at every byte of the handshake."""
    whole = struct.pack('>I', 3) + IHAVEOPT + struct.pack('>II', GO, 6 + len(suite.export)) + Wire.choice(suite.export)
    for length in range(len(whole)):
        with suite.connect() as wire:
            wire.greet(None)
            wire.send(whole[:length])
    suite.alive()


@check
def half_a_handshake_and_silence(suite):
    """A client that falls silent in the handshake is dropped after a while (--handshake-seconds tells when)."""
    suite.skip_if(suite.handshake_seconds is None, 'the deadline is not known')
    with suite.connect() as wire, suite.connect() as other:
        wire.greet()
        wire.send(IHAVEOPT + b'\0\0')
        wire.expect_end('half a handshake and silence', suite.handshake_seconds + PATIENCE_S)
        other.expect_end('nothing but silence', PATIENCE_S)
    suite.alive()


@check
def a_million_tiny_options(suite):
    """A client that never stops sending options gets nowhere, and disturbs nobody."""
    with suite.connect() as wire:
        wire.greet()
        wire.socket.settimeout(0.5)
        block = wire.option_bytes(99) * 1000
        try:
            for _ in range(1000):
                wire.socket.sendall(block)
        except OSError:
            pass
        suite.alive()
    suite.alive()


@check
def a_million_tiny_options_read(suite):
    """The same from a client that reads the answers."""
    with suite.connect() as wire:
        wire.greet()
        block = wire.option_bytes(99) * 100
        until = time.monotonic() + 10
        try:
            for _ in range(10_000):
                wire.send(block)
                for _ in range(100):
                    wire.option_replies(99)
                if time.monotonic() > until:
                    break
        except Closed:
            pass
        suite.alive()


@check
def random_requests(suite):
    """Well-framed requests with random fields are each answered once, and the stream stays in step."""
    dice = random.Random(3)
    for structured in (False, True):
        with suite.attach(structured) as wire:
            for _ in range(600):
                command = dice.choice((READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, 8, 77))
                length = dice.choice((0, 1, 512, 4096, dice.randrange(100_000)))
                if command not in (READ, WRITE) and dice.random() < 0.2:
                    length = dice.getrandbits(32)
                offset = dice.choice((0, dice.randrange(wire.size), wire.size - 1, wire.size, dice.getrandbits(64)))
                flags = dice.choice((0, 0, 0, FUA, DF, dice.getrandbits(16)))
                if flags & PAYLOAD_LEN and command != WRITE:
                    flags &= ~PAYLOAD_LEN
                wire.call(command, offset, length, flags, b'\x5a' * length if command == WRITE else b'')
            wire.usable()
    suite.alive()


@check
def hanging_up_with_requests_in_flight(suite):
    """Clients that hang up without waiting for their replies."""
    for i in range(40):
        with suite.attach(i % 2 == 0) as wire:
            size = 65536
            wire.send(b''.join(wire.request_bytes(READ, n * size, size, 0, n) for n in range(16)))
            if i % 3 == 0:
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    suite.alive()


@check
def write_without_its_payload(suite):
    """A WRITE whose payload does not come holds up nobody, and changes nothing when its client goes."""
    with suite.attach(False) as other:
        suite.skip_if(other.flags & READ_ONLY, 'the export is read-only')
        other.expect_error(0, WRITE, 0, 65536, 0, bytes(65536))
        with suite.attach(False) as wire:
            wire.send(wire.request_bytes(WRITE, 0, 65536, 0, 1, b'\xee' * 40_000))
            other.usable()
            other.expect_error(0, FLUSH)
            expect(other.call(READ, 0, 65536).data == bytes(65536), 'half a WRITE can be read')
            suite.alive()
        time.sleep(0.2)
        expect(other.call(READ, 0, 65536).data == bytes(65536), 'half a WRITE was written')


@check
def never_reading_replies(suite):
    """A client that does not read its replies is not read from; others are served; when it reads, all is there."""
    with suite.attach(True) as wire:
        size = 65536
        request, sent = b'', 0
        wire.socket.settimeout(1)
        try:
            while sent < 3000:
                request = wire.request_bytes(READ, (sent % 64) * size, size, 0, sent)
                wire.socket.sendall(request)
                sent += 1
        except OSError:
            pass
        with suite.attach(False) as other:
            for _ in range(50):
                other.usable()
        wire.socket.settimeout(PATIENCE_S)
        for cookie in range(sent):
            wire.asked[cookie] = (READ, (cookie % 64) * size, size)
        for _ in range(sent):
            expect(wire.reply().error == 0, 'a READ failed')


@check
def many_connections(suite):
    """Dozens of idle connections do not keep a new one out."""
    wires = []
    try:
        for _ in range(60):
            wires.append(suite.connect())
        suite.alive()
    finally:
        for wire in wires:
            wire.socket.close()
