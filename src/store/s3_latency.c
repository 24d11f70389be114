/* How long requests of one kind and size take: a ring of the last ones, and
 * their quantiles, made anew every few samples.  Pure.
 *
 * A request counts as slow when it has taken longer than 95 % of them do, and
 * longer than three times the median: where all take nearly the same, being a
 * little later than most means nothing.  A floor keeps a store nearby from
 * being asked twice for what is noise of the scheduler. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "rt/loop.h"
#include "store/s3_internal.h"

#define SAMPLES_LEAST 50u /* fewer say little about the 95th in a hundred */
#define SLOW_FLOOR_US 10000u
#define RECKON_EVERY 16u /* samples: sorting 256 numbers costs some microseconds */

static int compare(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static void reckon(struct s3_latency *latency)
{
    uint32_t sorted[S3_LATENCY_SAMPLES];
    memcpy(sorted, latency->samples_us, latency->count * sizeof *sorted);
    qsort(sorted, latency->count, sizeof *sorted, compare);
    latency->p50_us = sorted[latency->count / 2];
    latency->p95_us = sorted[latency->count * 95 / 100];
    latency->fresh = 0;
}

void s3_latency_note(struct s3_latency *latency, uint64_t duration_ns)
{
    uint64_t us = duration_ns / 1000;
    latency->samples_us[latency->next] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    latency->next = (latency->next + 1) % S3_LATENCY_SAMPLES;
    if (latency->count < S3_LATENCY_SAMPLES)
        latency->count++;
    if (++latency->fresh >= RECKON_EVERY)
        reckon(latency);
}

uint64_t s3_latency_slow_ns(const struct s3_latency *latency)
{
    if (latency->count < SAMPLES_LEAST)
        return UINT64_MAX;
    uint64_t slow_us = (uint64_t)latency->p50_us * 3;
    if (slow_us < latency->p95_us)
        slow_us = latency->p95_us;
    if (slow_us < SLOW_FLOOR_US)
        slow_us = SLOW_FLOOR_US;
    return slow_us * 1000;
}
