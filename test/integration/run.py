#!/usr/bin/python3
"""Runs the integration tests: real clients against the real server.

    run.py [--list] [--jobs N] [--timeout SECONDS] [--keep] [NAME…]

A NAME is a test, a file of tests, or the beginning of either.  Each test runs
in a process group and a temporary directory of its own; a test that takes too
long is ended with everything that it started.  What failed, and why, is told
once more at the end; the last line counts.

CAIRN in the environment names the server, by default build/cairn, and
CAIRN_TEST_STORE the kind of store: dir (by default), fake, versitygw, minio or
rgw.  Tests that are not about that kind are left out.  A file that needs a
store of a kind of its own says so by ON, a test by @on(KIND…)."""

import argparse
import ast
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'lib'))
sys.dont_write_bytecode = True

from gist import gist  # noqa: E402

STATUS_SKIPPED = 77
TIMEOUT_S = 300
TOLD_PROCESSES = 6  # of a failed test: what the last ones said
TOLD_BYTES = 1500  # of each


def kinds_of(node, fallback):
    """What @on says of a test."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and getattr(decorator.func, 'id', '') == 'on':
            return [ast.literal_eval(kind) for kind in decorator.args]
    return fallback


def discover():
    """All tests, as FILE.FUNCTION, with the kinds of store that each is about (None: any); imports nothing."""
    found = {}
    for file in sorted(os.listdir(HERE)):
        if file.startswith('test_') and file.endswith('.py'):
            with open(os.path.join(HERE, file)) as source:
                tree = ast.parse(source.read(), file)
            of_file = None
            for node in tree.body:
                if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == 'ON':
                    of_file = ast.literal_eval(node.value)
                if isinstance(node, ast.FunctionDef) and node.name.startswith('test_'):
                    name = file[len('test_'):-len('.py')] + '.' + node.name[len('test_'):]
                    found[name] = kinds_of(node, of_file)
    return found


def concerned(kinds, kind):
    return kinds is None or kind in kinds or kind != 'dir' and 's3' in kinds


def run_one(name, directory):
    """In the test's own process: the exit status tells how it went, the last line of stdout why it was skipped."""
    import importlib
    import traceback
    from harness import Bench, Skip
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    faulthandler.enable()
    file, function = name.split('.')
    sys.path.insert(0, HERE)
    bench = Bench(directory)
    status = 0
    try:
        getattr(importlib.import_module('test_' + file), 'test_' + function)(bench)
    except Skip as reason:
        print(reason)
        status = STATUS_SKIPPED
    except BaseException:
        traceback.print_exc()
        status = 1
    try:
        bench.close()
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)


