"""Servers as processes that outlive the one that starts them, and are found again by what a directory says of them."""

import os
import signal
import subprocess
import time

STOP_S = 20  # a server that has not ended by then is killed
POLL_S = 0.02


class Failure(Exception):
    """What goes to the person, as one line."""


def _started_at(pid):
    """When a process started, in ticks since the machine did: with the pid, who it is.  None: it is gone."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            fields = file.read().rsplit(')', 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in 'ZX' else int(fields[19])


def launch(command, log, environment=None, directory=None):
    """Starts a server in a session of its own, its output in the file `log`.  Returns what is_alive() and end()
    take."""
    with open(log, 'ab') as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory,
                                   env={**os.environ, **(environment or {})}, start_new_session=True)
    process.returncode = 0  # it is meant to outlive us: no warning when the object goes
    return {'pid': process.pid, 'started': _started_at(process.pid)}


def is_alive(process):
    _reap(process['pid'])
    return process['started'] is not None and _started_at(process['pid']) == process['started']


def _reap(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # started by another run of this program


def end(process, how=signal.SIGTERM):
    """Ends it and waits until it is gone."""
    if not is_alive(process):
        return
    os.kill(process['pid'], how)
    give_up = time.monotonic() + STOP_S
    while is_alive(process):
        if time.monotonic() > give_up:
            os.kill(process['pid'], signal.SIGKILL)
            give_up = time.monotonic() + STOP_S
        time.sleep(POLL_S)


def tail(log, lines=8):
    try:
        with open(log, errors='replace') as file:
            return ''.join(file.readlines()[-lines:]).rstrip()
    except OSError:
        return ''


def wait_until(what, condition, processes, seconds):
    """Until `condition` holds; Failure when one of the processes ends meanwhile, or it takes too long.  `processes`
    is a list of (process, log)."""
    give_up = time.monotonic() + seconds
    while not condition():
        for process, log in processes:
            if not is_alive(process):
                raise Failure(f'{what}: it ended; {log} ends with:\n{tail(log)}')
        if time.monotonic() > give_up:
            logs = ', '.join(log for _, log in processes)
            raise Failure(f'{what}: it did not within {seconds} s; see {logs}')
        time.sleep(POLL_S)


def run(command, what, environment=None, directory=None):
    """A command that ends by itself; its output only when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, **(environment or {})}, cwd=directory)
    if done.returncode != 0:
        said = done.stdout.decode(errors='replace').strip().splitlines()[-8:]
        raise Failure(f'{what} failed (status {done.returncode}): {" ".join(command)}\n' + '\n'.join(said))
