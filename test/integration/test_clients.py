"""Real clients: what people use must work, and what they wrote must come back
from the store after the server was started anew."""

import json
import os
import random

from harness import Skip, need_tool, wait_until

# Megabytes of the file that nbdcopy carries (1024 by hand).
COPY_MB = int(os.environ.get('CAIRN_TEST_COPY_MB', '128'))
FIO_MB = int(os.environ.get('CAIRN_TEST_FIO_MB', '64'))


def make_file(path, megabytes, seed=1):
    """Incompressible content with holes, so that zeroes are copied too."""
    dice = random.Random(seed)
    with open(path, 'wb') as file:
        for number in range(megabytes):
            if number % 8 == 5:
                file.seek(1 << 20, os.SEEK_CUR)
            else:
                file.write(dice.randbytes(1 << 20))
        file.truncate(megabytes << 20)


def test_nbdinfo(t):
    need_tool('nbdinfo')
    server = t.server(size='1GB')
    text = t.run(['nbdinfo', server.uri('a disk')]).stdout
    assert 'export="a disk"' in text and 'export-size: 1073741824' in text, text
    export = json.loads(t.run(['nbdinfo', '--json', server.uri('a disk')]).stdout)['exports'][0]
    assert export['export-name'] == 'a disk'
    assert export['export-size'] == 1 << 30
    for flag, wanted in {'is_read_only': False, 'can_flush': True, 'can_fua': True, 'can_multi_conn': True,
                         'can_trim': True, 'can_zero': True, 'can_cache': True, 'is_rotational': False}.items():
        assert export[flag] is wanted, f'{flag} is {export[flag]}'
    assert export['block_size_minimum'] == 1
    assert export['block_size_preferred'] == 4096
    assert export['block_size_maximum'] == 32 << 20
    assert t.run(['nbdinfo', '--size', server.uri('a disk')]).stdout.strip() == str(1 << 30)
    for can in ('connect', 'flush', 'fua', 'multi-conn', 'trim', 'zero', 'write', 'cache', 'df'):
        t.run(['nbdinfo', '--can', can, server.uri('a disk')])
    server.stop()


def test_nbdinfo_list(t):
    need_tool('nbdinfo')
    server = t.server()
    names = ['one', 'Two', 'drei/3', 'vier ä']
    for name in names:
        t.run(['nbdinfo', '--size', server.uri(name)])
        t.run(['nbdsh', '-u', server.uri(name), '-c', 'h.pwrite(b"x", 0)'])
    listed = json.loads(t.run(['nbdinfo', '--list', '--json', server.uri('')]).stdout)['exports']
    assert sorted(export['export-name'] for export in listed) == sorted(names), listed
    server.stop()


def test_nbdcopy(t):
    """A file in and out on four connections, with a restart between."""
    need_tool('nbdcopy')
    make_file(t.path('in'), COPY_MB)
    server = t.server(size=f'{COPY_MB}MB')
    t.run(['nbdcopy', '--connections=4', '--requests=32', '--flush', t.path('in'), server.uri()])
    t.run(['nbdcopy', '--connections=4', server.uri(), t.path('warm')])
    t.run(['cmp', t.path('in'), t.path('warm')])
    os.unlink(t.path('warm'))
    server.restart()
    t.run(['nbdcopy', '--connections=4', server.uri(), t.path('cold')])
    t.run(['cmp', t.path('in'), t.path('cold')])
    server.stop()


def test_nbdcopy_tcp(t):
    need_tool('nbdcopy')
    make_file(t.path('in'), 32)
    server = t.server(size='32MB', tcp=True)
    t.run(['nbdcopy', '--connections=4', '--flush', t.path('in'), server.tcp_uri()])
    t.run(['nbdcopy', '--connections=4', server.tcp_uri(), t.path('out')])
    t.run(['cmp', t.path('in'), t.path('out')])
    server.stop()


def qemu_io(t, server, *commands):
    words = ['qemu-io', '-f', 'raw']
    for command in commands:
        words += ['-c', command]
    done = t.run(words + [server.uri()])
    assert 'Pattern verification failed' not in done.stdout, done.stdout
    return done.stdout


