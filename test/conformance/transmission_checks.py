"""Rules of the transmission phase.  Most are held against simple and structured replies."""

import random

from wire import *

CHECKS = []
MIB = 1 << 20


def check(function):
    """A rule for both kinds of replies."""
    for structured in (False, True):
        def run(suite, structured=structured):
            function(suite, lambda: suite.attach(structured))
        run.__name__ = function.__name__ + ('_structured' if structured else '_simple')
        run.__doc__ = function.__doc__
        CHECKS.append(run)
    return function


def check_once(function):
    CHECKS.append(function)
    return function


def writable(suite, wire):
    suite.skip_if(wire.flags & READ_ONLY, 'the export is read-only')
    return wire


def needs(suite, wire, flag, what):
    suite.skip_if(not wire.flags & flag, f'{what} is not advertised')


# ---- flags of the export ----

@check
def flags_make_sense(suite, attach):
    """HAS_FLAGS is set, DF goes with structured replies, FAST_ZERO with WRITE_ZEROES."""
    with attach() as wire:
        expect(wire.flags & HAS_FLAGS, 'HAS_FLAGS is not set')
        expect(bool(wire.flags & SEND_DF) == wire.structured, 'DF and structured replies do not go together')
        expect(not wire.flags & SEND_FAST_ZERO or wire.flags & SEND_WRITE_ZEROES, 'FAST_ZERO without WRITE_ZEROES')
        expect(not wire.flags & BLOCK_STATUS_PAYLOAD, 'BLOCK_STATUS_PAYLOAD without extended headers')
        expect(wire.flags >> 13 == 0, f'unknown flags {wire.flags:#x}')


# ---- what goes right ----

@check
def write_then_read(suite, attach):
    """What was written is read, at any alignment and length."""
    with attach() as wire:
        writable(suite, wire)
        for offset, length in ((0, 1), (1, 511), (4095, 2), (4096, 4096), (100_001, 65_537), (MIB - 1, MIB + 2)):
            data = random.randbytes(length)
            wire.expect_error(0, WRITE, offset, length, 0, data)
            expect(wire.call(READ, offset, length).data == data, f'{length} bytes at {offset} came back different')


@check
def last_byte(suite, attach):
    """The last byte of the export can be read and written."""
    with attach() as wire:
        wire.expect_error(0, READ, wire.size - 1, 1)
        if not wire.flags & READ_ONLY:
            wire.expect_error(0, WRITE, wire.size - 1, 1, 0, b'x')


@check
def cookies_are_echoed(suite, attach):
    """Any cookie is echoed, also one that is in use."""
    with attach() as wire:
        for cookie in (0, 1, 0xffffffffffffffff, 0x4142434445464748):
            wire.ask(READ, 0, 512, cookie=cookie)
            expect(wire.reply().cookie == cookie, 'another cookie')
        for _ in range(2):
            wire.send(wire.request_bytes(READ, 0, 512, 0, 5))
        for _ in range(2):
            wire.asked[5] = (READ, 0, 512)
            wire.reply()


@check
def many_in_flight(suite, attach):
    """Hundreds of requests may be in flight; each is answered once."""
    with attach() as wire:
        requests = []
        for i in range(400):
            requests.append(wire.request_bytes(READ, i * 8191, 4096, 0, i))
            wire.asked[i] = (READ, i * 8191, 4096)
        wire.send(b''.join(requests))
        while wire.asked:
            expect(wire.reply().error == 0, 'a READ failed')


@check
def largest_payloads(suite, attach):
    """READ and WRITE of 32 MiB are served."""
    with attach() as wire:
        suite.skip_if(wire.size < 33 * MIB, 'the export is too small')
        if not wire.flags & READ_ONLY:
            data = random.randbytes(MIB) * 32
            wire.expect_error(0, WRITE, 4097, len(data), 0, data)
            expect(wire.call(READ, 4097, len(data)).data == data, '32 MiB came back different')
        else:
            wire.expect_error(0, READ, 4097, 32 * MIB)


@check
def zero_length(suite, attach):
    """A length of 0 succeeds and does nothing."""
    with attach() as wire:
        for command, flag in ((READ, 0), (WRITE, 0), (TRIM, SEND_TRIM), (WRITE_ZEROES, SEND_WRITE_ZEROES),
                              (CACHE, SEND_CACHE)):
            if command in (WRITE, TRIM, WRITE_ZEROES) and wire.flags & READ_ONLY:
                continue
            if flag == 0 or wire.flags & flag:
                wire.expect_error(0, command, 4096, 0)
        wire.usable()


