/* What the files of the S3 store share.  Nobody outside src/store/s3*.c and their tests includes this.
 *
 * One call of store.h goes down these stairs, and its answer up again:
 *
 *     s3_get s3_put s3_list s3_bucket   what is asked, and what the answer means to the caller
 *     s3_retry      the same again, after a while, while that makes sense
 *     s3_slots      waits for its turn, so that the store and our memory are not overrun
 *     s3_hedge      a slow one is sent a second time beside the first
 *     s3_request    one attempt: signed, sent, and classified (s3_classify) into one of the outcomes below
 *     http          the wire
 *
 * s3_health hears of every attempt and tells the operator when the store stops and resumes answering. */
#ifndef CAIRN_STORE_S3_INTERNAL_H
#define CAIRN_STORE_S3_INTERNAL_H

#include "base/error.h"
#include "rt/wait.h"
#include "store/credentials.h"
#include "store/http.h"
#include "store/s3.h"
#include "store/s3_url.h"
#include "store/sigv4.h"
#include "store/store.h"

/* ---- limits ---- */

/* An attempt that moves less than 1 KB/s for so long is given up: ten times what a slow request takes. */
#define S3_SILENCE_MS 10000u
/* An attempt that drips along is given up after S3_SILENCE_MS and the time that its bytes take at these rates.  Low
 * enough for a line of 1 Mbit/s that sixteen uploads share: giving those up would mean that they never end. */
#define S3_SLOWEST_READ (UINT64_C(16) << 10) /* bytes a second: somebody waits, and asking again is cheap */
#define S3_SLOWEST_URGENT (UINT64_C(16) << 10)
#define S3_SLOWEST_UPLOAD (UINT64_C(4) << 10)
/* Idle connections are not used again after this.  Longer than the 5 s after which a volume commits what nobody
 * flushed, so that a quiet volume's connection stays warm; shorter than the 15 s and more after which servers, load
 * balancers and address translators drop idle ones, since a request sent into a dropped one is sent twice. */
#define S3_IDLE_MS 8000u
/* Connecting for somebody who waits in FLUSH: a second SYN has had its chance by then. */
#define S3_URGENT_CONNECT_MS 2000u
/* Connections kept for urgent puts and hedges, beside those of uploads and reads. */
#define S3_URGENT_CONNECTIONS 16u
/* An <Error> has a few hundred bytes; a page that some proxy sends instead is only quoted. */
#define S3_ERROR_BYTES_MAX ((size_t)64 << 10)
/* Above this SHA-256 takes longer than the way to a worker thread and back. */
#define S3_HASH_INLINE_BYTES ((uint64_t)64 << 10)
/* Uploads of a shard whose payload is being hashed, or summed up.  Two worker threads hash more than 20 Gbit/s; with more of them at
 * once, all the uploads would start late instead of the first ones early, and the shard itself would be held up. */
#define S3_HASHERS 2u

/* ---- outcomes (store/s3_classify.c) ---- */

enum s3_outcome {
    S3_DONE,      /* 2xx, and as it should be */
    S3_EXISTS,    /* 412: the condition does not hold; nothing was changed by this attempt */
    S3_ABSENT,    /* 404, and the store says that it is the key that is missing */
    S3_BEYOND,    /* 416 */
    S3_RETRY,     /* no answer, a 5xx, a damaged answer: what became of it is unknown, later it may go better */
    S3_THROTTLED, /* likewise, and the store wants less of us */
    S3_EXPIRED,   /* credentials that were good once, or are not known */
    S3_SKEWED,    /* our clock */
    S3_REGION,    /* the bucket is elsewhere */
    S3_NO_BUCKET,
    S3_DENIED,
    S3_FULL,
    S3_FATAL, /* anything else that trying again soon is unlikely to mend */
    S3_CANCELLED
};

