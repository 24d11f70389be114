"""Rules of the handshake: the greeting, options right and wrong, what remains of the stream after each."""

import struct

from wire import *

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


# ---- the greeting ----

@check
def greeting_offers_fixed_newstyle(suite):
    """The greeting offers the fixed newstyle, and to leave the zeroes out."""
    with suite.connect() as wire:
        wire.greet(None)
        expect(wire.offered & FIXED_NEWSTYLE, 'FIXED_NEWSTYLE is not offered')
        expect(wire.offered & NO_ZEROES, 'NO_ZEROES is not offered')
        expect(wire.offered & ~3 == 0, f'unknown handshake flags {wire.offered:#x}')


@check
def client_flags_unknown(suite):
    """Client flags that were not offered end the connection."""
    for flags in (4, 0x80000003, 0xffffffff):
        with suite.connect() as wire:
            wire.greet(flags)
            wire.expect_end(f'client flags {flags:#x}')


@check
def client_flags_none(suite):
    """A client that agrees to nothing can still use EXPORT_NAME, and gets the zeroes."""
    with suite.connect() as wire:
        wire.greet(0)
        wire.send(wire.option_bytes(EXPORT_NAME, suite.export))
        size, flags, zeroes = struct.unpack('>QH124s', wire.receive(134))
        expect(size > 0 and flags & HAS_FLAGS, 'no size, or flags without HAS_FLAGS')
        expect(zeroes == bytes(124), 'the 124 zeroes are not zero')
        wire.size, wire.flags = size, flags
        wire.usable()


@check
def option_magic_wrong(suite):
    """What is not an option ends the connection."""
    with suite.connect() as wire:
        wire.greet()
        wire.send(b'IHAVEOPS' + struct.pack('>II', LIST, 0))
        wire.expect_end('an option with a wrong magic')


# ---- EXPORT_NAME, ABORT, LIST ----

@check
def export_name(suite):
    """EXPORT_NAME opens the export, without zeroes where agreed."""
    with suite.connect() as wire:
        wire.greet()
        wire.send(wire.option_bytes(EXPORT_NAME, suite.export))
        wire.size, wire.flags = struct.unpack('>QH', wire.receive(10))
        wire.usable()


@check
def export_name_invalid(suite):
    """EXPORT_NAME with a name that cannot be ends the connection."""
    for name in (b'\xff\xfe', b'x' * 5000):
        with suite.connect() as wire:
            wire.greet()
            wire.send(wire.option_bytes(EXPORT_NAME, name))
            wire.expect_end(f'EXPORT_NAME of {len(name)} bytes')


@check
def export_name_after_structured(suite):
    """EXPORT_NAME works after STRUCTURED_REPLY, and then has DF."""
    with suite.connect() as wire:
        wire.greet()
        expect(wire.option(STRUCTURED_REPLY)[-1][0] == REP_ACK, 'STRUCTURED_REPLY was refused')
        wire.structured = True
        wire.send(wire.option_bytes(EXPORT_NAME, suite.export))
        wire.size, wire.flags = struct.unpack('>QH', wire.receive(10))
        expect(wire.flags & SEND_DF, 'DF is not advertised')
        wire.usable()


@check
def abort_is_acknowledged(suite):
    """ABORT gets an ACK, then the connection ends."""
    with suite.connect() as wire:
        wire.greet()
        expect(wire.option(ABORT) == [(REP_ACK, b'')], 'ABORT was not acknowledged')
        wire.expect_end('after ABORT')


@check
def abort_ignores_data(suite):
    """The data of ABORT means nothing."""
    with suite.connect() as wire:
        wire.greet()
        expect(wire.option(ABORT, b'whatever')[-1][0] == REP_ACK, 'ABORT with data was not acknowledged')


@check
def abort_and_gone(suite):
    """A client that does not wait for the ACK of its ABORT does no harm."""
    for _ in range(20):
        with suite.connect() as wire:
            wire.greet()
            wire.send(wire.option_bytes(ABORT))
    suite.alive()