@check
def flush(suite, attach):
    """FLUSH succeeds."""
    with attach() as wire:
        needs(suite, wire, SEND_FLUSH, 'FLUSH')
        if not wire.flags & READ_ONLY:
            wire.expect_error(0, WRITE, 0, 4096, 0, bytes(4096))
        wire.expect_error(0, FLUSH)


@check
def fua_everywhere(suite, attach):
    """FUA, once advertised, is taken by every command."""
    with attach() as wire:
        needs(suite, wire, SEND_FUA, 'FUA')
        wire.expect_error(0, READ, 0, 4096, FUA)
        if wire.flags & SEND_FLUSH:
            wire.expect_error(0, FLUSH, 0, 0, FUA)
        if wire.flags & SEND_CACHE:
            wire.expect_error(0, CACHE, 0, 4096, FUA)
        if not wire.flags & READ_ONLY:
            wire.expect_error(0, WRITE, 0, 4096, FUA, bytes(4096))
            if wire.flags & SEND_TRIM:
                wire.expect_error(0, TRIM, 0, 4096, FUA)
            if wire.flags & SEND_WRITE_ZEROES:
                wire.expect_error(0, WRITE_ZEROES, 0, 4096, FUA | NO_HOLE)


@check
def write_zeroes(suite, attach):
    """WRITE_ZEROES makes zeroes at any alignment, and nothing else."""
    with attach() as wire:
        writable(suite, wire)
        needs(suite, wire, SEND_WRITE_ZEROES, 'WRITE_ZEROES')
        for flags in (0, NO_HOLE):
            for offset, length in ((1000, 10), (4000, 5000), (0, 300_000), (131_071, 262_146)):
                wire.expect_error(0, WRITE, 0, 512 * 1024, 0, b'\xab' * (512 * 1024))
                wire.expect_error(0, WRITE_ZEROES, offset, length, flags)
                want = b'\xab' * offset + bytes(length) + b'\xab' * (512 * 1024 - offset - length)
                expect(wire.call(READ, 0, 512 * 1024).data == want, f'{length} zeroes at {offset} went wrong')


@check
def whole_export_at_once(suite, attach):
    """TRIM, WRITE_ZEROES and CACHE take lengths up to 4 GiB - 1."""
    with attach() as wire:
        length = min(wire.size, 0xffffffff)
        if not wire.flags & READ_ONLY:
            wire.expect_error(0, WRITE, 5 * MIB, 4096, 0, b'x' * 4096)
            if wire.flags & SEND_TRIM:
                wire.expect_error(0, TRIM, 0, length)
            if wire.flags & SEND_WRITE_ZEROES:
                wire.expect_error(0, WRITE_ZEROES, 0, length)
                expect(wire.call(READ, 5 * MIB, 4096).data == bytes(4096), 'data survived WRITE_ZEROES')
        if wire.flags & SEND_CACHE:
            wire.expect_error(0, CACHE, 0, length)


# ---- bounds ----

def past_the_end(wire):
    return ((wire.size - 1, 2), (wire.size, 1), (wire.size - 512, 1024), (1 << 63, 512), (0xffffffffffffffff, 1),
            (0xfffffffffffffe00, 512), (0xffffffffffffff00, 4096))


@check
def read_past_the_end(suite, attach):
    """READ past the end is EINVAL."""
    with attach() as wire:
        for offset, length in past_the_end(wire):
            wire.expect_error(EINVAL, READ, offset, length)
        wire.usable()


@check
def write_past_the_end(suite, attach):
    """WRITE past the end is ENOSPC, writes nothing, and its payload is consumed."""
    with attach() as wire:
        writable(suite, wire)
        wire.expect_error(0, WRITE, wire.size - 512, 512, 0, bytes(512))
        for offset, length in past_the_end(wire):
            wire.expect_error(ENOSPC, WRITE, offset, length, 0, b'%' * length)
        expect(wire.call(READ, wire.size - 512, 512).data == bytes(512), 'part of it was written')


@check
def trim_past_the_end(suite, attach):
    """TRIM past the end is EINVAL."""
    with attach() as wire:
        writable(suite, wire)
        needs(suite, wire, SEND_TRIM, 'TRIM')
        for offset, length in past_the_end(wire) + ((4096, 0xffffffff),) * (wire.size < 1 << 32):
            wire.expect_error(EINVAL, TRIM, offset, length)
        wire.usable()


@check
def write_zeroes_past_the_end(suite, attach):
    """WRITE_ZEROES past the end is ENOSPC."""
    with attach() as wire:
        writable(suite, wire)
        needs(suite, wire, SEND_WRITE_ZEROES, 'WRITE_ZEROES')
        for offset, length in past_the_end(wire):
            wire.expect_error(ENOSPC, WRITE_ZEROES, offset, length)
        wire.usable()


