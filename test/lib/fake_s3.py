#!/usr/bin/python3
"""A small S3 over real sockets, for tests: everything in memory, and faults on demand.

    fake_s3.py [--port N] [--bucket B]… [--rule JSON]… …

Prints the port that it listens on (--host, 127.0.0.1 unless given) and, on a second line, the port
of its control server, then serves until it is ended.  Objects, versioning and
lifecycle rules: fake_s3_objects.py; signatures: fake_s3_access.py; faults:
fake_s3_faults.py.

Control, JSON over HTTP without a signature, at either port:

    GET  /_control                 counters and settings
    GET  /_control/objects/BUCKET  {key: {size, puts, unconditional, deletes}}, deleted ones too
    POST /_control                 any of:
        rules           a list of rules, in place of all others; each counts its time from now
        outage          "refuse" (nobody listens, connections are reset), "silent" (nothing is read or answered),
                        null; with lasts_s: for so long
        clock_offset_s  how far the store's clock is ahead
        keys            {access key: {secret, token, expires_in_s, account, denied}}, in place of all others
        buckets         {name: {account, region, versioning, lifecycle}}: made or changed
        conditions      {"if-match": mode, "if-none-match": mode}: fake_s3_objects.py
        may_create      whether buckets may be created
        region          of the store
        checksums       "compared", with x-amz-checksum-crc32 (so at first); "ignored", as by old servers
        keeps_fragments true: of an upload that ends early, what has come is kept as the object, unless its hash tells
                        that it is not whole
        reset_counters  true
"""

import argparse
import asyncio
import base64
import collections
import concurrent.futures
import email.utils
import hashlib
import http
import json
import os
import socket
import struct
import sys
import time
import urllib.parse
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import fake_s3_objects  # noqa: E402
import s3_signature  # noqa: E402
from fake_s3_access import Access, Key  # noqa: E402
from fake_s3_faults import Delivery, Faults, Rule  # noqa: E402
from fake_s3_objects import Answer, Bucket, Objects, Request, error  # noqa: E402

BACKLOG = 1024
HEAD_MAX = 64 << 10
BODY_MAX = 64 << 20
HASH_APART = 1 << 20  # larger bodies are hashed beside the loop
RACE_S = 0.02  # between looking at a condition and applying, of a store that races
DRIP_TICK_S = 0.05
CONTROL = '/_control'


def crc32(body):
    """As x-amz-checksum-crc32 has it."""
    return base64.b64encode(zlib.crc32(body).to_bytes(4, 'big')).decode()


