"""What every integration test stands on: a directory of its own, processes
that are ended with it, and the server.

A test is a function whose name begins with test_, in a file test_*.py of
test/integration; it takes one argument, a `Bench`.  It passes when it returns,
is skipped when it raises Skip(reason), fails on any other exception.  It runs on
whatever store CAIRN_TEST_STORE names (stores.py), unless @on says that it is
about some kinds only.

The server's path comes from the environment: CAIRN, by default build/cairn.
Processes are ended by their pid, and only those that the test started.  A
server that ends in a way nobody asked for fails its test, and so does one
that a sanitizer complained about.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse

import stores

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CAIRN = os.path.abspath(os.environ.get('CAIRN', os.path.join(REPOSITORY, 'build', 'cairn')))

# Waiting for something that must come: long, because a loaded machine is no failure.
PATIENCE_S = 30

# What a sanitizer or a failed assertion leaves on stderr.
COMPLAINTS = re.compile(rb'Sanitizer|runtime error:|Assertion|assertion failed|stack smashing|double free')


class Skip(Exception):
    """The test cannot run here; its text says why."""


def on(*kinds):
    """The test is about these kinds of store only; 's3': all but dir.  run.py reads it without running anything."""
    return lambda test: test


def need_tool(*names):
    for name in names:
        if shutil.which(name, path=os.environ['PATH'] + ':/usr/sbin:/sbin') is None:
            raise Skip(f'{name} is not installed')


def need_root():
    if os.geteuid() != 0:
        raise Skip('needs root')


def wait_until(condition, what, timeout=PATIENCE_S):
    """Returns the first true value of condition(); fails after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f'{what}: not within {timeout} s')
        time.sleep(0.01)


