"""What the fake store keeps, and what each request does to it: no sockets, no
faults, no signatures, all at once in one step.

The answers are those of the S3 API reference; where real stores differ, a mode
of `conditions` says which of them this one is:

    kept         the condition decides (what every store should do)
    unquoted     kept, but only against an ETag without its quotes (Ceph RGW)
    ignored      the header is not looked at (Garage)
    racy         looked at when the request comes, applied a moment later
    unsupported  501 (Backblaze B2)
"""

import bisect
import email.utils
import hashlib
import time
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape

import s3_signature

NAMESPACE = 'http://s3.amazonaws.com/doc/2006-03-01/'
KEY_BYTES_MAX = 1024
LIST_MAX = 1000
CONDITION_MODES = ('kept', 'unquoted', 'ignored', 'racy', 'unsupported')

STATUS_OF = {
    'AccessDenied': 403, 'AuthorizationHeaderMalformed': 400, 'BadDigest': 400, 'BucketAlreadyExists': 409,
    'BucketAlreadyOwnedByYou': 409, 'ConditionalRequestConflict': 409, 'ExpiredToken': 400,
    'IllegalLocationConstraintException': 400, 'InternalError': 500, 'InvalidAccessKeyId': 403,
    'InvalidArgument': 400, 'InvalidRange': 416, 'InvalidRequest': 400, 'InvalidToken': 400, 'KeyTooLongError': 400,
    'MalformedXML': 400, 'MethodNotAllowed': 405, 'MissingContentLength': 411, 'NoSuchBucket': 404, 'NoSuchKey': 404,
    'NoSuchLifecycleConfiguration': 404, 'NotImplemented': 501, 'PermanentRedirect': 301, 'PreconditionFailed': 412,
    'RequestTimeTooSkewed': 403, 'RequestTimeout': 400, 'ServiceUnavailable': 503, 'SignatureDoesNotMatch': 403,
    'SlowDown': 503, 'TooManyRequests': 429, 'XAmzContentSHA256Mismatch': 400,
}


class Answer:
    __slots__ = ('status', 'headers', 'body', 'length')

    def __init__(self, status, headers=None, body=b'', length=None):
        self.status, self.headers, self.body = status, headers or {}, body
        self.length = len(body) if length is None else length  # of Content-Length, which a HEAD has without a body

    def without_body(self):
        return Answer(self.status, self.headers, b'', self.length)


def error_body(code, message, **more):
    details = ''.join(f'<{name}>{escape(str(value))}</{name}>' for name, value in more.items())
    return (f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{escape(message)}</Message>'
            f'{details}<RequestId>FAKE</RequestId></Error>').encode()


def error(code, message, headers=None, **more):
    return Answer(STATUS_OF[code], {'Content-Type': 'application/xml', **(headers or {})},
                  error_body(code, message, **more))


