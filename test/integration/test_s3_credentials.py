"""Credentials that expire under load, from each source that has such: refreshed without an error, and no secret of theirs
in anything that the server says, at the highest level of its log.

The keys are valid for a few seconds each; the sources are small fakes of the real ones, on loopback."""

import collections
import http.server
import json
import os
import random
import re
import signal
import threading
import time
import urllib.parse

import nbd

from disk_model import Disk
from harness import CAIRN, Server, wait_until
from load import Load
from stores import FakeServer, S3Store

ON = ('fake',)
LIFE_S = 3  # a key comes with between one and two of these left
KEYS = 100
REFRESHES = 2
PATIENCE_S = 60
SECRETS = ('hidden-secret', 'hidden-token', 'hidden-identity', 'hidden-authorization', 'hidden-session')
ROLE = 'arn:aws:iam::123456789012:role/disks'


class Issuer:
    """Key number n is valid until begin + (n + 1) * LIFE_S; the store knows all of them."""

    def __init__(self, fake):
        self.fake = fake
        self.begin = int(time.time())
        self.handed_out = []
        self.broken = False
        self.revoked = -1
        self.tell()

    def tell(self):
        now = time.time()
        self.fake.control(keys={f'KEY{n}': {'secret': f'hidden-secret-{n}', 'token': f'hidden-token-{n}',
                                            'expires_in_s': self.end(n) + 0.5 - now}
                                for n in range(self.revoked + 1, KEYS)})

    def end(self, number):
        return self.begin + (number + 1) * LIFE_S

    def revoke(self):
        """What has been handed out is worth nothing from now on."""
        self.revoked = max(self.handed_out)
        self.tell()

    def issue(self):
        """(access key, secret, token, when it expires)"""
        number = max(int((time.time() - self.begin) / LIFE_S) + 1, self.revoked + 1)
        self.handed_out.append(number)
        when = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(self.end(number)))
        return f'KEY{number}', f'hidden-secret-{number}', f'hidden-token-{number}', when


class Source(http.server.BaseHTTPRequestHandler):
    """STS, a container's endpoint and an instance's, and what our credential_process asks: all in one."""
    protocol_version = 'HTTP/1.1'

    def reply(self, status, text, kind='application/json'):
        body = text.encode()
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def issue(self, template):
        issuer = self.server.issuer
        if issuer.broken:
            self.reply(500, 'out of order', 'text/plain')
        else:
            access, secret, token, when = issuer.issue()
            self.reply(200, template % {'access': access, 'secret': secret, 'token': token, 'when': when})

    def do_POST(self):
        asked = urllib.parse.parse_qs(self.rfile.read(int(self.headers['Content-Length'])).decode())
        assert asked['Action'] == ['AssumeRoleWithWebIdentity'] and asked['RoleArn'] == [ROLE], asked
        assert asked['WebIdentityToken'] == ['hidden-identity'], 'another identity'
        self.issue('<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                   '<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%(access)s</AccessKeyId><SecretAccessKey>'
                   '%(secret)s</SecretAccessKey><SessionToken>%(token)s</SessionToken><Expiration>%(when)s</Expiration>'
                   '</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>')

    def do_PUT(self):
        assert self.path == '/latest/api/token' and self.headers['X-aws-ec2-metadata-token-ttl-seconds']
        self.reply(200, 'hidden-session', 'text/plain')

    def do_GET(self):
        instance = '/latest/meta-data/iam/security-credentials/'
        if self.path.startswith(instance):
            assert self.headers['X-aws-ec2-metadata-token'] == 'hidden-session'
            if self.path == instance:
                self.reply(200, 'disks', 'text/plain')
                return
        elif self.path == '/container':
            assert self.headers['Authorization'] == 'hidden-authorization', 'not authorized'
        else:
            assert self.path == '/process', self.path
        self.issue('{"Version": 1, "Code": "Success", "AccessKeyId": "%(access)s", "SecretAccessKey": "%(secret)s", '
                   '"SessionToken": "%(token)s", "Token": "%(token)s", "Expiration": "%(when)s"}')

    def log_message(self, *words):
        pass


