"""S3 servers that are one program each, built by Go from pinned versions: versitygw and MinIO."""

import os
import re
import shutil
import subprocess

from . import process


class Program:
    """What differs between them."""

    def __init__(self, name, module, version, go, command, environment):
        self.name = name
        self.module, self.version = module, version  # for `go install`
        self.go = go  # the oldest Go that builds it
        self.command = command  # (its path, directory of its data, port) -> words
        self.environment = environment  # (keys) -> variables

    def cached(self):
        """Where `install` puts it; the version stands in the name, so that another one is another file."""
        cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
        return os.path.join(cache, 'cairn', 'bin', f'{self.name}-{self.version}')

    def find(self):
        """Its path; None where there is none.  The pinned one goes first."""
        return self.cached() if os.access(self.cached(), os.X_OK) else shutil.which(self.name)

    def missing(self):
        return [] if self.find() else [self.name]

    def install(self):
        if os.access(self.cached(), os.X_OK):
            return
        self._check_go()
        print(f'building {self.name} {self.version}: this takes a few minutes', flush=True)
        building = self.cached() + f'.{os.getpid()}'
        try:
            process.run(['go', 'install', f'{self.module}@{self.version}'], f'building {self.name}',
                        {'GOBIN': building, 'GOFLAGS': '', 'CGO_ENABLED': '0'})
            os.rename(os.path.join(building, self.name), self.cached())
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _check_go(self):
        if shutil.which('go') is None:
            raise process.Failure(f'{self.name} is built by Go {self.go} or newer, and there is no go: install it, or '
                                  f'put a program {self.name} into PATH')
        told = subprocess.run(['go', 'env', 'GOVERSION'], stdout=subprocess.PIPE, text=True).stdout.strip()
        version = re.match(r'go(\d+)\.(\d+)', told)
        if version is None or tuple(map(int, version.groups())) < tuple(map(int, self.go.split('.'))):
            raise process.Failure(f'{self.name} needs Go {self.go} or newer, and this is {told or "unknown"}: install '
                                  f'a newer one, or put a program {self.name} into PATH')

    # ---- running it: the same on what it finds in the directory ----

    def start_server(self, directory, port, keys, told):
        data = os.path.join(directory, 'data')
        os.makedirs(data, 0o700, exist_ok=True)
        told('server', process.launch(self.command(self.find(), data, port), self.log(directory),
                                      self.environment(keys), directory))

    start = start_server  # it stands on nothing else

    def log(self, directory):
        return os.path.join(directory, f'{self.name}.log')


VERSITYGW = Program(
    'versitygw', 'github.com/versity/versitygw/cmd/versitygw', 'v1.8.0', '1.25',
    lambda path, data, port: [path, '--port', f'127.0.0.1:{port}', '--keep-alive', '--quiet',
                                'posix', data],
    lambda keys: {'ROOT_ACCESS_KEY': keys[0], 'ROOT_SECRET_KEY': keys[1]})

# The community's last version.  MINIO_BROWSER and MINIO_UPDATE keep it from listening on a second port, and from asking
# the network for news; its directory of certificates is empty, so that it speaks HTTP whatever the user's home has.
MINIO = Program(
    'minio', 'github.com/minio/minio', 'v0.0.0-20260212201848-7aac2a2c5b7c', '1.24',
    lambda path, data, port: [path, 'server', '--quiet', '--address', f'127.0.0.1:{port}',
                              '--certs-dir', os.path.join(os.path.dirname(data), 'certificates'), data],
    lambda keys: {'MINIO_ROOT_USER': keys[0], 'MINIO_ROOT_PASSWORD': keys[1], 'MINIO_BROWSER': 'off',
                  'MINIO_UPDATE': 'off'})