class Connection(asyncio.BufferedProtocol):
    """HTTP/1.1 of one client, one request after the other.

    state   what comes in is
    head    the front of a request
    body    its body, received where it will stay
    busy    kept for later, while the answer is made and sent
    over    of no interest: the connection is closed, or never answered again"""

    def __init__(self, server):
        self.server = server
        self.transport = None
        self.state = 'head'
        self.head = bytearray(HEAD_MAX)
        self.head_length = 0
        self.body = bytearray()
        self.received = 0
        self.request = self.refusal = self.rule = None
        self.counted = False  # the request is under way as far as the counters know
        self.target = ('', '')
        self.closes = False
        self.began = 0

    # The transport's side.

    def connection_made(self, transport):
        self.transport = transport
        server = self.server
        server.connections.add(self)
        server.counters['connections'] += 1
        server.peak('open_max', len(server.connections))
        # Later, since asyncio of Python 3.11 begins to read after this, whatever is asked for here.
        server.loop.call_soon(self.pause_in_outage)

    def pause_in_outage(self):
        if self.server.outage == 'silent' and self.is_client():
            self.transport.pause_reading()

    def is_client(self):
        """Not at the control port."""
        return self.transport.get_extra_info('sockname')[1] == self.server.port

    def connection_lost(self, trouble):
        if self.state == 'body':
            self.keep_fragment()
        self.settle('gone')
        self.state = 'over'
        self.server.connections.discard(self)

    def get_buffer(self, hint):
        if self.state == 'body':
            rule = self.rule
            if rule is not None and rule.name == 'slow_upload':
                return memoryview(self.body)[self.received:self.received + max(1, int(rule.rate * DRIP_TICK_S))]
            return memoryview(self.body)[self.received:]
        if self.state == 'over':
            self.head_length = 0
        return memoryview(self.head)[self.head_length:]

    def buffer_updated(self, count):
        if self.state == 'body':
            self.received += count
            self.server.counters['bytes_in'] += count
            self.body_grew()
            return
        self.head_length += count
        if self.state == 'head':
            self.read_head()
        elif self.head_length == len(self.head) and self.state == 'busy':
            self.transport.pause_reading()

    def eof_received(self):
        return False

    def keep_fragment(self):
        if not self.server.keeps_fragments or self.request is None or self.refusal is not None:
            return
        self.request.body = self.body[:self.received]
        told = self.request.headers.get('x-amz-checksum-crc32')
        if self.server.checksums == 'compared' and told not in (None, crc32(self.request.body)):
            return
        if self.request.headers.get('x-amz-content-sha256') in (s3_signature.UNSIGNED,
                                                                hashlib.sha256(self.request.body).hexdigest()):
            self.server.objects.perform(self.request)

    # Requests.

    def read_head(self):
        end = self.head.find(b'\r\n\r\n', 0, self.head_length)
        if not 0x41 <= self.head[0] <= 0x5a:  # no method begins like this, but TLS does
            self.refuse()
            return
        if end < 0:
            if self.head_length == HEAD_MAX:
                self.close(reset=True)
            return
        lines = self.head[:end].decode('latin-1').split('\r\n')
        rest = bytes(self.head[end + 4:self.head_length])
        try:
            method, target, _ = lines[0].split(' ')
            headers = {}
            for line in lines[1:]:
                name, _, value = line.partition(':')
                headers[name.lower()] = value.strip()
            length = int(headers.get('content-length', 0))
            if not 0 <= length <= BODY_MAX or 'transfer-encoding' in headers:
                raise ValueError
        except ValueError:
            self.refuse()
            return
        self.began = time.monotonic()
        self.body = bytearray(length)
        self.received = min(length, len(rest))
        self.body[:self.received] = rest[:self.received]
        self.head_length = len(rest) - self.received
        self.head[:self.head_length] = rest[self.received:]
        self.state = 'body'
        self.server.counters['bytes_in'] += self.received
        self.begin(method, target, headers)

    def refuse(self):
        self.transport.write(b'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
        self.close()

    def begin(self, method, target, headers):
        if target.startswith('http://'):  # as a proxy is asked
            target = '/' + target[len('http://'):].partition('/')[2]
            self.server.counters['proxied'] += 1
        path, _, query = target.partition('?')
        server = self.server
        if path.startswith(CONTROL):
            self.request = None
            self.target = (method, path)
        else:
            self.request, self.refusal = server.understand(method, path, query, headers)
            self.rule = server.faults.pick(self.request) if self.refusal is None else None
            self.target = (method, target)
            server.started(self.request)
            self.counted = True
            if self.rule is not None and self.rule.early and len(self.body) > self.received:
                self.state = 'busy'
                self.deliver(self.rule.fault.deliver(self.rule, self.request, None), close=True)
                return
        self.closes = headers.get('connection', '').lower() == 'close'
        if headers.get('expect', '').lower() == '100-continue' and self.received < len(self.body):
            self.transport.write(b'HTTP/1.1 100 Continue\r\n\r\n')
        self.body_grew()

    def body_grew(self):
        rule = self.rule
        if rule is not None and rule.fault.upload:
            if rule.name == 'reset_upload':
                most = rule.bytes if rule.bytes is not None else len(self.body) // 2
                if self.received >= min(most, len(self.body)):
                    self.keep_fragment()
                    self.settle('reset')
                    self.close(reset=True)
                return
            if self.received < len(self.body):
                self.transport.pause_reading()
                self.later(DRIP_TICK_S, self.resume)
                return
        if self.received < len(self.body):
            return
        self.state = 'busy'
        if self.request is None:
            self.send(self.server.control(*self.target, self.body), 'control')
            return
        self.request.body = self.body
        told = self.request.headers.get('x-amz-checksum-crc32')
        if self.refusal is None and self.server.checksums == 'compared' and told not in (None, crc32(self.body)):
            self.refusal = error('BadDigest', 'The CRC32 you specified did not match the calculated checksum.')
        wanted = self.request.headers.get('x-amz-content-sha256', '')
        if self.refusal is not None:
            self.deliver(Delivery(self.refusal))
        elif wanted == s3_signature.UNSIGNED:
            self.perform()
        elif len(self.body) <= HASH_APART:
            self.hashed(wanted, hashlib.sha256(self.body).hexdigest())
        else:
            loop = self.server.loop
            job = loop.run_in_executor(self.server.pool, lambda body: hashlib.sha256(body).hexdigest(), self.body)
            job.add_done_callback(lambda done: self.state == 'busy' and self.hashed(wanted, done.result()))

    def hashed(self, wanted, digest):
        if wanted != digest:
            self.deliver(Delivery(error('XAmzContentSHA256Mismatch', "The provided 'x-amz-content-sha256' header does "
                                        'not match what was computed.')))
            return
        self.request.digest = digest
        self.perform()

    def perform(self):
        request, rule, objects = self.request, self.rule, self.server.objects
        if objects.racy(request):
            verdict = objects.perform(request) if self.server.refused(request) else None
            if verdict is not None:
                self.deliver(Delivery(verdict))
            else:
                self.later(RACE_S, lambda: self.deliver(Delivery(objects.perform(request, conditions_hold=True))))
            return
        if rule is None or rule.fault.upload:
            self.deliver(Delivery(objects.perform(request)))
            return
        answer = None
        if rule.apply == 'yes':
            answer = objects.perform(request)
        elif rule.apply != 'no':
            self.server.loop.call_later(rule.apply, objects.perform, request)
        self.deliver(rule.fault.deliver(rule, request, answer))

    # Answers.

    def settle(self, how):
        if self.counted:
            self.counted = False
            self.server.settled(self.request, how)

    def later(self, seconds, action):
        """Unless the connection is gone by then."""
        self.server.loop.call_later(seconds, lambda: self.state == 'over' or action())

    def resume(self):
        if self.server.outage != 'silent' or not self.is_client():
            self.transport.resume_reading()

    def deliver(self, delivery, close=False):
        if delivery.delay_s:
            self.later(delivery.delay_s, lambda: self.deliver_now(delivery, close))
        else:
            self.deliver_now(delivery, close)

    def deliver_now(self, delivery, close):
        if delivery.silent:
            return  # busy until the client has had enough
        if delivery.raw is not None:
            self.settle('dropped')
            self.transport.write(delivery.raw)
            self.close(delivery.reset)
            return
        answer = delivery.answer
        if self.request.method == 'HEAD':
            answer = answer.without_body()
        if delivery.cut is not None:
            self.settle(answer.status)
            self.transport.write(self.front(answer, False))
            self.transport.write(answer.body[:delivery.cut])
            self.close(delivery.reset)
        elif delivery.rate:
            self.transport.write(self.front(answer, False))
            self.drip(answer, 0, max(1, int(delivery.rate * DRIP_TICK_S)))
        else:
            self.send(answer, answer.status, close)

    def drip(self, answer, at, step):
        self.transport.write(answer.body[at:at + step])
        if at + step >= len(answer.body):
            self.settle(answer.status)
            self.close()
        else:
            self.later(DRIP_TICK_S, lambda: self.drip(answer, at + step, step))

    def front(self, answer, stays):
        lines = [f'HTTP/1.1 {answer.status} {self.server.phrase(answer.status)}', 'Server: FakeS3',
                 'Date: ' + self.server.date(), 'x-amz-request-id: FAKE', f'Content-Length: {answer.length}']
        if answer.status == 204:
            lines.pop()
        if not stays:
            lines.append('Connection: close')
        lines += [f'{name}: {value}' for name, value in answer.headers.items()]
        return '\r\n'.join([*lines, '', '']).encode('latin-1')

    def send(self, answer, status, close=False):
        stays = not (self.closes or close)
        front = self.front(answer, stays)
        if len(answer.body) < 16384:
            self.transport.write(front + bytes(answer.body))
        else:
            self.transport.write(front)
            self.transport.write(answer.body)
        self.server.counters['bytes_out'] += len(front) + len(answer.body)
        self.settle(status)
        self.server.trace(self, status)
        self.body, self.request, self.refusal, self.rule = bytearray(), None, None, None
        if not stays:
            self.close()
            return
        self.state = 'head'
        self.resume()
        if self.head_length:
            self.read_head()

    def close(self, reset=False):
        if self.rule is not None:
            self.server.trace(self, self.rule.name)
        self.state = 'over'
        if reset:
            self.transport.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                                               struct.pack('ii', 1, 0))
        self.transport.close()


