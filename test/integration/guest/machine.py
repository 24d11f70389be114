"""A guest for tests: Debian's cloud kernel under qemu, by software emulation.

The kernel and busybox are downloaded as Debian packages with apt-get and
unpacked, not installed, into .cache/guest of the repository.  Programs are
taken from this host, with the libraries that they need."""

import glob
import os
import re
import shutil
import subprocess
import time

from harness import REPOSITORY

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(REPOSITORY, '.cache', 'guest')
MODULES = ('virtio_pci', 'virtio_net', 'virtio_blk', 'nbd', 'ext4', 'crc32c_generic', 'crc32c_intel')
SYSTEM_PATH = '/usr/sbin:/sbin:/usr/bin:/bin'


def need(programs):
    for program in ('qemu-system-x86_64', 'dpkg-deb', 'apt-get') + tuple(programs):
        if shutil.which(program, path=SYSTEM_PATH) is None:
            raise SystemExit(f'{program} is not installed')


def fetch():
    """The kernel's package and busybox, unpacked below CACHE; what is there is used again."""
    root = os.path.join(CACHE, 'root')
    if glob.glob(os.path.join(root, 'boot', 'vmlinuz-*')) and os.path.exists(os.path.join(root, 'bin', 'busybox')):
        return root
    depends = subprocess.run(['apt-cache', 'depends', 'linux-image-cloud-amd64'], stdout=subprocess.PIPE, check=True)
    kernel = re.search(r'Depends: (linux-image-\S+)', depends.stdout.decode()).group(1)
    shutil.rmtree(CACHE, ignore_errors=True)
    os.makedirs(CACHE)
    subprocess.run(['apt-get', '-q', 'download', kernel, 'busybox-static'], cwd=CACHE, check=True)
    for package in glob.glob(os.path.join(CACHE, '*.deb')):
        subprocess.run(['dpkg-deb', '-x', package, root], check=True)
        os.unlink(package)
    return root


def copy(source, root):
    target = root + source
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy(source, target)


def copy_program(program, root):
    """A program of this host as /bin/<its name>, with its libraries where its loader looks for them."""
    path = shutil.which(program, path=SYSTEM_PATH)
    shutil.copy(os.path.realpath(path), os.path.join(root, 'bin', os.path.basename(program)))
    listed = subprocess.run(['ldd', path], stdout=subprocess.PIPE, check=True).stdout.decode()
    for library in re.findall(r'(/\S+) \(0x', listed):
        if not os.path.exists(root + library):
            copy(library, root)


def copy_modules(unpacked, version, root):
    """The modules that the guest loads, and those that they need."""
    busybox = os.path.join(unpacked, 'bin', 'busybox')
    subprocess.run([busybox, 'depmod', '-b', unpacked, version], check=True)
    base = os.path.join('lib', 'modules', version)
    with open(os.path.join(unpacked, base, 'modules.dep')) as file:
        needs = {path: rest.split() for path, rest in (line.rstrip('\n').split(':') for line in file)}
    wanted = [path for path in needs if os.path.basename(path).split('.')[0].replace('-', '_') in MODULES]
    for path in {part for path in wanted for part in [path] + needs[path]}:
        target = os.path.join(root, base, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(os.path.join(unpacked, base, path), target)
    subprocess.run([busybox, 'depmod', '-b', root, version], check=True)


def make_initramfs(directory, init, programs):
    """With `init` as its first process and these programs of the host; returns the paths of the kernel and of the
    initramfs."""
    need(programs)
    unpacked = fetch()
    kernel = glob.glob(os.path.join(unpacked, 'boot', 'vmlinuz-*'))[0]
    root = os.path.join(directory, 'initramfs')
    for name in ('bin', 'dev', 'proc', 'sys', 'etc', 'tmp'):
        os.makedirs(os.path.join(root, name))
    os.symlink('bin', os.path.join(root, 'sbin'))
    os.symlink('/proc/mounts', os.path.join(root, 'etc', 'mtab'))
    busybox = os.path.join(unpacked, 'bin', 'busybox')
    shutil.copy(busybox, os.path.join(root, 'bin', 'busybox'))
    applets = subprocess.run([busybox, '--list'], stdout=subprocess.PIPE, check=True).stdout.decode().split()
    names = [os.path.basename(program) for program in programs]
    for applet in applets:
        if applet not in names + ['busybox']:
            os.symlink('busybox', os.path.join(root, 'bin', applet))
    for program in programs:
        copy_program(program, root)
    copy_modules(unpacked, os.path.basename(kernel).removeprefix('vmlinuz-'), root)
    shutil.copy(os.path.join(HERE, init), os.path.join(root, 'init'))
    image = os.path.join(directory, 'initramfs.gz')
    subprocess.run(f'find . | {busybox} cpio -o -H newc 2>/dev/null | gzip -1 > {image}', shell=True, cwd=root, check=True)
    return kernel, image


class Machine:
    """A guest.  `words` are for its init, `options` for qemu."""

    def __init__(self, bench, kernel, image, words, network='', options=()):
        bench.started += 1
        self.console = bench.path(f'{bench.started:02d}-console')
        self.process = bench.start('qemu', [
            'qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max', '-m', '512', '-smp', '2', '-nodefaults', '-no-reboot',
            '-display', 'none', '-serial', 'file:' + self.console, '-kernel', kernel, '-initrd', image,
            '-netdev', 'user,id=net' + network, '-device', 'virtio-net-pci,netdev=net,romfile=',
            '-append', 'console=ttyS0 quiet panic=-1 ' + words, *options])

    def said(self):
        try:
            with open(self.console, errors='replace') as file:
                return file.read()
        except FileNotFoundError:
            return ''

    def wait_for(self, pattern, timeout):
        end = time.monotonic() + timeout
        while not re.search(pattern, self.said()):
            if not self.process.running() and not re.search(pattern, self.said()):
                raise SystemExit(f'the guest ended:\n{self.said()}\n{self.process.stderr()}')
            if time.monotonic() > end:
                raise SystemExit(f'the guest took more than {timeout:.0f} s:\n{self.said()}')
            time.sleep(0.1)
