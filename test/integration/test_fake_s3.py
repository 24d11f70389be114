"""The fake S3 itself: that it does what S3 does, and each fault what its name says."""

import hashlib
import http.client
import socket
import struct
import threading
import time
import urllib.error

import s3_signature
from harness import wait_until
from s3_client import S3Client, S3Error
from stores import BUCKET, FakeServer

ON = ('fake',)
MIB = 1 << 20


def refused(call):
    """(status, code) of the error."""
    try:
        call()
    except S3Error as error:
        return error.status, error.code
    raise AssertionError('it succeeded')


def broken(call):
    """The connection must end before there is a whole answer."""
    try:
        call()
    except (http.client.HTTPException, ConnectionError):
        return
    raise AssertionError('there was an answer')


def test_objects(t):
    client = FakeServer(t).client()
    data = bytes(range(256)) * 5000
    etag = client.put(BUCKET, 'a/key with/ä+%&=', data)
    assert client.get(BUCKET, 'a/key with/ä+%&=') == data and etag.startswith('"')
    path = f'/{BUCKET}/a/key with/ä+%&='
    for given, first, last in (('bytes=0-0', 0, 0), ('bytes=10-99', 10, 99), ('bytes=1279000-', 1279000, 1279999),
                               ('bytes=-7', 1279993, 1279999), ('bytes=1279999-99999999', 1279999, 1279999)):
        status, told, content = client.request('GET', path, headers={'range': given})
        assert status == 206 and content == data[first:last + 1], given
        assert told['content-range'] == f'bytes {first}-{last}/1280000' and told['etag'] == etag, told
    status, told, _ = client.request('GET', path, headers={'range': 'bytes=1280000-1280001'})
    assert status == 416 and told['content-range'] == 'bytes */1280000', told
    status, told, content = client.request('HEAD', path)
    assert status == 200 and told['content-length'] == '1280000' and not content
    client.delete(BUCKET, 'a/key with/ä+%&=')
    client.delete(BUCKET, 'a/key with/ä+%&=')
    assert refused(lambda: client.get(BUCKET, 'a/key with/ä+%&=')) == (404, 'NoSuchKey')
    assert refused(lambda: client.put(BUCKET, 'k' * 1025, b'')) == (400, 'KeyTooLongError')


def test_conditions(t):
    fake = FakeServer(t)
    client = fake.client()
    first = client.put(BUCKET, 'k', b'1', if_none_match='*')
    assert refused(lambda: client.put(BUCKET, 'k', b'2', if_none_match='*')) == (412, 'PreconditionFailed')
    second = client.put(BUCKET, 'k', b'2', if_match=first)
    assert refused(lambda: client.put(BUCKET, 'k', b'3', if_match=first)) == (412, 'PreconditionFailed')
    assert refused(lambda: client.put(BUCKET, 'absent', b'3', if_match=first)) == (404, 'NoSuchKey')
    assert client.get(BUCKET, 'k') == b'2' and first != second
    fake.control(conditions={'if-match': 'unquoted'})
    assert refused(lambda: client.put(BUCKET, 'k', b'3', if_match=second)) == (412, 'PreconditionFailed')
    client.put(BUCKET, 'k', b'3', if_match=second.strip('"'))
    fake.control(conditions={'if-match': 'ignored', 'if-none-match': 'unsupported'})
    client.put(BUCKET, 'k', b'4', if_match='"nonsense"')
    assert refused(lambda: client.put(BUCKET, 'new', b'5', if_none_match='*')) == (501, 'NotImplemented')
    record = fake.history()['k']
    assert (record['puts'], record['unconditional'], record['size']) == (4, 0, 1), record
    fake.control(conditions={'if-none-match': 'kept'})
    assert [winners(fake, f'kept-{round}') for round in range(5)] == [1] * 5
    # Who comes late, when the first has been applied, is refused; so not every race is lost.
    fake.control(conditions={'if-none-match': 'racy'})
    assert any(winners(fake, f'racy-{round}') > 1 for round in range(100))


