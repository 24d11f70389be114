/* A volume engine in memory: see fake_volume.h.
 *
 * A volume's content is one mapping of its whole size, of which the kernel
 * provides the pages that are touched.  A WRITE's payload waits in a block of
 * its own, which hangs on the first of the pointers that the real engine uses
 * for its pages. */
#include "fake_volume.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/memory.h"
#include "rt/wait.h"
#include "vol/volume.h"

struct fake_controls fake;

struct volume {
    struct list link;
    char *name; /* not terminated */
    size_t name_length;
    char subject[80];
    uint64_t size;
    uint8_t *bytes;
    int users;
    bool lost;
    struct list watches;
};

struct volumes {
    struct list list;
};

struct volumes *fake_volumes_new(void)
{
    fake = (struct fake_controls){ .wait = false };
    struct volumes *volumes = memory_new(sizeof *volumes);
    list_init(&volumes->list);
    return volumes;
}

void fake_volumes_free(struct volumes *volumes)
{
    struct list *link;
    while ((link = list_pop_front(&volumes->list)) != NULL) {
        struct volume *volume = container_of(link, struct volume, link);
        assert(volume->users == 0 && list_empty(&volume->watches));
        munmap(volume->bytes, volume->size);
        free(volume->name);
        free(volume);
    }
    free(volumes);
}

static struct volume *find(struct volumes *volumes, const char *name, size_t length)
{
    list_for_each (node, &volumes->list) {
        struct volume *volume = container_of(node, struct volume, link);
        if (volume->name_length == length && memcmp(volume->name, name, length) == 0)
            return volume;
    }
    return NULL;
}

static struct volume *create(struct volumes *volumes, const char *name, size_t length, uint64_t size)
{
    struct volume *volume = memory_new(sizeof *volume);
    volume->name = memory_copy(name, length);
    volume->name_length = length;
    snprintf(volume->subject, sizeof volume->subject, "volume '%.*s'", (int)(length < 40 ? length : 40), name);
    volume->size = size;
    volume->bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert(volume->bytes != MAP_FAILED);
    list_init(&volume->watches);
    list_push_back(&volumes->list, &volume->link);
    return volume;
}

void fake_volume_create(struct volumes *volumes, const char *name, uint64_t size)
{
    create(volumes, name, strlen(name), size);
}

void fake_volume_lose(struct volumes *volumes, const char *name)
{
    struct volume *volume = find(volumes, name, strlen(name));
    assert(volume != NULL);
    volume->lost = true;
    list_for_each_safe (node, &volume->watches) {
        struct volume_watch *watch = container_of(node, struct volume_watch, link);
        watch->gone(watch);
    }
}

void fake_volumes_resume(struct volumes *volumes)
{
    fake.doubt = false;
    list_for_each (node, &volumes->list) {
        struct volume *volume = container_of(node, struct volume, link);
        list_for_each (link, &volume->watches) {
            struct volume_watch *watch = container_of(link, struct volume_watch, link);
            watch->resumed(watch);
        }
    }
}

/* ---- all volumes ---- */

int volumes_look(struct volumes *volumes, const char *name, size_t name_length, struct volume_brief *ret_brief,
                 struct error *error)
{
    const struct volume *volume = find(volumes, name, name_length);
    *ret_brief = (struct volume_brief){ .exists = volume != NULL, .size = volume != NULL ? volume->size : 0 };
    return 0;
}

static int pause_a_turn(const struct volume *volume)
{
    while (fake.hold) {
        int rc = sleep_ns(NS_PER_MS);
        if (rc < 0)
            return rc;
    }
    return volume != NULL && volume->lost ? -ESHUTDOWN : coroutine_yield();
}

/* Of what changes the disk. */
static int pause_to_change(const struct volume *volume)
{
    while (fake.hold_changes) {
        int rc = sleep_ns(NS_PER_MS);
        if (rc < 0)
            return rc;
    }
    return pause_a_turn(volume);
}

