/* Memory of coroutines: one mapping for each, kept for the next.
 *
 *     low                                                               high
 *     | guard, no access | usable stack, growing down … | struct coroutine |
 *
 * A freshly mapped stack costs several microseconds in page faults, a pooled
 * one nothing, so each thread keeps those that ended, newest first: they are
 * warm in the processor's cache.  Nothing here is shared between threads.
 *
 * The guard is as large as the stack itself, so that a frame with a large array
 * cannot step over it; it costs address space only.  Stacks start at different
 * offsets into their pages, because the hot ends of thousands of them would
 * otherwise compete for the same few cache sets.
 *
 * What can fail: the mapping, when memory or the kernel's count of mappings is
 * used up.  The number of tasks is bounded by limits above, so that is as fatal
 * as a small allocation that fails (base/memory.h). */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rt/coroutine_internal.h"

#ifdef CAIRN_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif
#ifdef CAIRN_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* Deep enough for a path through all layers with a few error stories and a printf; sanitizers
 * surround each variable with padding.  Multiples of 64 KiB, the largest page size there is. */
#if defined(CAIRN_ASAN) || defined(CAIRN_TSAN) || defined(__SANITIZE_UNDEFINED__)
#define STACK_BYTES ((size_t)512 * 1024)
#else
#define STACK_BYTES ((size_t)64 * 1024)
#endif
#define GUARD_BYTES ((size_t)64 * 1024)

/* Spare stacks kept per thread.  Each holds as many pages as its coroutines have touched, commonly two or
 * three: 8 to 12 MiB for all.  More tasks than this at once are rare enough to pay for mapping. */
#define SPARE_MAX 1024

#define COLOURS 32
#define COLOUR_BYTES 128

static _Thread_local struct list spare;
static _Thread_local size_t spare_count;
static _Thread_local unsigned next_colour;

static size_t mapping_bytes(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t extra = COLOURS * COLOUR_BYTES + sizeof(struct coroutine) + 64;
    return GUARD_BYTES + STACK_BYTES + (extra + page - 1) / page * page;
}

static struct coroutine *map_stack(void)
{
    size_t size = mapping_bytes();
    char *base =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (base == MAP_FAILED || mprotect(base, GUARD_BYTES, PROT_NONE) != 0) {
        perror("cairn: cannot map a coroutine's stack");
        abort();
    }
    uintptr_t high = (uintptr_t)base + size - sizeof(struct coroutine) - next_colour++ % COLOURS * COLOUR_BYTES;
    struct coroutine *coroutine = (struct coroutine *)(high & ~(uintptr_t)63);
    coroutine->state = COROUTINE_ENDED;
    coroutine->fiber.low = base + GUARD_BYTES;
    coroutine->fiber.size = (size_t)((char *)coroutine - (base + GUARD_BYTES));
    assert(coroutine->fiber.size >= STACK_BYTES);
#ifdef CAIRN_ASAN
    __lsan_register_root_region(base + GUARD_BYTES, size - GUARD_BYTES);
#endif
#ifdef CAIRN_TSAN
    coroutine->fiber.tsan = __tsan_create_fiber(0);
#endif
    return coroutine;
}

static void unmap_stack(struct coroutine *coroutine)
{
    char *base = (char *)coroutine->fiber.low - GUARD_BYTES;
    size_t size = mapping_bytes();
#ifdef CAIRN_ASAN
    __lsan_unregister_root_region(base + GUARD_BYTES, size - GUARD_BYTES);
#endif
#ifdef CAIRN_TSAN
    __tsan_destroy_fiber(coroutine->fiber.tsan);
#endif
    int result = munmap(base, size);
    assert(result == 0);
    (void)result;
}

struct coroutine *stack_pool_take(void)
{
    if (spare_count == 0)
        return map_stack();
    struct coroutine *coroutine = container_of(list_pop_front(&spare), struct coroutine, link);
    spare_count--;
    return coroutine;
}

void stack_pool_give(struct coroutine *coroutine)
{
    assert(coroutine->state == COROUTINE_ENDED);
#ifdef CAIRN_ASAN
    /* Its last frames never returned, so their padding is still marked out of bounds. */
    __asan_unpoison_memory_region(coroutine->fiber.low, coroutine->fiber.size);
#endif
    if (spare_count == SPARE_MAX) {
        unmap_stack(coroutine);
        return;
    }
    if (spare_count == 0)
        list_init(&spare);
    list_push_front(&spare, &coroutine->link);
    spare_count++;
}

void stack_pool_free(void)
{
    for (; spare_count > 0; spare_count--)
        unmap_stack(container_of(list_pop_front(&spare), struct coroutine, link));
}
