#!/usr/bin/python3
"""Starts cairn in an empty directory and holds it against the protocol.

    serve_and_check.py CAIRN unix|tcp|read-only

Prints what conformance.py prints.  Fails as well when the server does not end cleanly, or when a sanitizer or an
assertion had something to say."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE_S = 60
HANDSHAKE_SECONDS = 4
COMPLAINTS = re.compile('Sanitizer|runtime error:|Assertion')


class Server:
    """One run of `cairn serve`, with its log in a file."""

    def __init__(self, cairn, directory, *flags):
        self.log_path = os.path.join(directory, 'log')
        environment = {k: v for k, v in os.environ.items() if not k.startswith('NBD_')}
        with open(self.log_path, 'w') as log:
            self.process = subprocess.Popen(
                [cairn, 'serve', '--config', '/dev/null', '--store', 'dir:' + os.path.join(directory, 'store'),
                 '--size', '256MB', '--handshake-deadline', f'{HANDSHAKE_SECONDS}s', *flags],
                cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self):
        with open(self.log_path, errors='replace') as log:
            return log.read()

    def wait_ready(self):
        end = time.monotonic() + PATIENCE_S
        while 'serving disks' not in self.log():
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f'Bail out! The server did not start:\n{self.log()}')
            time.sleep(0.02)

    def tcp_address(self):
        return re.search(r'serving disks of .* on (\S+):(\d+)', self.log()).groups()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = 'none in time'
        if status != 0 or COMPLAINTS.search(self.log()):
            print(f'# The server ended with status {status}; its log:')
            print(''.join(f'#   {line}\n' for line in self.log().splitlines()[-60:]))
            return False
        return True


def check(cairn, directory, target, *flags):
    """Serves and checks once; `target` is None for TCP."""
    server = Server(cairn, directory, *flags)
    try:
        server.wait_ready()
        where = ['--unix', target] if target else list(server.tcp_address())
        status = subprocess.run([sys.executable, os.path.join(HERE, 'conformance.py'), *where, '--handshake-seconds',
                                 str(HANDSHAKE_SECONDS)]).returncode
    finally:
        ended_well = server.stop()
    return status == 0 and ended_well


def main():
    cairn, kind = os.path.abspath(sys.argv[1]), sys.argv[2]
    directory = tempfile.mkdtemp(prefix='cairn-conformance-')
    try:
        unix = os.path.join(directory, 'socket')
        if kind == 'read-only':
            # The export must exist first.
            server = Server(cairn, directory, '--unix', unix)
            server.wait_ready()
            subprocess.run([sys.executable, os.path.join(HERE, 'conformance.py'), '--unix', unix, '--only',
                            'write-then-read-simple'], stdout=subprocess.DEVNULL, check=True)
            ok = server.stop() and check(cairn, directory, unix, '--unix', unix, '--read-only')
        elif kind == 'tcp':
            ok = check(cairn, directory, None, '--host', '127.0.0.1', '--port', '0')
        else:
            ok = check(cairn, directory, unix, '--unix', unix)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if ok else 1


if __name__ == '__main__':
    sys.exit(main())
