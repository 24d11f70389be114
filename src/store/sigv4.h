/* AWS Signature Version 4, for S3 (paths encoded once) and STS.
 *
 * Source: AWS, "Signature Version 4 signing process"; "Authenticating Requests
 * (AWS Signature Version 4)" of the S3 API reference. */
#ifndef CAIRN_STORE_SIGV4_H
#define CAIRN_STORE_SIGV4_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct buffer;

#define SIGV4_HASH_MAX 65 /* hexadecimal SHA-256 with its NUL */
#define SIGV4_TIME_MAX 17 /* 20260102T030405Z */
#define SIGV4_UNSIGNED "UNSIGNED-PAYLOAD"
#define SIGV4_HEADERS_MAX 24    /* as many as a request of store/http.h may have */
#define SIGV4_PARAMETERS_MAX 32 /* of a query; a listing, which has the most, has six */

struct sigv4_header {
    const char *name, *value; /* any case; spaces are trimmed and folded by the signer */
};

struct sigv4_request {
    const char *method;
    const char *path;  /* as sent, encoded by sigv4_encode(), beginning with '/' */
    const char *query; /* as sent, encoded, without '?'; need not be sorted: the signer does; "" : none */
    const struct sigv4_header *headers; /* every one that is to be signed: host, x-amz-*, range, if-match, …;
                                           in any order, each name once */
    int header_count;
    const char *payload_hash; /* SIGV4_UNSIGNED or 64 hexadecimal digits */
    const char *time;         /* of sigv4_time(), the value of x-amz-date */
};

/* The signing key of one day, kept so that it is made once a day; zero it to begin with, wipe it at the end.
 * Holds a secret. */
struct sigv4_key {
    uint8_t key[32];
    char scope[128];         /* "20260102/us-east-1/s3/aws4_request" */
    uint8_t secret_hash[32]; /* of the secret that it was made from */
};

/* A clock beyond the year 9999, which the form cannot say, counts as the last second of that year. */
void sigv4_time(uint64_t wall_s, char ret_time[SIGV4_TIME_MAX]);
void sigv4_hash(const struct iovec *pieces, int count, char ret_hash[SIGV4_HASH_MAX]);
/* The value of the header Authorization, appended to `ret_value`; a NUL that is not counted stands behind it.  `key` is
 * used where it fits day, region, service and secret, and is else made anew. */
void sigv4_sign(const struct sigv4_request *request, const char *access_key, const char *secret_key, const char *region,
                const char *service, struct sigv4_key *key, struct buffer *ret_value);
/* Appends `text` with all but A-Z a-z 0-9 - . _ ~ as %XX; with `keep_slash` also '/' stands.  A NUL that is not counted
 * stands behind it. */
void sigv4_encode(const char *text, size_t length, int keep_slash, struct buffer *ret_text);

#endif
