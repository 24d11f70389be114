"""Faults of the fake store: which request is hit, and what becomes of it.

A rule is a JSON object.  What it hits:

    fault        one of FAULTS, below
    probability  of each request that fits (1)
    on           kinds of request, of PUT GET HEAD DELETE LIST BUCKET (all)
    keys         a regular expression that the key must hold
    skip, times  so many that would be hit are let pass first; so many are hit, then no more
    in_a_row     of the requests of one kind for one key, so many one after the other at most: who tries often enough
                 gets through, however the dice fall
    every_s, for_s   the rule works only in the first for_s seconds of each every_s
    lasts_s      the rule ends after so long

and how:

    apply        what becomes of the request itself: "no", "yes" (at once), or a number: applied after so many seconds,
                 whatever has been answered.  Each fault has its own default.
    bytes        of the body, for those that stop in the middle (half of it)
    rate         bytes a second, for those that are slow (2048)
    seconds      how long, for delay (1) and stall (for ever)
    reset        close by RST instead of FIN
    early        the answer comes before the body was read, and the connection is closed
    location     of redirect (the same URL)

The first rule that hits a request decides."""

import random
import re
import time

from fake_s3_objects import KINDS, Answer, error, error_body


class Delivery:
    """How an answer is sent: at once and whole, unless it says otherwise."""
    __slots__ = ('answer', 'raw', 'delay_s', 'rate', 'cut', 'reset', 'silent')

    def __init__(self, answer=None):
        self.answer = answer
        self.raw = None  # bytes to send instead of an answer
        self.delay_s = 0
        self.rate = None  # of the body, bytes a second
        self.cut = None  # so much of the body, then the end of the connection
        self.reset = False
        self.silent = False  # nothing at all


class Fault:
    """deliver(rule, request, answer): answer is None when the request was not applied at once."""

    def __init__(self, deliver, apply='no', upload=False):
        self.deliver = deliver
        self.apply = apply
        self.upload = upload  # happens while the request's body comes


def coded(code, message, **more):
    return Fault(lambda rule, request, answer: Delivery(error(code, message, **more)))


def plain(status, body, **headers):
    told = {'Content-Type': 'text/html', **{name.replace('_', '-'): value for name, value in headers.items()}}
    return Fault(lambda rule, request, answer: Delivery(Answer(status, told, body)))


def shaped(change, apply='yes'):
    """Of an answer that succeeded; errors pass as they are."""
    def deliver(rule, request, answer):
        delivery = Delivery(answer)
        if answer.status < 300:
            change(rule, request, delivery)
        return delivery
    return Fault(deliver, apply)


def half(rule, body):
    return min(rule.bytes, len(body)) if rule.bytes is not None else len(body) // 2


def stall(rule, request, answer):
    delivery = Delivery()
    delivery.silent, delivery.delay_s, delivery.reset = rule.seconds is None, rule.seconds or 0, rule.reset
    delivery.raw = b''
    return delivery


def drop(rule, request, answer):
    delivery = Delivery()
    delivery.raw, delivery.reset = b'', rule.reset
    return delivery


def delay(rule, request, answer):
    delivery = Delivery(answer)
    delivery.delay_s = 1 if rule.seconds is None else rule.seconds
    return delivery


def truncate(rule, request, delivery):
    delivery.cut, delivery.reset = half(rule, delivery.answer.body), rule.reset


def reset(rule, request, delivery):
    delivery.cut, delivery.reset = half(rule, delivery.answer.body), True


def short(rule, request, delivery):
    """Whole as HTTP goes, but with less than was asked for."""
    answer = delivery.answer
    answer.body = answer.body[:half(rule, answer.body)]
    answer.length = len(answer.body)


def wrong_range(rule, request, delivery):
    """Tells of a range one page further than what it sends."""
    told = delivery.answer.headers.get('Content-Range')
    if told:
        first, last, size = map(int, re.match(r'bytes (\d+)-(\d+)/(\d+)', told).groups())
        delivery.answer.headers['Content-Range'] = f'bytes {first + 4096}-{last + 4096}/{size + 4096}'


