/* The store in a bucket of S3, or of anything that speaks its protocol.
 *
 * A conditional put is one attempt, whose unknown outcome its caller resolves;
 * everything else is tried again here, with patience.  Closing it parks. */
#ifndef CAIRN_STORE_S3_H
#define CAIRN_STORE_S3_H

#include <stdbool.h>
#include <stdint.h>

#include "rt/coroutine.h"
#include "store/s3_url.h"
#include "store/store.h"

struct error;
struct event_sink;
struct loop;

struct s3_setup {
    const char *endpoint; /* NULL: AWS */
    const char *region;
    const char *bucket, *prefix;
    enum s3_addressing addressing;
    const char *access_key, *secret_key, *session_token, *profile; /* NULL each: see store/credentials.h */
    const char *ca_file;
    uint64_t uploads; /* puts in flight at most, urgent ones apart */
    uint64_t reads;   /* everything else in flight at most */
    uint64_t connect_timeout_ms;
    uint64_t read_timeout_ms;  /* a read, with all its attempts */
    uint64_t attempts;         /* of a request, until s3_patient() */
    uint64_t hedge_percent;    /* of reads and of write-once puts that may be sent twice when slow; 0: none */
    unsigned traits;           /* as s3_traits() has found; 0: nothing is known */
    struct event_sink *events; /* the store stops answering, answers again */
};

/* Makes no request.  The strings are copied. */
int s3_open(struct loop *loop, const struct s3_setup *setup, struct store **ret_store, struct error *error);

/* From now on reads are tried until read_timeout_ms, however many attempts that takes: for servers, once they have seen
 * that the store works.  Before, the first `attempts` decide, so that a wrong setting is told soon. */
void s3_patient(struct store *store);

/* How far the store's clock is ahead of ours, of the last answer with a Date; 0 before. */
int64_t s3_clock_skew_s(const struct store *store);
/* Where the credentials come from, as credential_chain_source(). */
const char *s3_credentials_source(const struct store *store);

/* What is worth knowing of a store when others are opened for it, as S3_TRAIT_…; three requests at most.  Where their
 * answers leave a doubt nothing is claimed. */
CO unsigned s3_traits(struct store *store);
/* It compares payloads with a CRC-32, so that large ones need no SHA-256, and nobody on the way to it can forge either
 * (store/s3_payload.c). */
#define S3_TRAIT_COMPARES_CHECKSUMS 1u
/* It wants ETags in conditions without quotes; known once there was such a condition (store/s3_put.c).  Only a hint:
 * where it does not hold any more the first such put costs two requests more. */
#define S3_TRAIT_BARE_ETAGS 2u

/* ---- what concerns the bucket, one request each (store/s3_bucket.c) ---- */

/* Whether we may list it, below our prefix.  -ENOENT: there is none; -EACCES: there may be, not for us; -EXDEV: in
 * another region, named in the story and in ret_region ("" where the store does not say which; untouched in all other
 * cases). */
CO int s3_bucket_check(struct store *store, char ret_region[64], struct error *error);
/* 0 also when it is ours already. */
CO int s3_bucket_create(struct store *store, struct error *error);
/* "", "Enabled" or "Suspended"; a store without the call: "". */
CO int s3_bucket_versioning(struct store *store, char ret_status[16], struct error *error);
/* Whether a rule would expire objects under the prefix; a store without the call: false. */
CO int s3_bucket_expires(struct store *store, bool *ret_expires, char ret_rule[128], struct error *error);
/* What the server calls itself (header Server), "" when it does not. */
const char *s3_server_name(const struct store *store);

#endif
