/* Opening a volume: see opening.h.
 *
 * Two tasks: one opens, one listens whether the client is still there; it reads
 * nothing, since what a client sends ahead belongs to whoever goes on with the
 * connection.  Either one's end ends the other.  A client that hangs up at the
 * moment when its volume opens gets it: what follows will notice. */
#include "nbd/opening.h"

#include <assert.h>
#include <errno.h>

#include "nbd/connection.h"

struct opening {
    struct connection *connection;
    uint64_t create_size;
    struct task *opener, *listener; /* NULL when it has ended */
    bool hung_up;
    struct volume *volume;
    int result;
    struct error error;
};

static CO void open_it(void *arg)
{
    struct opening *opening = arg;
    const struct connection *connection = opening->connection;
    const struct handshake *handshake = connection->handshake;
    opening->result = volumes_acquire(connection->service->wiring.volumes, handshake->name, handshake->name_length,
                                      opening->create_size, &opening->volume, &opening->error);
    opening->opener = NULL;
    if (opening->listener != NULL)
        task_cancel(opening->listener);
}

static CO void listen_to_client(void *arg)
{
    struct opening *opening = arg;
    int rc = channel_wait_end(opening->connection->channel);
    opening->listener = NULL;
    if (rc == -ECANCELED)
        return;
    opening->hung_up = true;
    if (opening->opener != NULL)
        task_cancel(opening->opener);
}

void opening_end(struct opening *opening)
{
    if (opening->opener != NULL)
        task_cancel(opening->opener);
}

CO int opening_run(struct connection *connection, uint64_t create_size, struct volume **ret_volume, struct error *error)
{
    struct opening opening = { .connection = connection, .create_size = create_size };
    assert(connection->group.count == 0);
    connection->opening = &opening;
    opening.opener = group_spawn(&connection->group, "opener", open_it, &opening);
    opening.listener = group_spawn(&connection->group, "listener", listen_to_client, &opening);
    group_join(&connection->group);
    connection->opening = NULL;
    if (opening.result == 0 && connection->service->draining) {
        volumes_release(connection->service->wiring.volumes, opening.volume, false);
        opening.result = -ECANCELED;
    }
    if (opening.result == 0)
        *ret_volume = opening.volume;
    else if (opening.result == -ECANCELED && connection->service->draining)
        return error_set(error, ESHUTDOWN, "the server is shutting down");
    else if (opening.result == -ECANCELED && opening.hung_up)
        return error_set(error, EPIPE, "the client hung up");
    else
        error_copy(error, &opening.error);
    return opening.result;
}
