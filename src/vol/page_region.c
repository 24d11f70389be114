/* Memory for pages comes from the system in regions of 2 MiB.
 *
 * A region that is aligned and touched at once can be one huge page: a single
 * fault instead of 512, and a single entry of the processor's tables for what
 * would otherwise be 512.  Both show: taken 256 KiB at a time, getting memory was
 * a quarter of what a server spent on the first gigabyte that was written to it.
 *
 * The system may have none to give in one piece, or be told not to
 * (transparent_hugepage=never): then it is 512 pages, which are made resident in
 * one call all the same, since one after the other the first touches would cost
 * several times as much.
 *
 * What can fail: mapping, when the system has no memory; and giving back, when it
 * has none for its own lists, or too many of them. */
#include "vol/page_region.h"

#include <errno.h>
#include <sys/mman.h>

/* Makes a part resident.  MADV_POPULATE_WRITE is of Linux 5.14: before that, and where it is refused, pages come when
 * they are touched. */
static bool populate(uint8_t *data, size_t bytes)
{
    return madvise(data, bytes, MADV_POPULATE_WRITE) == 0 || (errno != ENOMEM && errno != EFAULT);
}

static uint8_t *map(size_t bytes, int flags)
{
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    return data == MAP_FAILED ? NULL : data;
}

/* A stretch of addresses that holds an aligned region, cut to it. */
static uint8_t *map_aligned(void)
{
    uint8_t *data = map(2 * REGION_BYTES, 0);
    if (data == NULL)
        return NULL;
    size_t before = (REGION_BYTES - (uintptr_t)data % REGION_BYTES) % REGION_BYTES;
    if (before > 0)
        munmap(data, before);
    munmap(data + before + REGION_BYTES, REGION_BYTES - before);
    return data + before;
}

uint8_t *region_map(size_t bytes)
{
    if (bytes < REGION_BYTES)
        return map(bytes, MAP_POPULATE);
    uint8_t *data = map_aligned();
    if (data == NULL)
        return NULL;
    madvise(data, REGION_BYTES, MADV_HUGEPAGE);
    if (populate(data, REGION_BYTES))
        return data;
    munmap(data, REGION_BYTES);
    return NULL;
}

bool region_unmap(uint8_t *data, size_t bytes)
{
    return munmap(data, bytes) == 0;
}

bool region_discard(uint8_t *data, size_t bytes)
{
    return madvise(data, bytes, MADV_DONTNEED) == 0;
}

bool region_restore(uint8_t *data, size_t bytes)
{
    return populate(data, bytes);
}