int volumes_acquire(struct volumes *volumes, const char *name, size_t name_length, uint64_t create_size,
                    struct volume **ret_volume, struct error *error)
{
    int rc = pause_a_turn(NULL);
    if (rc < 0)
        return error_set_errno(error, -rc, "volume");
    if (fake.acquire_code != 0)
        return error_set_errno(error, -fake.acquire_code, "volume '%.*s'", (int)name_length, name);
    struct volume *volume = find(volumes, name, name_length);
    if (volume == NULL && create_size == 0)
        return error_set(error, ENOENT, "there is no volume of that name");
    if (volume == NULL)
        volume = create(volumes, name, name_length, create_size);
    volume->users++;
    fake.opened++;
    *ret_volume = volume;
    return 0;
}

void volume_write_expect(const struct volume *volume, const uint64_t *offsets, uint32_t count)
{
    assert(count <= VOLUME_EXPECT_MOST);
}

bool volume_write_over(struct volume *volume, uint64_t offset, uint32_t length, const uint8_t *payload)
{
    if (!fake.over || volume->lost)
        return false;
    memcpy(volume->bytes + offset, payload, length);
    return true;
}

bool volumes_writers_wait(const struct volumes *volumes)
{
    return fake.writers_wait;
}

bool volumes_readers_wait(const struct volumes *volumes)
{
    return fake.readers_wait;
}

void volumes_release(struct volumes *volumes, struct volume *volume, bool vanished)
{
    assert(volume->users > 0);
    volume->users--;
    fake.closed++;
    fake.vanished += vanished;
}

