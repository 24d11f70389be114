"""Stores in S3 that are not as they should be: each is told in one clear line with the right exit status, and nothing
hangs.  (What a start sees to in a bucket that works is in test_s3_start.py, objects that are damaged in
test_bad_input.py.)"""

import os
import socket
import threading

import nbd

from harness import Server, Skip, sanitized, wait_until
from stores import ACCESS_KEY, BUCKET, SECRET_KEY, FakeServer, S3Store, quiet_port

ON = ('fake',)
CERTIFICATES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib', 'certificates')
# No refusal takes long: five attempts with their pauses, or five connections that cannot be made.  A store that says
# nothing at all is the longest.
PATIENCE_S = 60
CLEAN = {'NBD_S3_ENDPOINT': '', 'NBD_S3_ACCESS_KEY': '', 'NBD_S3_SECRET_KEY': ''}


def certificate(name):
    """With its key in the same file."""
    path = os.path.join(CERTIFICATES, name + '.pem')
    return path, path


def make(t, **options):
    fake = FakeServer(t, **options)
    t.variables.update(fake.environment())
    return fake


def refusal(t, *words, status=1, command=('serve',), env=None, store='s3://cairn-test/store'):
    """What is said by a command that must end by itself: one line, after at most one warning in the log."""
    if command == ('serve',):
        command = ('serve', '--unix', t.path('refused.sock'))
    done = t.cairn(*command, '--store', store, *words, check=False, timeout=PATIENCE_S, env=env)
    assert done.returncode == status, f'exit status {done.returncode}, not {status}: {done.stderr}'
    *log, line = done.stderr.strip().splitlines()
    assert line.startswith(f'cairn {command[0]}: '), f'no error: {done.stderr}'
    assert len(log) <= 1 and all(' WARNING ' in entry for entry in log), f'not one line: {done.stderr}'
    assert SECRET_KEY not in done.stderr
    return line


def said(t, wanted, *words, **options):
    """Each of the words must be in the line, by whichever command."""
    for command in (('serve',), ('list',)):
        line = refusal(t, *words, command=command, **options)
        for word in wanted:
            assert word in line, f'"{word}" is not in: {line}'


# ---- who asks ----


def test_wrong_keys(t):
    fake = make(t)
    said(t, ['InvalidAccessKeyId', 'credentials'], env={'NBD_S3_ACCESS_KEY': 'nobody'})
    said(t, ['SignatureDoesNotMatch'], env={'NBD_S3_SECRET_KEY': 'not-this-one'})
    fake.control(keys={'temporary': {'secret': 's', 'token': 'token-of-a-day', 'expires_in_s': -5}})
    said(t, ['ExpiredToken'], env={'NBD_S3_ACCESS_KEY': 'temporary', 'NBD_S3_SECRET_KEY': 's',
                                   'NBD_S3_SESSION_TOKEN': 'token-of-a-day'})


def test_half_of_the_keys(t):
    make(t)
    said(t, ['secret'], env={'NBD_S3_SECRET_KEY': ''}, status=2)
    said(t, ['access'], env={'NBD_S3_ACCESS_KEY': ''}, status=2)


def test_no_keys(t):
    """Where they were looked for, and what to set."""
    env = {**CLEAN, 'NBD_S3_ENDPOINT': 'http://s3.example.invalid', 'AWS_EC2_METADATA_DISABLED': 'true'}
    said(t, ['NBD_S3_ACCESS_KEY', 'AWS_ACCESS_KEY_ID'], env=env)


def test_forbidden(t):
    fake = make(t)
    fake.control(buckets={'theirs': {'account': 'other'}})
    said(t, ['AccessDenied', 'theirs'], store='s3://theirs/store')
    fake.control(keys={ACCESS_KEY: {'secret': SECRET_KEY, 'denied': ['PUT']}})
    assert 'AccessDenied' in refusal(t)
    fake.control(keys={ACCESS_KEY: {'secret': SECRET_KEY, 'denied': ['LIST', 'BUCKET']}})
    assert 'AccessDenied' in refusal(t, command=('list',))