class Run:
    """One test under way."""

    def __init__(self, name):
        self.name = name
        self.began = time.monotonic()
        # Short, because the path of a unix socket has at most 107 bytes.
        self.directory = tempfile.mkdtemp(prefix='cairn-it.')
        self.log_path = self.directory + '.log'
        with open(self.log_path, 'wb') as log:
            self.popen = subprocess.Popen(
                ['/usr/bin/python3', '-B', os.path.abspath(__file__), '--one', name, self.directory],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def seconds(self):
        return time.monotonic() - self.began

    def end(self):
        """Its process group, and nothing else; first asked, so that mounts are undone."""
        try:
            self.popen.terminate()
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            pass
        self.sweep()
        self.popen.wait()

    def sweep(self):
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def log(self):
        with open(self.log_path, errors='replace') as log:
            return log.read()

    def told(self):
        """What the test's processes left on stderr.  Told from here, since a test may end in a way that leaves it no
        time for that, as when an exception reaches libnbd."""
        tails = []
        for name in sorted(file for file in os.listdir(self.directory) if file.endswith('.err'))[-TOLD_PROCESSES:]:
            with open(os.path.join(self.directory, name), 'rb') as file:
                tail = file.read()[-TOLD_BYTES:].decode(errors='replace').strip()
            if tail:
                tails.append(f'--- stderr of {name[:-len(".err")]} (its end)\n{tail}\n')
        return ''.join(tails)

    def clean(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        os.unlink(self.log_path)


def indented(text):
    return '    ' + text.strip().replace('\n', '\n    ')


class Results:
    """Of all tests so far."""

    def __init__(self):
        self.counts = {'passed': 0, 'failed': 0, 'skipped': 0}
        self.failures = []  # (line, log)

    def finish(self, run, timed_out, keep):
        """Prints the test's line."""
        status = run.popen.returncode
        log = run.log()
        if timed_out:
            outcome, word = 'failed', f'FAILED (ended after {run.seconds():.0f} s)'
        elif status == 0:
            outcome, word = 'passed', 'ok'
        elif status == STATUS_SKIPPED:
            outcome, word = 'skipped', 'skipped: ' + log.strip().splitlines()[-1]
        elif status < 0:
            outcome, word = 'failed', f'FAILED (by {signal.Signals(-status).name})'
        else:
            outcome, word = 'failed', 'FAILED'
        line = f'{run.name:<44} {run.seconds():6.1f} s  {word}'
        print(line, flush=True)
        if outcome == 'failed':
            log += '\n' + run.told()
            self.failures.append((line, log))
        if outcome != 'skipped' and log.strip():
            print(indented(log), flush=True)
        if keep or outcome == 'failed' and os.environ.get('CAIRN_TEST_KEEP'):
            print(f'    kept: {run.directory}', flush=True)
        else:
            run.clean()
        self.counts[outcome] += 1

    def tell(self):
        """What failed, once more, and the last line."""
        if self.failures:
            print('\nwhat failed:')
        for line, log in self.failures:
            print(line)
            print(indented('\n'.join(gist(log))))
        print('{passed} passed, {failed} failed, {skipped} skipped'.format(**self.counts))


def run_all(names, jobs, timeout, keep):
    waiting = list(names)
    running = []
    results = Results()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Run(waiting.pop(0)))
            time.sleep(0.02)
            for run in list(running):
                timed_out = run.popen.poll() is None and run.seconds() > timeout
                if timed_out:
                    run.end()
                if run.popen.poll() is not None:
                    run.sweep()
                    running.remove(run)
                    results.finish(run, timed_out, keep)
    finally:
        for run in running:
            run.end()
            run.clean()
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help='a test, a file of tests, or the beginning of one')
    parser.add_argument('--list', action='store_true', help='print the names of the tests')
    parser.add_argument('--jobs', type=int, default=2, metavar='N', help='tests at once (2)')
    parser.add_argument('--timeout', type=float, default=TIMEOUT_S, metavar='SECONDS', help=f'of a test ({TIMEOUT_S})')
    parser.add_argument('--keep', action='store_true', help='keep the temporary directories')
    parser.add_argument('--one', nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(*arguments.one)
    found = discover()
    import stores
    kind = stores.kind()
    names = [name for name, kinds in found.items() if concerned(kinds, kind)]
    if arguments.names:
        unknown = [word for word in arguments.names if not any(name.startswith(word) for name in found)]
        if unknown:
            parser.error('no such test: ' + ' '.join(unknown))
        names = [name for name in names if any(name.startswith(word) for word in arguments.names)]
    if arguments.list:
        print('\n'.join(names))
        return 0
    from harness import CAIRN
    if not os.access(CAIRN, os.X_OK):
        print(f'no server at {CAIRN}: build it with `make`, or name another with CAIRN=PATH', file=sys.stderr)
        return 1
    shared = stores.Shared(kind)
    try:
        results = run_all(names, arguments.jobs, arguments.timeout, arguments.keep)
    finally:
        shared.stop()
    results.tell()
    return 1 if results.counts['failed'] else 0


if __name__ == '__main__':
    sys.exit(main())