@check
def list_names(suite):
    """LIST gives well-formed names, or says that policy forbids it."""
    with suite.connect() as wire:
        wire.greet()
        replies = wire.option(LIST)
        expect(replies[-1][0] in (REP_ACK, ERR_POLICY, ERR_UNSUP), f'LIST ended with {rep_name(replies[-1][0])}')
        for reply, data in replies[:-1]:
            expect(reply == REP_SERVER, f'LIST got {rep_name(reply)}')
            length = struct.unpack('>I', data[:4])[0]
            expect(length <= len(data) - 4, 'a name longer than its reply')
            data[4:4 + length].decode('utf-8')
        wire.in_sync()


@check
def list_with_data(suite):
    """LIST with data is invalid, and leaves the stream in step."""
    with suite.connect() as wire:
        wire.greet()
        expect(wire.option(LIST, b'data')[-1][0] == ERR_INVALID, 'LIST with data was not ERR_INVALID')
        wire.in_sync()


# ---- options that may be unknown ----

@check
def unknown_options(suite):
    """Unknown options get ERR_UNSUP, with and without data, and the stream stays in step."""
    with suite.connect() as wire:
        wire.greet()
        for option, data in ((0, b''), (4, b''), (12, b'x'), (99, b'x' * 1000), (0xffffffff, b'IHAVEOPT' * 4)):
            replies = wire.option(option, data)
            expect([r for r, _ in replies] == [ERR_UNSUP], f'option {option} got {rep_name(replies[-1][0])}')
        wire.go(suite.export).usable()


@check
def unknown_option_long(suite):
    """An unknown option's data is drained even when it is long."""
    with suite.connect() as wire:
        wire.greet()
        expect(wire.option(99, bytes(100_000))[-1][0] in (ERR_UNSUP, ERR_TOO_BIG), 'not refused')
        wire.in_sync()


@check
def option_senseless_length(suite):
    """An option that announces 4 GiB costs the connection at most."""
    for option in (INFO, GO, LIST, EXPORT_NAME, ABORT, 99):
        with suite.connect() as wire:
            wire.greet()
            wire.send(wire.option_bytes(option, b'x' * 100, 0xffffffff))
    suite.alive()


@check
def starttls_when_off(suite):
    """STARTTLS without TLS is UNSUP or POLICY, never TLS_REQD; the handshake goes on."""
    with suite.connect() as wire:
        wire.greet()
        reply = wire.option(STARTTLS)[-1][0]
        suite.skip_if(reply == REP_ACK, 'the server has TLS')
        expect(reply in (ERR_UNSUP, ERR_POLICY), f'STARTTLS got {rep_name(reply)}')
        wire.go(suite.export).usable()


@check
def starttls_with_data(suite):
    """STARTTLS with data is refused, and its data drained."""
    with suite.connect() as wire:
        wire.greet()
        reply = wire.option(STARTTLS, b'data')[-1][0]
        expect(reply in (ERR_INVALID, ERR_UNSUP, ERR_POLICY), f'STARTTLS with data got {rep_name(reply)}')
        wire.in_sync()


@check
def structured_reply_with_data(suite):
    """STRUCTURED_REPLY with data is invalid, and changes nothing."""
    with suite.connect() as wire:
        wire.greet()
        reply = wire.option(STRUCTURED_REPLY, b'data')[-1][0]
        expect(reply == ERR_INVALID, f'STRUCTURED_REPLY with data got {rep_name(reply)}')
        wire.go(suite.export).usable()


@check
def meta_context_before_structured(suite):
    """SET_META_CONTEXT before structured replies is refused, and its data drained."""
    query = struct.pack('>I', len(suite.export)) + suite.export + struct.pack('>II', 1, 15) + b'base:allocation'
    with suite.connect() as wire:
        wire.greet()
        reply = wire.option(SET_META_CONTEXT, query)[-1][0]
        expect(reply in (ERR_INVALID, ERR_UNSUP), f'SET_META_CONTEXT got {rep_name(reply)}')
        wire.in_sync()


