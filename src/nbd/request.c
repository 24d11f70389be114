/* One request: checked, carried out, answered.
 *
 * Most requests end on the reader's stack: the volume's _try forms serve what
 * is in memory.  The others get a task, which runs the waiting form.  Requests
 * are independent of each other; each is answered as it completes.
 *
 * What can be wrong with a request is looked for in a fixed order: an unknown
 * command or flag, and fields that must be zero (EINVAL), too long (EINVAL), a
 * change of a read-only export (EPERM), the end of the export (ENOSPC for what
 * would write there, EINVAL otherwise).  A length of 0 is no error and does
 * nothing.
 *
 * FUA is advertised, so every command takes it; it means something for those
 * that change the disk, which then are flushed before they are answered. */
#include "nbd/request.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/mutant.h"
#include "nbd/connection.h"
#include "nbd/elders.h"
#include "nbd/reply.h"

/* ---- the pool ---- */

static bool has_room(const struct connection *connection, uint32_t read_bytes)
{
    const struct nbd_settings *settings = &connection->service->settings;
    if (connection->in_flight >= settings->requests_in_flight)
        return false;
    /* A READ longer than the limit must be served too, when it is alone. */
    return read_bytes == 0 || connection->bytes_in_flight == 0 ||
           connection->bytes_in_flight + read_bytes <= settings->bytes_in_flight;
}

CO int request_take(struct connection *connection, uint32_t read_bytes, struct request **ret_request)
{
    while (!has_room(connection, read_bytes)) {
        int rc = waitq_wait(&connection->room);
        if (rc < 0)
            return rc;
    }
    if (connection->broken) /* nobody would hear of it */
        return -ECANCELED;
    struct list *link = list_pop_front(&connection->spare);
    struct request *request;
    if (link != NULL) {
        connection->spare_count--;
        request = container_of(link, struct request, link);
    } else {
        request = memory_new(sizeof *request);
        request->connection = connection;
        list_init(&request->link);
        list_init(&request->in_changes);
        volume_data_init(&request->data);
    }
    request->counted_bytes = read_bytes;
    connection->in_flight++;
    connection->bytes_in_flight += read_bytes;
    *ret_request = request;
    return 0;
}

static void request_free(struct request *request)
{
    volume_data_free(&request->data);
    free(request);
}

void request_release(struct request *request)
{
    struct connection *connection = request->connection;
    assert(connection->in_flight > 0 && connection->bytes_in_flight >= request->counted_bytes);
    assert(!list_linked(&request->in_changes));
    connection->in_flight--;
    connection->bytes_in_flight -= request->counted_bytes;
    if (request->message != NULL) {
        free(request->message);
        request->message = NULL;
        request->message_length = 0;
    }
    request->header_sent = false;
    request->pieces_sent = 0;
    if (request->data.piece_capacity > NBD_KEEP_PIECES || request->data.page_capacity > NBD_KEEP_PIECES) {
        volume_data_free(&request->data);
        volume_data_init(&request->data);
    } else {
        volume_data_clear(&request->data);
    }
    if (connection->spare_count < NBD_SPARE_REQUESTS) {
        /* The most recently used first: its memory is in the processor's cache. */
        list_push_front(&connection->spare, &request->link);
        connection->spare_count++;
    } else {
        request_free(request);
    }
    if (!waitq_empty(&connection->room))
        waitq_wake_one(&connection->room);
}

void request_free_spare(struct connection *connection)
{
    struct list *link;
    while ((link = list_pop_front(&connection->spare)) != NULL)
        request_free(container_of(link, struct request, link));
}

/* ---- the check ---- */

struct command {
    const char *name;   /* NULL: not served */
    uint16_t flags;     /* that it takes beside FUA */
    bool payload_limit; /* its length is limited to what one reply or request carries */
    bool changes;       /* the disk */
    int beyond;         /* the error for what lies past the end; 0: offset and length must be zero */
};

