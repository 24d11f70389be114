"""What of a test's output tells why it failed, in a few lines.

Whoever reads the end of a long log wants to know what failed and why; the rest
of the output is further up.  What tells most, in this order: the message of an
exception, with the line of the test that it came from; what a sanitizer or a
failed assertion left; else the output's first lines or, of a whole program, its
last ones."""

import re

LINES_MAX = 6
MESSAGE_LINES_MAX = 3  # of one exception, whose message may be a whole log
COMPLAINTS_MAX = 2
WIDTH_MAX = 400

EXCEPTION = re.compile(r'^(?:\w+\.)*\w*(?:Error|Exception|Violation|Expired|Interrupt|Exit|Skip)\b(?::.*)?$')
PLACE = re.compile(r'^\s+File ".*?([^/"]+)", line (\d+), in ((?:test_|<module>).*)$')
# A sanitizer's first line, an assertion in C, and what the simulator says.
COMPLAINT = re.compile(r'(?:ERROR|WARNING): \w+Sanitizer|runtime error:|Assertion .* failed|assertion failed|'
                       r'stack smashing|double free|^Fatal Python error|\bBROKEN\b')
NO_NEWS = re.compile(r'^(?:ok\b|1\.\.\d+$|\d+ passed, \d+ failed, \d+ skipped$)')


def exceptions(lines):
    """The first one, since those that follow it are mostly its consequences."""
    place = ''
    for number, line in enumerate(lines):
        found = PLACE.match(line)
        if found:
            place = f'{found[1]} line {found[2]}, {found[3]}: '
        elif EXCEPTION.match(line):
            message = [place + line]
            for more in lines[number + 1:number + MESSAGE_LINES_MAX]:
                if not more.strip() or more.startswith(('Traceback ', '--- ')):
                    break
                message.append(more)
            return message
    return []


def gist(text, whole_program=False):
    """At most LINES_MAX lines."""
    lines = [line.rstrip() for line in text.splitlines()]
    told = exceptions(lines)
    told += [line for line in lines
             if COMPLAINT.search(line) and not any(line.strip() in one for one in told)][:COMPLAINTS_MAX]
    if not told:
        news = [line for line in lines if line.strip() and not NO_NEWS.match(line)]
        told = news[-LINES_MAX:] if whole_program else news
    return [line if len(line) <= WIDTH_MAX else line[:WIDTH_MAX] + '…' for line in told[:LINES_MAX]]
