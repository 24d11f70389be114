/* Timers: a heap per loop.
 *
 * Four children to a node: half as deep as two, and the children share a cache
 * line or two.  The entries carry the deadlines, so that sifting touches the
 * timers themselves only to note their new places.
 *
 * Setting, moving and cancelling cost O(log n) and no allocation beyond the
 * heap's own growth, which never shrinks before the loop goes. */
#include "rt/timer.h"

#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"
#include "rt/loop_internal.h"

#define CHILDREN 4
#define FIRST_CAPACITY 64

static bool before(const struct timer_entry *a, const struct timer_entry *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->order < b->order;
}

static void put(struct timers *timers, size_t index, struct timer_entry entry)
{
    timers->entries[index] = entry;
    entry.timer->place = index + 1;
}

static void sift_up(struct timers *timers, size_t index, struct timer_entry entry)
{
    while (index > 0) {
        size_t parent = (index - 1) / CHILDREN;
        if (!before(&entry, &timers->entries[parent]))
            break;
        put(timers, index, timers->entries[parent]);
        index = parent;
    }
    put(timers, index, entry);
}

static void sift_down(struct timers *timers, size_t index, struct timer_entry entry)
{
    for (;;) {
        size_t first = index * CHILDREN + 1;
        if (first >= timers->count)
            break;
        size_t least = first;
        for (size_t child = first + 1; child < first + CHILDREN && child < timers->count; child++)
            if (before(&timers->entries[child], &timers->entries[least]))
                least = child;
        if (!before(&timers->entries[least], &entry))
            break;
        put(timers, index, timers->entries[least]);
        index = least;
    }
    put(timers, index, entry);
}

/* Puts an entry where there is a hole, upwards or downwards. */
static void settle(struct timers *timers, size_t index, struct timer_entry entry)
{
    if (index > 0 && before(&entry, &timers->entries[(index - 1) / CHILDREN]))
        sift_up(timers, index, entry);
    else
        sift_down(timers, index, entry);
}

static void take_out(struct timers *timers, struct timer *timer)
{
    assert(timer->place >= 1 && timer->place <= timers->count);
    size_t index = timer->place - 1;
    assert(timers->entries[index].timer == timer);
    timer->place = 0;
    timers->count--;
    if (index < timers->count)
        settle(timers, index, timers->entries[timers->count]);
}

void timers_init(struct timers *timers, uint64_t *next_order)
{
    timers->entries = NULL;
    timers->count = timers->capacity = 0;
    timers->next_order = next_order;
}

void timers_fini(struct timers *timers)
{
    assert(timers->count == 0);
    free(timers->entries);
    timers->entries = NULL;
}

void timers_fire_first(struct timers *timers)
{
    struct timer *timer = timers->entries[0].timer;
    take_out(timers, timer);
    timer->fire(timer);
}

void timer_init(struct timer *timer, struct loop *loop, void (*fire)(struct timer *timer))
{
    timer->loop = loop;
    timer->fire = fire;
    timer->deadline_ns = 0;
    timer->place = 0;
}

void timer_set(struct timer *timer, uint64_t deadline_ns)
{
    struct timers *timers = &timer->loop->timers;
    struct timer_entry entry = { .deadline_ns = deadline_ns, .order = (*timers->next_order)++, .timer = timer };
    timer->deadline_ns = deadline_ns;
    if (timer->place != 0) {
        assert(timer->place <= timers->count && timers->entries[timer->place - 1].timer == timer);
        settle(timers, timer->place - 1, entry);
        return;
    }
    if (timers->count == timers->capacity) {
        timers->capacity = timers->capacity == 0 ? FIRST_CAPACITY : timers->capacity * 2;
        timers->entries = memory_resize(timers->entries, timers->capacity, sizeof *timers->entries);
    }
    sift_up(timers, timers->count++, entry);
}

void timer_cancel(struct timer *timer)
{
    if (timer->place != 0)
        take_out(&timer->loop->timers, timer);
}
