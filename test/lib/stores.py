"""The stores that tests run on, behind one interface.

CAIRN_TEST_STORE says which kind: dir (a directory of the test), fake
(fake_s3.py, one for each test that asks), versitygw, minio or rgw (real
servers, started by tools/s3-server; one for a whole run, in which each test has
prefixes of its own).  What a test needs of its store:

    words(), environment()    for the command line of cairn
    place                     what messages about the store name
    objects(), read(), write(), remove()    its content, behind the server's back; keys as cairn knows them
    fingerprint()             all that a change would change

A test that kills its store, or scripts faults, starts a server of its own
(FakeServer, RealServer)."""

import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

import store_tree
from s3_client import S3Client, S3Error

LIB = os.path.dirname(os.path.abspath(__file__))
TOOL = os.path.join(os.path.dirname(os.path.dirname(LIB)), 'tools', 's3-server')
REAL_KINDS = ('versitygw', 'minio', 'rgw')
KINDS = ('dir', 'fake', *REAL_KINDS)
BUCKET = 'cairn-test'
SHARED = 'CAIRN_TEST_S3_ENDPOINT'  # where the run's server is, for the tests of a run
ACCESS_KEY, SECRET_KEY = 'cairntest', 'cairntest-secret'
CONTROL_S = 30


def kind():
    found = os.environ.get('CAIRN_TEST_STORE') or 'dir'
    if found not in KINDS:
        raise ValueError(f'CAIRN_TEST_STORE={found}: there are {", ".join(KINDS)}')
    return found


