/* The lease: until when an owner may answer its clients.  Pure judgement, see lease.c. */
#ifndef CAIRN_VOL_LEASE_H
#define CAIRN_VOL_LEASE_H

#include <stdbool.h>
#include <stdint.h>

/* What the clocks show at one moment. */
struct lease_clocks {
    uint64_t boottime_ns; /* ours, and goes on while we are suspended */
    uint64_t wall_ns;     /* ours */
    uint64_t date_ms;     /* the store's, by the latest of its answers; 0: not known */
};

struct lease {
    uint64_t lease_ms;
    struct lease_clocks sent; /* when the last body that landed was first sent; date_ms: at the earliest */
    bool held;                /* one has landed */
    /* The latest date of the store that we have seen, and when that was by our boot-time clock. */
    uint64_t seen_date_ms, seen_boottime_ns;
};

void lease_init(struct lease *lease, uint64_t lease_ms);

/* To be called with every look at the clocks that matters: keeps in mind when the store's date was news. */
void lease_observe(struct lease *lease, const struct lease_clocks *now);
/* What to remember of the moment `now` at which a body is first sent, for lease_landed(). */
struct lease_clocks lease_sending(struct lease *lease, const struct lease_clocks *now);
/* A body first sent then is what stands in the register. */
void lease_landed(struct lease *lease, const struct lease_clocks *sent);

/* How much time has passed since the sending, by the clock that says most. */
uint64_t lease_age_ns(const struct lease *lease, const struct lease_clocks *now);
bool lease_is_valid(const struct lease *lease, const struct lease_clocks *now);

/* ---- what follows from its length ---- */

uint64_t lease_valid_ns(uint64_t lease_ms);   /* of the age: 24/30 */
uint64_t lease_renew_ns(uint64_t lease_ms);   /* when the next body is sent, after the sending of the last: half */
uint64_t lease_attempt_ms(uint64_t lease_ms); /* of one attempt to write or read the register */
uint64_t lease_retry_ns(uint64_t lease_ms);   /* between two of them, at most */
/* What a register says, within LEASE_MS_LEAST and LEASE_MS_MOST. */
uint64_t lease_bounded_ms(uint64_t lease_ms);

#endif