@check
def cache_past_the_end(suite, attach):
    """CACHE past the end is EINVAL."""
    with attach() as wire:
        needs(suite, wire, SEND_CACHE, 'CACHE')
        for offset, length in past_the_end(wire):
            wire.expect_error(EINVAL, CACHE, offset, length)
        wire.usable()


@check
def read_too_long(suite, attach):
    """A READ of more than the maximum is EINVAL (or served), never a hang-up."""
    with attach() as wire:
        for length in (32 * MIB + 1, 64 * MIB + 1, 0xffffffff):
            reply = wire.call(READ, 0, length) if length > 64 * MIB or wire.size < length else None
            if reply is not None:
                expect(reply.error == EINVAL, f'READ of {length} bytes: error {reply.error}')
        wire.usable()


@check
def write_too_long(suite, attach):
    """A WRITE of more than the maximum is drained and EINVAL (or served), never a hang-up."""
    with attach() as wire:
        writable(suite, wire)
        suite.skip_if(wire.size < 64 * MIB, 'the export is too small')
        length = 32 * MIB + 4096
        reply = wire.call(WRITE, 0, length, 0, bytes(length))
        expect(reply.error in (0, EINVAL), f'WRITE of {length} bytes: error {reply.error}')
        wire.usable()


@check
def read_only(suite, attach):
    """A read-only export answers EPERM to what would change it, and consumes the payload."""
    with attach() as wire:
        suite.skip_if(not wire.flags & READ_ONLY, 'the export is writable')
        wire.expect_error(EPERM, WRITE, 0, 512, 0, bytes(512))
        wire.expect_error((EPERM, EINVAL), TRIM, 0, 512)
        wire.expect_error((EPERM, EINVAL), WRITE_ZEROES, 0, 512)
        wire.usable()


# ---- flags and commands that do not fit ----

@check
def flags_unknown(suite, attach):
    """Unknown flags are EINVAL with every command, and a WRITE's payload is consumed."""
    with attach() as wire:
        for flag in (1 << n for n in range(6, 16)):
            wire.expect_error(EINVAL, READ, 0, 512, flag)
            wire.expect_error((EINVAL, EPERM), WRITE, 0, 512, flag, b'%' * 512)
            if wire.flags & SEND_FLUSH:
                wire.expect_error(EINVAL, FLUSH, 0, 0, flag)
            if wire.flags & SEND_TRIM:
                wire.expect_error(EINVAL, TRIM, 0, 512, flag)
            if wire.flags & SEND_WRITE_ZEROES:
                wire.expect_error(EINVAL, WRITE_ZEROES, 0, 512, flag)
            if wire.flags & SEND_CACHE:
                wire.expect_error(EINVAL, CACHE, 0, 512, flag)
        wire.usable()


@check
def flags_misplaced(suite, attach):
    """Flags of other commands are EINVAL, and a WRITE's payload is consumed."""
    with attach() as wire:
        for flag in (NO_HOLE, REQ_ONE, FAST_ZERO, PAYLOAD_LEN):
            wire.expect_error(EINVAL, READ, 0, 512, flag)
        for flag in (NO_HOLE, DF, REQ_ONE, FAST_ZERO):
            wire.expect_error((EINVAL, EPERM), WRITE, 0, 512, flag, b'%' * 512)
            if wire.flags & SEND_FLUSH:
                wire.expect_error(EINVAL, FLUSH, 0, 0, flag)
            if wire.flags & SEND_TRIM:
                wire.expect_error(EINVAL, TRIM, 0, 512, flag)
            if wire.flags & SEND_CACHE:
                wire.expect_error(EINVAL, CACHE, 0, 512, flag)
        for flag in (DF, REQ_ONE, PAYLOAD_LEN):
            if wire.flags & SEND_WRITE_ZEROES:
                wire.expect_error(EINVAL, WRITE_ZEROES, 0, 512, flag)
        wire.usable()


@check
def payload_len_without_extended_headers(suite, attach):
    """PAYLOAD_LEN belongs to extended headers: EINVAL otherwise."""
    with attach() as wire:
        wire.expect_error((EINVAL, EPERM), WRITE, 0, 512, PAYLOAD_LEN, b'%' * 512)
        wire.usable()


@check_once
def structured_replies_only(suite):
    """Once agreed on, replies are structured for every command and every error."""
    with suite.attach(True) as wire:
        calls = [(READ, 0, 512, 0), (READ, 0, 0, 0), (READ, wire.size, 1, 0), (READ, 0, 512, 1 << 15),
                 (WRITE, 0, 512, 0), (WRITE, wire.size, 512, 0), (WRITE, 0, 512, 1 << 15), (FLUSH, 0, 0, 0),
                 (TRIM, 0, 512, 0), (TRIM, wire.size, 512, 0), (CACHE, 0, 512, 0), (WRITE_ZEROES, 0, 512, 0),
                 (WRITE_ZEROES, wire.size, 512, 0), (BLOCK_STATUS, 0, 512, 0), (99, 0, 0, 0)]
        for command, offset, length, flags in calls:
            reply = wire.call(command, offset, length, flags, bytes(length) if command == WRITE else b'')
            expect(reply.chunks > 0, f'a simple reply to command {command}, with error {reply.error}')


