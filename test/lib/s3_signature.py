"""AWS Signature Version 4 for S3, for both ends: what signs the tests' own
requests, and what the fake store verifies others with.

Nothing here knows cairn's signer: the two agree only if both follow the
specification (AWS, "Authenticating Requests (AWS Signature Version 4)")."""

import datetime
import hashlib
import hmac
import urllib.parse

ALGORITHM = 'AWS4-HMAC-SHA256'
UNSIGNED = 'UNSIGNED-PAYLOAD'
EMPTY_HASH = hashlib.sha256(b'').hexdigest()


def encode(text, safe=''):
    """All but the unreserved as %XX; `text` may be bytes."""
    return urllib.parse.quote(text, safe=safe + '-_.~')


def timestamp(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime('%Y%m%dT%H%M%SZ')


def moment(text):
    """Seconds since 1970 of 20260102T030405Z; ValueError."""
    when = datetime.datetime.strptime(text, '%Y%m%dT%H%M%SZ')
    return when.replace(tzinfo=datetime.timezone.utc).timestamp()


def canonical_path(path):
    """As the receiver sees it: decoded, and encoded once."""
    return encode(urllib.parse.unquote_to_bytes(path), safe='/')


def canonical_query(query):
    pairs = []
    for pair in query.split('&') if query else ():
        name, _, value = pair.partition('=')
        pairs.append((encode(urllib.parse.unquote_to_bytes(name)), encode(urllib.parse.unquote_to_bytes(value))))
    return '&'.join(f'{name}={value}' for name, value in sorted(pairs))


def signing_key(secret, date, region, service='s3'):
    key = ('AWS4' + secret).encode()
    for word in (date, region, service, 'aws4_request'):
        key = hmac.digest(key, word.encode(), 'sha256')
    return key


def signature(key, scope, time, method, path, query, headers, signed, payload_hash):
    """headers: {name in lower case: value}; signed: names, sorted, joined by ';'."""
    lines = [method, canonical_path(path), canonical_query(query)]
    lines += [f'{name}:{" ".join(headers.get(name, "").split())}' for name in signed.split(';')]
    request = '\n'.join([*lines, '', signed, payload_hash])
    text = '\n'.join((ALGORITHM, time, scope, hashlib.sha256(request.encode()).hexdigest()))
    return hmac.digest(key, text.encode(), 'sha256').hex()


def sign(method, path, query, headers, payload_hash, access_key, secret_key, region, seconds, token=None):
    """Returns all headers to send; `headers` ({name: value}) must hold Host, and every one of them is signed."""
    time = timestamp(seconds)
    every = {name.lower(): value for name, value in headers.items()}
    every['x-amz-date'] = time
    every['x-amz-content-sha256'] = payload_hash
    if token:
        every['x-amz-security-token'] = token
    scope = f'{time[:8]}/{region}/s3/aws4_request'
    signed = ';'.join(sorted(every))
    found = signature(signing_key(secret_key, time[:8], region), scope, time, method, path, query, every, signed,
                      payload_hash)
    every['authorization'] = f'{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={signed}, Signature={found}'
    return every
