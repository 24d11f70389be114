"""Programs that run a test for as long as somebody likes, outside test/integration/run.py."""

import contextlib
import shutil
import subprocess
import sys
import tempfile

from harness import Bench


@contextlib.contextmanager
def bench(name, seed):
    """A bench in a directory of its own, which is left with all that was said when something fails."""
    directory = tempfile.mkdtemp(prefix=f'cairn-{name}.')
    made = Bench(directory)
    try:
        yield made
    except BaseException:
        for process in made.processes:
            process.kill()
        for action in reversed(made.undo):
            action()
        print(f'seed {seed}; the stores and the servers\' messages are in {directory}', file=sys.stderr)
        raise
    made.close()
    shutil.rmtree(directory)


def rounds_in_processes(program, rounds, most, seed, *words):
    """Many rounds, at most `most` in a process, each process with a seed of its own."""
    done = 0
    while done < rounds:
        some = min(most, rounds - done)
        process = subprocess.Popen([sys.executable, program, '--rounds', str(some), '--seed', str(seed + done), *words])
        try:
            status = process.wait()
        finally:
            process.terminate()  # it ends what it has started
            process.wait()
        if status != 0:
            sys.exit(status)
        done += some
        print(f'{done} of {rounds} rounds', flush=True)
