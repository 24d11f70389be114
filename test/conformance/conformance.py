#!/usr/bin/python3
"""Holds an NBD server against the protocol, rule by rule.

    conformance.py --unix PATH [--export NAME]
    conformance.py HOST PORT [--export NAME]

Works with any server of the fixed newstyle; whatever the export holds in its first and last mebibytes, and more, is
overwritten.  An export of 64 MiB or more is wanted.  Prints TAP: one line for each rule, with what was seen where the
server deviates.  Exit status: 0 no deviation, 1 deviations, 2 wrong usage or no server."""

import argparse
import re
import socket
import sys
import traceback

import abuse_checks
import handshake_checks
import transmission_checks
from wire import Deviation, Gone, INFO, REP_ACK, Silent, Wire, expect, rep_name


class Skip(Exception):
    pass


class Suite:
    """What a check needs: connections, and what is known of the server."""

    def __init__(self, target, export, handshake_seconds):
        self.target, self.export, self.handshake_seconds = target, export, handshake_seconds

    def connect(self):
        try:
            return Wire(self.target)
        except socket.timeout:
            raise Silent('the server does not accept') from None
        except OSError as error:
            raise Gone(f'the server is gone: {error}') from None

    def attach(self, structured):
        return self.connect().greet().go(self.export, structured)

    def alive(self):
        """The server still answers newcomers."""
        with self.connect() as wire:
            reply = wire.greet().option(INFO, wire.choice(self.export))[-1][0]
            expect(reply == REP_ACK, f'the server answers INFO with {rep_name(reply)} now')

    @staticmethod
    def skip_if(condition, why):
        if condition:
            raise Skip(why)


def run(number, function, suite):
    name = function.__name__.replace('_', '-')
    title = f'{number} {name}'
    try:
        function(suite)
    except Skip as why:
        print(f'ok {title} # SKIP {why}', flush=True)
        return 'skipped'
    except Gone:
        print(f'not ok {title}\nBail out! The server is gone, since this check or the one before.', flush=True)
        raise
    except Exception as problem:
        print(f'not ok {title}', flush=True)
        print(f'# {function.__doc__}')
        text = str(problem) if isinstance(problem, Deviation) else traceback.format_exc()
        for line in text.splitlines():
            print(f'#   {line}', flush=True)
        return 'failed'
    print(f'ok {title}', flush=True)
    return 'passed'


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--unix', metavar='PATH', help='the server listens on this unix socket')
    parser.add_argument('host', nargs='?')
    parser.add_argument('port', nargs='?', type=int, default=10809)
    parser.add_argument('--export', default='', help='the export to use (default: the empty name)')
    parser.add_argument('--handshake-seconds', type=float, metavar='S',
                        help="the server's deadline for handshakes, to wait for it")
    parser.add_argument('--only', metavar='PATTERN', help='only checks whose name contains this regular expression')
    parser.add_argument('--list', action='store_true', help='print the rules and stop')
    arguments = parser.parse_args()
    if not arguments.list and (arguments.unix is None) == (arguments.host is None):
        parser.error('give either --unix PATH or HOST [PORT]')
    return arguments


def main():
    arguments = parse_arguments()
    checks = handshake_checks.CHECKS + transmission_checks.CHECKS + abuse_checks.CHECKS
    if arguments.only:
        checks = [c for c in checks if re.search(arguments.only, c.__name__.replace('_', '-'))]
    if arguments.list:
        for function in checks:
            print(f'{function.__name__.replace("_", "-"):50} {function.__doc__}')
        return 0
    if arguments.unix is not None:
        target = (socket.AF_UNIX, arguments.unix)
    else:
        family, _, _, _, address = socket.getaddrinfo(arguments.host, arguments.port, type=socket.SOCK_STREAM)[0]
        target = (family, address)
    suite = Suite(target, arguments.export.encode(), arguments.handshake_seconds)
    try:
        suite.alive()
    except (Deviation, Gone) as problem:
        print(f'conformance.py: no usable server: {problem}', file=sys.stderr)
        return 2
    print(f'1..{len(checks)}')
    try:
        outcomes = [run(number + 1, function, suite) for number, function in enumerate(checks)]
    except Gone:
        return 1
    failed = outcomes.count('failed')
    print(f'# {len(checks)} rules: {outcomes.count("passed")} kept, {failed} broken, '
          f'{outcomes.count("skipped")} do not apply')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