int volumes_list(struct store *store, int (*visit)(void *arg, const char *name, size_t name_length), void *arg,
                 struct error *error)
{
    /* The service's store is not used for anything else, so a fake's is its volumes. */
    struct volumes *volumes = (struct volumes *)store;
    list_for_each (node, &volumes->list) {
        struct volume *volume = container_of(node, struct volume, link);
        int rc = visit(arg, volume->name, volume->name_length);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void volume_watch(struct volume *volume, struct volume_watch *watch)
{
    list_push_back(&volume->watches, &watch->link);
}

void volume_unwatch(struct volume_watch *watch)
{
    list_remove(&watch->link);
}

bool volume_may_answer(struct volume *volume)
{
    return !fake.doubt;
}

uint64_t volume_size(const struct volume *volume)
{
    return volume->size;
}

const char *volume_subject(const struct volume *volume)
{
    return volume->subject;
}

/* ---- reading ---- */

void volume_data_init(struct volume_data *data)
{
    *data = (struct volume_data){ .pieces = NULL };
}

void volume_data_clear(struct volume_data *data)
{
    data->piece_count = 0;
}

void volume_data_free(struct volume_data *data)
{
    free(data->pieces);
}

static void add_piece(struct volume_data *data, uint8_t *bytes, size_t length)
{
    if (data->piece_count == data->piece_capacity) {
        data->piece_capacity = data->piece_capacity == 0 ? 4 : data->piece_capacity * 2;
        data->pieces = memory_resize(data->pieces, data->piece_capacity, sizeof *data->pieces);
    }
    data->pieces[data->piece_count++] = (struct iovec){ .iov_base = bytes, .iov_len = length };
}

static int read_now(struct volume *volume, uint64_t offset, uint32_t length, struct volume_data *data)
{
    assert(length > 0 && offset <= volume->size && length <= volume->size - offset);
    if (volume->lost)
        return -ESHUTDOWN;
    if (fake.operation_code != 0)
        return fake.operation_code;
    /* Many pieces, as the real engine has for pages that are not adjacent; one for speed. */
    uint32_t most = fake.direct ? length : 4096;
    while (length > 0) {
        uint32_t part = length < most ? length : most;
        add_piece(data, volume->bytes + offset, part);
        offset += part;
        length -= part;
    }
    return 0;
}

int volume_read_try(struct volume *volume, uint64_t offset, uint32_t length, struct volume_data *data)
{
    return fake.wait ? -EAGAIN : read_now(volume, offset, length, data);
}

int volume_read(struct volume *volume, uint64_t offset, uint32_t length, struct volume_data *data, struct error *error)
{
    int rc = pause_a_turn(volume);
    if (rc == 0)
        rc = read_now(volume, offset, length, data);
    return rc < 0 ? error_set_errno(error, -rc, "read") : 0;
}

/* ---- writing ---- */

static void begin(struct volume *volume, uint64_t offset, uint32_t length, struct volume_write *write)
{
    assert(length > 0 && offset <= volume->size && length <= volume->size - offset);
    *write = (struct volume_write){ .volume = volume, .offset = offset, .length = length };
    write->few[0] = fake.direct ? NULL : memory_new(length);
    fake.begun++;
}

int volume_write_begin_try(struct volume *volume, uint64_t offset, uint32_t length, struct volume_write *write)
{
    if (fake.begin_code != 0)
        return fake.begin_code;
    if (fake.wait)
        return -EAGAIN;
    begin(volume, offset, length, write);
    return 0;
}

int volume_write_begin(struct volume *volume, uint64_t offset, uint32_t length, struct volume_write *write)
{
    int rc = pause_a_turn(volume);
    if (rc == 0)
        begin(volume, offset, length, write);
    return rc;
}

static uint8_t *destination(const struct volume_write *write)
{
    return fake.direct ? write->volume->bytes + write->offset : (uint8_t *)write->few[0];
}

int volume_write_pieces(const struct volume_write *write, uint32_t skip, struct iovec *ret_pieces, int capacity)
{
    uint8_t *bytes = destination(write);
    uint32_t length = write->length, most = fake.direct ? length : 4096;
    assert(skip < length);
    int count = 0;
    for (; skip < length && count < capacity; count++) {
        uint32_t part = length - skip < most ? length - skip : most;
        ret_pieces[count] = (struct iovec){ .iov_base = bytes + skip, .iov_len = part };
        skip += part;
    }
    return count;
}

static int finish(struct volume_write *write)
{
    struct volume *volume = write->volume;
    int rc = volume->lost ? -ESHUTDOWN : fake.operation_code;
    if (rc == 0 && !fake.direct)
        memcpy(volume->bytes + write->offset, destination(write), write->length);
    free(write->few[0]);
    return rc;
}

int volume_write_finish_try(struct volume_write *write)
{
    return fake.wait ? -EAGAIN : finish(write);
}

int volume_write_finish(struct volume_write *write, struct error *error)
{
    int rc = pause_to_change(write->volume);
    if (rc < 0)
        volume_write_abort(write);
    else
        rc = finish(write);
    return rc < 0 ? error_set_errno(error, -rc, "write") : 0;
}

void volume_write_abort(struct volume_write *write)
{
    fake.aborted++;
    free(write->few[0]);
}

static int zero(struct volume *volume, uint64_t offset, uint64_t length)
{
    assert(length > 0 && offset <= volume->size && length <= volume->size - offset);
    if (volume->lost)
        return -ESHUTDOWN;
    if (fake.operation_code != 0)
        return fake.operation_code;
    uint64_t first = (offset + 4095) & ~UINT64_C(4095), end = (offset + length) & ~UINT64_C(4095);
    if (first >= end) {
        memset(volume->bytes + offset, 0, length);
        return 0;
    }
    memset(volume->bytes + offset, 0, first - offset);
    madvise(volume->bytes + first, end - first, MADV_DONTNEED);
    memset(volume->bytes + end, 0, offset + length - end);
    return 0;
}

int volume_zero_try(struct volume *volume, uint64_t offset, uint64_t length)
{
    return fake.wait ? -EAGAIN : zero(volume, offset, length);
}

int volume_zero(struct volume *volume, uint64_t offset, uint64_t length, struct error *error)
{
    int rc = pause_to_change(volume);
    if (rc == 0)
        rc = zero(volume, offset, length);
    return rc < 0 ? error_set_errno(error, -rc, "zero") : 0;
}

/* ---- the rest ---- */

int volume_flush_try(struct volume *volume)
{
    if (fake.wait || fake.hold || fake.flush_code != 0)
        return -EAGAIN;
    fake.flushes++;
    return volume->lost ? -ESHUTDOWN : 0;
}

int volume_flush(struct volume *volume, struct error *error)
{
    int rc = pause_a_turn(volume);
    fake.flushes++;
    if (rc == 0)
        rc = fake.flush_code;
    return rc < 0 ? error_set_errno(error, -rc, "flush") : 0;
}

int volume_cache(struct volume *volume, uint64_t offset, uint64_t length, struct error *error)
{
    int rc = pause_a_turn(volume);
    if (rc == 0)
        rc = fake.operation_code;
    return rc < 0 ? error_set_errno(error, -rc, "cache") : 0;
}
