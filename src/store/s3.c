/* The store in a bucket: opening, closing, and what it says of itself.
 *
 * Closing waits for a refresh of credentials that is under way, so it parks.
 *
 * What happens on each call is in s3_get.c, s3_put.c and s3_list.c; how they
 * lie upon each other in s3_internal.h.  One struct s3 belongs to one shard,
 * with connections, credentials and bookkeeping of its own. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "store/s3_internal.h"

#define DEFAULT_REGION "us-east-1"

static const struct store_ops s3_ops;

struct s3 *s3_of(const struct store *store)
{
    assert(store->ops == &s3_ops);
    return container_of(store, struct s3, store);
}

static void s3_describe(struct store *store, char *ret_text, size_t capacity)
{
    const struct s3_place *place = &s3_of(store)->place;
    size_t prefix = strlen(place->prefix);
    if (prefix > 0) /* without its slash */
        prefix--;
    snprintf(ret_text, capacity, "s3://%s%s%.*s at %s://%s", place->bucket, prefix > 0 ? "/" : "", (int)prefix,
             place->prefix, place->scheme, place->authority);
}

static uint64_t s3_date_ms(struct store *store)
{
    return s3_of(store)->date_ms;
}

static void s3_close(struct store *store)
{
    struct s3 *s3 = s3_of(store);
    assert(s3->uploads.used == 0 && s3->reads.used == 0 && s3->hashers.used == 0);
    credential_chain_close(s3->credentials);
    http_free(s3->http);
    s3_place_free(&s3->place);
    explicit_bzero(&s3->signing_key, sizeof s3->signing_key);
    free(s3->region);
    free(s3->subject);
    free(s3);
}

static const struct store_ops s3_ops = {
    .name = "s3",
    .get = s3_get,
    .put = s3_put,
    .delete = s3_delete,
    .list = s3_list,
    .date_ms = s3_date_ms,
    .describe = s3_describe,
    .close = s3_close,
};

static char *make_subject(struct s3 *s3)
{
    char text[512];
    s3_describe(&s3->store, text, sizeof text);
    return memory_string(text);
}

static int open_credentials(struct s3 *s3, const struct s3_setup *setup, struct error *error)
{
    const struct credentials_setup credentials = { .access_key = setup->access_key,
                                                   .secret_key = setup->secret_key,
                                                   .session_token = setup->session_token,
                                                   .profile = setup->profile,
                                                   .region = s3->region,
                                                   .local_defaults = setup->endpoint != NULL && s3->place.loopback,
                                                   .events = setup->events };
    return credential_chain_new(s3->loop, s3->http, &credentials, &s3->credentials, error);
}

int s3_open(struct loop *loop, const struct s3_setup *setup, struct store **ret_store, struct error *error)
{
    assert(setup->uploads > 0 && setup->reads > 0 && setup->attempts > 0);
    struct s3 *s3 = memory_new(sizeof *s3);
    s3->store.ops = &s3_ops;
    s3->loop = loop;
    s3->events = setup->events;
    s3->connect_timeout_ms = setup->connect_timeout_ms;
    s3->read_timeout_ms = setup->read_timeout_ms;
    s3->attempts = setup->attempts;
    s3->hedge_percent = setup->hedge_percent;
    s3->traits = setup->traits;
    s3->region = memory_string(setup->region != NULL ? setup->region : DEFAULT_REGION);
    s3->budget.tokens = S3_BUDGET_TOKENS;
    s3_slots_init(&s3->uploads, setup->uploads);
    s3_slots_init(&s3->reads, setup->reads);
    s3_slots_init(&s3->hashers, S3_HASHERS);
    const struct http_setup http = { .ca_file = setup->ca_file,
                                     .connections_max = setup->uploads + setup->reads + S3_URGENT_CONNECTIONS,
                                     .idle_ms = S3_IDLE_MS,
                                     .silence_ms = S3_SILENCE_MS };
    int failed =
        s3_place_new(setup->endpoint, s3->region, setup->bucket, setup->prefix, setup->addressing, &s3->place, error);
    if (failed != 0)
        goto no_place;
    failed = http_new(loop, &http, &s3->http, error);
    if (failed != 0)
        goto no_http;
    failed = open_credentials(s3, setup, error);
    if (failed != 0)
        goto no_credentials;
    s3->subject = make_subject(s3);
    *ret_store = &s3->store;
    return 0;
no_credentials:
    http_free(s3->http);
no_http:
    s3_place_free(&s3->place);
no_place:
    free(s3->region);
    free(s3);
    return failed;
}

void s3_patient(struct store *store)
{
    s3_of(store)->patient = true;
}

unsigned s3_traits(struct store *store)
{
    const struct s3 *s3 = s3_of(store);
    unsigned traits = s3->etag_form == S3_ETAG_BARE ? S3_TRAIT_BARE_ETAGS : 0;
    return s3_compares_checksums(s3_of(store)) ? traits | S3_TRAIT_COMPARES_CHECKSUMS : traits;
}

int64_t s3_clock_skew_s(const struct store *store)
{
    return s3_of(store)->clock_skew_s;
}

const char *s3_credentials_source(const struct store *store)
{
    return credential_chain_source(s3_of(store)->credentials);
}

const char *s3_server_name(const struct store *store)
{
    return s3_of(store)->server;
}
