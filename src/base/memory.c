/* Small allocations that cannot fail: see base/memory.h. */
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *or_abort(void *memory, size_t count, size_t size)
{
    if (memory == NULL) {
        fprintf(stderr, "cairn: out of memory: %zu times %zu bytes\n", count, size);
        abort();
    }
    return memory;
}

/* Nobody asks for no bytes and gets NULL for it. */
static size_t at_least_one(size_t size)
{
    return size > 0 ? size : 1;
}

void *memory_new(size_t size)
{
    return or_abort(calloc(1, at_least_one(size)), 1, size);
}

void *memory_array(size_t count, size_t size)
{
    return or_abort(calloc(at_least_one(count), at_least_one(size)), count, size);
}

void *memory_resize(void *old, size_t count, size_t size)
{
    return or_abort(reallocarray(old, at_least_one(count), at_least_one(size)), count, size);
}

char *memory_string(const char *string)
{
    return memory_copy(string, strlen(string) + 1);
}

void *memory_copy(const void *bytes, size_t length)
{
    void *copy = or_abort(malloc(at_least_one(length)), 1, length);
    if (length > 0)
        memcpy(copy, bytes, length);
    return copy;
}
