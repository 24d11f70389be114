/* The lease: until when an owner may answer its clients.
 *
 * Whoever wants the volume waits until the register has not moved for a whole
 * lease, and takes it then.  An owner that has not renewed in time must have
 * stopped answering before: it may have been paused, suspended, cut off, or it
 * may be a copy of a machine that went on long ago.  So its clients get no
 * answer unless less than 24/30 of a lease has passed since it first sent the
 * body that stands in the register.  (Since it was sent, not since it was
 * answered: nobody who waits can have seen it before it was sent.)
 *
 * How much time has passed is asked of three clocks, and the one that says most
 * is believed, for each alone can stand still:
 *
 *   boot time   goes on through suspension; not through a snapshot of the machine
 *   wall clock  is set right when a machine goes on from a snapshot; may be set
 *               back at any time, which counts as no time
 *   the store's date, by its latest answer: whatever happens to us, it is right as
 *               soon as anything has been answered
 *
 * Of the store's date only moments are known at which something was answered, in
 * whole seconds.  When a body is sent, the store's clock shows at least the
 * latest date and what has passed by our boot-time clock since that was news;
 * that is noted, and never too late a time.  Afterwards the store's clock shows
 * the latest date or up to a second more: so much its advance may be
 * underestimated, which a lease of 5 s or more has room for between 24/30 and
 * its end.
 *
 * Being wrong towards "invalid" costs time: replies are held until the next
 * renewal.  Being wrong towards "valid" lets a superseded owner answer reads as
 * of its own state; writes that matter are guarded by the log in any case. */
#include "vol/lease.h"

#include <assert.h>

#include "base/mutant.h"
#include "rt/loop.h"
#include "vol/volume.h"

#define VALID_OF_30 24u /* the rest is for a batch of replies that is on its way, and for clocks that drift */
#define RENEW_OF_30 15u
#define RETRY_OF_30 3u
/* Attempts need time to be answered, however short a lease is. */
#define ATTEMPT_LEAST_MS 500u

static uint64_t part_ns(uint64_t lease_ms, uint64_t of_30)
{
    return lease_ms * NS_PER_MS / 30 * of_30;
}

uint64_t lease_valid_ns(uint64_t lease_ms)
{
    return part_ns(lease_ms, MUTANT(lease_valid_too_long) ? 2 * VALID_OF_30 : VALID_OF_30);
}

uint64_t lease_renew_ns(uint64_t lease_ms)
{
    return part_ns(lease_ms, RENEW_OF_30);
}

uint64_t lease_retry_ns(uint64_t lease_ms)
{
    return part_ns(lease_ms, RETRY_OF_30);
}

uint64_t lease_attempt_ms(uint64_t lease_ms)
{
    uint64_t ms = part_ns(lease_ms, RETRY_OF_30) / NS_PER_MS;
    return ms < ATTEMPT_LEAST_MS ? ATTEMPT_LEAST_MS : ms;
}

uint64_t lease_bounded_ms(uint64_t lease_ms)
{
    return lease_ms < LEASE_MS_LEAST ? LEASE_MS_LEAST : lease_ms > LEASE_MS_MOST ? LEASE_MS_MOST : lease_ms;
}

void lease_init(struct lease *lease, uint64_t lease_ms)
{
    assert(lease_ms >= LEASE_MS_LEAST && lease_ms <= LEASE_MS_MOST);
    *lease = (struct lease){ .lease_ms = lease_ms };
}

static uint64_t advance(uint64_t from, uint64_t to)
{
    return to > from ? to - from : 0;
}

void lease_observe(struct lease *lease, const struct lease_clocks *now)
{
    if (now->date_ms == lease->seen_date_ms)
        return;
    lease->seen_date_ms = now->date_ms;
    lease->seen_boottime_ns = now->boottime_ns;
}

struct lease_clocks lease_sending(struct lease *lease, const struct lease_clocks *now)
{
    struct lease_clocks sent = *now;
    if (lease->seen_date_ms != 0) {
        uint64_t since_ms = advance(lease->seen_boottime_ns, now->boottime_ns) / NS_PER_MS;
        uint64_t least_ms = lease->seen_date_ms + since_ms;
        if (least_ms > sent.date_ms)
            sent.date_ms = least_ms;
    }
    lease_observe(lease, now);
    return sent;
}

void lease_landed(struct lease *lease, const struct lease_clocks *sent)
{
    lease->sent = *sent;
    lease->held = true;
}

uint64_t lease_age_ns(const struct lease *lease, const struct lease_clocks *now)
{
    uint64_t boottime_ns = advance(lease->sent.boottime_ns, now->boottime_ns);
    uint64_t wall_ns = advance(lease->sent.wall_ns, now->wall_ns);
    uint64_t date_ns = 0;
    if (lease->sent.date_ms != 0 && now->date_ms > lease->sent.date_ms) /* 0: not known then */
        date_ns = (now->date_ms - lease->sent.date_ms) * NS_PER_MS;
    if (MUTANT(lease_by_wall_only))
        return wall_ns;
    uint64_t age_ns = boottime_ns > wall_ns ? boottime_ns : wall_ns;
    return age_ns > date_ns ? age_ns : date_ns;
}

bool lease_is_valid(const struct lease *lease, const struct lease_clocks *now)
{
    return lease->held && lease_age_ns(lease, now) < lease_valid_ns(lease->lease_ms);
}
