"""A small S3 client for tests: what lies in a bucket, and ways to change it
behind the server's back.  One request at a time, on a connection that is kept."""

import hashlib
import http.client
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree

import s3_signature

NAMESPACE = '{http://s3.amazonaws.com/doc/2006-03-01/}'


class S3Error(Exception):
    def __init__(self, status, code, message):
        super().__init__(f'{status} {code}: {message}')
        self.status, self.code = status, code


def element_text(element, name):
    """Of a child, with S3's namespace or without."""
    found = element.find(NAMESPACE + name)
    if found is None:
        found = element.find(name)
    return '' if found is None else found.text or ''


class S3Client:
    def __init__(self, endpoint, access_key, secret_key, region='us-east-1', token=None, clock_offset_s=0,
                 timeout=60):
        parts = urllib.parse.urlsplit(endpoint)
        self.host = parts.netloc
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        self.access_key, self.secret_key, self.region, self.token = access_key, secret_key, region, token
        self.clock_offset_s = clock_offset_s

    def request(self, method, path, query='', body=b'', headers=None, payload_hash=None):
        """(status, headers in lower case, body); the path is encoded here, the query is given encoded."""
        path = s3_signature.encode(path, safe='/')
        payload_hash = payload_hash or hashlib.sha256(body).hexdigest()
        signed = s3_signature.sign(method, path, query, {'host': self.host, **(headers or {})}, payload_hash,
                                   self.access_key, self.secret_key, self.region,
                                   time.time() + self.clock_offset_s, self.token)
        target = path + ('?' + query if query else '')
        for attempt in (1, 2):
            reused = self.connection.sock is not None
            try:
                self.connection.request(method, target, body if body or method in ('PUT', 'POST') else None, signed)
                response = self.connection.getresponse()
                content = response.read()
                break
            except (http.client.RemoteDisconnected, ConnectionError):
                self.connection.close()
                if not reused or attempt == 2:
                    raise
            except BaseException:
                self.connection.close()
                raise
        if response.will_close:
            self.connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, content

    def checked(self, method, path, query='', body=b'', headers=None):
        status, told, content = self.request(method, path, query, body, headers)
        if status >= 300:
            code, message = '', content[:200].decode(errors='replace')
            try:
                error = ElementTree.fromstring(content)
                code, message = element_text(error, 'Code'), element_text(error, 'Message')
            except ElementTree.ParseError:
                pass
            raise S3Error(status, code, message)
        return told, content

    def put(self, bucket, key, body, **conditions):
        """Returns the ETag; conditions: if_match=, if_none_match=."""
        headers = {name.replace('_', '-'): value for name, value in conditions.items()}
        return self.checked('PUT', f'/{bucket}/{key}', body=body, headers=headers)[0].get('etag', '')

    def get(self, bucket, key):
        return self.checked('GET', f'/{bucket}/{key}')[1]

    def delete(self, bucket, key):
        self.checked('DELETE', f'/{bucket}/{key}')

    def list(self, bucket, prefix=''):
        """{key: size}, all pages."""
        found, token = {}, None
        while True:
            pairs = {'list-type': '2', 'prefix': prefix, 'encoding-type': 'url'}
            if token:
                pairs['continuation-token'] = token
            query = '&'.join(f'{name}={s3_signature.encode(value)}' for name, value in pairs.items())
            page = ElementTree.fromstring(self.checked('GET', f'/{bucket}', query)[1])
            for entry in [*page.iter(NAMESPACE + 'Contents'), *page.iter('Contents')]:
                key = element_text(entry, 'Key')
                # Not every server does what is asked here; the answer says whether it did.
                decoded = urllib.parse.unquote(key) if element_text(page, 'EncodingType') == 'url' else key
                found[decoded] = int(element_text(entry, 'Size'))
            token = element_text(page, 'NextContinuationToken')
            if element_text(page, 'IsTruncated') != 'true':
                return found

    def create_bucket(self, bucket):
        try:
            self.checked('PUT', f'/{bucket}')
        except S3Error as error:
            if error.code != 'BucketAlreadyOwnedByYou':
                raise

    def close(self):
        self.connection.close()
