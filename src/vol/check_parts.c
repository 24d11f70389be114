/* Reading many frames: in the order of their places, those that lie together
 * with one GET, several GETs at once.
 *
 * Several parts may name the same frame (leaves that share one, runs of one
 * frame with a gap between them): it is read once, and handed over with all of
 * them. */
#include <stdlib.h>

#include "base/memory.h"
#include "rt/task.h"
#include "vol/check_internal.h"

struct reading {
    struct checking *checking;
    const struct parts_reader *reader;
    const struct part *parts;
    size_t count, next;
};

static int compare_parts(const void *a, const void *b)
{
    const struct part *left = a, *right = b;
    if (left->object != right->object)
        return left->object < right->object ? -1 : 1;
    if (left->start != right->start)
        return left->start < right->start ? -1 : 1;
    if (left->units != right->units)
        return left->units < right->units ? -1 : 1;
    return left->what < right->what ? -1 : left->what > right->what;
}

/* How many parts from the first on one GET brings, and how many units that are. */
static size_t stretch(const struct part *parts, size_t count, uint32_t *ret_units)
{
    uint32_t units = 0;
    size_t i = 0;
    for (; i < count && parts[i].object == parts[0].object; i++) {
        uint32_t begin = parts[i].start - parts[0].start, past = begin + parts[i].units;
        if (i > 0 &&
            ((uint64_t)past * FRAME_UNIT > CHECK_STRETCH_BYTES || begin > units + CHECK_STRETCH_GAP_BYTES / FRAME_UNIT))
            break;
        units = past > units ? past : units;
    }
    *ret_units = units;
    return i;
}

static CO void read_stretch(struct reading *reading, const struct part *parts, size_t count, uint32_t units)
{
    const struct parts_reader *reader = reading->reader;
    struct frame_place place;
    char key[KEY_MAX];
    struct error error = ERROR_NONE;
    reader->place(reader->arg, parts[0].object, &place, key);
    uint8_t *bytes = memory_new((size_t)units * FRAME_UNIT);
    int status = check_get(reading->checking, key, (uint64_t)parts[0].start * FRAME_UNIT, bytes,
                           (size_t)units * FRAME_UNIT, &error);
    if (status < 0) {
        check_judge(reading->checking, key, status, &error);
        if (reader->failed != NULL)
            reader->failed(reader->arg);
    }
    for (size_t i = 0, same; i < count && status == 0; i += same) {
        same = 1;
        while (i + same < count && parts[i + same].start == parts[i].start && parts[i + same].units == parts[i].units)
            same++;
        place.offset = (uint64_t)parts[i].start * FRAME_UNIT;
        reader->take(reader->arg, &parts[i], same, &place, key,
                     bytes + (size_t)(parts[i].start - parts[0].start) * FRAME_UNIT);
    }
    free(bytes);
}

static CO void read_some(void *arg)
{
    struct reading *reading = arg;
    const struct check *check = reading->checking->check;
    while (reading->next < reading->count && reading->checking->status == 0) {
        const struct part *first = &reading->parts[reading->next];
        uint32_t units;
        size_t count = stretch(first, reading->count - reading->next, &units);
        reading->next += count;
        read_stretch(reading, first, count, units);
        if (reading->reader->what != NULL)
            check->progress(check->arg, reading->reader->what, reading->next, reading->count);
    }
}

void parts_read(struct checking *checking, const struct parts_reader *reader, struct part *parts, size_t count)
{
    if (count == 0)
        return;
    qsort(parts, count, sizeof *parts, compare_parts);
    struct reading reading = { .checking = checking, .reader = reader, .parts = parts, .count = count };
    struct group group;
    group_init(&group, checking->check->loop);
    for (uint32_t i = 0; i < CHECK_WORKERS && i < count; i++)
        group_spawn(&group, "check", read_some, &reading);
    group_join(&group);
}
