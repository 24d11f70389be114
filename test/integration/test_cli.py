"""The command line: subcommands, exit statuses, and where settings come from."""

import os
import re
import random

import nbd

import store_tree
from harness import CAIRN, free_port, on, wait_until
from load import connect

SUBCOMMANDS = ('serve', 'list', 'info', 'dump', 'break-lease', 'doctor')


@on('dir')
def test_help(t):
    """--help teaches, on stdout, with status 0; wrong usage is status 2 and one line on stderr."""
    text = t.cairn('--help').stdout
    for word in SUBCOMMANDS:
        assert word in text, text
    for word in SUBCOMMANDS:
        done = t.cairn(word, '--help')
        assert 'cairn ' + word in done.stdout and not done.stderr, done.stdout + done.stderr
    for flag in ('--host', '--port', '--unix', '--store', '--size', '--memory', '--log-level', '--log-format',
                 '--config', 'NBD_PORT'):
        assert flag in t.cairn('serve', '--help').stdout, flag
    version = t.cairn('--version').stdout
    assert re.search(r'cairn \d+\.\d+', version) and 'format' in version, version


@on('dir')
def test_wrong_usage(t):
    for words in ([], ['frobnicate'], ['serve', '--frobnicate'], ['serve', 'extra'], ['serve', '--port'],
                  ['serve', '--port', '99999'], ['serve', '--port', 'http'], ['info'], ['dump'], ['break-lease'],
                  ['list', 'extra'], ['serve', '--store', 'ftp:x'], ['serve', '--store', 'dir:'],
                  ['serve', '--memory', '1'], ['serve', '--log-level', 'LOUD']):
        done = t.cairn(*words, check=False, timeout=30)
        assert done.returncode == 2, (words, done.returncode, done.stderr)
        assert done.stderr and not done.stdout, (words, done.stdout, done.stderr)
        assert words == [] or len(done.stderr.strip().splitlines()) == 1, (words, done.stderr)


def test_missing(t):
    """Status 1 for what is not there, and nothing is made by looking."""
    store = t.store('nowhere')
    for words in (['list'], ['info', 'disk'], ['dump', 'volumes/n.disk'], ['break-lease', 'disk']):
        done = t.cairn(words[0], *store.words(), *words[1:], check=False)
        assert done.returncode == 1, (words, done.returncode, done.stderr)
        assert store.place in done.stderr and len(done.stderr.strip().splitlines()) == 1, (words, done.stderr)
        assert not store.exists(), words
    server = t.server()
    for words in (['info', 'other'], ['break-lease', 'other'], ['dump', 'volumes/n.other']):
        done = t.cairn(words[0], *server.store.words(), *words[1:], check=False)
        assert done.returncode == 1 and 'other' in done.stderr, (words, done.returncode, done.stderr)
    server.stop()


def volumes(document):
    return document['volumes'] if isinstance(document, dict) else document


def test_list_and_info(t):
    server = t.server(size='1GB')
    where = server.store.words()
    assert volumes(t.cairn_json('list', *where)) == []
    for name in ('alpha', 'beta', 'ga mma', 'ä'):
        handle = connect(server, name)
        handle.pwrite(random.randbytes(1 << 20), 0)
        handle.flush()
        if name != 'alpha':
            handle.shutdown()
        else:
            held = handle
    listed = volumes(t.cairn_json('list', *where))
    assert sorted(volume['name'] for volume in listed) == ['alpha', 'beta', 'ga mma', 'ä'], listed
    for volume in listed:
        assert volume['size'] == 1 << 30, volume
    text = t.cairn('list', *where).stdout
    for name in ('alpha', 'beta', 'ga mma', 'ä', '1'):
        assert name in text, text
    info = t.cairn_json('info', *where, 'alpha')
    assert info['name'] == 'alpha' and info['size'] == 1 << 30, info
    assert str(server.process.pid) in repr(info), f'the owner is not in {info}'
    assert 'alpha' in t.cairn('info', *where, 'alpha').stdout
    held.shutdown()
    server.stop()
    before = server.store.fingerprint()
    stored = sum(server.store.written_once().values())
    t.cairn('list', *where)
    t.cairn('info', *where, 'beta')
    assert server.store.fingerprint() == before, 'looking changed the store'
    numbers = [value for value in flatten(t.cairn_json('info', *where, 'beta')) if isinstance(value, int)]
    assert any(1 << 20 <= number <= stored for number in numbers), f'no bytes stored in {numbers}'


def flatten(document):
    if isinstance(document, dict):
        return [leaf for value in document.values() for leaf in flatten(value)]
    if isinstance(document, list):
        return [leaf for value in document for leaf in flatten(value)]
    return [document]