static const struct command commands[NBD_COMMANDS] = {
    [NBD_CMD_READ] = { "READ", NBD_CMD_FLAG_DF, true, false, EINVAL },
    [NBD_CMD_WRITE] = { "WRITE", 0, true, true, ENOSPC },
    [NBD_CMD_FLUSH] = { "FLUSH", 0, false, false, 0 },
    [NBD_CMD_TRIM] = { "TRIM", 0, false, true, EINVAL },
    [NBD_CMD_CACHE] = { "CACHE", 0, false, false, EINVAL },
    [NBD_CMD_WRITE_ZEROES] = { "WRITE_ZEROES", NBD_CMD_FLAG_NO_HOLE, false, true, ENOSPC },
};

static const struct command *find_command(uint16_t number)
{
    return number < NBD_COMMANDS && commands[number].name != NULL ? &commands[number] : NULL;
}

bool request_changes(uint16_t number)
{
    const struct command *command = find_command(number);
    return command != NULL && command->changes;
}

int request_check(const struct connection *connection, const struct nbd_request *wire, struct error *error)
{
    const struct command *command = find_command(wire->command);
    if (command == NULL)
        return error_set(error, EINVAL, "command %u is not served", wire->command);
    uint32_t allowed = NBD_CMD_FLAG_FUA | command->flags;
    if (!connection->structured)
        allowed &= ~(uint32_t)NBD_CMD_FLAG_DF;
    if ((wire->flags & ~allowed) != 0)
        return error_set(error, EINVAL, "%s does not take the flags 0x%x", command->name, wire->flags & ~allowed);
    if (command->payload_limit && wire->length > NBD_PAYLOAD_MAX)
        return error_set(error, EINVAL, "%s of %" PRIu32 " bytes: more than %u at once", command->name, wire->length,
                         NBD_PAYLOAD_MAX);
    if (command->beyond == 0) {
        if (wire->offset != 0 || wire->length != 0)
            return error_set(error, EINVAL, "%s takes neither offset nor length", command->name);
        return 0;
    }
    if (command->changes && connection->service->settings.read_only)
        return error_set(error, EPERM, "%s: the export is read-only", command->name);
    uint64_t size = volume_size(connection->volume);
    if (wire->offset > size || wire->length > size - wire->offset)
        return error_set(error, command->beyond,
                         "%s of %" PRIu32 " bytes at %" PRIu64 ": past the end of the export, at %" PRIu64,
                         command->name, wire->length, wire->offset, size);
    return 0;
}

/* ---- the end of each kind ---- */

static void succeed(struct request *request)
{
    reply_success(request);
}

void request_fail(struct request *request, int code, const struct error *error)
{
    assert(code < 0);
    request->connection->service->counts.errors++;
    elders_change_ends(request);
    /* What was appended before the failure is no answer. */
    volume_data_clear(&request->data);
    reply_error(request, code, error);
}

static void conclude(struct request *request, int code, const struct error *error)
{
    struct nbd_counts *counts = &request->connection->service->counts;
    if (code < 0) {
        request_fail(request, code, error);
        return;
    }
    if (request->wire.command == NBD_CMD_READ)
        counts->bytes_read += request->wire.length;
    else if (request->wire.command == NBD_CMD_WRITE)
        counts->bytes_written += request->wire.length;
    succeed(request);
}

/* ---- what cannot be done at once: one task each ---- */

static CO void task_main(void *arg)
{
    struct request *request = arg;
    struct connection *connection = request->connection;
    struct error error = ERROR_NONE;
    int rc = request->work(request, &error);
    conclude(request, rc, &error);
    connection->tasks--;
    connection->service->tasks--;
    /* All, because what ended may have made room for one connection's reader only, and that need not be the first. */
    if (!waitq_empty(&connection->service->task_room))
        waitq_wake_all(&connection->service->task_room);
}

static bool may_have_task(const struct connection *connection)
{
    const struct nbd_service *service = connection->service;
    return service->tasks < service->settings.tasks || connection->tasks < NBD_TASKS_OF_EACH;
}

/* Waits until the connection may have a task more, and gives it the request; -ECANCELED, and the request is still the
 * caller's, when the reader is to stop. */