/* `code`: of the <Error>, "" where there was none.  Of an answer that is not 2xx. */
enum s3_outcome s3_classify(int status, const char *code);
/* For s3_answer.error: a positive errno. */
int s3_outcome_errno(enum s3_outcome outcome, int status, const char *code);
static inline bool s3_may_retry(enum s3_outcome outcome)
{
    return outcome == S3_RETRY || outcome == S3_THROTTLED;
}

/* ---- taking turns (store/s3_slots.c) ---- */

struct s3_slots {
    uint64_t limit, used;
    struct waitq waiting;
};
void s3_slots_init(struct s3_slots *slots, uint64_t limit);
CO int s3_slots_enter(struct s3_slots *slots, uint64_t deadline_ns); /* 0, -ECANCELED, -ETIMEDOUT */
void s3_slots_leave(struct s3_slots *slots);

/* ---- how long requests take (store/s3_latency.c) ---- */

#define S3_LATENCY_SAMPLES 256u /* the last few seconds of a busy store, the last hour of a quiet one */

struct s3_latency {
    uint32_t samples_us[S3_LATENCY_SAMPLES];
    uint32_t count, next, fresh;
    uint32_t p50_us, p95_us;
};
void s3_latency_note(struct s3_latency *latency, uint64_t duration_ns);
/* After so long a request counts as slow; UINT64_MAX: not known yet. */
uint64_t s3_latency_slow_ns(const struct s3_latency *latency);

/* ---- whether the store answers (store/s3_health.c) ---- */

struct s3_health {
    uint32_t failures; /* in a row */
    uint64_t since_ns; /* since when nothing was answered, with failures */
    uint64_t answered_ns;
    bool told, timed_out;
};

/* ---- the retry budget (store/s3_retry.c) ---- */

struct s3_budget {
    uint32_t tokens;
};

/* ---- the store ---- */

enum s3_etag_form { S3_ETAG_UNKNOWN, S3_ETAG_QUOTED, S3_ETAG_BARE };

enum s3_class { S3_GET_SMALL, S3_GET_BLOCK, S3_PUT_SMALL, S3_PUT_BLOCK, S3_PUT_COMMIT, S3_CLASSES, S3_CLASS_NONE };

struct s3 {
    struct store store;
    struct loop *loop;
    struct event_sink *events;
    struct http *http;
    struct credential_chain *credentials;
    struct s3_place place;
    char *region;
    char *subject; /* of events: as describe */
    uint64_t connect_timeout_ms, read_timeout_ms, attempts, hedge_percent;
    bool patient;
    unsigned traits; /* that it was opened with */
    struct sigv4_key signing_key;
    int64_t clock_skew_s;   /* of the last Date */
    uint64_t date_ms;       /* the latest of all; 0: none has come yet */
    int64_t signing_skew_s; /* added to our clock in signatures: only since the store has refused that clock */
    enum s3_etag_form etag_form;
    char server[64];

    struct s3_slots uploads, reads, hashers;
    struct s3_budget budget;
    struct s3_health health;
    uint32_t throttles;    /* puts throttled in a row */
    bool urgent_timed_out; /* the last urgent put was */
    struct s3_latency latencies[S3_CLASSES];
    uint64_t hedge_credit; /* hundredths of a hedge */
};

struct s3 *s3_of(const struct store *store);

/* ---- one attempt (store/s3_request.c; store/s3_payload.c) ---- */

#define S3_CALL_HEADERS_MAX 4

struct s3_answer;

