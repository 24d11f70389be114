/* See share.h.
 *
 *     stream 1  ▓▓▓▓▓▓▓▓░░░░░░░░░░│        ▓ still to be sent of what is under way
 *     stream 2  ▓▓▓▓▓░░░░░░░░░░░░░│        ░ its share of what waits
 *     stream 3  ▓▓░░░░░░░░░░░░░░░░│        │ the level: where all of them end
 *     stream 4  ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓    … but for those that take longer anyway
 *
 * The next object is for the stream that is free first: its share is the whole
 * way up to the level, in one object, or in several of the same size where one
 * would be too large.  The others' shares are found again, with what is known
 * then, when it is their turn. */
#include "vol/share.h"

#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"

/* Which stream is free first. */
static uint32_t first_free(const uint64_t *left, uint32_t streams)
{
    uint32_t first = 0;
    for (uint32_t i = 1; i < streams; i++)
        if (left[i] < left[first])
            first = i;
    return first;
}

static int ascending(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* `left` is sorted. */
static uint64_t level_of(const uint64_t *left, uint32_t streams, uint64_t waiting)
{
    uint64_t sum = waiting + left[0];
    uint32_t sharing = 1; /* so many, from the first on, end at one level */
    while (sharing < streams && sum > left[sharing] * sharing)
        sum += left[sharing++];
    return (sum + sharing - 1) / sharing;
}

static uint64_t divided(uint64_t pages, uint64_t most)
{
    uint64_t parts = (pages + most - 1) / most;
    return (pages + parts - 1) / parts;
}

uint32_t share_next(const uint64_t *under_way, uint32_t count, uint32_t streams, uint64_t waiting, uint32_t least,
                    uint32_t most)
{
    assert(streams > 0 && waiting > 0 && least > 0 && most >= least);
    uint64_t *left = memory_array(streams, sizeof *left);
    for (uint32_t i = 0; i < count; i++)
        left[i < streams ? i : first_free(left, streams)] += under_way[i];
    qsort(left, streams, sizeof *left, ascending);
    uint64_t share = level_of(left, streams, waiting) - left[0];
    free(left);
    if (share < least) /* fewer streams than there are, then */
        share = divided(waiting, least);
    else if (waiting - share < least / 4) /* no crumbs */
        share = waiting;
    return (uint32_t)divided(share, most);
}
