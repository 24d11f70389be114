"""Clients whose network is cut: see vanish.py, which measures with the default settings what this tries with shorter
ones."""

import vanish

ON = ('dir',)  # it is about the clients' end
FLAGS = ['--keepalive-idle', '1', '--keepalive-interval', '1', '--tcp-user-timeout', '3s', '--release-grace', '60m']


def test_vanish(t):
    """Each is noticed, and its volume let go without any grace."""
    for what, how, seconds, reason in vanish.run(t, FLAGS):
        assert reason.startswith('vanished: '), f'{what}, {how}: {reason}'
        print(f'{seconds:6.1f} s  {how}, {what}: {reason}')