@check_once
def df_without_structured(suite):
    """DF without structured replies is EINVAL."""
    with suite.attach(False) as wire:
        wire.expect_error(EINVAL, READ, 0, 512, DF)
        wire.usable()


@check_once
def df_in_one_chunk(suite):
    """With DF a READ of up to 64 KiB is one chunk."""
    with suite.attach(True) as wire:
        needs(suite, wire, SEND_DF, 'DF')
        if not wire.flags & READ_ONLY:
            wire.expect_error(0, WRITE, 0, 4096, 0, b'x' * 4096)
            if wire.flags & SEND_TRIM:
                wire.expect_error(0, TRIM, 4096, 28672)
        for length in (1, 4096, 65536):
            reply = wire.call(READ, 0, length, DF)
            expect(reply.error == 0 and reply.chunks == 1, f'{reply.chunks} chunks, error {reply.error}')


@check
def fast_zero(suite, attach):
    """FAST_ZERO is EINVAL unless advertised; then it is done, or ENOTSUP at once."""
    with attach() as wire:
        writable(suite, wire)
        needs(suite, wire, SEND_WRITE_ZEROES, 'WRITE_ZEROES')
        wire.expect_error((0, ENOTSUP) if wire.flags & SEND_FAST_ZERO else EINVAL, WRITE_ZEROES, 0, 4096, FAST_ZERO)
        wire.usable()


@check
def flush_with_fields(suite, attach):
    """FLUSH with offset or length is EINVAL."""
    with attach() as wire:
        needs(suite, wire, SEND_FLUSH, 'FLUSH')
        wire.expect_error(EINVAL, FLUSH, 512, 0)
        wire.expect_error(EINVAL, FLUSH, 0, 512)
        wire.usable()


@check
def commands_unknown(suite, attach):
    """Unknown commands are EINVAL, and have no payload."""
    with attach() as wire:
        for command in (8, 9, 100, 0xffff):
            wire.expect_error(EINVAL, command, 0, 512)
        wire.usable()


@check
def block_status_not_negotiated(suite, attach):
    """BLOCK_STATUS without a meta context is EINVAL, whatever its length."""
    with attach() as wire:
        for length in (512, 0, 0xffffffff):
            wire.expect_error(EINVAL, BLOCK_STATUS, 0, length)
        wire.usable()


@check
def request_magic_wrong(suite, attach):
    """What is not a request ends the connection, and only that."""
    with attach() as wire:
        wire.send(b'\x25\x60\x95\x14' + bytes(24))
        wire.expect_end('a request with a wrong magic')
    suite.alive()


# ---- the end ----

@check
def disc_ends(suite, attach):
    """DISC is not answered; the connection ends."""
    with attach() as wire:
        wire.send(wire.request_bytes(DISC, 0, 0, 0, 1))
        expect(wire.socket.recv(1) == b'', 'DISC was answered')


@check
def disc_ignores_fields(suite, attach):
    """The fields of DISC mean nothing."""
    with attach() as wire:
        wire.send(wire.request_bytes(DISC, 0xffffffffffffffff, 0xffffffff, 0xffff, 1))
        expect(wire.socket.recv(1) == b'', 'DISC was answered')


@check
def disc_after_requests(suite, attach):
    """What was asked before DISC is answered before the connection ends."""
    with attach() as wire:
        count = 50
        for i in range(count):
            wire.asked[i] = (READ, i * 4096, 4096)
        wire.send(b''.join(wire.request_bytes(READ, i * 4096, 4096, 0, i) for i in range(count))
                  + wire.request_bytes(DISC))
        for _ in range(count):
            wire.reply()
        expect(wire.socket.recv(1) == b'', 'DISC was answered')


# ---- several connections ----

@check_once
def connections_share_the_export(suite):
    """What one connection wrote, others read at once."""
    with suite.attach(True) as one, suite.attach(False) as other:
        writable(suite, one)
        suite.skip_if(not one.flags & CAN_MULTI_CONN, 'MULTI_CONN is not advertised')
        for i in range(20):
            data = random.randbytes(4096)
            one.expect_error(0, WRITE, i * 4096, 4096, 0, data)
            other.expect_error(0, FLUSH)
            expect(other.call(READ, i * 4096, 4096).data == data, 'another connection reads other data')