def test_dump(t):
    """Every object of a store can be printed, and is sound."""
    server = t.server(size='64MB')
    handle = connect(server, 'd')
    handle.pwrite(random.randbytes(12 << 20), 0)
    handle.trim(1 << 20, 32 << 20)
    handle.flush()
    handle.pwrite(random.randbytes(5000), 100)
    handle.flush()
    server.kill()
    server.start()
    connect(server, 'd').shutdown()
    server.stop()
    keys = ['cairn', 'volumes/n.d'] + list(server.store.written_once())
    assert any('/data/' in key for key in keys)
    for key in keys:
        done = t.cairn('dump', *server.store.words(), key)
        assert done.stdout.strip(), key


def port_of(process):
    """The port that a server says it listens on."""
    def look():
        assert process.running(), process.stderr()
        found = re.search(r'127\.0\.0\.1:(\d+)|localhost:(\d+)', process.stdout() + process.stderr())
        return found and int(found.group(1) or found.group(2))
    return wait_until(look, 'the start line')


@on('dir')
def test_precedence(t):
    """A flag beats the environment, that beats .env, that beats the configuration file."""
    ports = {where: free_port() for where in ('flag', 'environment', 'dotenv', 'file')}
    with open(t.path('cairn.conf'), 'w') as file:
        file.write(f'# settings\nport = {ports["file"]}\nstore = dir:{t.path("store")}\nhost = 127.0.0.1\n')
    with open(t.path('.env'), 'w') as file:
        file.write(f'NBD_PORT={ports["dotenv"]}\n')
    words = ['serve', '--config', t.path('cairn.conf')]
    for where in ('flag', 'environment', 'dotenv', 'file'):
        env = {'NBD_PORT': str(ports['environment'])} if where in ('flag', 'environment') else {}
        if where == 'file':
            os.unlink(t.path('.env'))
        process = t.start('cairn', [CAIRN] + words + (['--port', str(ports['flag'])] if where == 'flag' else []),
                          env=env)
        assert port_of(process) == ports[where], f'{where}: {ports}'
        handle = nbd.NBD()
        handle.connect_uri(f'nbd://127.0.0.1:{ports[where]}/disk')
        handle.shutdown()
        process.popen.terminate()
        assert process.wait() == 0, process.stderr()


@on('dir')
def test_sources_are_named(t):
    """An error in a setting tells where it stands."""
    where = ['serve', '--store', 'dir:' + t.path('store')]
    done = t.cairn(*where, check=False, env={'NBD_PORT': 'x'})
    assert done.returncode == 2 and 'NBD_PORT' in done.stderr, done.stderr
    with open(t.path('.env'), 'w') as file:
        file.write('# first\nNBD_SIZE=huge\n')
    done = t.cairn(*where, check=False)
    assert done.returncode == 2 and '.env' in done.stderr and '2' in done.stderr, done.stderr
    os.unlink(t.path('.env'))
    with open(t.path('bad.conf'), 'w') as file:
        file.write('memory = lots\n')
    done = t.cairn(*where, '--config', t.path('bad.conf'), check=False)
    assert done.returncode == 2 and 'bad.conf' in done.stderr, done.stderr
    with open(t.path('bad.conf'), 'w') as file:
        file.write('memroy = 1GB\n')
    done = t.cairn(*where, '--config', t.path('bad.conf'), check=False)
    assert done.returncode == 2 and 'memroy' in done.stderr, done.stderr
    done = t.cairn(*where, '--config', t.path('absent.conf'), check=False)
    assert done.returncode in (1, 2) and 'absent.conf' in done.stderr, done.stderr
    assert not os.path.exists(t.path('store'))


@on('dir')
def test_default_store(t):
    """Without a store: $XDG_DATA_HOME/cairn."""
    process = t.start('cairn', [CAIRN, 'serve', '--unix', t.path('s')], env={'XDG_DATA_HOME': t.path('data')})
    wait_until(lambda: os.path.exists(t.path('s')), 'the socket')
    assert 'cairn' in store_tree.objects(t.path('data', 'cairn')), os.listdir(t.dir)
    process.popen.terminate()
    assert process.wait() == 0


def test_read_only(t):
    server = t.server(size='1MB')
    handle = connect(server)
    handle.pwrite(b'fixed', 0)
    handle.shutdown()
    server.stop()
    server.arguments = ['--read-only']
    server.start()
    handle = connect(server)
    assert handle.is_read_only()
    handle.set_strict_mode(0)
    assert handle.pread(5, 0) == b'fixed'
    for request in (lambda: handle.pwrite(b'x', 0), lambda: handle.trim(4096, 0), lambda: handle.zero(4096, 0)):
        try:
            request()
            raise AssertionError('a read-only export was changed')
        except nbd.Error as error:
            assert error.errnum == 1, error
    assert handle.pread(5, 0) == b'fixed'
    handle.shutdown()
    server.stop()
