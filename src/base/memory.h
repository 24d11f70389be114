/* Small allocations that cannot fail.
 *
 * What a client or the store can make large is bounded by limits before it is
 * asked for, and the pages of disks have a pool with a budget (vol/page.h);
 * what is left are small structures, and a process that cannot have those
 * cannot do anything sensible: these calls abort with a message. */
#ifndef CAIRN_BASE_MEMORY_H
#define CAIRN_BASE_MEMORY_H

#include <stddef.h>

void *memory_new(size_t size);                             /* zeroed */
void *memory_array(size_t count, size_t size);             /* zeroed, the product checked */
void *memory_resize(void *old, size_t count, size_t size); /* the new part not zeroed */
char *memory_string(const char *string);
void *memory_copy(const void *bytes, size_t length);

#endif
