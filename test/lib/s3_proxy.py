"""bench/s3_proxy as a process: an S3 server that is far away, and whose requests are counted."""

import json
import os
import subprocess
import urllib.request

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CAIRN = os.path.abspath(os.environ.get('CAIRN', os.path.join(REPOSITORY, 'build', 'cairn')))
PROGRAM = os.path.join(os.path.dirname(CAIRN), 'bench', 's3_proxy')
CONTROL_S = 30

# The proxy is near: none of the system's own proxies is asked for it.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Counts:
    """What GET /_proxy/counts tells."""

    def __init__(self, told):
        self.told = told

    def total(self, method, kind=None, field='requests'):
        """Of one kind of key, or of all.  Fields: requests, sent, received, sent_most, received_most."""
        kinds = self.told['methods'][method]
        numbers = [kinds[name][field] for name in kinds if kind in (None, name)]
        return max(numbers, default=0) if field.endswith('_most') else sum(numbers)

    def requests(self):
        """{'PUT log': 1, …}, without zeroes."""
        return {f'{method} {kind}': found['requests'] for method, kinds in self.told['methods'].items()
                for kind, found in kinds.items()}

    def __str__(self):
        return ', '.join(f'{number} {what}' for what, number in self.requests().items()) or 'nothing'


class Proxy:
    """Before the server on `port` of the loopback; None: the proxy is a store itself, in its memory."""

    def __init__(self, port=None, put_ms=0, get_ms=0, mbps=0, keep=None, trace=None):
        words = [PROGRAM, '--listen', '0', '--put-ms', put_ms, '--get-ms', get_ms, '--mbps', mbps]
        words += ['--sink'] if port is None else ['--to', f'127.0.0.1:{port}']
        words += [] if keep is None else ['--keep', keep]
        words += [] if trace is None else ['--trace', trace]
        self.popen = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        told = self.popen.stdout.readline()
        if not told:
            raise AssertionError(f's3_proxy ended with {self.popen.wait()}')
        self.port = int(told)

    def control(self, method, what):
        request = urllib.request.Request(f'http://127.0.0.1:{self.port}/_proxy/{what}', method=method)
        with OPENER.open(request, timeout=CONTROL_S) as answer:
            return json.load(answer)

    def counts(self):
        return Counts(self.control('GET', 'counts'))

    def reset(self):
        self.control('POST', 'reset')

    def stop(self):
        """The counts at its end."""
        self.popen.terminate()
        told = self.popen.stdout.read()
        status = self.popen.wait()
        self.popen.stdout.close()
        assert status == 0, f's3_proxy ended with {status}'
        return Counts(json.loads(told))