def whole(rule, request, delivery):
    """200 with the whole object where a range was asked for; needs the answer to a request without one."""
    answer = delivery.answer
    answer.status = 200
    answer.headers.pop('Content-Range', None)
    answer.body = answer.body.obj if isinstance(answer.body, memoryview) else answer.body
    answer.length = len(answer.body)


def corrupt(rule, request, delivery):
    body = bytearray(delivery.answer.body)
    if body:
        body[half(rule, body)] ^= 0x10
        delivery.answer.body = bytes(body)


def drip(rule, request, delivery):
    delivery.rate = rule.rate


def redirect(rule, request, answer):
    where = rule.location or f'http://{request.headers.get("host", "")}/{request.bucket}/{request.key}'
    return Delivery(Answer(307, {'Location': where, 'Content-Type': 'application/xml'},
                           error_body('TemporaryRedirect', 'Please re-send this request to the specified endpoint.',
                                      Endpoint=where)))


def garbage(rule, request, answer):
    delivery = Delivery()
    delivery.raw = b'SSH-2.0-OpenSSH_9.2\r\n\r\n'
    return delivery


def forget(rule, request, answer):
    """Says that a put was done, and does nothing."""
    return Delivery(Answer(200, {'ETag': '"%032x"' % random.getrandbits(128)}))


def xml(make):
    return shaped(lambda rule, request, delivery: replace_body(delivery.answer, make(bytes(delivery.answer.body))))


def replace_body(answer, body):
    answer.body, answer.length = body, len(body)


HTML = b'<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>\n'
HUGE_XML = b'<?xml version="1.0"?>\n<ListBucketResult>' + b'<Contents><Key>' + b'k' * (16 << 20) + b'</Key></Contents>'
NESTED_XML = b'<?xml version="1.0"?>\n' + b'<ListBucketResult>' * 200000