def test_forbidden_later(t):
    """The right to write is taken away from a server that works: a flush fails at its deadline, nothing is lost when it
    is given back."""
    fake = make(t)
    server = Server(t, fake.store(), size='16MB', arguments=['--flush-deadline', '2s', '--threads', '1'])
    handle = nbd.NBD()
    handle.connect_uri(server.uri())
    handle.pwrite(b'before', 0)
    handle.flush()
    fake.control(keys={ACCESS_KEY: {'secret': SECRET_KEY, 'denied': ['PUT']}})
    handle.pwrite(b'during', 8192)
    try:
        handle.flush()
        raise AssertionError('a flush succeeded though nothing may be written')
    except nbd.Error as error:
        assert error.errnum in (1, 5, 13), error
    assert handle.pread(6, 8192) == b'during' and 'AccessDenied' in server.process.stderr()
    fake.control(keys={ACCESS_KEY: {'secret': SECRET_KEY}})
    wait_until(lambda: flush_succeeds(handle), 'a flush succeeds again')
    server.kill()
    server.start()
    handle = nbd.NBD()
    handle.connect_uri(server.uri())
    assert handle.pread(6, 0) == b'before' and handle.pread(6, 8192) == b'during'
    handle.shutdown()
    server.stop()


def flush_succeeds(handle):
    try:
        handle.flush()
        return True
    except nbd.Error:
        return False


def test_bucket_missing(t):
    make(t)
    said(t, ['absent-bucket'], store='s3://absent-bucket/store',
         env={'NBD_S3_CREATE_BUCKET': 'no'})
    for bucket in ('Upper', 'a', 'under_score', 'dot..dot', '-begin', 'x' * 64, '192.168.1.1'):
        said(t, ['bucket'], store=f's3://{bucket}/store', status=2)
    for prefix in ('a//b', '../up', 'x/./y', 'y' * 300):
        said(t, ['--store', 'prefix'], store=f's3://{BUCKET}/{prefix}', status=2)


def test_wrong_region(t):
    """The store's own region is followed, or named."""
    fake = make(t)
    fake.control(region='eu-west-1', buckets={BUCKET: {'region': 'eu-west-1'}})
    server = Server(t, fake.store(), arguments=['--s3-region', 'us-west-2'])
    server.stop()
    fake.control(buckets={'far': {'region': 'ap-south-1'}})
    assert 'ap-south-1' in refusal(t, '--s3-region', 'eu-west-1', store='s3://far/store')


# ---- where it is ----


def test_endpoint_forms(t):
    make(t)
    for endpoint in ('localhost:9000', '127.0.0.1', 's3.example.com', 'ftp://localhost:9000', 'http://', 'http:///x',
                     'http://localhost:9000/minio', 'http://localhost:9000/?x', 'http://localhost:99999',
                     'http://localhost:port', 'http://user:hidden@localhost:9000', 'http://::1:9000',
                     'http://[::1', 'http://a b', 'http://localhost:9000#x'):
        line = refusal(t, '--s3-endpoint', endpoint, status=2)
        assert '--s3-endpoint' in line, (endpoint, line)
        assert 'hidden' not in line, line


def test_ipv6(t):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(('::1', 0))
        except OSError:
            raise Skip('there is no IPv6 here') from None
    fake = make(t, host='::1')
    server = Server(t, S3Store(fake, 'store'))
    handle = nbd.NBD()
    handle.connect_uri(server.uri())
    handle.pwrite(b'six', 0)
    handle.flush()
    handle.shutdown()
    server.stop()
    assert 'volumes/n.disk' in fake.store().objects()


