"""What a server sees to before it serves disks of a bucket, and `cairn doctor`."""

import json
import re

import nbd

from harness import CAIRN, Server, wait_until
from stores import ACCESS_KEY, BUCKET, SECRET_KEY, DirStore, FakeServer, S3Store

ON = ('fake',)
LIFECYCLE = ('<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule><ID>tidy</ID><Filter>'
             '<Prefix>%s</Prefix></Filter><Status>Enabled</Status><Expiration><Days>30</Days></Expiration></Rule>'
             '</LifecycleConfiguration>')


def make(t, *arguments, bucket=BUCKET):
    fake = FakeServer(t, arguments, bucket)
    t.variables.update(fake.environment())
    return fake


def refusal(t, *words, status=1):
    """What `cairn serve` says when it ends by itself: its one line of error, and the log before it."""
    done = t.cairn('serve', '--unix', t.path('refused.sock'), *words, check=False)
    assert done.returncode == status, (done.returncode, done.stderr)
    *log, line = done.stderr.strip().splitlines()
    assert line.startswith('cairn serve: ') and not done.stdout, done.stderr
    return line, '\n'.join(log)


def requests(fake):
    """How many there were since the last call."""
    made = fake.state()['requests']
    fake.control(reset_counters=True)
    return made


def test_bucket_is_created(t):
    """At a loopback endpoint; not when it is forbidden, nor by those who only look."""
    fake = make(t, bucket=None)
    where = ['--store', 's3://disks/all']
    for words in (['list'], ['info', 'x'], ['doctor']):
        done = t.cairn(words[0], *where, *words[1:], check=False)
        assert done.returncode == 1, done.stderr
        assert "there is no bucket 'disks' at " + fake.endpoint in done.stderr + done.stdout, done.stderr + done.stdout
    line, _ = refusal(t, *where, '--s3-create-bucket=no')
    assert "there is no bucket 'disks'" in line and '--s3-create-bucket' in line and 'aws s3 mb' in line, line
    fake.control(may_create=False)
    line, _ = refusal(t, *where)
    assert 'cannot be created' in line and 'AccessDenied' in line, line
    fake.control(may_create=True)
    server = Server(t, S3Store(fake, 'all', 'disks'))
    log = server.process.stderr()
    assert f"created the bucket 'disks' at {fake.endpoint}" in log, log
    assert f'serving disks of s3://disks/all at {fake.endpoint}' in log, log
    server.stop()


def test_requests_of_start(t):
    """A start on a store that is known costs a handful of requests, looking costs fewer."""
    fake = make(t)
    server = Server(t, fake.store())
    server.stop()
    assert sorted(fake.store().objects()) == ['cairn', 'probe/verdict']
    assert requests(fake)['PUT'] > 100, 'the store was not tried out'
    server.start()
    made = requests(fake)
    assert made == {'LIST': 1, 'BUCKET': 2, 'GET': 2}, made
    server.stop()
    t.cairn('list', *fake.store().words())
    made = requests(fake)
    assert made == {'LIST': 2, 'GET': 1}, made
    t.cairn('dump', *fake.store().words(), 'cairn')
    made = requests(fake)
    assert made == {'LIST': 1, 'GET': 1}, made


def test_conditions(t):
    """A store that does not keep to conditional writes is refused, whichever way it fails; nothing is left in it."""
    fake = make(t)
    for header, mode, check in (('if-none-match', 'ignored', 'create what exists'),
                                ('if-none-match', 'unsupported', 'create what is absent'),
                                ('if-none-match', 'racy', '16 writers create at once'),
                                ('if-match', 'ignored', 'replace, given an old ETag'),
                                ('if-match', 'unsupported', 'replace, given the current ETag'),
                                ('if-match', 'racy', '16 writers replace at once')):
        fake.control(conditions={header: mode})
        line, _ = refusal(t, *fake.store().words())
        assert f"cannot keep disks safe: '{check}'" in line and 'known to work: AWS S3' in line, line
        assert not fake.store().objects(), (header, mode)
        done = t.cairn('doctor', *fake.store().words(), check=False)
        assert done.returncode == 1 and re.search(rf'^FAILED +{check} ', done.stdout, re.MULTILINE), done.stdout
        fake.control(conditions={header: 'kept'})
    fake.control(conditions={'if-match': 'unquoted'})
    server = Server(t, fake.store())
    handle = nbd.NBD()
    handle.connect_uri(server.uri())
    handle.shutdown()
    server.stop()


def test_probe_among_failures(t):
    """Answers that are lost or refused for a moment are no reason not to start."""
    fake = make(t)
    # Never so many for one request as there are attempts: to fail then is right.
    fake.rules({'fault': 'unavailable', 'probability': 0.1, 'in_a_row': 2},
               {'fault': 'drop', 'probability': 0.05, 'in_a_row': 2})
    server = Server(t, fake.store())
    server.stop()