static CO int hand_over(struct request *request, const char *name,
                        CO int (*work)(struct request *request, struct error *error))
{
    struct connection *connection = request->connection;
    while (!may_have_task(connection)) {
        int rc = waitq_wait(&connection->service->task_room);
        if (rc < 0)
            return rc;
    }
    connection->tasks++;
    connection->service->tasks++;
    request->work = work;
    group_spawn(&connection->group, name, task_main, request);
    return 0;
}

static CO void hand_over_or_fail(struct request *request, const char *name,
                                 CO int (*work)(struct request *request, struct error *error))
{
    int rc = hand_over(request, name, work);
    if (rc < 0)
        request_fail(request, rc, NULL);
}

static CO int work_read(struct request *request, struct error *error)
{
    return volume_read(request->connection->volume, request->wire.offset, request->wire.length, &request->data, error);
}

static CO int work_flush(struct request *request, struct error *error)
{
    return volume_flush(request->connection->volume, error);
}

/* After a change: the second half of one that was asked for with FUA. */
static CO int settle(struct request *request, int code, struct error *error)
{
    elders_change_ends(request);
    if (code == 0 && (request->wire.flags & NBD_CMD_FLAG_FUA) != 0)
        return volume_flush(request->connection->volume, error);
    return code;
}

static CO int work_write(struct request *request, struct error *error)
{
    return settle(request, volume_write_finish(&request->write, error), error);
}

static CO int work_zero(struct request *request, struct error *error)
{
    const struct nbd_request *wire = &request->wire;
    return settle(request, volume_zero(request->connection->volume, wire->offset, wire->length, error), error);
}

static CO int work_cache(struct request *request, struct error *error)
{
    return volume_cache(request->connection->volume, request->wire.offset, request->wire.length, error);
}

/* ---- what can ---- */

static CO void start_flush(struct request *request)
{
    int rc = volume_flush_try(request->connection->volume);
    if (rc == -EAGAIN)
        hand_over_or_fail(request, "flush", work_flush);
    else
        conclude(request, rc, NULL);
}

/* After a change on the reader's stack. */
static CO void settle_at_once(struct request *request, int code)
{
    elders_change_ends(request);
    if (code == 0 && (request->wire.flags & NBD_CMD_FLAG_FUA) != 0 && !MUTANT(fua_forgotten))
        start_flush(request);
    else
        conclude(request, code, NULL);
}

static CO void start_read(struct request *request)
{
    int rc = volume_read_try(request->connection->volume, request->wire.offset, request->wire.length, &request->data);
    if (rc == -EAGAIN)
        hand_over_or_fail(request, "read", work_read);
    else
        conclude(request, rc, NULL);
}

static CO void start_zero(struct request *request)
{
    int rc = volume_zero_try(request->connection->volume, request->wire.offset, request->wire.length);
    if (rc == -EAGAIN) {
        elders_change_begins(request);
        hand_over_or_fail(request, "zero", work_zero);
    } else {
        settle_at_once(request, rc);
    }
}

CO void request_start(struct request *request)
{
    if (request->wire.command == NBD_CMD_FLUSH) {
        start_flush(request);
        return;
    }
    if (request->wire.length == 0) {
        succeed(request);
        return;
    }
    switch (request->wire.command) {
    case NBD_CMD_READ:
        start_read(request);
        break;
    case NBD_CMD_TRIM:
    case NBD_CMD_WRITE_ZEROES:
        start_zero(request);
        break;
    case NBD_CMD_CACHE:
        hand_over_or_fail(request, "cache", work_cache);
        break;
    default:
        assert(!"a command that passed the check");
    }
}

CO void request_changed(struct request *request)
{
    settle_at_once(request, 0);
}

CO void request_start_write(struct request *request)
{
    assert(request->wire.command == NBD_CMD_WRITE && request->wire.length > 0);
    int rc = volume_write_finish_try(&request->write);
    if (rc != -EAGAIN) {
        settle_at_once(request, rc);
        return;
    }
    elders_change_begins(request);
    rc = hand_over(request, "write", work_write);
    if (rc < 0) {
        volume_write_abort(&request->write);
        request_fail(request, rc, NULL);
    }
}