def winners(fake, key):
    """Of eight who create it at once."""
    results = []
    racers = [threading.Thread(target=lambda number=number: results.append(race(fake, key, number)))
              for number in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    return sum(results)


def race(fake, key, number):
    try:
        fake.client().put(BUCKET, key, b'%d' % number, if_none_match='*')
        return 1
    except S3Error as error:
        assert error.code == 'PreconditionFailed'
        return 0


def test_list(t):
    client = FakeServer(t).client()
    keys = sorted(f'p/{number:04d} <&>ü' for number in range(2300))
    for key in keys[::-1]:
        client.put(BUCKET, key, b'x' * (len(key) % 7))
    client.put(BUCKET, 'other', b'')
    assert list(client.list(BUCKET, 'p/')) == keys
    assert list(client.list(BUCKET)) == ['other'] + keys
    assert client.list(BUCKET, 'q') == {}
    _, content = client.checked('GET', f'/{BUCKET}', 'list-type=2&max-keys=2&start-after=p%2F0007')
    assert content.count(b'<Key>') == 2 and b'<Key>p/0007 &lt;&amp;&gt;' in content, content


def test_buckets(t):
    fake = FakeServer(t)
    client = fake.client()
    fake.control(buckets={'foreign': {'account': 'other'}, 'far': {'region': 'eu-west-1'},
                          'old': {'versioning': 'Enabled', 'lifecycle': '<LifecycleConfiguration/>'}})
    assert client.request('HEAD', '/' + BUCKET)[0] == 200
    assert client.request('HEAD', '/absent')[0] == 404
    assert client.request('HEAD', '/foreign')[0] == 403
    status, told, _ = client.request('HEAD', '/far')
    assert status == 301 and told['x-amz-bucket-region'] == 'eu-west-1', told
    client.checked('PUT', '/made')
    client.put('made', 'k', b'1')
    assert refused(lambda: client.checked('PUT', '/made')) == (409, 'BucketAlreadyOwnedByYou')
    assert refused(lambda: client.checked('PUT', '/foreign')) == (409, 'BucketAlreadyExists')
    fake.control(may_create=False)
    assert refused(lambda: client.checked('PUT', '/more')) == (403, 'AccessDenied')
    assert b'Status' not in client.checked('GET', '/made', 'versioning')[1]
    assert b'<Status>Enabled</Status>' in client.checked('GET', '/old', 'versioning')[1]
    assert refused(lambda: client.checked('GET', '/made', 'lifecycle'))[1] == 'NoSuchLifecycleConfiguration'
    assert client.checked('GET', '/old', 'lifecycle')[1] == b'<LifecycleConfiguration/>'


def test_virtual_hosted(t):
    fake = FakeServer(t)
    client = fake.client()
    client.host = f'{BUCKET}.localhost:{fake.port}'
    client.checked('PUT', '/key', body=b'by name')
    assert fake.client().get(BUCKET, 'key') == b'by name'


def test_access(t):
    fake = FakeServer(t)
    endpoint, access, secret = fake.endpoint, fake.access_key, fake.secret_key

    def get(client):
        return refused(lambda: client.get(BUCKET, 'k'))
    assert get(S3Client(endpoint, access, secret)) == (404, 'NoSuchKey')
    assert get(S3Client(endpoint, 'nobody', secret)) == (403, 'InvalidAccessKeyId')
    assert get(S3Client(endpoint, access, 'wrong')) == (403, 'SignatureDoesNotMatch')
    assert get(S3Client(endpoint, access, secret, region='eu-west-1')) == (400, 'AuthorizationHeaderMalformed')
    assert get(S3Client(endpoint, access, secret, token='unasked')) == (400, 'InvalidToken')
    assert get(S3Client(endpoint, access, secret, clock_offset_s=-1200)) == (403, 'RequestTimeTooSkewed')
    fake.control(clock_offset_s=-1200)
    assert get(S3Client(endpoint, access, secret)) == (403, 'RequestTimeTooSkewed')
    assert get(S3Client(endpoint, access, secret, clock_offset_s=-1200)) == (404, 'NoSuchKey')
    fake.control(clock_offset_s=0, keys={access: {'secret': secret}, 'gone': {'secret': 's', 'token': 't',
                                                                              'expires_in_s': -1},
                                         'temporary': {'secret': 's', 'token': 't', 'expires_in_s': 100},
                                         'reader': {'secret': 's', 'denied': ['PUT']}})
    assert get(S3Client(endpoint, 'gone', 's', token='t')) == (400, 'ExpiredToken')
    assert get(S3Client(endpoint, 'temporary', 's')) == (403, 'InvalidAccessKeyId')
    assert get(S3Client(endpoint, 'temporary', 's', token='other')) == (400, 'InvalidToken')
    assert get(S3Client(endpoint, 'temporary', 's', token='t')) == (404, 'NoSuchKey')
    reader = S3Client(endpoint, 'reader', 's')
    assert get(reader) == (404, 'NoSuchKey')
    assert refused(lambda: reader.put(BUCKET, 'k', b'')) == (403, 'AccessDenied')
    client = fake.client()
    status, _, content = client.request('PUT', f'/{BUCKET}/k', body=b'changed on its way',
                                        payload_hash=hashlib.sha256(b'signed').hexdigest())
    assert status == 400 and b'XAmzContentSHA256Mismatch' in content
    client.request('PUT', f'/{BUCKET}/k', body=b'not signed', payload_hash='UNSIGNED-PAYLOAD')
    assert client.get(BUCKET, 'k') == b'not signed'


def test_errors(t):
    """The faults that are answers: never applied, unless the rule says so."""
    fake = FakeServer(t)
    client = fake.client()
    for fault, status, code in (('slow_down', 503, 'SlowDown'), ('unavailable', 503, 'ServiceUnavailable'),
                                ('internal_error', 500, 'InternalError'), ('throttled', 429, 'TooManyRequests'),
                                ('conflict', 409, 'ConditionalRequestConflict'), ('denied', 403, 'AccessDenied'),
                                ('wrong_region', 400, 'AuthorizationHeaderMalformed'),
                                ('redirect', 307, 'TemporaryRedirect'), ('bad_gateway', 502, ''),
                                ('html_503', 503, '')):
        fake.rules({'fault': fault, 'on': ['PUT']})
        assert refused(lambda: client.put(BUCKET, fault, b'x')) == (status, code), fault
        fake.rules({'fault': fault, 'on': ['PUT'], 'apply': 'yes'})
        refused(lambda: client.put(BUCKET, fault + '-applied', b'x'))
        fake.rules({'fault': fault, 'early': True})
        assert client.request('PUT', f'/{BUCKET}/early', body=b'x')[0] == status
    fake.rules({'fault': 'error_in_200'})
    status, told, content = client.request('GET', f'/{BUCKET}/absent')
    assert status == 200 and b'<Code>InternalError' in content, content
    fake.rules()
    assert all(key.endswith('-applied') for key in client.list(BUCKET)) and len(client.list(BUCKET)) == 10
    hits = fake.state()['faults']
    assert hits['slow_down'] == 3 and hits['error_in_200'] == 1, hits


def test_connections_that_end(t):
    fake = FakeServer(t)
    client = fake.client()
    data = b'0123456789' * MIB
    client.put(BUCKET, 'k', data)
    for fault in ('truncate', 'reset'):
        fake.rules({'fault': fault})
        broken(lambda: client.get(BUCKET, 'k'))
    for options, lands in (({}, True), ({'apply': 'no'}, False), ({'reset': True}, True), ({'apply': 0.3}, True)):
        fake.rules({'fault': 'drop', 'on': ['PUT'], **options})
        began = time.monotonic()
        broken(lambda: client.put(BUCKET, 'dropped', data))
        fake.rules()
        if options.get('apply') == 0.3:
            wait_until(lambda: 'dropped' in client.list(BUCKET), 'it lands late')
            assert time.monotonic() - began >= 0.3
        if lands:
            assert client.get(BUCKET, 'dropped') == data, options
            client.delete(BUCKET, 'dropped')
        else:
            assert refused(lambda: client.get(BUCKET, 'dropped')) == (404, 'NoSuchKey')
    fake.rules({'fault': 'reset_upload', 'bytes': 100000})
    broken(lambda: client.put(BUCKET, 'reset', data))
    fake.rules({'fault': 'garbage'})
    broken(lambda: client.get(BUCKET, 'k'))
    fake.rules()
    assert refused(lambda: client.get(BUCKET, 'reset')) == (404, 'NoSuchKey')


def test_fragments(t):
    """What is kept of an upload whose client goes away in the middle of it."""
    fake = FakeServer(t)
    data = b'x' * 300000
    path = f'/{BUCKET}/k'
    cases = ((False, s3_signature.UNSIGNED, None), (True, hashlib.sha256(data).hexdigest(), None),
             (True, s3_signature.UNSIGNED, 200000))
    for number, (keeps, payload_hash, size) in enumerate(cases, 1):
        fake.control(keeps_fragments=keeps)
        headers = s3_signature.sign('PUT', path, '', {'host': f'127.0.0.1:{fake.port}'}, payload_hash, fake.access_key,
                                    fake.secret_key, 'us-east-1', time.time())
        lines = [f'PUT {path} HTTP/1.1', f'Content-Length: {len(data)}',
                 *(f'{name}: {value}' for name, value in headers.items()), '', '']
        with socket.create_connection(('127.0.0.1', fake.port)) as client:
            client.sendall('\r\n'.join(lines).encode() + data[:200000])
        wait_until(lambda: fake.state()['answers'].get('PUT gone') == number, 'it has come and gone')
        assert not any(fake.state()['in_flight'].values())
        assert fake.history().get('k', {}).get('size') == size, (keeps, payload_hash)


def test_slow(t):
    """Silence and slowness; here time is what is tested, with wide margins."""
    fake = FakeServer(t)
    hasty = S3Client(fake.endpoint, fake.access_key, fake.secret_key, timeout=0.5)
    patient = fake.client()
    patient.put(BUCKET, 'k', b'x' * 4000)
    fake.rules({'fault': 'stall', 'on': ['PUT', 'GET']})
    for call in (lambda: hasty.get(BUCKET, 'k'), lambda: hasty.put(BUCKET, 'stalled', b'x')):
        try:
            call()
            raise AssertionError('it was answered')
        except TimeoutError:
            pass
    fake.rules({'fault': 'stall', 'seconds': 0.2})
    broken(lambda: patient.get(BUCKET, 'k'))
    for rule in ({'fault': 'drip', 'rate': 8000}, {'fault': 'delay', 'seconds': 0.3}):
        fake.rules(rule)
        began = time.monotonic()
        assert patient.get(BUCKET, 'k') == b'x' * 4000
        assert time.monotonic() - began > 0.25, rule
    fake.rules({'fault': 'slow_upload', 'rate': 400000})
    began = time.monotonic()
    patient.put(BUCKET, 'slow', b'x' * 200000)
    assert time.monotonic() - began > 0.2
    fake.rules()
    assert refused(lambda: patient.get(BUCKET, 'stalled')) == (404, 'NoSuchKey')


def test_wrong_answers(t):
    fake = FakeServer(t)
    client = fake.client()
    data = hashlib.sha256(b'x').digest() * 1000
    client.put(BUCKET, 'k', data)
    path, headers = f'/{BUCKET}/k', {'range': 'bytes=4096-8191'}

    def get(fault, **options):
        fake.rules({'fault': fault, **options})
        return client.request('GET', path, headers=headers)
    status, told, content = get('short', bytes=100)
    assert (status, len(content), told['content-range']) == (206, 100, 'bytes 4096-8191/32000'), told
    status, told, content = get('wrong_range')
    assert (status, told['content-range']) == (206, 'bytes 8192-12287/36096') and content == data[4096:8192]
    status, told, content = get('whole')
    assert status == 200 and content == data and 'content-range' not in told
    status, told, content = get('corrupt')
    assert status == 206 and sum(a != b for a, b in zip(content, data[4096:8192])) == 1
    status, told, content = get('html')
    assert status == 200 and b'<html>' in content and told['content-type'] == 'text/html'
    for fault, least, most in (('huge_xml', 16 * MIB, 17 * MIB), ('nested_xml', MIB, 8 * MIB), ('truncated_xml', 1, 500)):
        fake.rules({'fault': fault, 'on': ['LIST']})
        assert least < len(client.checked('GET', f'/{BUCKET}', 'list-type=2')[1]) < most, fault


def test_rules(t):
    """Which requests a rule hits."""
    fake = FakeServer(t)
    client = fake.client()

    def hits(count, key='k', **rule):
        fake.rules({'fault': 'slow_down', **rule})
        return [client.request('PUT', f'/{BUCKET}/{key}', body=b'')[0] == 503 for _ in range(count)]
    assert hits(6, skip=1, times=2) == [False, True, True, False, False, False]
    assert not any(hits(3, keys='^other')) and all(hits(3, key='other/x', keys='^other'))
    assert not any(hits(3, on=['GET', 'BUCKET']))
    assert 10 < sum(hits(400, probability=0.1)) < 80  # which chance misses once in ten million times
    assert hits(7, in_a_row=2) == [True, True, False, True, True, False, True]
    assert all(hits(3, every_s=100, for_s=50))
    assert hits(1, lasts_s=100) == [True]
    fake.rules({'fault': 'slow_down', 'lasts_s': 0.2})
    time.sleep(0.3)
    assert client.request('PUT', f'/{BUCKET}/k', body=b'')[0] == 200
    for wrong in ({'fault': 'nonsense'}, {'fault': 'stall', 'probabillity': 1}, {'fault': 'stall', 'on': ['POST']},
                  {'fault': 'truncate', 'apply': 'no'}, {}):
        try:
            fake.rules(wrong)
            raise AssertionError(f'accepted: {wrong}')
        except urllib.error.HTTPError as error:
            assert error.code == 400 and error.read()


def test_outage(t):
    fake = FakeServer(t)
    client = fake.client()
    client.put(BUCKET, 'k', b'kept')
    fake.control(outage='refuse')
    broken(lambda: client.get(BUCKET, 'k'))
    try:
        socket.create_connection(('127.0.0.1', fake.port)).close()
        raise AssertionError('somebody listens')
    except ConnectionRefusedError:
        pass
    fake.control(outage=None)
    assert fake.client().get(BUCKET, 'k') == b'kept'
    began = time.monotonic()
    fake.control(outage='silent', lasts_s=0.5)
    assert fake.client().get(BUCKET, 'k') == b'kept' and time.monotonic() - began > 0.4


def test_counters(t):
    """What tests ask it afterwards."""
    fake = FakeServer(t)
    client = fake.client()
    fake.control(reset_counters=True)
    client.put(BUCKET, 'k', b'x' * 5000)
    refused(lambda: client.put(BUCKET, 'k', b'x', if_match='"y"'))
    client.get(BUCKET, 'k')
    client.list(BUCKET)
    state = fake.state()
    assert state['requests'] == {'PUT': 2, 'GET': 1, 'LIST': 1}, state
    assert state['answers'] == {'PUT 200': 1, 'PUT 412': 1, 'GET 200': 1, 'LIST 200': 1}, state
    assert state['bytes_in'] == 5001 and state['bytes_out'] > 5000 and state['in_flight_max PUT'] == 1, state
    assert not any(state['in_flight'].values()), state
    half = socket.create_connection(('127.0.0.1', fake.port))
    half.sendall(b'PUT /x/y HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf')
    half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    half.close()
    wait_until(lambda: fake.state()['answers'].get('PUT gone') == 1, 'it has come and gone')
    assert not any(fake.state()['in_flight'].values()), fake.state()
