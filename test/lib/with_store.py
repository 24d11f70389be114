#!/usr/bin/python3
"""Runs a command with an S3 server of its own: with_store.py KIND COMMAND…

KIND is fake, versitygw, minio or rgw.  The command finds the server by
CAIRN_TEST_S3 (its endpoint), CAIRN_TEST_S3_BUCKET, …_ACCESS_KEY, …_SECRET_KEY;
where objects are files, so that no key may be another's folder, by
CAIRN_TEST_S3_FOLDERS=1; and, for trying things by hand, by NBD_S3_….  The server
ends with the command, whose exit status is ours."""

import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import stores  # noqa: E402
from harness import Bench  # noqa: E402

FOLDERS = ('versitygw', 'minio')


def variables(kind, server):
    found = {'CAIRN_TEST_S3': server.endpoint, 'CAIRN_TEST_S3_BUCKET': stores.BUCKET,
             'CAIRN_TEST_S3_ACCESS_KEY': server.access_key, 'CAIRN_TEST_S3_SECRET_KEY': server.secret_key}
    if kind in FOLDERS:
        found['CAIRN_TEST_S3_FOLDERS'] = '1'
    return {**found, **server.environment()}


def main():
    kind, command = sys.argv[1] if len(sys.argv) > 2 else None, sys.argv[2:]
    if kind not in stores.KINDS or kind == 'dir':
        print(__doc__, file=sys.stderr)
        return 2
    directory = tempfile.mkdtemp(prefix=f'cairn-{kind}.')
    bench = Bench(directory)
    server = None
    try:
        server = stores.FakeServer(bench) if kind == 'fake' else stores.RealServer(kind, os.path.join(directory, kind))
        return subprocess.run(command, env={**os.environ, **variables(kind, server)}).returncode
    finally:
        if kind != 'fake' and server:
            server.stop()
        bench.close()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == '__main__':
    sys.exit(main())