def test_qemu_io(t):
    need_tool('qemu-io')
    server = t.server(size='64MB')
    qemu_io(t, server,
            'write -P 0xab 4k 64k', 'write -P 0x11 1M 3M', 'write -P 0x77 5000 300', 'write -z -u 8k 16k',
            'discard 32k 8k', 'write -f -P 0x42 63M 1M', 'write -z 2M 4k', 'write -P 0x43 12345678 1', 'flush',
            'read -P 0xab 4k 904', 'read -P 0x77 5000 300')
    checks = ['read -P 0 0 4k', 'read -P 0x77 5000 300', 'read -P 0xab 5300 2892', 'read -P 0 8k 16k',
              'read -P 0xab 24k 8k', 'read -P 0 32k 8k', 'read -P 0xab 40k 28k', 'read -P 0 68k 64k',
              'read -P 0x11 1M 1M', 'read -P 0 2M 4k', 'read -P 0x11 2052k 2044k', 'read -P 0x42 63M 1M',
              'read -P 0x43 12345678 1', 'read -P 0 12345679 1000', 'read -P 0 20M 30M']
    qemu_io(t, server, *checks)
    server.restart()
    qemu_io(t, server, *checks)
    qemu_io(t, server, 'discard 0 64M', 'flush', 'read -P 0 0 32M', 'read -P 0 32M 32M')
    server.restart()
    qemu_io(t, server, 'read -P 0 0 32M', 'read -P 0 32M 32M')
    server.stop()


def test_qemu_io_parallel(t):
    """Overlapping requests in flight at once on one connection."""
    need_tool('qemu-io')
    server = t.server(size='64MB')
    writes = [f'aio_write -P {number + 1} {number * 192}k 256k' for number in range(40)]
    qemu_io(t, server, *writes, 'aio_flush', 'flush')
    checks = [f'read -P {number + 1} {number * 192 + 64}k 128k' for number in range(40)]
    qemu_io(t, server, *checks)
    server.restart()
    qemu_io(t, server, *checks)
    server.stop()


def test_qemu_img(t):
    need_tool('qemu-img')
    make_file(t.path('in.raw'), 48, seed=2)
    t.run(['qemu-img', 'convert', '-O', 'qcow2', t.path('in.raw'), t.path('in.qcow2')])
    server = t.server(size='48MB')
    t.run(['qemu-img', 'convert', '-n', '-W', '-m', '8', '-O', 'raw', t.path('in.qcow2'), server.uri()])
    t.run(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', t.path('in.raw'), server.uri()])
    server.restart()
    t.run(['qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', server.uri(), t.path('in.qcow2')])
    t.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'raw', server.uri(), t.path('out.raw')])
    t.run(['cmp', t.path('in.raw'), t.path('out.raw')])
    extents = json.loads(t.run(['qemu-img', 'map', '--output=json', '-f', 'raw', server.uri()]).stdout)
    assert sum(extent['length'] for extent in extents) == 48 << 20, extents
    differs = t.run(['qemu-io', '-f', 'raw', '-c', 'write -P 1 17M 1', server.uri()])
    assert differs.returncode == 0
    assert t.run(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', t.path('in.raw'), server.uri()],
                 check=False).returncode == 1
    server.stop()


def fio(t, server, uri, *options):
    if 'nbd' not in t.run(['fio', '--enghelp']).stdout.split():
        raise Skip('this fio has no nbd engine')
    return t.run(['fio', '--name=job', '--ioengine=nbd', '--uri=' + uri, '--randseed=7', '--thread',
                  f'--size={FIO_MB // 4}m', f'--offset_increment={FIO_MB // 4}m', '--numjobs=4', '--iodepth=32',
                  '--group_reporting', *options], timeout=250)


FIO_VERIFY = ['--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0']


def test_fio_verify(t):
    """Mixed reads and writes of 4 KiB to 1 MiB, every block with its checksum, then all of them once more from the
    store."""
    need_tool('fio')
    server = t.server(size=f'{FIO_MB}MB')
    load = ['--rw=randrw', '--bsrange=4k-1m', *FIO_VERIFY]
    fio(t, server, server.uri(), '--do_verify=1', *load)
    server.restart()
    fio(t, server, server.uri(), '--verify_only=1', *load)
    server.stop()


def test_fio_verify_tcp(t):
    """Overwrites with a flush now and then, each block read back soon after it was written."""
    need_tool('fio')
    server = t.server(size=f'{FIO_MB}MB', tcp=True)
    fio(t, server, server.tcp_uri(), '--rw=randwrite', '--bsrange=512-64k', '--bs_unaligned', '--fsync=50',
        '--loops=2', '--do_verify=1', '--verify_backlog=64', *FIO_VERIFY)
    server.stop()