def test_region(t):
    """A bucket in another region is followed there; every thread knows."""
    fake = make(t, '--region', 'eu-central-1')
    server = Server(t, fake.store(), arguments=['--threads', '2'])
    log = server.process.stderr()
    assert log.count(f"bucket '{BUCKET}' is in region eu-central-1, not us-east-1") == 1, log
    for name in 'abcd':
        handle = nbd.NBD()
        handle.connect_uri(server.uri(name))
        handle.pwrite(b'x', 0)
        handle.flush()
        handle.shutdown()
    server.stop()
    assert 'a' in t.cairn('list', *fake.store().words()).stdout
    for words, env, lists in (([], {}, 2), ([], {'AWS_REGION': 'eu-central-1'}, 1),
                              (['--s3-region', 'eu-central-1'], {'AWS_REGION': 'us-east-1'}, 1)):
        requests(fake)
        t.cairn('dump', *fake.store().words(), *words, 'cairn', env=env)
        assert requests(fake)['LIST'] == lists, (words, env)


def test_endpoint_of_aws_tools(t):
    """Endpoint, region and keys may come from AWS's own variables and files."""
    fake = FakeServer(t, ['--region', 'eu-north-1'])
    with open(t.path('config'), 'w') as file:
        file.write(f'[profile dev]\nregion = eu-north-1\nendpoint_url = {fake.endpoint}\n'
                   f'aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n')
    env = {'AWS_CONFIG_FILE': t.path('config')}
    t.run([CAIRN, 'doctor', '--s3-profile', 'dev', '--s3-bucket', BUCKET], env=env)
    t.run([CAIRN, 'doctor', '--store', f's3://{BUCKET}'], env={**env, 'AWS_PROFILE': 'dev'})
    t.run([CAIRN, 'doctor', '--store', f's3://{BUCKET}'],
          env={'AWS_ENDPOINT_URL_S3': fake.endpoint, 'AWS_ACCESS_KEY_ID': ACCESS_KEY, 'AWS_REGION': 'eu-north-1',
               'AWS_SECRET_ACCESS_KEY': SECRET_KEY})
    assert fake.state()['answers'].keys() <= {'PUT 200', 'PUT 412', 'PUT 404', 'GET 200', 'GET 206', 'GET 404',
                                              'LIST 200', 'DELETE 204', 'BUCKET 200', 'BUCKET 403', 'BUCKET 404',
                                              'BUCKET 501'}, fake.state()


def test_bucket_settings(t):
    """Rules that would delete our objects, and versions."""
    fake = make(t)
    fake.control(buckets={BUCKET: {'lifecycle': LIFECYCLE % 'sto'}})
    line, _ = refusal(t, *fake.store().words())
    assert "the lifecycle rule 'tidy'" in line and 's3://' + BUCKET in line, line
    assert not fake.store().objects()
    fake.control(buckets={BUCKET: {'lifecycle': LIFECYCLE % 'other/', 'versioning': 'Enabled'}})
    server = Server(t, fake.store())
    wait_until(lambda: 'is versioned (Enabled)' in server.process.stderr(), 'the warning')
    server.stop()
    # As Ceph RGW, that forgets conditions once a bucket has versions, with a verdict from before that.
    fake.control(conditions={'if-none-match': 'ignored'})
    line, _ = refusal(t, *fake.store().words())
    assert 'is versioned' in line and 'never turned on' in line, line
    # Whoever may not ask for either is told, and served.
    fake.control(conditions={'if-none-match': 'kept'}, buckets={BUCKET: {'lifecycle': '', 'versioning': ''}},
                 keys={ACCESS_KEY: {'secret': SECRET_KEY, 'denied': ['BUCKET']}})
    server.start()
    assert server.process.stderr().count('not known: ') == 2, server.process.stderr()
    server.stop()


def test_not_ours(t):
    """A bucket with other things in it is left alone; a prefix of it may be ours."""
    fake = make(t)
    fake.client().put(BUCKET, 'photo.jpg', b'smile')
    line, _ = refusal(t, '--store', f's3://{BUCKET}')
    assert "not a cairn store" in line and "'photo.jpg'" in line, line
    assert list(fake.client().list(BUCKET)) == ['photo.jpg']
    # What a probe that was killed left behind is not other things.
    fake.client().put(BUCKET, 'store/probe/0123-object-0', b'left')
    server = Server(t, fake.store())
    server.stop()


def test_doctor(t):
    fake = make(t)
    where = fake.store().words()
    done = t.cairn('doctor', *where)
    for word in ('settings', 'reach', 'credentials', 'bucket', 'put', '16 writers create at once', 'versioning',
                 'latency of get', 'throughput of put'):
        assert re.search(rf'^ok +{word} ', done.stdout, re.MULTILINE), (word, done.stdout)
    assert not fake.store().objects(), 'it left something behind'
    report = t.cairn_json('doctor', *where)
    assert report['healthy'] and report['store'] == fake.store().url, report
    names = [check['check'] for check in report['checks']]
    assert len(set(names)) == len(names), names
    measured = {check['check']: check for check in report['checks']}
    assert measured['latency of put']['p50_ms'] >= 0 and measured['throughput of get']['mib_per_s'] > 0, measured