def test_unreachable(t):
    said(t, ['refused'], env={'NBD_S3_ENDPOINT': f'http://127.0.0.1:{quiet_port()}'})
    # Names below .invalid never exist (RFC 6761).
    env = {'NBD_S3_ENDPOINT': 'http://s3.example.invalid:9000', 'NBD_S3_ACCESS_KEY': 'a', 'NBD_S3_SECRET_KEY': 'b'}
    said(t, ['s3.example.invalid'], env=env)


def test_silent(t):
    """Somebody who takes connections, and never says a word."""
    fake = make(t)
    fake.control(outage='silent')
    line = refusal(t, '--s3-attempts', '2', '--s3-read-timeout', '6s')
    assert fake.endpoint in line, line


def test_full_backlog(t):
    """Connections that are never accepted."""
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    held = []
    for _ in range(8):
        held.append(socket.socket())
        held[-1].setblocking(False)
        held[-1].connect_ex(('127.0.0.1', port))
    said(t, [str(port)], '--s3-attempts', '2', '--s3-connect-timeout', '500ms',
         env={'NBD_S3_ENDPOINT': f'http://127.0.0.1:{port}'})


# ---- TLS ----


def test_tls(t):
    fake = make(t, certificate=certificate('localhost'))
    said(t, ['--s3-ca'])
    said(t, ['certificate'], '--s3-ca', certificate('expired')[0])
    ca = os.path.join(CERTIFICATES, 'ca.pem')
    for host in ('127.0.0.1', 'localhost'):
        fake.endpoint = f'https://{host}:{fake.port}'
        server = Server(t, Https(fake, host), size='16MB', arguments=['--s3-ca', ca])
        handle = nbd.NBD()
        handle.connect_uri(server.uri())
        handle.pwrite(b'private' * 100000, 0)
        handle.flush()
        handle.shutdown()
        server.restart()
        handle = nbd.NBD()
        handle.connect_uri(server.uri())
        assert handle.pread(700000, 0) == b'private' * 100000
        handle.shutdown()
        server.stop()
    open(t.path('empty.pem'), 'w').close()
    said(t, ['empty.pem'], '--s3-ca', t.path('empty.pem'))


class Https(S3Store):
    """Only for a server's words; nothing is asked of it here."""

    def __init__(self, server, prefix):
        self.server, self.bucket, self.prefix = server, BUCKET, prefix
        self.url = f's3://{BUCKET}/{prefix}'


def test_tls_wrong_certificate(t):
    ca = os.path.join(CERTIFICATES, 'ca.pem')
    make(t, certificate=certificate('elsewhere'))
    said(t, ['certificate'], '--s3-ca', ca)
    make(t, certificate=certificate('expired'))
    said(t, ['expired'], '--s3-ca', ca)


def test_http_and_https_mixed_up(t):
    plain = make(t)
    said(t, ['http://'], env={'NBD_S3_ENDPOINT': f'https://127.0.0.1:{plain.port}'})
    # What servers with TLS say to HTTP: nothing, an alert of TLS, or a word in HTTP.
    secure = make(t, certificate=certificate('localhost'))
    said(t, ['ended without an answer'], '--s3-attempts', '2',
         env={'NBD_S3_ENDPOINT': f'http://127.0.0.1:{secure.port}'})
    for greeting, word in ((b'\x15\x03\x01\x00\x02\x02\x46', 'https://'),
                           (b'HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n',
                            'HTTPS')):
        port = speak(t, greeting, first=False)
        said(t, [word], '--s3-attempts', '2', env={'NBD_S3_ENDPOINT': f'http://127.0.0.1:{port}'})


# ---- what it says ----


def test_not_s3(t):
    """Web pages, other protocols, nonsense."""
    fake = make(t)
    for fault, words in (('html', ['not S3']), ('html_503', ['503']), ('bad_gateway', ['502']), ('garbage', ['HTTP']),
                         ('error_in_200', []), ('drop', []), ('denied', ['AccessDenied'])):
        fake.rules({'fault': fault})
        said(t, words, '--s3-attempts', '2')
    port = speak(t, b'220 mail.example ESMTP\r\n', first=True)
    said(t, [str(port)], '--s3-attempts', '2', env={'NBD_S3_ENDPOINT': f'http://127.0.0.1:{port}'})


