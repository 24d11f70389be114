"""A Ceph of one node with its S3 gateway, from Debian's packages: a monitor, an OSD on BlueStore, and radosgw.

All of it lives in one directory, runs as whoever starts it, and listens on loopback only, on ports that are chosen when
the directory is made; so several run side by side.  Each program works in that directory and has it as `.`, since Ceph
understands no path with a space or a semicolon.  There is no manager daemon: nothing here needs one.

Authentication (cephx) is on, since radosgw hangs for minutes without.  The keys are made here and given to the monitor
as it is made, which takes over all of them; so the cluster needs one command to be complete, `osd new`.

What is told to be smaller than usual (caches, logs of placement groups, shards of radosgw's own logs, placement groups)
brings the memory of all three below half a GB, and the first start below ten seconds.  What decides how S3 behaves is
left as it is: index shards of buckets, consistency, how data is synced."""

import base64
import concurrent.futures
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import time
import uuid

from . import process

PROGRAMS = ('radosgw', 'radosgw-admin', 'ceph-mon', 'ceph-osd', 'monmaptool')
PACKAGES = 'radosgw ceph-mon ceph-osd ceph-base ceph-common'
DISK_BYTES_MAX = 256 << 30  # of the file that BlueStore keeps its objects in; sparse
DISK_BYTES_MIN = 4 << 30
START_S = 90
CONFIGURATION_FILE = 'ceph.conf'

# Without tcp_nodelay each answer with a body takes 40 ms: its head is sent alone, and the rest waits for the client's
# acknowledgement, which the client delays.
FRONTENDS = 'rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1'

CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{monitor_port}/0
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
ms bind ipv6 = false
ms async op threads = 2
keyring = keyring
mon data = mon
osd data = osd
rgw data = rgw
run dir = run
crash dir = run
admin socket =
log file = log/$name.log
mon cluster log file = log/cluster.log
log max recent = 500
debug default = 0/0

osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail warn = 2
mon data avail crit = 1
mon max pg per osd = 1000
# Each change of the cluster's state, such as a new pool, waits for this; there is nobody to gather changes from.
paxos propose interval = 0.02
paxos min wait = 0.01

[osd]
osd objectstore = bluestore
bluestore block size = {disk_bytes}
bluestore fsck on mkfs = false
bluestore cache autotune = false
bluestore cache size = 67108864
bluestore rocksdb options = compression=kNoCompression,max_write_buffer_number=2,write_buffer_size=16777216,max_background_jobs=2,recycle_log_file_num=2
osd memory target = 939524096
osd op num shards = 2
osd op num threads per shard = 1
osd min pg log entries = 100
osd max pg log entries = 200
osd pg log dups tracked = 200
osd fast shutdown = true
osd fast shutdown notify mon = true
osd crush update on start = true
osd scrub begin hour = 0
osd scrub end hour = 1

[client.rgw]
{frontends}
rgw thread pool size = 64
rgw rados pool pg num min = 4
rgw num control oids = 1
rgw gc max objs = 2
rgw lc max objs = 2
rgw reshard num logs = 2
rgw md log max shards = 2
rgw data log num shards = 2
rgw objexp hints num shards = 2
rgw run sync thread = false
rgw enable usage log = false
rgw dynamic resharding = false
"""


def missing():
    """What is needed and not there: names of programs."""
    lacks = [program for program in PROGRAMS if shutil.which(program) is None]
    if not lacks and subprocess.run(['/usr/bin/python3', '-c', 'import rados'], stderr=subprocess.DEVNULL).returncode:
        lacks.append("Python's rados module")
    return lacks


def _new_key():
    """A secret as Ceph's keyrings have it: type, time of making, length, 16 bytes."""
    secret = os.urandom(16)
    return base64.b64encode(struct.pack('<hiih', 1, int(time.time()), 0, len(secret)) + secret).decode()


def _write(path, text, mode=0o600):
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), 'w') as file:
        file.write(text)


def _keyring():
    everything = "\tcaps mon = \"allow *\"\n\tcaps osd = \"allow *\"\n"
    osd = "\tcaps mon = \"allow profile osd\"\n\tcaps osd = \"allow *\"\n"
    return ''.join(f'[{name}]\n\tkey = {_new_key()}\n{caps}' for name, caps in (
        ('mon.', '\tcaps mon = "allow *"\n'), ('client.admin', everything), ('osd.0', osd), ('client.rgw', everything)))


