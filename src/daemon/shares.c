/* Dividing the memory.
 *
 * A volume lives on one shard, and often only one of them has work: it should
 * have nearly all of the memory.  So shards that are busy divide what is left
 * when each idle one has the least that it can begin with.  When nobody is busy
 * nothing changes: the next to come is most likely who was there before.
 *
 * Invariant: what shards may use at this moment never sums up to more than the
 * total.  A share that is being lowered counts in full until the shard has come
 * down to it; one is raised only by what is free, in parts if need be.  A shard
 * that cannot come down, since its store hangs, so delays the others, and stops
 * none. */
#include "daemon/shares.h"

#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"

/* Less than a data object is not worth a change, unless it is all that was missing. */
#define WORTH_RAISING (UINT64_C(16) << 20)

struct share {
    uint64_t bytes; /* that the shard may use now */
    uint64_t asked; /* what was set last; less than bytes while it comes down */
    bool changing;  /* set, and not settled */
    bool busy;
};

struct shares {
    int count, busy;
    uint64_t total, least;
    shares_set *set;
    void *arg;
    struct share of[];
};

struct shares *shares_new(int count, uint64_t total, uint64_t least, shares_set *set, void *arg)
{
    assert(count > 0 && total / (uint64_t)count >= least);
    struct shares *shares = memory_new(sizeof *shares + (size_t)count * sizeof *shares->of);
    shares->count = count;
    shares->total = total;
    shares->least = least;
    shares->set = set;
    shares->arg = arg;
    for (int i = 0; i < count; i++)
        shares->of[i].bytes = shares->of[i].asked = total / (uint64_t)count;
    return shares;
}

void shares_free(struct shares *shares)
{
    free(shares);
}

static uint64_t target(const struct shares *shares, int index)
{
    if (!shares->of[index].busy)
        return shares->least;
    return (shares->total - (uint64_t)(shares->count - shares->busy) * shares->least) / (uint64_t)shares->busy;
}

static void change(struct shares *shares, int index, uint64_t bytes)
{
    struct share *share = &shares->of[index];

    share->asked = bytes;
    if (share->bytes < bytes)
        share->bytes = bytes;
    share->changing = true;
    shares->set(shares->arg, index, bytes);
}

static uint64_t unused(const struct shares *shares)
{
    uint64_t used = 0;

    for (int i = 0; i < shares->count; i++)
        used += shares->of[i].bytes;
    assert(used <= shares->total);
    return shares->total - used;
}

static void divide(struct shares *shares)
{
    if (shares->busy == 0)
        return;
    for (int i = 0; i < shares->count; i++)
        if (!shares->of[i].changing && target(shares, i) < shares->of[i].bytes)
            change(shares, i, target(shares, i));
    for (int i = 0; i < shares->count; i++) {
        const struct share *share = &shares->of[i];
        uint64_t free_bytes = unused(shares), goal = target(shares, i);
        if (share->changing || goal <= share->bytes)
            continue;
        uint64_t more = goal - share->bytes;
        if (more <= free_bytes)
            change(shares, i, goal);
        else if (free_bytes >= WORTH_RAISING)
            change(shares, i, share->bytes + free_bytes);
    }
}

void shares_busy(struct shares *shares, int index, bool busy)
{
    assert(index >= 0 && index < shares->count);
    struct share *share = &shares->of[index];

    shares->busy += (int)busy - (int)share->busy;
    share->busy = busy;
    divide(shares);
}

void shares_settled(struct shares *shares, int index)
{
    assert(index >= 0 && index < shares->count);
    struct share *share = &shares->of[index];

    assert(share->changing);
    share->changing = false;
    share->bytes = share->asked;
    divide(shares);
}
