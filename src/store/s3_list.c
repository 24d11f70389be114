/* Listing keys: ListObjectsV2.
 *
 * A page begins after a key (start-after), so no state is kept between two
 * pages, and one that is asked for again is as of now.  Keys come encoded,
 * since XML cannot say every byte.  The store's prefix is put in front on the
 * way out and taken off on the way in.
 *
 * Keys that cairn cannot have made are left out (s3_xml.c): a folder that some
 * console has made is no reason to refuse the rest.  A page of which nothing is
 * left is followed by the next, by the store's own token.
 *
 * A page that is full, or nearly so, is never taken for the last, whatever the
 * store says: MinIO (2026-02) counts the folders that it steps out of among the
 * keys, and then calls a page the last that is not.  For the same reason a
 * store is always asked for a whole page, however few keys are wanted. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "store/s3_internal.h"
#include "store/s3_xml.h"

/* Empty pages in a row: 100,000 keys of others, or a store that never comes to an end. */
#define PAGES_MAX 100
/* Of a full page: how long an answer may take. */
#define PAGE_BYTES_USUAL ((uint64_t)512 << 10)
/* From so many keys on a page is full: no key lies in more folders than the difference. */
#define FULL_PAGE (STORE_LIST_MAX - 64)

void s3_query_add(struct buffer *query, const char *name, const char *value)
{
    if (query->length > 0)
        buffer_put_u8(query, '&');
    buffer_printf(query, "%s=", name);
    sigv4_encode(value, strlen(value), 0, query);
}

struct page {
    const char *prefix, *after;
    char *token; /* NULL: none */
};

static void make_query(const struct s3 *s3, const struct page *page, struct buffer *query)
{
    char text[sizeof "18446744073709551615"];
    struct buffer whole = BUFFER_EMPTY;
    snprintf(text, sizeof text, "%d", STORE_LIST_MAX);
    s3_query_add(query, "list-type", "2");
    s3_query_add(query, "encoding-type", "url");
    s3_query_add(query, "max-keys", text);
    buffer_printf(&whole, "%s%s", s3->place.prefix, page->prefix);
    s3_query_add(query, "prefix", (const char *)whole.data);
    if (page->token != NULL) {
        s3_query_add(query, "continuation-token", page->token);
    } else if (page->after[0] != '\0') {
        buffer_clear(&whole);
        buffer_printf(&whole, "%s%s", s3->place.prefix, page->after);
        s3_query_add(query, "start-after", (const char *)whole.data);
    }
    buffer_free(&whole);
}

static void cut(struct store_listing *listing, size_t limit)
{
    if (listing->count >= FULL_PAGE)
        listing->more = true;
    while (listing->count > limit) {
        free(listing->entries[--listing->count].key);
        listing->more = true;
    }
}

/* What is on a page. */
struct found {
    const char *strip;
    struct store_listing listing;
    char *token; /* NULL: it is the last */
};

static void judge_list(const struct s3_call *call, struct s3_answer *answer)
{
    struct found *found = call->arg;
    const struct http_response *response = &answer->response;
    struct error error = ERROR_NONE;
    if (response->truncated)
        s3_answer_damaged(answer, "with more than a page of keys can be");
    else if (s3_xml_listing(response->body.data, response->body.length, found->strip, &found->listing, &found->token,
                            &error) != 0)
        s3_answer_damaged(answer, error.story);
}

static int list_page(struct s3 *s3, const struct page *page, uint64_t deadline_ns, struct found *ret_found,
                     struct error *error)
{
    struct buffer query = BUFFER_EMPTY;
    make_query(s3, page, &query);
    struct found found = { .strip = s3->place.prefix };
    struct s3_call call = { .method = "GET",
                            .query = (const char *)query.data,
                            .body_max = S3_XML_BYTES_MAX,
                            .connect_timeout_ms = s3->connect_timeout_ms,
                            .deadline_ns = deadline_ns,
                            .size = PAGE_BYTES_USUAL,
                            .slowest = S3_SLOWEST_READ,
                            .class = S3_CLASS_NONE,
                            .judge = judge_list,
                            .arg = &found };
    struct s3_answer answer;
    s3_guard_payload(s3, &call, false);
    s3_try(s3, &s3->reads, &call, &answer);
    int failed = 0;
    if (answer.outcome == S3_DONE) {
        *ret_found = found;
    } else {
        error_copy(error, &answer.error);
        failed = -answer.error.code;
    }
    s3_answer_free(&answer);
    buffer_free(&query);
    return failed;
}

int s3_list(struct store *store, const char *prefix, const char *after, size_t limit, struct store_listing *ret_listing,
            struct error *error)
{
    struct s3 *s3 = s3_of(store);
    struct page page = { .prefix = prefix, .after = after };
    bool inside = strncmp(after, prefix, strlen(prefix)) == 0;
    if (!inside && strcmp(after, prefix) > 0) { /* behind all of them */
        *ret_listing = (struct store_listing){ 0 };
        return 0;
    }
    if (!inside) /* before all of them */
        page.after = "";
    uint64_t deadline_ns = s3_read_deadline_ns(s3);
    for (int pages = 0; pages < PAGES_MAX; pages++) {
        struct found found;
        int failed = list_page(s3, &page, deadline_ns, &found, error);
        free(page.token);
        if (failed != 0) {
            error_context(error, "list %s", prefix);
            return failed;
        }
        page.token = found.token;
        cut(&found.listing, limit);
        if (found.listing.count > 0 || !found.listing.more) {
            free(page.token);
            *ret_listing = found.listing;
            return 0;
        }
        store_listing_free(&found.listing);
    }
    free(page.token);
    return error_set(error, EIO, "list %s: %d pages without a key", prefix, PAGES_MAX);
}