def _free_port():
    """Below the range that outgoing connections take theirs from: it must still be free at the next start."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', port))
                return port
            except OSError:
                continue


class Cluster:
    def __init__(self, directory):
        self.directory = os.path.abspath(directory)

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def log(self, name):
        return self.path('log', f'{name}.out')

    @staticmethod
    def command(program, *words):
        return [program, '-c', CONFIGURATION_FILE, *words]

    def _run(self, what, *command):
        process.run(command, what, directory=self.directory)

    def is_made(self):
        return os.path.exists(self.path('made'))

    # ---- making it: only once in a directory ----

    def _prepare(self, port):
        for name in ('mon', 'osd', 'rgw', 'run', 'log'):
            shutil.rmtree(self.path(name), ignore_errors=True)  # of an attempt that failed
            os.makedirs(self.path(name), 0o700)
        free = shutil.disk_usage(self.directory).free
        if free < DISK_BYTES_MIN * 2:
            raise process.Failure(f'{self.directory}: {free >> 30} GiB are free; {DISK_BYTES_MIN * 2 >> 30} are needed')
        fsid, monitor_port = str(uuid.uuid4()), _free_port()
        _write(self.path(CONFIGURATION_FILE), CONFIGURATION.format(
            fsid=fsid, monitor_port=monitor_port, frontends=FRONTENDS.format(port=port),
            disk_bytes=min(DISK_BYTES_MAX, free // 2)))
        _write(self.path('keyring'), _keyring())
        self._run('making the map of monitors', 'monmaptool', '--create', '--clobber', '--addv', 'a',
                  f'[v2:127.0.0.1:{monitor_port}/0]', '--fsid', fsid, 'monmap')

    def _make_monitor(self):
        self._run('making the monitor', *self.command('ceph-mon', '--mkfs', '-i', 'a', '--monmap', 'monmap',
                                                      '--keyring', 'keyring'))

    def _make_osd(self, osd_uuid):
        shutil.copy(self.path('keyring'), self.path('osd', 'keyring'))
        self._run('making the OSD', *self.command('ceph-osd', '--no-mon-config', '--mkfs', '-i', '0',
                                                  '--osd-uuid', osd_uuid, '--keyring', 'keyring'))

    def _monitor_command(self, **words):
        """In a process of its own: the library's threads do not end with a connection."""
        program = ('import rados, sys\n'
                   'cluster = rados.Rados(conffile=sys.argv[1], name="client.admin")\n'
                   'cluster.connect(timeout=30)\n'
                   'result, answer, text = cluster.mon_command(sys.argv[2], b"", timeout=30)\n'
                   'sys.stdout.write(answer.decode())\n'
                   'sys.exit(text if result else 0)\n')
        done = subprocess.run(['/usr/bin/python3', '-c', program, CONFIGURATION_FILE, json.dumps(words)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              cwd=self.directory)
        if done.returncode != 0:
            raise process.Failure(f'{words["prefix"]} failed: {done.stderr.decode(errors="replace").strip()[-500:]}')
        return done.stdout.decode()

    def _osd_is_up(self):
        return json.loads(self._monitor_command(prefix='osd stat', format='json'))['num_up_osds'] == 1

    # ---- running it ----

    def _launch(self, program, *words):
        name = program.removeprefix('ceph-')
        return process.launch(self.command(program, '-f', *words), self.log(name), directory=self.directory)

    def start_monitor(self):
        return self._launch('ceph-mon', '-i', 'a')

    def start_osd(self):
        return self._launch('ceph-osd', '-i', '0')

    def start_gateway(self):
        return self._launch('radosgw', '-n', 'client.rgw')

    def set_port(self, port):
        """The gateway may have another at each start."""
        with open(self.path(CONFIGURATION_FILE)) as file:
            lines = file.read().splitlines()
        lines = [FRONTENDS.format(port=port) if line.startswith('rgw frontends') else line for line in lines]
        _write(self.path(CONFIGURATION_FILE), '\n'.join(lines) + '\n')

    def start(self, port, keys, told):
        """Starts all three, making them first where they are not.  `told` is called with the name and process of each
        at once, so that what was started can be ended whatever happens."""
        new = not self.is_made()
        osd_uuid = str(uuid.uuid4())
        if new:
            self._prepare(port)
            with concurrent.futures.ThreadPoolExecutor(1) as beside:
                making = beside.submit(self._make_osd, osd_uuid)
                self._make_monitor()
                monitor = self.start_monitor()
                told('mon', monitor)
                self._monitor_command(prefix='osd new', uuid=osd_uuid)
                making.result()
        else:
            self.set_port(port)
            monitor = self.start_monitor()
            told('mon', monitor)
        osd = self.start_osd()
        told('osd', osd)
        process.wait_until('the OSD joins', self._osd_is_up,
                           [(monitor, self.log('mon')), (osd, self.log('osd'))], START_S)
        if new:
            self._run('making the user', *self.command(
                'radosgw-admin', '-n', 'client.rgw', 'user', 'create', '--uid=cairn', '--display-name=cairn',
                f'--access-key={keys[0]}', f'--secret-key={keys[1]}'))
            _write(self.path('made'), '')
        told('server', self.start_gateway())


class Gateway:
    """The kind `rgw` of server."""

    name = 'rgw'
    find = staticmethod(lambda: shutil.which('radosgw'))
    missing = staticmethod(missing)

    @staticmethod
    def install():
        if missing():
            tools = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
            subprocess.run([os.path.join(tools, 'deps'), 'rgw'], check=True)

    @staticmethod
    def log(directory):
        return Cluster(directory).log('radosgw')

    @staticmethod
    def start(directory, port, keys, told):
        Cluster(directory).start(port, keys, told)

    @staticmethod
    def start_server(directory, port, keys, told):
        told('server', Cluster(directory).start_gateway())
