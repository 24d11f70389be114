/* What S3 and STS say in XML: pure functions over bytes (expat), of which any
 * may be hostile: nesting, names, counts and lengths are limited, DTDs and
 * entities are refused.
 *
 * Outputs are untouched on failure.  Elements are told by their names alone:
 * stores differ in whether they use AWS's namespaces, and in which. */
#ifndef CAIRN_STORE_S3_XML_H
#define CAIRN_STORE_S3_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

struct error;

#define S3_XML_DEPTH_MAX 16
#define S3_XML_NAME_MAX 64    /* of an element; AWS's longest has 32 */
#define S3_XML_TEXT_MAX 16384 /* of one element; a session token has 2 KiB to some, an encoded key up to 3 KiB */
/* Of a whole answer, so also enough for reading one: a page of STORE_LIST_MAX keys, each encoded, with what else is
 * told of an object. */
#define S3_XML_BYTES_MAX ((size_t)4 << 20)

struct s3_error {
    char code[64];     /* "SlowDown"; "" : none */
    char message[256]; /* for people; control bytes replaced */
    char region[64];   /* <Region> of AuthorizationHeaderMalformed, PermanentRedirect, IllegalLocationConstraint…;
                          "" unless it could be one: letters, digits, - _ . */
    char endpoint[256];
};

/* Whether the body is an <Error>, also one inside an <ErrorResponse> (STS); fills what is there, which of a body that
 * was cut off is what came before the cut.  Otherwise ret_error is untouched. */
bool s3_xml_error(const void *bytes, size_t length, struct s3_error *ret_error);

/* A page of ListObjectsV2 with encoding-type=url: keys are decoded (where the store says that it has encoded them),
 * `strip` (the store's prefix) is taken off each, and a key without it is an error.  Sorted bytewise by the reader,
 * whatever the store did.  Keys that nobody could ask a store for (store/store.h), such as the "folders" that consoles
 * create, are left out: a page may be empty although it is not the last.  -EPROTO: not that, or damaged.
 * *ret_token: the continuation token, owned by the caller; NULL: this is the last page, and !ret_listing->more. */
int s3_xml_listing(const void *bytes, size_t length, const char *strip, struct store_listing *ret_listing,
                   char **ret_token, struct error *error);

/* GetBucketVersioning: "" (never set), "Enabled", "Suspended". */
int s3_xml_versioning(const void *bytes, size_t length, char ret_status[16], struct error *error);

/* GetBucketLifecycleConfiguration: whether an enabled rule expires current objects with keys that begin with `prefix`,
 * or with a prefix of it.  Filters by tag or size are not looked at: such a rule counts, since it may hit ours.
 * ret_rule: its ID, for the message ("" where it has none, or where none expires). */
int s3_xml_lifecycle_expires(const void *bytes, size_t length, const char *prefix, bool *ret_expires,
                             char ret_rule[128], struct error *error);

/* Credentials of STS's AssumeRole and AssumeRoleWithWebIdentity; each field owned by the caller. */
struct s3_xml_credentials {
    char *access_key, *secret_key, *token;
    uint64_t expires_s; /* since 1970 */
};
int s3_xml_credentials(const void *bytes, size_t length, struct s3_xml_credentials *ret_credentials,
                       struct error *error);

/* "2026-01-02T03:04:05Z", with fractions too, or with an offset such as +01:00 instead of the Z, into seconds since
 * 1970; -EINVAL. */
int s3_time_parse(const char *text, uint64_t *ret_s);

#endif