class Sources(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        """A client that hangs up is none."""


class WithoutKeys(S3Store):
    """Only the endpoint is given to the server; the rest it must find."""

    def environment(self):
        return {'NBD_S3_ENDPOINT': self.server.endpoint}


class Scene:
    def __init__(self, t):
        self.t = t
        self.fake = FakeServer(t)
        self.issuer = Issuer(self.fake)
        self.sources = Sources(('127.0.0.1', 0), Source)
        self.sources.issuer = self.issuer
        threading.Thread(target=self.sources.serve_forever, daemon=True).start()
        t.later(self.sources.server_close)
        self.url = f'http://127.0.0.1:{self.sources.server_port}'
        self.server = self.load = None
        self.disk = Disk(4 << 20)

    def file(self, name, text):
        path = self.t.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w') as file:
            file.write(text)
        return path

    def process(self):
        """A credential_process in the profile `dev`."""
        script = self.file('give.py', f'import urllib.request\n'
                           f'opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))\n'
                           f'print(opener.open("{self.url}/process").read().decode())\n')
        self.file('.aws/config', f'[profile dev]\ncredential_process = /usr/bin/python3 {script}\n')
        return {'AWS_PROFILE': 'dev'}

    def start(self, env):
        self.server = Server(self.t, WithoutKeys(self.fake, 'store'), size=str(self.disk.size), env=env,
                             arguments=['--log-level', 'DEBUG', '--threads', '1', '--batch-age', '100ms'])
        self.load = Load(self.disk, random.Random(), depth=2)
        self.load.connect(self.server.uri(), 2)

    def work(self, until):
        end = time.monotonic() + PATIENCE_S
        self.load.work(lambda: until() or time.monotonic() > end)
        assert until(), 'it does not happen'

    def finish(self):
        self.load.drain(time.monotonic, PATIENCE_S)
        assert not self.load.errors and not self.load.busy(), collections.Counter(self.load.errors)
        self.server.kill()
        self.server.start()
        handle = nbd.NBD()
        handle.connect_uri(self.server.uri())
        self.disk.settle(lambda offset, length: handle.pread(length, offset))
        handle.shutdown()
        self.server.stop()
        check_silence(self.t)


def check_silence(t):
    """No secret in anything that any process of the test has said."""
    for name in os.listdir(t.dir):
        if name.endswith(('.out', '.err')):
            with open(t.path(name), errors='replace') as file:
                text = file.read()
            for secret in SECRETS:
                assert secret not in text, f'{name} has "{secret}": {text[max(0, text.index(secret) - 300):][:400]}'


def troubles(server):
    return [line for line in server.process.stderr().splitlines() if re.search(' (WARNING|ERROR) ', line)]


def expiring(t, prepare):
    scene = Scene(t)
    scene.start(prepare(scene))
    scene.fake.control(reset_counters=True)  # a start tries what shall be refused
    scene.work(lambda: len(set(scene.issuer.handed_out)) > REFRESHES)
    end = time.monotonic() + LIFE_S
    scene.load.work(lambda: time.monotonic() > end)
    assert not troubles(scene.server), troubles(scene.server)
    refused = [name for name in scene.fake.state()['answers'] if name.endswith((' 400', ' 403'))]
    assert not refused, scene.fake.state()['answers']
    scene.finish()
    print(f'{len(set(scene.issuer.handed_out))} keys, {scene.load.answers} requests')


def test_process(t):
    expiring(t, Scene.process)


def test_web_identity(t):
    expiring(t, lambda scene: {'AWS_WEB_IDENTITY_TOKEN_FILE': scene.file('identity', 'hidden-identity'),
                               'AWS_ROLE_ARN': ROLE, 'AWS_ENDPOINT_URL_STS': scene.url})


def test_container(t):
    expiring(t, lambda scene: {'AWS_CONTAINER_CREDENTIALS_FULL_URI': scene.url + '/container',
                               'AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE': scene.file('auth', 'hidden-authorization')})


def test_instance(t):
    expiring(t, lambda scene: {'AWS_EC2_METADATA_SERVICE_ENDPOINT': scene.url})


def test_revoked(t):
    """Keys that the store refuses before their time: others are fetched, and nobody notices."""
    scene = Scene(t)
    scene.start(scene.process())
    scene.work(lambda: scene.load.flush_answers > 3)
    before = len(scene.issuer.handed_out)
    scene.issuer.revoke()
    flushes = scene.load.flush_answers
    scene.work(lambda: len(scene.issuer.handed_out) > before and scene.load.flush_answers > flushes + 3)
    scene.finish()


def test_source_fails(t):
    """The source is out of order until after the keys have expired: work waits, and goes on without an error; that is
    told once each."""
    scene = Scene(t)
    scene.start(scene.process())
    scene.work(lambda: scene.load.flush_answers > 3)
    scene.issuer.broken = True
    scene.work(lambda: time.time() > scene.issuer.end(max(scene.issuer.handed_out)) + 2)
    scene.issuer.broken = False
    flushes = scene.load.flush_answers
    scene.work(lambda: scene.load.flush_answers > flushes + 3)
    told = [line for line in troubles(scene.server) if 'credentials:' in line]
    assert 1 <= len(told) <= 2, told
    scene.finish()


def test_secrets(t):
    """Everything that can go wrong with keys and stores, at the level DEBUG and by all commands, says none of them."""
    fake = FakeServer(t)
    keys = {'access': {'secret': 'hidden-secret', 'token': 'hidden-token'}}
    fake.control(keys=keys)
    t.variables.update({'NBD_S3_ENDPOINT': fake.endpoint, 'NBD_S3_ACCESS_KEY': 'access',
                        'NBD_S3_SECRET_KEY': 'hidden-secret', 'NBD_S3_SESSION_TOKEN': 'hidden-token'})
    store = ['--store', f's3://{fake.store().bucket}/store']
    server = Server(t, WithoutKeys(fake, 'store'), arguments=['--log-level', 'DEBUG', '--log-format', 'json'])
    handle = nbd.NBD()
    handle.connect_uri(server.uri())
    for fault in ('slow_down', 'skewed', 'expired_token', 'denied', 'html', 'reset', 'drop', 'error_in_200', 'redirect',
                  'garbage', 'wrong_region'):
        fake.rules({'fault': fault, 'times': 3})
        handle.pwrite(fault.encode(), 0)
        wait_until(lambda: flushed(handle), f'a flush after {fault}')
    fake.rules()
    handle.shutdown()
    server.process.signal(signal.SIGUSR1)
    server.stop()
    number = 0
    for env in ({}, {'NBD_S3_SECRET_KEY': 'hidden-secret-that-is-wrong'}, {'NBD_S3_SESSION_TOKEN': 'hidden-token-too'},
                {'NBD_S3_ACCESS_KEY': 'unknown'}, {'NBD_S3_ENDPOINT': 'http://127.0.0.1:1'},
                {'NBD_S3_ENDPOINT': 'http://access:hidden-secret@127.0.0.1:1'}, {'NBD_S3_ACCESS_KEY': ''},
                {'NBD_S3_REGION': 'x y'}):
        for command in (['list'], ['info', 'disk'], ['dump', 'cairn'], ['doctor'], ['break-lease', 'disk', '--yes'],
                        ['serve', '--unix', t.path('s'), '--log-level', 'DEBUG', '--s3-attempts', '1']):
            number += 1
            process = t.start(f'{command[0]}{number}', [CAIRN, *command, *store], env=env)
            wait_until(lambda: not process.running() or 'serving disks' in process.stderr(), 'an end', 60)
            process.popen.terminate()
            process.wait()
    check_silence(t)
    assert json.loads(server.process.stderr().splitlines()[0])


def flushed(handle):
    try:
        handle.flush()
        return True
    except nbd.Error:
        return False