def sanitized(path=None):
    """Is the binary built with a sanitizer?  Its memory then tells nothing, and shims do not load."""
    with open(path or CAIRN, 'rb') as binary:
        content = binary.read()
    return b'__asan_init' in content or b'__tsan_init' in content


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Process:
    """A process that was started by a test, with its output in files."""

    def __init__(self, bench, name, argv, env=None, cwd=None, stdin=subprocess.DEVNULL, pass_fds=()):
        bench.started += 1
        self.name = name
        self.argv = [str(word) for word in argv]
        self.stdout_path = os.path.join(bench.dir, f'{bench.started:02d}-{name}.out')
        self.stderr_path = os.path.join(bench.dir, f'{bench.started:02d}-{name}.err')
        with open(self.stdout_path, 'wb') as out, open(self.stderr_path, 'wb') as err:
            self.popen = subprocess.Popen(self.argv, stdin=stdin, stdout=out, stderr=err, cwd=cwd or bench.dir,
                                          env=bench.environment(env), pass_fds=pass_fds)
        self.pid = self.popen.pid
        bench.processes.append(self)

    def stdout(self):
        with open(self.stdout_path, errors='replace') as file:
            return file.read()

    def stderr(self):
        with open(self.stderr_path, errors='replace') as file:
            return file.read()

    def running(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.running():
            self.popen.send_signal(number)

    def wait(self, timeout=PATIENCE_S):
        """Its exit status; negative: the signal that ended it."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f'{self.name} did not end within {timeout} s') from None

    def kill(self):
        if self.running():
            self.popen.kill()
        self.popen.wait()

    def memory(self, field):
        """VmRSS, VmHWM … in bytes."""
        with open(f'/proc/{self.pid}/status') as file:
            for line in file:
                if line.startswith(field + ':'):
                    return int(line.split()[1]) * 1024
        raise AssertionError(f'no {field} of {self.name}')

    def check_complaints(self):
        with open(self.stderr_path, 'rb') as file:
            found = COMPLAINTS.search(file.read())
        if found:
            raise AssertionError(f'{self.name} complained: {found.group().decode()}; see {self.stderr_path}\n'
                                 + self.stderr()[-3000:])


class Bench:
    """One test's directory and processes."""

    def __init__(self, directory):
        self.dir = directory
        self.processes = []
        self.undo = []
        self.started = 0
        self.variables = {}  # that every process sees
        self.provider = stores.Provider(self)

    def environment(self, more=None):
        """What processes see: ours without any setting of the server, so that a developer's own do not count."""
        env = {key: value for key, value in os.environ.items()
               if not key.startswith(('NBD_', 'AWS_', 'XDG_')) and not key.lower().endswith('_proxy')}
        # The system's own programs first: libnbd's module belongs to the system's Python.
        env['PATH'] = '/usr/bin:/bin:/usr/sbin:/sbin:' + env['PATH']
        env['LC_ALL'] = 'C.UTF-8'
        env['HOME'] = self.dir
        env['RUNTIME_DIRECTORY'] = self.dir  # where the server keeps its lock files
        env.pop('NOTIFY_SOCKET', None)
        env.update(self.variables)
        env.update(more or {})
        return env

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def start(self, name, argv, **options):
        return Process(self, name, argv, **options)

    def run(self, argv, check=True, timeout=120, text=True, env=None, input=None, cwd=None):
        """Runs to the end; fails, with the output, unless it exits 0 (check=False: any status)."""
        done = subprocess.run([str(word) for word in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout, env=self.environment(env), cwd=cwd or self.dir, input=input,
                              stdin=subprocess.DEVNULL if input is None else None)
        complaint = COMPLAINTS.search(done.stderr)
        if text:
            done.stdout = done.stdout.decode(errors='replace')
            done.stderr = done.stderr.decode(errors='replace')
        if complaint or (check and done.returncode != 0):
            raise AssertionError(f'exit status {done.returncode} of: {" ".join(map(str, argv))[:300]}\n'
                                 f'{done.stdout[-2000:]}\n{done.stderr[-2000:]}')
        return done

    def cairn(self, *words, **options):
        return self.run([CAIRN, *words], **options)

    def cairn_json(self, *words, **options):
        return json.loads(self.cairn(*words, '--json', **options).stdout)

    def store(self, name='store'):
        """The store of that name, of the kind that this run is about: empty at first, the test's alone."""
        found = self.provider.store(name)
        self.variables.update(found.environment())
        return found

    def server(self, **options):
        return Server(self, **options)

    def later(self, action):
        """Runs when the test ends, last one first."""
        self.undo.append(action)

    def close(self):
        """Ends what still runs, then says what was wrong with it, if anything."""
        problem = None
        for process in reversed(self.processes):
            process.kill()
        for action in reversed(self.undo):
            action()
        for process in self.processes:
            try:
                process.check_complaints()
            except AssertionError as complaint:
                problem = problem or complaint
        if problem:
            raise problem


def parse_statistics(text):
    """The last ones in a log."""
    found = {}
    for group, numbers in re.findall(r'statistics: (\w+) (.*)', text):
        found[group] = {name: int(number) for name, number in re.findall(r'(\w+)=(\d+)', numbers)}
    return found


class Server:
    """`cairn serve` on a store and a unix socket, and on a TCP port if asked.

    `store` is a store, the name of one of Bench.store(), or the path of a directory.
    kill() and start() may follow each other any number of times.  ready=False: start() does not wait."""

    def __init__(self, bench, store=None, size='1GB', tcp=False, arguments=(), env=None, name='cairn', start=True,
                 ready=True):
        self.bench = bench
        self.name = name
        if isinstance(store, str) and os.path.isabs(store):
            store = stores.DirStore(store)
        elif store is None or isinstance(store, str):
            store = bench.store(store or 'store')
        self.store = store
        self.socket = bench.path(f'{name}.sock')
        self.size = size
        self.port = free_port() if tcp else None
        self.arguments = list(arguments)
        self.env = {**store.environment(), **(env or {})}
        self.process = None
        if start:
            self.start(ready)

    def argv(self):
        words = [CAIRN, 'serve', *self.store.words(), '--size', self.size, '--unix', self.socket]
        if self.port:
            words += ['--host', '127.0.0.1', '--port', self.port]
        return words + self.arguments

    def start(self, ready=True):
        assert self.process is None or not self.process.running()
        self.process = self.bench.start(self.name, self.argv(), env=self.env)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=PATIENCE_S):
        wait_until(self.answers, f'{self.name} accepts connections', timeout)

    def answers(self):
        if not self.process.running():
            raise AssertionError(f'{self.name} ended with status {self.process.popen.returncode} instead of '
                                 f'serving: {self.process.stderr()[-2000:]}')
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.socket)
            if self.port:
                socket.create_connection(('127.0.0.1', self.port)).close()
            return True
        except OSError:
            return False

    def uri(self, export='disk'):
        return f'nbd+unix:///{urllib.parse.quote(export, safe="")}?socket={self.socket}'

    def tcp_uri(self, export='disk'):
        return f'nbd://127.0.0.1:{self.port}/{urllib.parse.quote(export, safe="")}'

    def kill(self):
        """SIGKILL, as a power cut for the process; returns when it is gone."""
        assert self.process.running(), f'{self.name} had ended by itself: {self.process.stderr()[-2000:]}'
        self.process.kill()

    def stop(self, expect=0, timeout=60):
        """SIGTERM; it must end with `expect`."""
        assert self.process.running(), f'{self.name} had ended by itself: {self.process.stderr()[-2000:]}'
        self.process.signal(signal.SIGTERM)
        status = self.process.wait(timeout)
        assert status == expect, f'{self.name} ended with {status}: {self.process.stderr()[-2000:]}'

    def statistics(self):
        """Asks for them by SIGUSR1: {'store': {'puts': 1, …}, 'requests': …, 'connections': …}."""
        before = self.process.stderr().count('statistics: store ')
        self.process.signal(signal.SIGUSR1)
        wait_until(lambda: self.process.stderr().count('statistics: store ') > before, 'statistics')
        return parse_statistics(self.process.stderr())

    def restart(self):
        """Stops it in good order and starts it anew, so that nothing comes from its memory."""
        self.stop()
        return self.start()