NEGATIVE = r'''
import errno, nbd
h.set_strict_mode(0)
size = h.get_size()
def refused(wanted, what, call):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum in wanted, f'{what}: {error}'
        return
    raise SystemExit(what + ': was not refused')
E = errno
refused([E.EINVAL], 'read past the end', lambda: h.pread(4096, size))
refused([E.EINVAL], 'read across the end', lambda: h.pread(4096, size - 1))
refused([E.EINVAL], 'read far out', lambda: h.pread(1, 2**64 - 1 - 2**63))
refused([E.ENOSPC], 'write past the end', lambda: h.pwrite(bytes(512), size))
refused([E.ENOSPC], 'write across the end', lambda: h.pwrite(bytes(512), size - 511))
refused([E.EINVAL], 'trim past the end', lambda: h.trim(512, size))
refused([E.ENOSPC], 'zero past the end', lambda: h.zero(512, size))
refused([E.EINVAL], 'cache past the end', lambda: h.cache(512, size))
refused([E.EINVAL], 'unknown flag', lambda: h.pwrite(bytes(512), 0, 1 << 9))
refused([E.EINVAL], 'flag that does not belong', lambda: h.pwrite(bytes(512), 0, nbd.CMD_FLAG_NO_HOLE))
refused([E.EINVAL, E.ENOTSUP], 'block status that was not negotiated',
        lambda: h.block_status(4096, 0, lambda *words: 0))
h.trim(0, 0)
h.pwrite(b'still here', 4096)
h.flush()
assert h.pread(10, 4096) == b'still here'
'''


def test_nbdsh_negative(t):
    """Requests that a client must not send get the protocol's errors, and the connection lives on."""
    need_tool('nbdsh')
    server = t.server(size='64MB')
    t.run(['nbdsh', '-u', server.uri(), '-c', NEGATIVE])
    server.stop()


def test_many_names(t):
    """Exports are volumes of their own; `` is one like any other."""
    need_tool('nbdsh')
    server = t.server(size='1MB')
    names = ['', 'a', 'A', 'a/b', '..', '.', 'ä', ' ', 'x' * 200, 'y' * 4000]
    for number, name in enumerate(names):
        t.run(['nbdsh', '-c', f'h.set_export_name({name!r}); h.connect_unix({server.socket!r}); '
               f'h.pwrite(b"%06d" % {number}, 4094); h.flush()'])
    server.restart()
    for number, name in enumerate(names):
        t.run(['nbdsh', '-c', f'h.set_export_name({name!r}); h.connect_unix({server.socket!r}); '
               f'assert h.pread(6, 4094) == b"%06d" % {number}'])
    server.stop()


def test_nbdkit_client(t):
    """nbdkit's nbd plugin in front of the server, with a filter between."""
    need_tool('nbdkit', 'nbdcopy')
    make_file(t.path('in'), 16, seed=3)
    server = t.server(size='16MB')
    front = t.path('front.sock')
    nbdkit = t.start('nbdkit', ['nbdkit', '-f', '-U', front, '--filter=stats', 'nbd', 'uri=' + server.uri(),
                                'statsfile=' + t.path('stats')])
    wait_until(lambda: os.path.exists(front), 'nbdkit listens')
    uri = 'nbd+unix:///?socket=' + front
    t.run(['nbdcopy', '--flush', t.path('in'), uri])
    t.run(['nbdcopy', uri, t.path('out')])
    t.run(['cmp', t.path('in'), t.path('out')])
    nbdkit.popen.terminate()
    nbdkit.wait()
    server.restart()
    t.run(['nbdcopy', server.uri(), t.path('cold')])
    t.run(['cmp', t.path('in'), t.path('cold')])
    server.stop()


def test_nbd_client_list(t):
    """The userland of nbd-client; attaching needs the kernel's driver (test/integration/guest)."""
    need_tool('nbd-client', 'nbdsh')
    server = t.server(tcp=True)
    t.run(['nbdsh', '-u', server.uri('listed'), '-c', 'h.pwrite(b"x", 0)'])
    done = t.run(['nbd-client', '-l', '127.0.0.1', '-p', server.port], check=False)
    if 'listed' not in done.stdout:
        # nbd-client 3.24 takes the port as its second word.
        done = t.run(['nbd-client', '-l', '127.0.0.1', server.port], check=False)
    assert 'listed' in done.stdout.split(), done.stdout + done.stderr
    server.stop()