def document(root, content):
    return Answer(200, {'Content-Type': 'application/xml'},
                  f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{NAMESPACE}">{content}</{root}>'.encode())


class Object:
    __slots__ = ('body', 'etag', 'modified')

    def __init__(self, body, digest):
        self.body = body
        self.etag = '"' + digest[:32] + '"'
        self.modified = time.time()


class Bucket:
    def __init__(self, account, region):
        self.account, self.region = account, region
        self.objects = {}
        self.keys = []  # of objects, sorted bytewise
        self.versioning = ''
        self.lifecycle = b''
        self.history = {}  # key: [puts applied, of these without a condition, deletes applied]

    def put(self, key, stored, conditional):
        if key not in self.objects:
            bisect.insort(self.keys, key)
        self.objects[key] = stored
        record = self.history.setdefault(key, [0, 0, 0])
        record[0] += 1
        record[1] += not conditional

    def delete(self, key):
        if self.objects.pop(key, None) is not None:
            del self.keys[bisect.bisect_left(self.keys, key)]
            self.history.setdefault(key, [0, 0, 0])[2] += 1


class Request:
    """One request, understood and authenticated; kind is what counters and faults know it by."""
    __slots__ = ('method', 'bucket', 'key', 'query', 'headers', 'body', 'digest', 'kind', 'account')

    def __init__(self, method, bucket, key, query, headers):
        self.method, self.bucket, self.key, self.query, self.headers = method, bucket, key, query, headers
        self.body, self.digest, self.account = b'', '', None
        self.kind = kind_of(method, key, query)


KINDS = ('PUT', 'GET', 'HEAD', 'DELETE', 'LIST', 'BUCKET')


def kind_of(method, key, query):
    if key:
        return method
    return 'LIST' if method == 'GET' and ('list-type' in query or 'prefix' in query) else 'BUCKET'


class Objects:
    def __init__(self, region):
        self.region = region
        self.buckets = {}
        self.may_create = True
        self.conditions = {'if-none-match': 'kept', 'if-match': 'kept'}

    def racy(self, request):
        """Is there a condition that is looked at now and forgotten when it matters?"""
        return request.kind == 'PUT' and any(self.conditions[name] == 'racy' and name in request.headers
                                             for name in self.conditions)

    def perform(self, request, conditions_hold=None):
        """conditions_hold: the verdict of an earlier look, of a racy store."""
        if not request.bucket:
            return error('NotImplemented', 'Only buckets are served here.')
        if request.method == 'PUT' and not request.key and not request.query:
            return self.create(request)
        bucket = self.buckets.get(request.bucket)
        if bucket is None:
            return error('NoSuchBucket', 'The specified bucket does not exist', BucketName=request.bucket)
        told = {'x-amz-bucket-region': bucket.region}
        if bucket.region != self.region:
            return error('PermanentRedirect', 'The bucket you are attempting to access must be addressed using the '
                         'specified endpoint. Please send all future requests to this endpoint.', told,
                         Bucket=request.bucket, Endpoint=f's3.{bucket.region}.example.net')
        if bucket.account != request.account:
            return error('AccessDenied', 'Access Denied')
        if request.key:
            if len(request.key.encode()) > KEY_BYTES_MAX:
                return error('KeyTooLongError', 'Your key is too long')
            return self.on_object(bucket, request, conditions_hold)
        answer = self.on_bucket(bucket, request)
        answer.headers.update(told)
        return answer

    # Buckets.

    def create(self, request):
        there = self.buckets.get(request.bucket)
        if there is not None:
            code = 'BucketAlreadyOwnedByYou' if there.account == request.account else 'BucketAlreadyExists'
            return error(code, 'The bucket is there already.')
        if not self.may_create:
            return error('AccessDenied', 'Access Denied')
        wanted = self.region if self.region == 'us-east-1' else None
        if request.body:
            try:
                wanted = next(element.text for element in ElementTree.fromstring(bytes(request.body)).iter()
                              if element.tag.endswith('LocationConstraint'))
            except (ElementTree.ParseError, StopIteration):
                return error('MalformedXML', 'The XML you provided was not well-formed.')
        if wanted != self.region:
            return error('IllegalLocationConstraintException', f'The {wanted or "unspecified"} location constraint is '
                         'incompatible for the region specific endpoint this request was sent to.')
        self.buckets[request.bucket] = Bucket(request.account, self.region)
        return Answer(200, {'Location': '/' + request.bucket})

    def on_bucket(self, bucket, request):
        method, query = request.method, request.query
        if request.kind == 'LIST':
            return self.list(bucket, query)
        if method == 'HEAD' and not query:
            return Answer(200)
        if 'versioning' in query and method == 'GET':
            return document('VersioningConfiguration',
                            f'<Status>{bucket.versioning}</Status>' if bucket.versioning else '')
        if 'versioning' in query and method == 'PUT':
            bucket.versioning = 'Enabled' if b'Enabled' in request.body else 'Suspended'
            return Answer(200)
        if 'lifecycle' in query and method == 'GET':
            if not bucket.lifecycle:
                return error('NoSuchLifecycleConfiguration', 'The lifecycle configuration does not exist')
            return Answer(200, {'Content-Type': 'application/xml'}, bucket.lifecycle)
        if 'lifecycle' in query and method in ('PUT', 'DELETE'):
            bucket.lifecycle = bytes(request.body)
            return Answer(200 if method == 'PUT' else 204)
        return error('NotImplemented', 'A header or query you provided implies functionality that is not implemented.')

    def list(self, bucket, query):
        prefix = query.get('prefix', '')
        after = query.get('continuation-token') or query.get('start-after', '')
        if query.get('list-type') != '2' or query.get('delimiter'):
            return error('NotImplemented', 'Only ListObjectsV2 without a delimiter is served here.')
        try:
            limit = min(LIST_MAX, int(query.get('max-keys', LIST_MAX)))
        except ValueError:
            return error('InvalidArgument', 'max-keys is not a number')
        shown = (lambda key: s3_signature.encode(key, safe='/')) if query.get('encoding-type') == 'url' else escape
        at = max(bisect.bisect_right(bucket.keys, after), bisect.bisect_left(bucket.keys, prefix))
        keys = []
        while at < len(bucket.keys) and bucket.keys[at].startswith(prefix) and len(keys) < limit:
            keys.append(bucket.keys[at])
            at += 1
        more = bool(keys) and at < len(bucket.keys) and bucket.keys[at].startswith(prefix)
        parts = [f'<Name></Name><Prefix>{shown(prefix)}</Prefix><KeyCount>{len(keys)}</KeyCount>'
                 f'<MaxKeys>{limit}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>']
        if 'encoding-type' in query:
            parts.append('<EncodingType>url</EncodingType>')
        if more:
            parts.append(f'<NextContinuationToken>{escape(keys[-1])}</NextContinuationToken>')
        for key in keys:
            stored = bucket.objects[key]
            modified = time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(stored.modified))
            parts.append(f'<Contents><Key>{shown(key)}</Key><LastModified>{modified}</LastModified><ETag>'
                         f'{escape(stored.etag)}</ETag><Size>{len(stored.body)}</Size>'
                         '<StorageClass>STANDARD</StorageClass></Contents>')
        return document('ListBucketResult', ''.join(parts))

    # Objects.

    def on_object(self, bucket, request, conditions_hold):
        if request.method == 'PUT':
            return self.put(bucket, request, conditions_hold)
        if request.method in ('GET', 'HEAD'):
            return self.get(bucket, request)
        if request.method == 'DELETE':
            bucket.delete(request.key)
            return Answer(204)
        return error('MethodNotAllowed', 'The specified method is not allowed against this resource.')

    def check_conditions(self, bucket, request):
        """None, or the refusal."""
        absent, match = request.headers.get('if-none-match'), request.headers.get('if-match')
        modes = self.conditions
        for name, value in (('if-none-match', absent), ('if-match', match)):
            if value is not None and modes[name] == 'unsupported':
                return error('NotImplemented', 'A header you provided implies functionality that is not implemented.')
        there = bucket.objects.get(request.key)
        failed = error('PreconditionFailed', 'At least one of the pre-conditions you specified did not hold')
        if absent is not None and modes['if-none-match'] != 'ignored':
            if absent != '*':
                return error('NotImplemented', 'If-None-Match takes only *')
            if there is not None:
                return failed
        if match is not None and modes['if-match'] != 'ignored':
            if there is None:
                return error('NoSuchKey', 'The specified key does not exist.', Key=request.key)
            bare = there.etag.strip('"')
            if match not in ((bare,) if modes['if-match'] == 'unquoted' else (bare, there.etag, '*')):
                return failed
        return None

    def put(self, bucket, request, conditions_hold):
        refusal = self.check_conditions(bucket, request) if conditions_hold is None else None
        if refusal is not None:
            return refusal
        digest = request.digest or hashlib.sha256(request.body).hexdigest()
        stored = Object(request.body, digest)
        bucket.put(request.key, stored, 'if-match' in request.headers or 'if-none-match' in request.headers)
        return Answer(200, {'ETag': stored.etag})

    def get(self, bucket, request):
        stored = bucket.objects.get(request.key)
        if stored is None:
            return error('NoSuchKey', 'The specified key does not exist.', Key=request.key)
        size = len(stored.body)
        told = {'ETag': stored.etag, 'Accept-Ranges': 'bytes', 'Content-Type': 'application/octet-stream',
                'Last-Modified': email.utils.formatdate(stored.modified, usegmt=True)}
        bounds = parse_range(request.headers.get('range'), size)
        if bounds is None:
            return Answer(200, told, memoryview(stored.body))
        first, last = bounds
        if first >= size or first > last:
            return error('InvalidRange', 'The requested range is not satisfiable',
                         {'Content-Range': f'bytes */{size}'}, ActualObjectSize=size)
        told['Content-Range'] = f'bytes {first}-{last}/{size}'
        return Answer(206, told, memoryview(stored.body)[first:last + 1])


def parse_range(text, size):
    """(first, last), last cut off at the end; None: no range, or none that a server must understand."""
    if not text or not text.startswith('bytes=') or ',' in text:
        return None
    first, dash, last = text[len('bytes='):].partition('-')
    if not dash or not (first or last) or not (first + last).isdigit():
        return None
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1