@check
def meta_context_malformed(suite):
    """Meta context options whose lengths do not fit are refused, and the stream stays in step."""
    for option in (LIST_META_CONTEXT, SET_META_CONTEXT):
        for data in (b'', b'\0\0', struct.pack('>I', 0xffffffff), struct.pack('>II', 0, 0xffffffff),
                     struct.pack('>III', 0, 1, 0xffffffff)):
            with suite.connect() as wire:
                wire.greet()
                wire.option(STRUCTURED_REPLY)
                reply = wire.option(option, data)[-1][0]
                expect(reply in (ERR_INVALID, ERR_UNSUP, ERR_TOO_BIG),
                       f'malformed option {option} got {rep_name(reply)}')
                wire.in_sync()


# ---- INFO and GO ----

@check
def info_then_go(suite):
    """INFO and GO tell the same, EXPORT before the ACK."""
    with suite.connect() as wire:
        wire.greet()
        replies = wire.option(INFO, wire.choice(suite.export))
        expect(replies[-1][0] == REP_ACK, f'INFO got {rep_name(replies[-1][0])}')
        wire.take_export(replies)
        size, flags = wire.size, wire.flags
        wire.go(suite.export)
        expect((size, flags) == (wire.size, wire.flags), 'INFO and GO differ')
        wire.usable()


@check
def info_asked_for(suite):
    """Informations that are asked for are well-formed; unknown ones are passed over."""
    for option in (INFO, GO):
        with suite.connect() as wire:
            wire.greet()
            replies = wire.option(option, wire.choice(suite.export, (1, 2, 3, 3, 77, 0xffff, 0)))
            expect(replies[-1][0] == REP_ACK, f'option {option} got {rep_name(replies[-1][0])}')
            for reply, data in replies[:-1]:
                expect(reply == REP_INFO and len(data) >= 2, f'option {option} got {rep_name(reply)}')
                kind = struct.unpack('>H', data[:2])[0]
                if kind == INFO_BLOCK_SIZE:
                    least, best, most = struct.unpack('>III', data[2:])
                    expect(least & (least - 1) == 0 and 1 <= least <= 65536, f'minimum block size {least}')
                    expect(best & (best - 1) == 0 and best >= max(512, least), f'preferred block size {best}')
                    expect(most >= 1 << 20 or most == 0xffffffff, f'maximum payload {most}')
                elif kind == INFO_NAME:
                    expect(data[2:].decode('utf-8') is not None, 'a name')
                elif kind == INFO_DESCRIPTION:
                    expect(len(data) <= 4098 and data[2:].decode('utf-8') is not None, 'a description')
                else:
                    expect(kind == INFO_EXPORT, f'information {kind} was invented')


@check
def choice_malformed(suite):
    """INFO and GO whose lengths do not fit are ERR_INVALID, and the stream stays in step."""
    name = suite.export
    shapes = {
        'no data': b'',
        'two bytes': b'\0\0',
        'five bytes': struct.pack('>IB', 0, 0),
        'a name longer than the option': struct.pack('>I', len(name) + 7) + name + b'\0\0',
        'a name of 4 GiB': struct.pack('>I', 0xffffffff) + name + b'\0\0',
        'a name that wraps around': struct.pack('>I', 0xfffffffa) + name + b'\0\0',
        'more informations than there are': struct.pack('>I', len(name)) + name + struct.pack('>HH', 2, 3),
        '65535 informations': struct.pack('>I', len(name)) + name + struct.pack('>H', 65535),
        'bytes behind the end': struct.pack('>I', len(name)) + name + b'\0\0\0',
    }
    for option in (INFO, GO):
        for what, data in shapes.items():
            with suite.connect() as wire:
                wire.greet()
                reply = wire.option(option, data)[-1][0]
                expect(reply == ERR_INVALID, f'option {option} with {what} got {rep_name(reply)}')
                wire.in_sync()


@check
def names_bad(suite):
    """Names with a NUL or bad UTF-8 are ERR_INVALID."""
    for option in (INFO, GO):
        for name in (b'a\0b', b'\xff', b'\xc0\x80', b'\xed\xa0\x80', b'\xe2\x82', b'\xf5\x80\x80\x80'):
            with suite.connect() as wire:
                wire.greet()
                reply = wire.option(option, wire.choice(name))[-1][0]
                expect(reply in (ERR_INVALID, ERR_UNKNOWN), f'name {name!r} got {rep_name(reply)}')
                wire.in_sync()


