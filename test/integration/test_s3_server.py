"""tools/s3-server: what the tests on real servers stand on."""

import os
import subprocess

from stores import BUCKET, TOOL, RealServer, kind, quiet_port

ON = ('versitygw', 'minio', 'rgw')


def refused(*words, status=1):
    done = subprocess.run([TOOL, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=60)
    assert done.returncode == status and done.stderr, (words, done)
    return done.stderr


def test_data_stays(t):
    """Through SIGKILL and start, and through stop and start."""
    server = RealServer(kind(), t.path('server'))
    try:
        client = server.client()
        content = os.urandom(1 << 20)
        for name in ('first', 'second'):
            client.put(BUCKET, name, content, if_none_match='*')
            server.kill()
            assert 'does not run' in refused('kill', server.directory)
            server.restart()
            assert client.get(BUCKET, name) == content
        assert 'runs' in refused('restart', server.directory)
        server.stop()
        server = RealServer(kind(), server.directory)
        assert server.client().get(BUCKET, 'second') == content
    finally:
        server.stop()


def test_refusals(t):
    refused('start', 'tape', t.path('server'), '9000', status=2)
    refused('start', kind(), t.path('server'), '0', status=2)
    assert 'no server was started there' in refused('stop', t.path('server'))
    server = RealServer(kind(), t.path('server'))
    try:
        assert 'runs already' in refused('start', kind(), server.directory, str(quiet_port()))
        assert str(server.port) in refused('start', kind(), t.path('other'), str(server.port))
    finally:
        server.stop()
    other = 'minio' if kind() == 'rgw' else 'rgw'
    said = refused('start', other, server.directory, str(server.port))
    assert 'is missing' in said or f'the data of {kind()}' in said, said
