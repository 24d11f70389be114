/* A server that speaks S3, and the wire to it, in the simulator: linked in front of store/http.c.
 *
 * Objects are those of a struct mem.  Requests take their way there, are
 * applied, and take their way back, whether or not anybody still waits for
 * them; a test says how each of them fares.  Signatures are not verified (their
 * own test does that), but whose they are and when they were made. */
#ifndef CAIRN_TEST_LIB_FAKE_HTTP_H
#define CAIRN_TEST_LIB_FAKE_HTTP_H

#include "base/buffer.h"
#include "store/http.h"
#include "store/store.h"

struct world;

#define FAKE_BUCKET "bucket"
#define FAKE_ACCESS_KEY "AKFAKE"
/* Credentials are issued here, for `access_key`. */
#define FAKE_CREDENTIALS_PATH "/credentials"
#define FAKE_SECRET "very-secret-indeed"
#define FAKE_TOKEN "token-that-nobody-may-see"

struct fake_request {
    uint64_t number; /* the first is 1 */
    const char *method;
    const char *key;                                           /* whole, as the server sees it; "" : the bucket */
    const char *query;                                         /* as sent */
    const char *if_match, *if_none_match, *range, *access_key; /* "" : none */
    const char *payload_hash, *checksum;                       /* likewise, as sent */
    uint64_t length;                                           /* of the body */
    bool fresh;
    uint64_t connect_timeout_ms;
};

/* All zero: applied at once, and answered at once. */
struct fake_fate {
    uint64_t way_there_ns, way_back_ns;
    bool lost;               /* never arrives */
    int fail;                /* positive errno that the caller gets in place of the answer, when that would have come */
    int status;              /* answered so, and not applied; 0: as it deserves */
    bool applied;            /* with `status`: applied all the same */
    const char *code;        /* with `status`: of the <Error>; NULL: an empty body */
    const char *page;        /* with `status`: the body */
    uint64_t retry_after_ms; /* with `status`; 0: none */
    void (*edit)(struct http_response *response); /* NULL, or what changes the answer, not its bytes in place */
    bool garble;                                  /* the bytes in place are an <Error> */
};

struct fake_http {
    struct world *world;
    struct loop *loop;
    struct mem *mem;
    struct store *objects; /* over it */
    bool bucket_missing, bucket_of_others, bare_etags, without_lifecycle, constraint_refused;
    bool early_end;     /* each page of a listing is called the last, and lacks three keys, as MinIO's may */
    const char *region; /* the bucket's; NULL: whatever they ask for */
    const char *access_key;
    int64_t ahead_s;   /* of the clients' clock */
    uint64_t page_max; /* keys a page; 0: as many as asked for */
    void (*fate)(void *arg, const struct fake_request *request, struct fake_fate *ret_fate); /* NULL: all goes well */
    void *arg;
    uint64_t requests, in_flight, in_flight_most, issued;
};

/* Becomes the server of all that is sent from now on. */
struct fake_http *fake_http_new(struct loop *loop, struct world *world);
void fake_http_free(struct fake_http *fake); /* nothing may be on its way: run the world until nothing is left in it */

#endif
