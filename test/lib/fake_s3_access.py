"""Who may use the fake store: its keys, and the verification of signatures."""

import time

import s3_signature
from fake_s3_objects import error

SKEW_S = 15 * 60  # as S3
SIGNING_KEYS_MAX = 1000


class Key:
    """An access key; with `token` a temporary one, which may expire."""

    def __init__(self, secret, token=None, expires=None, account='main', denied=()):
        self.secret, self.token, self.expires, self.account = secret, token, expires, account
        self.denied = tuple(denied)  # kinds of request that it may not make


class Access:
    def __init__(self, region):
        self.region = region
        self.keys = {}  # access key: Key
        self.clock_offset_s = 0
        self.signing_keys = {}

    def now(self):
        return time.time() + self.clock_offset_s

    def signing_key(self, secret, date, region):
        found = self.signing_keys.get((secret, date, region))
        if found is None:
            if len(self.signing_keys) >= SIGNING_KEYS_MAX:
                self.signing_keys.clear()
            found = self.signing_keys[secret, date, region] = s3_signature.signing_key(secret, date, region)
        return found

    def verify(self, request, path, query):
        """None, with request.account set, or the refusal."""
        headers = request.headers
        authorization = headers.get('authorization')
        if authorization is None:
            return error('AccessDenied', 'Access Denied')
        algorithm, _, rest = authorization.partition(' ')
        fields = dict(field.strip().partition('=')[::2] for field in rest.split(','))
        scope = fields.get('Credential', '').split('/')
        if algorithm != s3_signature.ALGORITHM or len(scope) != 5 or 'SignedHeaders' not in fields:
            return error('AuthorizationHeaderMalformed', 'The authorization header is malformed.')
        access_key, date, region, service, terminator = scope
        key = self.keys.get(access_key)
        if key is None:
            return error('InvalidAccessKeyId', 'The AWS Access Key Id you provided does not exist in our records.',
                         AWSAccessKeyId=access_key)
        if region != self.region:
            return error('AuthorizationHeaderMalformed', 'The authorization header is malformed; the region '
                         f"'{region}' is wrong; expecting '{self.region}'",
                         {'x-amz-bucket-region': self.region}, Region=self.region)
        return (self.verify_time(headers, date) or self.verify_token(headers, key)
                or self.verify_signature(request, path, query, fields, key)
                or self.verify_permission(request, key))

    def verify_time(self, headers, date):
        try:
            sent = s3_signature.moment(headers.get('x-amz-date', ''))
        except ValueError:
            return error('AccessDenied', 'AWS authentication requires a valid Date or x-amz-date header')
        if abs(sent - self.now()) > SKEW_S:
            return error('RequestTimeTooSkewed',
                         'The difference between the request time and the current time is too large.',
                         ServerTime=s3_signature.timestamp(self.now()), MaxAllowedSkewMilliseconds=SKEW_S * 1000)
        if headers['x-amz-date'][:8] != date:
            return error('SignatureDoesNotMatch', 'The date of the credential scope is not that of the request.')
        return None

    def verify_token(self, headers, key):
        token = headers.get('x-amz-security-token')
        if key.token is None and token is None:
            return None
        if token is None:
            return error('InvalidAccessKeyId', 'The AWS Access Key Id you provided does not exist in our records.')
        if token != key.token:
            return error('InvalidToken', 'The provided token is malformed or otherwise invalid.')
        # As of its signing: how long a request was under way on a busy machine says nothing about its sender.
        if key.expires is not None and s3_signature.moment(headers['x-amz-date']) >= key.expires:
            return error('ExpiredToken', 'The provided token has expired.')
        return None

    def verify_signature(self, request, path, query, fields, key):
        headers, signed = request.headers, fields['SignedHeaders']
        scope = fields['Credential'].split('/', 1)[1]
        payload_hash = headers.get('x-amz-content-sha256')
        if payload_hash is None:
            return error('InvalidRequest', 'Missing required header for this request: x-amz-content-sha256')
        names = signed.split(';')
        unsigned = [name for name in headers if (name == 'host' or name.startswith('x-amz-')) and name not in names]
        if unsigned:
            return error('AccessDenied', 'There were headers present in the request which were not signed',
                         HeadersNotSigned=', '.join(unsigned))
        if names != sorted(names):
            return error('AuthorizationHeaderMalformed', 'SignedHeaders is not sorted')
        signing_key = self.signing_key(key.secret, fields['Credential'].split('/')[1], self.region)
        expected = s3_signature.signature(signing_key, scope, headers['x-amz-date'], request.method, path, query,
                                          headers, signed, payload_hash)
        if fields.get('Signature') != expected:
            return error('SignatureDoesNotMatch', 'The request signature we calculated does not match the signature '
                         'you provided. Check your key and signing method.')
        return None

    def verify_permission(self, request, key):
        if request.kind in key.denied:
            return error('AccessDenied', 'Access Denied')
        request.account = key.account
        return None