@check
def names_odd(suite):
    """Names that look dangerous get an answer: an export, or that there is none."""
    for name in (b'', b'/', b'..', b'../../etc/passwd', b'%s%n', b"'", b'\n', 'Müll'.encode(), b'x' * 4096):
        with suite.connect() as wire:
            wire.greet()
            reply = wire.option(INFO, wire.choice(name))[-1][0]
            expect(reply in (REP_ACK, ERR_UNKNOWN, ERR_POLICY), f'name {name[:20]!r} got {rep_name(reply)}')
            wire.in_sync()


@check
def name_too_long(suite):
    """A name of more than 4096 bytes is an error, and the stream stays in step."""
    with suite.connect() as wire:
        wire.greet()
        reply = wire.option(INFO, wire.choice(b'x' * 4097))[-1][0]
        expect(reply in (ERR_INVALID, ERR_TOO_BIG, ERR_UNKNOWN), f'a name of 4097 bytes got {rep_name(reply)}')
        wire.in_sync()


@check
def go_after_refusal(suite):
    """A refused GO does not end the handshake."""
    with suite.connect() as wire:
        wire.greet()
        expect(wire.option(GO, b'')[-1][0] == ERR_INVALID, 'a GO without data was not ERR_INVALID')
        wire.go(suite.export).usable()


@check
def error_texts(suite):
    """Texts of errors are UTF-8 without NUL, and at most 4096 bytes."""
    with suite.connect() as wire:
        wire.greet()
        for option, data in ((99, b''), (LIST, b'x'), (INFO, b''), (GO, wire.choice(b'\xff' * 4000))):
            reply, text = wire.option(option, data)[-1]
            if reply & 0x80000000:
                expect(len(text) <= 4096 and b'\0' not in text, f'the text of {rep_name(reply)} is {text!r}')
                text.decode('utf-8')


# ---- how options arrive ----

@check
def options_in_one_piece(suite):
    """Options that arrive together are answered in order, and the requests behind them too."""
    with suite.connect() as wire:
        wire.greet()
        wire.send(wire.option_bytes(99) + wire.option_bytes(LIST, b'x') + wire.option_bytes(STRUCTURED_REPLY)
                  + wire.option_bytes(GO, wire.choice(suite.export)))
        for option in (99, LIST, STRUCTURED_REPLY):
            wire.option_replies(option)
        wire.take_export(wire.option_replies(GO))
        wire.structured = True
        wire.usable()


@check
def requests_before_the_answer(suite):
    """Requests sent along with GO are served once it is answered."""
    with suite.connect() as wire:
        wire.greet()
        wire.asked[7] = (READ, 0, 512)
        wire.send(wire.option_bytes(GO, wire.choice(suite.export)) + wire.request_bytes(READ, 0, 512, 0, 7))
        wire.take_export(wire.option_replies(GO))
        expect(wire.reply().error == 0, 'the READ failed')


@check
def options_in_small_pieces(suite):
    """Options may arrive byte by byte."""
    with suite.connect() as wire:
        wire.greet(None)
        data = struct.pack('>I', 3) + wire.option_bytes(GO, wire.choice(suite.export))
        for i in range(len(data)):
            wire.send(data[i:i + 1])
        wire.take_export(wire.option_replies(GO))
        for byte in wire.request_bytes(READ, 0, 512, 0, 9):
            wire.send(bytes([byte]))
        wire.asked[9] = (READ, 0, 512)
        expect(wire.reply().error == 0, 'the READ failed')


@check
def a_hundred_options(suite):
    """A client may ask a hundred things before it chooses."""
    with suite.connect() as wire:
        wire.greet()
        for _ in range(100):
            expect(wire.option(INFO, wire.choice(suite.export))[-1][0] == REP_ACK, 'INFO was refused')
        wire.go(suite.export).usable()
