"""One signed request to an S3 server: AWS Signature Version 4 with Python's standard library.

Enough for making a bucket and for asking whether a server answers.  Keys and queries must need no escaping."""

import hashlib
import hmac
import http.client
import time

REGION = 'us-east-1'


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _authorization(method, path, query, headers, payload_hash, when, access_key, secret_key):
    names = sorted(headers)
    canonical = '\n'.join([method, path, query, *(f'{name}:{headers[name].strip()}' for name in names), '',
                           ';'.join(names), payload_hash])
    scope = f'{when[:8]}/{REGION}/s3/aws4_request'
    to_sign = '\n'.join(['AWS4-HMAC-SHA256', when, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = _hmac(_hmac(_hmac(_hmac(b'AWS4' + secret_key.encode(), when[:8]), REGION), 's3'), 'aws4_request')
    return (f'AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={";".join(names)}, '
            f'Signature={_hmac(key, to_sign).hex()}')


def request(address, method, path, keys, body=b'', headers=None, query='', timeout_s=30):
    """`address` is (host, port), `keys` (access key, secret key); headers' names are in lower case.
    Returns (status, headers with names in lower case, body); OSError or http.client.HTTPException otherwise."""
    host = f'[{address[0]}]' if ':' in address[0] else address[0]
    payload_hash = hashlib.sha256(body).hexdigest()
    when = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())
    sent = {'host': f'{host}:{address[1]}', 'x-amz-content-sha256': payload_hash, 'x-amz-date': when, **(headers or {})}
    sent['authorization'] = _authorization(method, path, query, sent, payload_hash, when, *keys)
    connection = http.client.HTTPConnection(*address, timeout=timeout_s)
    try:
        target = path + (f'?{query}' if query else '')
        connection.request(method, target, body if body or method == 'PUT' else None, sent)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def make_bucket(address, bucket, keys):
    """None when the bucket is there now, otherwise what the server said."""
    status, _, _ = request(address, 'HEAD', f'/{bucket}', keys)
    if status == 200:
        return None
    status, _, body = request(address, 'PUT', f'/{bucket}', keys)
    return None if status == 200 else f'status {status}: {body[:300].decode(errors="replace")}'