def speak(t, greeting, first):
    """Somebody who says the same to everybody, before or after being asked; returns the port."""
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen()

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if not first:
                client.recv(10000)
            client.sendall(greeting)
            if first:
                client.recv(10000)
            client.close()
    threading.Thread(target=serve, daemon=True).start()
    t.later(listener.close)
    return listener.getsockname()[1]


def test_redirects(t):
    """Not followed, so that no loop can be; where to is told."""
    fake = make(t)
    fake.rules({'fault': 'redirect'})
    said(t, [fake.endpoint, '307'], '--s3-attempts', '2')
    fake.rules({'fault': 'redirect', 'location': 'https://s3.elsewhere.example/'})
    said(t, ['https://s3.elsewhere.example/'], '--s3-attempts', '2')
    assert fake.state()['faults']['redirect'] < 40


def test_clock(t):
    """Twenty minutes off, either way, and also when it jumps: corrected by the store's own."""
    fake = make(t)
    for offset in (1200, -1200):
        fake.control(clock_offset_s=offset)
        server = Server(t, fake.store(), size='16MB')
        handle = nbd.NBD()
        handle.connect_uri(server.uri())
        handle.pwrite(b'on time', 0)
        handle.flush()
        fake.control(clock_offset_s=-offset)
        handle.pwrite(b'in time', 0)
        handle.flush()
        handle.shutdown()
        server.stop()


def test_xml(t):
    fake = make(t)
    server = Server(t, fake.store(), size='16MB')
    handle = nbd.NBD()
    handle.connect_uri(server.uri())
    handle.pwrite(b'x', 0)
    handle.shutdown()
    server.stop()
    for fault in ('huge_xml', 'nested_xml', 'truncated_xml'):
        fake.rules({'fault': fault, 'on': ['LIST', 'BUCKET']})
        for command in (('serve',), ('list',)):
            refusal(t, '--s3-attempts', '2', command=command)
    fake.rules()
    # A server that is told such things survives, refuses the volume, and serves it when they are over.
    server.arguments += ['--s3-read-timeout', '1s']
    server.start()
    for fault in ('huge_xml', 'nested_xml', 'truncated_xml'):
        fake.rules({'fault': fault, 'on': ['LIST']})
        before = server.process.memory('VmRSS')
        handle = nbd.NBD()
        handle.set_opt_mode(True)
        handle.connect_unix(server.socket)
        try:
            handle.opt_list(lambda name, description: 0)
        except nbd.Error:
            pass
        handle.opt_abort()
        assert sanitized() or server.process.memory('VmRSS') - before < 64 << 20, fault
    fake.rules()
    handle = nbd.NBD()
    handle.connect_uri(server.uri())
    assert handle.pread(1, 0) == b'x'
    handle.shutdown()
    server.stop()


# ---- proxies ----


def test_proxies(t):
    """Obeyed as curl does; never for a loopback address."""
    fake = make(t)
    nowhere = f'http://127.0.0.1:{quiet_port()}'
    server = Server(t, fake.store(), env={'http_proxy': nowhere, 'https_proxy': nowhere, 'all_proxy': nowhere})
    server.stop()
    remote = {'NBD_S3_ENDPOINT': 'http://s3.example.invalid', 'http_proxy': fake.endpoint}
    done = t.cairn('list', *fake.store().words(), env=remote)
    assert fake.state()['proxied'] > 0, done
    said(t, ['s3.example.invalid'], env={**remote, 'no_proxy': '.example.invalid'})
    said(t, ['proxy'], env={**remote, 'http_proxy': nowhere})