/* What is asked: the same in every attempt. */
struct s3_call {
    const char *method;
    const char *key;                                 /* NULL: the bucket itself */
    const char *query;                               /* encoded, without '?'; "" : none */
    struct http_header headers[S3_CALL_HEADERS_MAX]; /* that are signed, besides the usual ones */
    const struct iovec *body;
    int body_count;
    char payload_hash[SIGV4_HASH_MAX]; /* by s3_guard_payload() */
    char checksum[12];                 /* likewise; "" : none */
    const struct iovec *pieces;        /* as http_request */
    int count;
    uint64_t offset;
    uint64_t size; /* of what is wanted or sent, for judging and for latencies */
    size_t body_max;
    uint64_t connect_timeout_ms;
    uint64_t deadline_ns; /* of all attempts */
    uint64_t slowest;     /* bytes a second, of an attempt that is not given up */
    enum s3_class class;
    bool hedge; /* may be sent twice */
    bool apart; /* as http_request.apart */
    /* Looks at an answer 2xx, and makes s3_answer_damaged() of one that is not as it should be.  May be NULL.  If it
     * takes something out of a good one, nothing follows that: a good answer is the last. */
    void (*judge)(const struct s3_call *call, struct s3_answer *answer);
    void *arg; /* of judge */
};

struct s3_answer {
    enum s3_outcome outcome;
    struct http_response response; /* all zero where none came */
    struct error error;            /* of anything but S3_DONE */
    char code[64];                 /* of the <Error> */
    char region[64];               /* where the store says that the bucket is; "" : it does not */
    uint64_t generation;           /* of the credentials */
    int64_t skew_s;                /* that it was signed with */
    bool sent;
};

/* To be called before the first attempt, when `body` stands. */
CO void s3_guard_payload(struct s3 *s3, struct s3_call *call, bool urgent);
CO bool s3_compares_checksums(struct s3 *s3);
/* Fills *ret_answer, whatever happens; s3_answer_free() it.  One more, and no more than one, is sent where the first
 * was refused for credentials or a clock that could be corrected: such a refusal changes nothing. */
CO void s3_attempt(struct s3 *s3, const struct s3_call *call, struct s3_answer *ret_answer);
void s3_answer_free(struct s3_answer *answer);
void s3_answer_damaged(struct s3_answer *answer, const char *what) /* outcome S3_RETRY */;

/* ---- above it ---- */

/* An attempt, and perhaps its double (store/s3_hedge.c). */
CO void s3_hedged(struct s3 *s3, const struct s3_call *call, struct s3_answer *ret_answer);
/* Of two that were sent for the same, which one decides; -1: wait for the rest.  An entrant that was not sent, or has
 * not ended, has the outcome -1.  (Here for its test.) */
int s3_hedge_winner(bool put, const int outcomes[2], const bool sent[2]);

/* s3_hedged() in a slot (NULL: needs none). */
CO void s3_perform(struct s3 *s3, struct s3_slots *slots, const struct s3_call *call, struct s3_answer *ret_answer);
/* Again and again, until the answer is not S3_RETRY or S3_THROTTLED, or patience is at its end. */
CO void s3_try(struct s3 *s3, struct s3_slots *slots, const struct s3_call *call, struct s3_answer *ret_answer);

#define S3_BUDGET_TOKENS 500u
bool s3_budget_take(struct s3_budget *budget, bool throttled, uint32_t *ret_paid); /* false: it is used up */
void s3_budget_refund(struct s3_budget *budget, uint32_t paid);
/* Before retry number `retry` (1 …); `random`: 64 random bits; `retry_after_ms` UINT64_MAX: not told. */
uint64_t s3_retry_delay_ns(unsigned retry, bool throttled, uint64_t retry_after_ms, bool patient, uint64_t random);

void s3_health_failed(struct s3 *s3, uint64_t sent_ns, const struct error *error);
void s3_health_answered(struct s3 *s3);

/* When a read that begins now must have ended. */
uint64_t s3_read_deadline_ns(const struct s3 *s3);

/* ---- the operations ---- */

CO int s3_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error);
CO int s3_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX], struct error *error);
CO int s3_delete(struct store *store, const char *key, struct error *error);
CO int s3_list(struct store *store, const char *prefix, const char *after, size_t limit,
               struct store_listing *ret_listing, struct error *error);
/* Appends "&name=value", encoded, without the '&' at the beginning. */
void s3_query_add(struct buffer *query, const char *name, const char *value);

#endif