FAULTS = {
    # Errors as S3 says them; not applied, unless the rule says so.
    'slow_down': coded('SlowDown', 'Please reduce your request rate.'),
    'unavailable': coded('ServiceUnavailable', 'Service is unable to handle request.'),
    'internal_error': coded('InternalError', 'We encountered an internal error. Please try again.'),
    'throttled': coded('TooManyRequests', 'Reduce your request rate.', headers={'Retry-After': '1'}),
    'conflict': coded('ConditionalRequestConflict', 'A conflicting operation occurred.'),
    'request_timeout': coded('RequestTimeout', 'Your socket connection to the server was not read from or written to '
                             'within the timeout period.'),
    'denied': coded('AccessDenied', 'Access Denied'),
    'expired_token': coded('ExpiredToken', 'The provided token has expired.'),
    'skewed': coded('RequestTimeTooSkewed', 'The difference between the request time and the current time is too '
                    'large.'),
    'wrong_region': coded('AuthorizationHeaderMalformed', "The authorization header is malformed; the region "
                          "'us-east-1' is wrong; expecting 'eu-west-1'", Region='eu-west-1'),
    # Answers of something that stands before the store.
    'html': plain(200, HTML),
    'html_503': plain(503, HTML),
    'bad_gateway': plain(502, HTML),
    'redirect': Fault(redirect),
    'garbage': Fault(garbage),
    # Silence, and connections that end.
    'stall': Fault(stall),
    'drop': Fault(drop, apply='yes'),
    'late': Fault(drop, apply=1.0),
    'delay': Fault(delay, apply='yes'),
    'truncate': shaped(truncate),
    'reset': shaped(reset),
    'drip': shaped(drip),
    'reset_upload': Fault(None, upload=True),
    'slow_upload': Fault(None, upload=True),
    # Answers that are wrong.
    'short': shaped(short),
    'wrong_range': shaped(wrong_range),
    'whole': shaped(whole),
    'corrupt': shaped(corrupt),
    'forget': Fault(forget),
    'error_in_200': Fault(lambda rule, request, answer: Delivery(Answer(
        200, {'Content-Type': 'application/xml'},
        error_body('InternalError', 'We encountered an internal error. Please try again.')))),
    'huge_xml': xml(lambda body: HUGE_XML),
    'nested_xml': xml(lambda body: NESTED_XML),
    'truncated_xml': xml(lambda body: body[:len(body) // 2]),
}


class Rule:
    TEXTS = ('fault', 'keys', 'location')
    NUMBERS = ('probability', 'skip', 'times', 'in_a_row', 'every_s', 'for_s', 'lasts_s', 'bytes', 'rate', 'seconds')
    REST = ('on', 'apply', 'reset', 'early')

    def __init__(self, description):
        """ValueError: not a rule."""
        unknown = set(description) - {*self.TEXTS, *self.NUMBERS, *self.REST}
        if unknown:
            raise ValueError(f'a rule has no {sorted(unknown)[0]}')
        if description.get('fault') not in FAULTS:
            raise ValueError(f'there is no fault {description.get("fault")}: {", ".join(FAULTS)}')
        for name in self.NUMBERS:
            if not isinstance(description.get(name, 0), (int, float)):
                raise ValueError(f'{name} is not a number')
        self.name = description['fault']
        self.fault = FAULTS[self.name]
        self.probability = description.get('probability', 1)
        self.kinds = description.get('on', KINDS)
        if any(kind not in KINDS for kind in self.kinds):
            raise ValueError(f'on: of {", ".join(KINDS)}')
        self.keys = re.compile(description['keys']) if 'keys' in description else None
        self.skip, self.times = description.get('skip', 0), description.get('times')
        self.in_a_row, self.row = description.get('in_a_row'), {}  # {(kind, bucket, key): hits in a row}
        self.every_s, self.for_s = description.get('every_s'), description.get('for_s')
        self.lasts_s = description.get('lasts_s')
        self.apply = description.get('apply', self.fault.apply)
        if self.apply not in ('yes', 'no') and not isinstance(self.apply, (int, float)):
            raise ValueError('apply: yes, no, or a number of seconds')
        if self.fault.apply == 'yes' and self.apply != 'yes' and self.name not in ('drop', 'late', 'stall'):
            raise ValueError(f'{self.name} needs the answer of a request that was applied')
        self.bytes, self.rate = description.get('bytes'), description.get('rate', 2048)
        self.seconds, self.location = description.get('seconds'), description.get('location')
        self.reset, self.early = bool(description.get('reset')), bool(description.get('early'))
        if self.early and self.apply != 'no':
            raise ValueError('what is answered before its body was read cannot be applied')
        self.began = time.monotonic()
        self.hits = 0

    def awake(self, now):
        age = now - self.began
        if self.lasts_s is not None and age > self.lasts_s:
            return False
        return self.every_s is None or age % self.every_s < self.for_s

    def fits(self, request):
        return request.kind in self.kinds and (self.keys is None or self.keys.search(request.key) is not None)

    def hits_it(self, request, now, dice):
        """Of a request that no rule before this one has hit."""
        if not self.fits(request) or not self.awake(now):
            return False
        same = request.kind, request.bucket, request.key
        if dice.random() >= self.probability or self.in_a_row is not None and self.row.get(same) == self.in_a_row:
            self.row.pop(same, None)
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        if self.in_a_row is not None:
            self.row[same] = self.row.get(same, 0) + 1
        self.hits += 1
        return True


class Faults:
    def __init__(self, seed=None):
        self.random = random.Random(seed)
        self.rules = []
        self.hits = {}  # fault: requests

    def pick(self, request):
        """The rule that hits it, or None."""
        now = time.monotonic()
        for rule in self.rules:
            if rule.hits_it(request, now, self.random):
                self.hits[rule.name] = self.hits.get(rule.name, 0) + 1
                return rule
        return None
