"""Memory stays within --memory, whatever clients ask for while the store hangs."""

import os
import time

import stores
from harness import Skip, need_tool, on, sanitized, wait_until

MEMORY = 256 << 20
SLACK = 64 << 20  # code, stacks, the map, and what the allocator keeps
STALL_S = float(os.environ.get('CAIRN_TEST_STALL_S', '8'))  # 30 by hand
LIB = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib')


def stallable(t, **options):
    """A server whose store hangs between begin() and end() of what comes with it."""
    if sanitized():
        raise Skip('a sanitizer needs memory of its own and takes no LD_PRELOAD')
    if stores.kind() == 'fake':
        server = t.server(**options)
        return server, FakeStall(server.store.server)
    need_tool('cc')
    shim, flag = t.path('stall.so'), t.path('stalled')
    t.run(['cc', '-shared', '-fPIC', '-O2', '-o', shim, os.path.join(LIB, 'stall.c'), '-ldl'])
    return t.server(env={'LD_PRELOAD': shim, 'STALL_FILE': flag}, **options), DirStall(flag)


class DirStall:
    """See stall.c."""

    def __init__(self, flag):
        self.flags = {False: flag, True: flag + '.reads'}

    def begin(self, reads=False):
        open(self.flags[reads], 'w').close()

    def end(self):
        for flag in self.flags.values():
            if os.path.exists(flag):
                os.unlink(flag)


class FakeStall:
    def __init__(self, fake):
        self.fake = fake

    def begin(self, reads=False):
        if reads:
            self.fake.rules({'fault': 'stall', 'on': ['GET', 'LIST']})
        else:
            self.fake.control(outage='silent')

    def end(self):
        self.fake.control(outage=None, rules=[])


@on('dir', 'fake')
def test_stalled_store(t):
    """128 writes of 1 MiB in flight on each of 16 connections; every one completes after the store has come back."""
    need_tool('fio')
    server, stall = stallable(t, size='4GB', arguments=['--memory', '256MB', '--write-buffer', '128MB'])
    t.run(['nbdsh', '-u', server.uri(), '-c', 'h.pwrite(b"x" * 4096, 0); h.flush()'])
    stall.begin()
    fio = t.start('fio', ['fio', '--name=job', '--ioengine=nbd', '--uri=' + server.uri(), '--thread', '--rw=write',
                          '--bs=1m', '--iodepth=128', '--numjobs=16', '--size=128m', '--offset_increment=128m',
                          '--group_reporting', '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0',
                          '--do_verify=1'])
    end = time.monotonic() + STALL_S
    most = 0
    while time.monotonic() < end:
        most = max(most, server.process.memory('VmRSS'))
        assert most <= MEMORY + SLACK, f'{most >> 20} MiB resident while the store hangs'
        assert fio.running(), 'fio ended though the store hangs: ' + fio.stderr() + fio.stdout()
        time.sleep(0.05)
    stall.end()
    status = fio.wait(200)
    assert status == 0, fio.stdout()[-2000:] + fio.stderr()[-2000:]
    most = check_peak(server, MEMORY)
    server.stop()
    print(f'at most {most >> 20} MiB resident with --memory 256MB')


def check_peak(server, limit):
    most = server.process.memory('VmHWM')
    assert most <= limit + SLACK, f'{most >> 20} MiB resident at most, with a limit of {limit >> 20} MiB'
    return most


def test_deep_reads(t):
    """128 reads of 1 MiB in flight on each of 16 connections, of a volume that is larger than the memory."""
    need_tool('fio')
    if sanitized():
        raise Skip('a sanitizer needs memory of its own')
    server = t.server(size='512MB', arguments=['--memory', '128MB'])
    common = ['fio', '--name=job', '--ioengine=nbd', '--uri=' + server.uri(), '--thread', '--bs=1m',
              '--group_reporting', '--size=512m', '--norandommap']
    t.run(common + ['--rw=write', '--iodepth=4', '--end_fsync=1'])
    check_peak(server, 128 << 20)
    t.run(common + ['--rw=randread', '--iodepth=128', '--numjobs=16', '--time_based', '--runtime=4'])
    most = check_peak(server, 128 << 20)
    server.stop()
    print(f'at most {most >> 20} MiB resident with --memory 128MB')


@on('dir', 'fake')
def test_stalled_store_overwrites(t):
    """Overwrites of the same pages and alternating small trims pile nothing up."""
    import nbd
    server, stall = stallable(t, size='1GB', arguments=['--memory', '128MB'])
    handle = nbd.NBD()
    handle.connect_uri(server.uri())
    handle.pwrite(b'x' * 4096, 0)
    handle.flush()
    stall.begin()
    end = time.monotonic() + STALL_S / 2
    number = 0
    under_way = []
    while time.monotonic() < end:
        under_way = [cookie for cookie in under_way if not handle.aio_command_completed(cookie)]
        if len(under_way) < 64:
            number += 1
            if number % 2:
                buffer = nbd.Buffer.from_bytearray(bytearray([number & 255]) * 4096)
                under_way.append(handle.aio_pwrite(buffer, number % 16 * 4096))
            else:
                under_way.append(handle.aio_trim(4096, number % 100000 * 8192))
        else:
            handle.poll(10)
    check_peak(server, 128 << 20)
    stall.end()
    wait_until(lambda: handle.poll(10) >= 0 and handle.aio_in_flight() == 0, 'everything is answered')
    handle.flush()
    handle.shutdown()
    server.stop()