def failed(t, *words, env=None):
    """The check that failed, by doctor's own report."""
    done = t.cairn('doctor', '--json', *words, env=env, check=False)
    report = json.loads(done.stdout)
    found = [check for check in report['checks'] if check['result'] == 'failed']
    assert done.returncode == 1 and not report['healthy'] and 'checks failed' in done.stderr, done.stderr
    assert len(found) == 1 and SECRET_KEY not in done.stdout + done.stderr, found
    return found[0]['check'], found[0]['detail']


def test_certificates_are_missing(t):
    fake = make(t)
    where = [*fake.store().words(), '--s3-ca', t.path('absent.pem')]
    line, _ = refusal(t, *where)
    assert 'absent.pem' in line, line
    done = t.cairn('list', *where, check=False)
    assert done.returncode == 1 and 'absent.pem' in done.stderr, done.stderr


def test_doctor_finds_it(t):
    fake = make(t)
    where = fake.store().words()
    cases = (
        ('settings', "'nobody'", {}, ['--s3-profile', 'nobody', '--s3-region', 'us-east-1'],
         {'NBD_S3_ENDPOINT': '', 'NBD_S3_ACCESS_KEY': '', 'NBD_S3_SECRET_KEY': ''}),
        ('name', 'no.such.host.invalid', {}, ['--s3-endpoint', 'http://no.such.host.invalid:1'], {}),
        ('reach', 'refused', {}, ['--s3-endpoint', 'http://127.0.0.1:1'], {}),
        ('bucket', 'no bucket', {}, ['--store', 's3://other-bucket'], {}),
        ('bucket', 'SignatureDoesNotMatch', {}, [], {'NBD_S3_SECRET_KEY': 'another'}),
        ('bucket', 'InvalidAccessKeyId', {}, [], {'NBD_S3_ACCESS_KEY': 'another'}),
        ('bucket', 'AccessDenied', {'buckets': {BUCKET: {'account': 'theirs'}}}, [], {}),
        ('put', 'AccessDenied', {'buckets': {BUCKET: {}}, 'keys': {ACCESS_KEY: {'secret': SECRET_KEY,
                                                                                'denied': ['PUT']}}}, [], {}),
        ('delete', 'AccessDenied', {'keys': {ACCESS_KEY: {'secret': SECRET_KEY, 'denied': ['DELETE']}}}, [], {}),
        ('lifecycle', 'tidy', {'keys': {ACCESS_KEY: {'secret': SECRET_KEY}},
                               'buckets': {BUCKET: {'lifecycle': LIFECYCLE % ''}}}, [], {}),
    )
    for check, word, control, words, env in cases:
        if control:
            fake.control(**control)
        found, detail = failed(t, *where, *words, env=env)
        assert found == check and word in detail, (check, found, detail)
    # A clock that is off by 20 minutes is told, and lived with.
    fake.control(buckets={BUCKET: {}}, clock_offset_s=1200)
    report = t.cairn_json('doctor', *where)
    clock = next(check for check in report['checks'] if check['check'] == 'clock')
    assert clock['result'] == 'warning' and 1190 < -clock['ahead_s'] < 1260, clock


def test_doctor_of_directory(t):
    store = DirStore(t.path('store'))
    done = t.cairn('doctor', *store.words(), check=False)
    assert done.returncode == 1 and 'cairn serve makes it' in done.stdout, done.stdout
    Server(t, store).stop()
    before = store.objects()
    done = t.cairn('doctor', *store.words())
    assert re.search(r'^ok +16 writers replace at once ', done.stdout, re.MULTILINE), done.stdout
    assert store.objects() == before, 'it left something behind'


def test_contradictions(t):
    """Settings of S3 beside a directory: the stronger source wins, aloud."""
    fake = make(t)
    server = Server(t, DirStore(t.path('store')))
    log = server.process.stderr()
    assert 'NBD_S3_ENDPOINT in the environment is passed over: --store says dir:' in log, log
    server.stop()
    assert not fake.state()['requests']
    line, _ = refusal(t, '--store', 'dir:' + t.path('store'), '--s3-bucket', BUCKET, status=2)
    assert '--s3-bucket' in line and 'is a directory' in line, line


def test_secrets_stay_secret(t):
    """Nothing that a start says, at any level, holds a key's secret."""
    fake = make(t)
    for words, env in (([], {}), ([], {'NBD_S3_ACCESS_KEY': 'another'}), (['--s3-region', 'x y'], {}),
                       (['--s3-endpoint', 'http://127.0.0.1:1'], {}), (['--s3-secret-kay', SECRET_KEY], {}),
                       (['--s3-secret-kay=' + SECRET_KEY], {}), (['-s3-secret-key=' + SECRET_KEY], {})):
        process = t.start('loud', [CAIRN, 'serve', *fake.store().words(), '--unix', t.path('s'), '--log-level',
                                   'DEBUG', *words], env=env)
        wait_until(lambda: not process.running() or 'serving disks' in process.stderr(), 'a start or an end')
        process.popen.terminate()
        process.wait()
        assert SECRET_KEY not in process.stdout() + process.stderr(), process.stderr()
