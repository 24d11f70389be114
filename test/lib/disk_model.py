"""What a disk may hold: a model of it in the client, page by page.

Every operation that changes a page leaves an entry with the page's whole
content after it, the moment when it was sent and the moment when its answer
came.  Moments are numbers of one counter, so "before" is exact; what the client
notices late only makes the model ask for less.

After a crash a page may hold the content of an entry w unless something that is
known to be durable came strictly after w: an entry v with

    w answered before v was sent,  and  v answered before a flush was sent that
    succeeded (or v itself was a FUA write that succeeded).

So an operation without an answer may or may not have happened, and one with an
answer may be lost until a flush covers it.  A page that holds anything else, or
a mixture, is an error.  The same rule with "a read was sent" in place of "a
flush was sent" says what a read may return.

The content of an operation is known to the model only if no other operation is
under way on a page of which it writes a part; `idle()` tells that.  Operations
on whole pages may overlap at will."""

import struct

PAGE = 4096
ZEROES = bytes(PAGE)
NEVER = float('inf')


class Entry:
    __slots__ = ('content', 'sent', 'answered', 'durable')

    def __init__(self, content, sent, answered=NEVER):
        self.content = content
        self.sent = sent
        self.answered = answered
        self.durable = False


class Page:
    __slots__ = ('entries', 'writers', 'readers')

    def __init__(self):
        first = Entry(ZEROES, 0, 0)
        first.durable = True
        self.entries = [first]
        self.writers = 0
        self.readers = 0


class Violation(AssertionError):
    """The disk holds, or returned, what it must not."""


def payload(operation, offset, length):
    """Bytes to write at `offset`: each page of them tells the operation and the page."""
    first = offset // PAGE
    last = (offset + length - 1) // PAGE
    whole = b''.join(struct.pack('<QQ', operation, page) * (PAGE // 16) for page in range(first, last + 1))
    return whole[offset - first * PAGE:offset - first * PAGE + length]


def describe(content):
    """A page's content for a message: which operation wrote which bytes of it."""
    if content == ZEROES:
        return 'zeroes'
    runs = []
    for at in range(0, PAGE, 16):
        operation, page = struct.unpack_from('<QQ', content, at)
        word = 'zeroes' if operation == 0 and page == 0 else f'operation {operation} for page {page}'
        if not runs or runs[-1][1] != word:
            runs.append((at, word))
    return '; '.join(f'from {at}: {word}' for at, word in runs[:12])


class Disk:
    def __init__(self, size):
        assert size % PAGE == 0
        self.size = size
        self.pages = [Page() for _ in range(size // PAGE)]
        self.now = 0
        self.flushed = 0  # answers up to this moment are covered by a flush that succeeded
        self.operations = 0
        self.touched = set()

    def as_found(self, content, operations):
        """The disk as another server has it, that was read there: what the clients of this one still do must not show
        in it.  Its operations have numbers from `operations` on."""
        found = Disk(self.size)
        found.operations = operations
        found.touched = set(range(len(found.pages)))
        for number, page in enumerate(found.pages):
            page.entries[0].content = content[number * PAGE:(number + 1) * PAGE]
        return found

    def tick(self):
        self.now += 1
        return self.now

    def span(self, offset, length):
        return range(offset // PAGE, (offset + length - 1) // PAGE + 1)

    def idle(self, offset, length):
        return all(self.pages[page].writers == 0 for page in self.span(offset, length))

    # Changes: begin, then exactly one of succeeded and failed.

    def begin_change(self, offset, data, length):
        """data None: zeroes. Returns a token."""
        now = self.tick()
        changed = []
        for number in self.span(offset, length):
            page = self.pages[number]
            low = max(offset, number * PAGE)
            high = min(offset + length, (number + 1) * PAGE)
            piece = data[low - offset:high - offset] if data else bytes(high - low)
            if len(piece) < PAGE:
                assert page.writers == 0, 'a part of a page that others are writing: the model cannot tell'
                before = page.entries[-1].content
                at = low - number * PAGE
                piece = before[:at] + piece + before[at + len(piece):]
            self.forget_superseded(page)
            entry = Entry(piece, now)
            page.entries.append(entry)
            page.writers += 1
            self.touched.add(number)
            changed.append((page, entry))
        return changed

    def change_succeeded(self, changed, durable=False):
        now = self.tick()
        for page, entry in changed:
            entry.answered = now
            entry.durable = durable
            page.writers -= 1

    def change_failed(self, changed):
        """It may or may not have happened, and may yet happen: its pages are not used again before settle()."""

    # Flushes: the moment of sending is the token.

    def begin_flush(self):
        return self.tick()

    def flush_succeeded(self, token):
        self.flushed = max(self.flushed, token)

    # Reads of what a client sees while it works.

    def begin_read(self, offset, length):
        for number in self.span(offset, length):
            self.pages[number].readers += 1
        return self.tick()

    def end_read(self, token, offset, length, data):
        """data None: it failed. Whole pages only."""
        for number in self.span(offset, length):
            page = self.pages[number]
            page.readers -= 1
            if data is not None:
                at = number * PAGE - offset
                self.check(number, bytes(data[at:at + PAGE]), token, 'a read returned')

    # The rule.

    def possible(self, page, moment, durable_counts):
        """Entries whose content the page may hold, when answers up to `moment` count as firm."""
        firm = [entry for entry in page.entries
                if entry.answered <= moment or durable_counts and entry.durable]
        latest = max((entry.sent for entry in firm), default=-1)
        return [entry for entry in page.entries if not entry.answered < latest]

    def forget_superseded(self, page):
        if page.readers == 0 and len(page.entries) > 1:
            page.entries = self.possible(page, self.flushed, True)

    def check(self, number, content, moment, what, durable_counts=False):
        page = self.pages[number]
        possible = self.possible(page, moment, durable_counts)
        for entry in possible:
            if entry.content == content:
                return entry
        raise Violation(f'page {number}: {what} {describe(content)}; it may be only: '
                        + ' | '.join(describe(entry.content) for entry in possible[-4:])
                        + (' (that is an older state of it)'
                           if any(entry.content == content for entry in page.entries) else ''))

    def settle(self, read):
        """After a crash or takeover, when nothing old can happen any more: reads every touched page with
        read(offset, length), checks it, and goes on from what is there.  Returns how many pages."""
        numbers = sorted(self.touched)
        at = 0
        while at < len(numbers):
            end = at + 1
            while end < len(numbers) and numbers[end] == numbers[end - 1] + 1 and end - at < 256:
                end += 1
            first = numbers[at]
            data = read(first * PAGE, (end - at) * PAGE)
            for number in numbers[at:end]:
                self.settle_page(number, bytes(data[(number - first) * PAGE:(number - first + 1) * PAGE]))
            at = end
        return len(numbers)

    def settle_page(self, number, content):
        found = self.check(number, content, self.flushed, 'after the crash it holds', True)
        page = self.pages[number]
        entry = Entry(found.content, self.now, self.now)
        entry.durable = True
        page.entries = [entry]
        page.writers = 0
        page.readers = 0