def quiet_port():
    """A free port from below those that the system gives to clients.  Whoever keeps connecting to one of theirs while
    nobody listens is sooner or later connected to itself."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(('127.0.0.1', port))
                return port
            except OSError:
                pass


# ---- stores ----


class Store:
    def written_once(self):
        """Log entries and data objects: {key: size}."""
        return {key: size for key, size in self.objects().items() if '/log/' in key or '/data/' in key}


class DirStore(Store):
    def __init__(self, path):
        self.path = self.place = path
        self.url = 'dir:' + path

    def words(self):
        return ['--store', self.url]

    def environment(self):
        return {}

    def exists(self):
        return os.path.exists(self.path)

    def objects(self):
        return store_tree.objects(self.path)

    def read(self, key):
        with open(store_tree.path_of(self.path, key), 'rb') as file:
            return file.read()

    def write(self, key, content):
        with open(store_tree.path_of(self.path, key), 'wb') as file:
            file.write(content)

    def remove(self, key):
        os.unlink(store_tree.path_of(self.path, key))

    def contents(self):
        """{key: hash}"""
        return {key: hashlib.sha256(self.read(key)).hexdigest() for key in self.objects()}

    def fingerprint(self):
        return store_tree.fingerprint(self.path)

    def beside(self):
        """What lies in the same place and is not of the store."""
        parent, own = os.path.split(self.path)
        return [name for name in os.listdir(parent) if name != own]

    def drop(self):
        shutil.rmtree(self.path, ignore_errors=True)


class S3Store(Store):
    """A prefix in a bucket of a server."""

    def __init__(self, server, prefix, bucket=BUCKET):
        self.server, self.bucket, self.prefix = server, bucket, prefix
        self.place = bucket
        self.url = f's3://{bucket}/{prefix}'
        self.client = S3Client(server.endpoint, server.access_key, server.secret_key)

    def words(self):
        return ['--store', self.url]

    def environment(self):
        return self.server.environment()

    def exists(self):
        return bool(self.objects())

    def key(self, key):
        return f'{self.prefix}/{key}'

    def objects(self):
        return {key[len(self.prefix) + 1:]: size for key, size in
                self.client.list(self.bucket, self.prefix + '/').items()}

    def read(self, key):
        return self.client.get(self.bucket, self.key(key))

    def write(self, key, content):
        self.client.put(self.bucket, self.key(key), content)

    def remove(self, key):
        self.client.delete(self.bucket, self.key(key))

    def contents(self):
        return {key: hashlib.sha256(self.read(key)).hexdigest() for key in self.objects()}

    fingerprint = contents

    def beside(self):
        parent = self.prefix.rpartition('/')[0]
        return [key for key in self.client.list(self.bucket, parent + '/') if not key.startswith(self.prefix + '/')]

    def drop(self):
        for key in self.objects():
            self.remove(key)


# ---- servers of S3 ----


class S3Server:
    """An endpoint with keys."""

    def __init__(self, port, host='127.0.0.1', scheme='http', access_key=ACCESS_KEY, secret_key=SECRET_KEY):
        self.port = port
        self.endpoint = f'{scheme}://[{host}]:{port}' if ':' in host else f'{scheme}://{host}:{port}'
        self.access_key, self.secret_key = access_key, secret_key

    def environment(self):
        return {'NBD_S3_ENDPOINT': self.endpoint, 'NBD_S3_ACCESS_KEY': self.access_key,
                'NBD_S3_SECRET_KEY': self.secret_key}

    def client(self, **options):
        return S3Client(self.endpoint, self.access_key, self.secret_key, **options)


class FakeServer(S3Server):
    """fake_s3.py as a process of a test."""

    def __init__(self, bench, arguments=(), bucket=BUCKET, host='127.0.0.1', certificate=None):
        """certificate: (PEM, PEM of the key), for HTTPS."""
        super().__init__(quiet_port(), host, 'https' if certificate else 'http')
        words = ['/usr/bin/python3', '-B', os.path.join(LIB, 'fake_s3.py'), '--host', host, '--port', self.port,
                 '--access-key', self.access_key, '--secret-key', self.secret_key]
        if bucket:
            words += ['--bucket', bucket]
        if certificate:
            words += ['--tls-certificate', certificate[0], '--tls-key', certificate[1]]
        if os.environ.get('CAIRN_TEST_TRACE'):
            words += ['--trace', bench.path('fake.trace')]
        self.process = bench.start('fake-s3', words + list(arguments))
        give_up = time.monotonic() + CONTROL_S
        while self.process.stdout().count('\n') < 2:
            assert self.process.running() and time.monotonic() < give_up, 'the fake S3: ' + self.process.stderr()
            time.sleep(0.01)
        told = self.process.stdout().split()
        self.control_url = f'http://127.0.0.1:{told[1]}/_control'

    def control(self, **commands):
        """What fake_s3.py says of its control server."""
        request = urllib.request.Request(self.control_url, json.dumps(commands).encode(), method='POST')
        with OPENER.open(request, timeout=CONTROL_S) as answer:
            return json.load(answer)

    def rules(self, *rules):
        self.control(rules=list(rules))

    def state(self):
        with OPENER.open(self.control_url, timeout=CONTROL_S) as answer:
            return json.load(answer)

    def history(self, bucket=BUCKET):
        with OPENER.open(f'{self.control_url}/objects/{bucket}', timeout=CONTROL_S) as answer:
            return json.load(answer)

    def store(self, prefix='store', bucket=BUCKET):
        return S3Store(self, prefix, bucket)

    # As a real one: killed and started anew, its data kept.

    def kill(self):
        self.control(outage='refuse')

    def restart(self):
        self.control(outage=None)


# The control server is ours and near: no proxy is asked.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RealServer(S3Server):
    """versitygw, minio or rgw, in a directory of its own."""

    def __init__(self, kind, directory, port=None):
        super().__init__(port or quiet_port())
        self.kind, self.directory = kind, directory
        self.tool('start', kind, directory, str(self.port))
        self.tool('bucket', directory, BUCKET)

    def tool(self, *words):
        done = subprocess.run([TOOL, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=180,
                              env={**os.environ, 'NBD_S3_ACCESS_KEY': self.access_key,
                                   'NBD_S3_SECRET_KEY': self.secret_key})
        if done.returncode != 0:
            raise AssertionError(f'tools/s3-server {" ".join(words)}: {done.stdout.decode(errors="replace")}')

    def store(self, prefix='store', bucket=BUCKET):
        return S3Store(self, prefix, bucket)

    def kill(self):
        """SIGKILL of what speaks S3."""
        self.tool('kill', self.directory)

    def restart(self):
        self.tool('restart', self.directory)

    def stop(self):
        self.tool('stop', self.directory)


def available(kind):
    """None, or why a real server of this kind cannot start here."""
    done = subprocess.run([TOOL, 'available', kind], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return None if done.returncode == 0 else done.stdout.decode(errors='replace').strip()


class Shared:
    """The server of a whole run, where the kind has one and it is not there yet; its data goes with it."""

    def __init__(self, kind):
        self.server = None
        if kind in REAL_KINDS and SHARED not in os.environ:
            self.directory = tempfile.mkdtemp(prefix=f'cairn-{kind}.')
            self.server = RealServer(kind, self.directory)
            os.environ[SHARED] = str(self.server.port)

    def stop(self):
        if self.server:
            self.server.stop()
            shutil.rmtree(self.directory, ignore_errors=True)


class Provider:
    """Gives one test its stores; a server is found or started when the first is asked for."""

    def __init__(self, bench):
        self.bench = bench
        self.kind = kind()
        self.server = None
        self.found = {}
        self.lock = threading.Lock()

    def store(self, name):
        with self.lock:
            if name not in self.found:
                self.found[name] = self.make(name)
            return self.found[name]

    def make(self, name):
        if self.kind == 'dir':
            return DirStore(self.bench.path(name))
        if self.server is None:
            self.server = FakeServer(self.bench) if self.kind == 'fake' else S3Server(int(os.environ[SHARED]))
        # The directory's name is unique on this machine, as long as it is there.
        return S3Store(self.server, f'{os.path.basename(self.bench.dir)}/{name}')


__all__ = ['DirStore', 'S3Store', 'FakeServer', 'RealServer', 'S3Error', 'Provider', 'Shared', 'available', 'kind',
           'quiet_port']