class FakeS3:
    """The server: start() in a running event loop; `port` and `control_port` say where it is."""

    def __init__(self, host='127.0.0.1', port=0, region='us-east-1', seed=None, tls=None, trace=None):
        self.family = socket.AF_INET6 if ':' in host else socket.AF_INET
        self.host, self.port, self.control_port = host, port, 0
        self.tls = tls
        self.objects = Objects(region)
        self.access = Access(region)
        self.faults = Faults(seed)
        self.outage = None
        self.outages = 0
        self.keeps_fragments = False
        self.checksums = 'compared'
        self.connections = set()
        self.pool = concurrent.futures.ThreadPoolExecutor(2)
        self.trace_file = trace
        self.reserved = socket.socket(self.family)
        self.loop = self.listener = self.control_listener = None
        self.date_text, self.date_second = '', 0
        self.reset_counters()

    async def start(self):
        self.loop = asyncio.get_running_loop()
        # Bound all the time, so that nobody else gets the port while the listener is closed.  A client that kept
        # trying could even be given it as its own, and be connected to itself.
        self.reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.reserved.bind((self.host, self.port))
        self.port = self.reserved.getsockname()[1]
        self.control_listener = await self.loop.create_server(lambda: Connection(self), '127.0.0.1', 0)
        self.control_port = self.control_listener.sockets[0].getsockname()[1]
        await self.listen()

    def listen(self):
        """Whoever connects from now on is accepted, if only when what is returned has been awaited."""
        listening = socket.socket(self.family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((self.host, self.port))
        listening.listen(BACKLOG)
        return self.accept(listening)

    async def accept(self, listening):
        self.listener = await self.loop.create_server(lambda: Connection(self), sock=listening, ssl=self.tls,
                                                      backlog=BACKLOG)

    # What connections ask.

    def understand(self, method, path, query, headers):
        """(request, refusal or None)."""
        host = headers.get('host', '').rpartition(':')[0] or headers.get('host', '')
        decoded = urllib.parse.unquote(path)
        if host.endswith('.localhost'):  # virtual-hosted addressing
            bucket, key = host[:-len('.localhost')], decoded[1:]
        else:
            bucket, _, key = decoded[1:].partition('/')
        request = Request(method, bucket, key, dict(urllib.parse.parse_qsl(query, keep_blank_values=True)), headers)
        return request, self.access.verify(request, path, query)

    def refused(self, request):
        bucket = self.objects.buckets.get(request.bucket)
        return bucket is None or bucket.account != request.account \
            or self.objects.check_conditions(bucket, request) is not None

    def phrase(self, status):
        return http.HTTPStatus(status).phrase

    def date(self):
        second = int(self.access.now())
        if second != self.date_second:
            self.date_second, self.date_text = second, email.utils.formatdate(second, usegmt=True)
        return self.date_text

    # Counters.

    def reset_counters(self):
        self.counters = collections.Counter()
        self.requests, self.answers = collections.Counter(), collections.Counter()
        self.in_flight = getattr(self, 'in_flight', collections.Counter())
        self.peaks = {}

    def peak(self, name, value):
        self.peaks[name] = max(self.peaks.get(name, 0), value)

    def started(self, request):
        self.requests[request.kind] += 1
        self.in_flight[request.kind] += 1
        self.peak('in_flight_max ' + request.kind, self.in_flight[request.kind])

    def settled(self, request, how):
        self.in_flight[request.kind] -= 1
        self.answers[f'{request.kind} {how}'] += 1

    def trace(self, connection, outcome):
        if self.trace_file and outcome != 'control':
            method, target = connection.target
            self.trace_file.write(f'{time.time():.3f} {(time.monotonic() - connection.began) * 1000:.1f}ms {method} '
                                  f'{target} {connection.received} {outcome}\n')
            self.trace_file.flush()

    # Control.

    def state(self):
        return {'port': self.port, 'requests': self.requests, 'answers': self.answers, 'faults': self.faults.hits,
                'in_flight': self.in_flight, 'open': len(self.connections), 'outage': self.outage, **self.counters,
                **self.peaks}

    def control(self, method, path, body):
        try:
            if method == 'GET' and path.startswith(CONTROL + '/objects/'):
                told = self.tell_objects(path[len(CONTROL + '/objects/'):])
            elif method == 'GET':
                told = self.state()
            else:
                told = self.command(json.loads(bytes(body)))
        except (ValueError, KeyError, TypeError, AttributeError) as trouble:
            return Answer(400, {'Content-Type': 'text/plain'}, f'{type(trouble).__name__}: {trouble}\n'.encode())
        return Answer(200, {'Content-Type': 'application/json'}, json.dumps(told).encode() + b'\n')

    def tell_objects(self, name):
        bucket = self.objects.buckets[name]
        return {key: {'size': len(bucket.objects[key].body) if key in bucket.objects else None, 'puts': record[0],
                      'unconditional': record[1], 'deletes': record[2]} for key, record in bucket.history.items()}

    def command(self, words):
        known = {'rules', 'outage', 'lasts_s', 'clock_offset_s', 'keys', 'buckets', 'conditions', 'may_create',
                 'region', 'reset_counters', 'keeps_fragments', 'checksums'}
        if set(words) - known:
            raise ValueError(f'no such command: {sorted(set(words) - known)[0]}')
        self.access.clock_offset_s = words.get('clock_offset_s', self.access.clock_offset_s)
        if 'rules' in words:
            self.faults.rules = [Rule(description) for description in words['rules']]
        if 'keys' in words:
            self.access.keys = {name: self.key(**description) for name, description in words['keys'].items()}
        for name, description in words.get('buckets', {}).items():
            self.set_bucket(name, **description)
        for name, mode in words.get('conditions', {}).items():
            if name not in self.objects.conditions or mode not in fake_s3_objects.CONDITION_MODES:
                raise ValueError(f'no such condition or mode: {name}, {mode}')
            self.objects.conditions[name] = mode
        self.checksums = words.get('checksums', self.checksums)
        self.keeps_fragments = words.get('keeps_fragments', self.keeps_fragments)
        self.objects.may_create = words.get('may_create', self.objects.may_create)
        if 'region' in words:
            self.objects.region = self.access.region = words['region']
        if words.get('reset_counters'):
            self.reset_counters()
            self.faults.hits = {}
        if 'outage' in words:
            self.set_outage(words['outage'], words.get('lasts_s'))
        return {}

    def key(self, secret, token=None, expires_in_s=None, account='main', denied=()):
        return Key(secret, token, None if expires_in_s is None else self.access.now() + expires_in_s, account, denied)

    def set_bucket(self, name, account='main', region=None, versioning='', lifecycle=''):
        bucket = self.objects.buckets.setdefault(name, Bucket(account, self.objects.region))
        bucket.account, bucket.region = account, region or self.objects.region
        bucket.versioning, bucket.lifecycle = versioning, lifecycle.encode()

    def set_outage(self, kind, lasts_s=None):
        if kind not in (None, 'refuse', 'silent'):
            raise ValueError(f'outage: refuse, silent or null, not {kind}')
        before, self.outage = self.outage, kind
        self.outages += 1
        clients = [connection for connection in self.connections if connection.is_client()]
        if kind == 'refuse':
            self.listener.close()
            for connection in clients:
                connection.close(reset=True)
                connection.transport.abort()
        elif kind == 'silent':
            for connection in clients:
                connection.transport.pause_reading()
        else:
            for connection in clients:
                connection.transport.resume_reading()
        if before == 'refuse' and kind != 'refuse':
            self.loop.create_task(self.listen())
        if lasts_s is not None:
            number = self.outages
            self.loop.call_later(lasts_s, lambda: self.outages == number and self.set_outage(None))


async def serve(arguments):
    tls = None
    if arguments.tls_certificate:
        import ssl
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(arguments.tls_certificate, arguments.tls_key)
    trace = open(arguments.trace, 'a') if arguments.trace else None
    server = FakeS3(arguments.host, arguments.port, arguments.region, arguments.seed, tls, trace)
    server.access.keys[arguments.access_key] = Key(arguments.secret_key)
    server.command({'rules': [json.loads(rule) for rule in arguments.rule]})
    for name in arguments.bucket:
        server.set_bucket(name)
    await server.start()
    print(server.port, server.control_port, sep='\n', flush=True)
    await asyncio.Event().wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--host', default='127.0.0.1', help='an address, IPv4 or IPv6')
    parser.add_argument('--port', type=int, default=0, help='0: any that is free')
    parser.add_argument('--bucket', action='append', default=[], help='one that is there from the start')
    parser.add_argument('--access-key', default='minioadmin')
    parser.add_argument('--secret-key', default='minioadmin')
    parser.add_argument('--region', default='us-east-1')
    parser.add_argument('--rule', action='append', default=[], metavar='JSON', help='a fault: see fake_s3_faults.py')
    parser.add_argument('--seed', type=int, help='of the dice that faults are thrown with')
    parser.add_argument('--trace', metavar='FILE', help='append a line for each request')
    parser.add_argument('--tls-certificate', metavar='PEM')
    parser.add_argument('--tls-key', metavar='PEM')
    try:
        asyncio.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        pass


if __name__ == '__main__':
    main()
