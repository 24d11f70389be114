"""A client that keeps many requests under way on several connections of one
volume, and a model of the disk beside it that every answer is held against.

The first half of the disk is written in pieces of any size and place, one
request at a time for a page; the second half in whole pages, by overlapping
requests.  Requests are unique in their content.  Uses libnbd."""

import errno
import select

import nbd

from disk_model import PAGE, Disk, payload


class Load:
    def __init__(self, disk, random, depth=8, flushes=0.05, counts=(1, 1, 1, 1, 2, 3, 8, 40)):
        self.disk = disk
        self.counts = counts  # pages of a request, one of these
        self.random = random
        self.depth = depth  # requests under way per connection
        self.flushes = flushes  # share of requests that are flushes
        self.handles = []
        self.under_way = {}  # handle: requests
        self.answers = 0
        self.flush_answers = 0
        self.flushes_sent = 0
        self.errors = []  # errno of requests that failed
        self.watch = None  # told of each answer: (handle, errno or 0)

    def connect(self, uri, connections=3):
        for _ in range(connections):
            handle = nbd.NBD()
            handle.connect_uri(uri)
            assert handle.get_size() == self.disk.size
            self.adopt(handle)

    def adopt(self, handle):
        """A connection that was made elsewhere."""
        self.handles.append(handle)
        self.under_way[handle] = 0

    def close(self):
        """Hangs up: libnbd closes a handle that nobody refers to."""
        self.handles = []
        self.under_way = {}

    def alive(self):
        return any(handle.aio_is_ready() or handle.aio_is_processing() for handle in self.handles)

    def busy(self):
        return any(self.under_way.values())

    # One request each.

    def submit(self, handle, request, done):
        """request(completion) sends; done(error) is told how it went, 0 or an errno."""
        self.under_way[handle] += 1

        def completion(error):
            self.under_way[handle] -= 1
            self.answers += 1
            if error.value:
                self.errors.append(error.value)
            if self.watch:
                self.watch(handle, error.value)
            done(error.value)
            return 1
        try:
            request(completion)
        except nbd.Error as error:
            # Refused by the library, because the connection is gone: it was never sent, or not whole.
            self.under_way[handle] -= 1
            self.errors.append(error.errnum or errno.ENOTCONN)
            done(error.errnum or errno.ENOTCONN)

    def change(self, handle, kind, offset, length):
        disk = self.disk
        disk.operations += 1
        fua = nbd.CMD_FLAG_FUA if self.random.random() < 0.03 else 0
        data = payload(disk.operations, offset, length) if kind == 'write' else None
        token = disk.begin_change(offset, data, length)

        def done(error):
            if error:
                disk.change_failed(token)
            else:
                disk.change_succeeded(token, durable=bool(fua))
        if kind == 'write':
            buffer = nbd.Buffer.from_bytearray(bytearray(data))
            self.submit(handle, lambda completion: handle.aio_pwrite(buffer, offset, completion, fua), done)
        elif kind == 'zero':
            flags = fua | (nbd.CMD_FLAG_NO_HOLE if self.random.random() < 0.5 else 0)
            self.submit(handle, lambda completion: handle.aio_zero(length, offset, completion, flags), done)
        else:
            self.submit(handle, lambda completion: handle.aio_trim(length, offset, completion, fua), done)

    def flush(self, handle):
        token = self.disk.begin_flush()
        self.flushes_sent += 1

        def done(error):
            if not error:
                self.flush_answers += 1
                self.disk.flush_succeeded(token)
        self.submit(handle, handle.aio_flush, done)

    def read(self, handle, offset, length):
        buffer = nbd.Buffer(length)
        token = self.disk.begin_read(offset, length)

        def done(error):
            self.disk.end_read(token, offset, length, None if error else buffer.to_bytearray())
        self.submit(handle, lambda completion: handle.aio_pread(buffer, offset, completion), done)

    # A mix of them.

    def place(self):
        """A random range, and whether it lies where requests may overlap."""
        random, pages = self.random, len(self.disk.pages)
        half = pages // 2
        count = random.choice(self.counts)
        if random.random() < 0.3:
            first = random.randrange(half, pages - count)
            return first * PAGE, count * PAGE, True
        first = random.randrange(half - count)
        offset, length = first * PAGE, count * PAGE
        if random.random() < 0.5:
            cut = random.randrange(PAGE)
            offset, length = offset + cut, length - cut
            length -= random.randrange(min(length, PAGE))
        return offset, length, False

    def request(self, handle):
        random, disk = self.random, self.disk
        dice = random.random()
        if dice < self.flushes:
            self.flush(handle)
            return
        for _ in range(8):
            offset, length, overlaps = self.place()
            if dice > 0.8:
                first = offset // PAGE * PAGE
                self.read(handle, first, -(-(offset + length) // PAGE) * PAGE - first)
                return
            if overlaps or disk.idle(offset, length):
                kind = 'write' if dice < 0.65 else 'zero' if dice < 0.72 else 'trim'
                self.change(handle, kind, offset, length)
                return

    def fill(self):
        """Sends until every connection has its share under way."""
        for handle in self.handles:
            for _ in range(self.depth):
                if self.under_way[handle] >= self.depth or not handle.aio_is_ready() and not handle.aio_is_processing():
                    break
                self.request(handle)

    def poll(self, timeout_ms):
        """Takes what answers there are."""
        poller = select.poll()
        by_descriptor = {}
        for handle in self.handles:
            if handle.aio_is_dead() or handle.aio_is_closed():
                continue
            direction = handle.aio_get_direction()
            events = (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0) \
                | (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0)
            descriptor = handle.aio_get_fd()
            by_descriptor[descriptor] = handle
            poller.register(descriptor, events)
        if not by_descriptor:
            return
        for descriptor, events in poller.poll(timeout_ms):
            handle = by_descriptor[descriptor]
            try:
                direction = handle.aio_get_direction()
                if direction & nbd.AIO_DIRECTION_READ and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    handle.aio_notify_read()
                elif direction & nbd.AIO_DIRECTION_WRITE and events & (select.POLLOUT | select.POLLHUP | select.POLLERR):
                    handle.aio_notify_write()
            except nbd.Error:
                pass  # the connection is gone: its requests have been told

    def work(self, until):
        """Keeps the load up until until() is true or every connection is gone."""
        while not until() and self.alive():
            self.fill()
            self.poll(2)

    def take_arrived(self):
        """Takes the answers that are here already."""
        before = None
        while before != self.answers:
            before = self.answers
            self.poll(0)

    def drain(self, clock, timeout):
        """Sends nothing more; takes what answers come until all are there, every connection is gone, or time is up."""
        end = clock() + timeout
        while self.busy() and self.alive() and clock() < end:
            self.poll(20)


class Opening:
    """A connection that is being made: its server may hold it until it has the volume."""

    def __init__(self, uri):
        self.uri = uri
        self.handle = nbd.NBD()
        self.handle.aio_connect_uri(uri)

    def ready(self, wait_ms=0):
        """Whether it has been let in; an error when it was refused."""
        handle = self.handle
        if handle.aio_is_connecting():
            poller = select.poll()
            direction = handle.aio_get_direction()
            poller.register(handle.aio_get_fd(), (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0)
                            | (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0))
            for _, events in poller.poll(wait_ms):
                if direction & nbd.AIO_DIRECTION_READ and events & ~select.POLLOUT:
                    handle.aio_notify_read()
                else:
                    handle.aio_notify_write()
        if handle.aio_is_dead() or handle.aio_is_closed():
            raise nbd.Error(f'{self.uri}: hung up')
        return handle.aio_is_ready()


def connect(server, export='disk'):
    handle = nbd.NBD()
    handle.connect_uri(server.uri(export))
    return handle


def refused(server, export='disk'):
    """What libnbd says about being refused."""
    try:
        connect(server, export)
    except nbd.Error as error:
        return str(error)
    raise AssertionError(f'{export} was accepted')


def read_all(handle, size):
    step = 4 << 20
    return b''.join(bytes(handle.pread(min(step, size - at), at)) for at in range(0, size, step))


class Steady:
    """A small verified client for tests of other things: every step writes, flushes and reads back, and fails on
    the first error.  The volume is its own."""

    def __init__(self, uri, random, size):
        self.disk = Disk(size)
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)
        self.random = random

    def step(self):
        disk, handle = self.disk, self.handle
        disk.operations += 1
        length = self.random.randrange(1, 5 * PAGE)
        offset = self.random.randrange(disk.size - length)
        data = payload(disk.operations, offset, length)
        token = disk.begin_change(offset, data, length)
        handle.pwrite(data, offset)
        disk.change_succeeded(token)
        flush = disk.begin_flush()
        handle.flush()
        disk.flush_succeeded(flush)
        self.verify_range(offset, length)

    def verify_range(self, offset, length):
        first = offset // PAGE * PAGE
        whole = -(-(offset + length) // PAGE) * PAGE - first
        token = self.disk.begin_read(first, whole)
        self.disk.end_read(token, first, whole, self.handle.pread(whole, first))

    def verify_all(self):
        self.disk.settle(lambda offset, length: self.handle.pread(length, offset))
