/* Statistics as lines of name=number, in an order that stays:
 *
 *     statistics: connections open=1 total=4 refused=0 failed_handshakes=0
 *     statistics: requests read=10 write=7 flush=2 trim=0 cache=0 write_zeroes=0 disc=3 errors=0 bytes_read=…
 *     statistics: store gets=3 puts=12 deletes=0 lists=1 failed=0 bytes_got=… bytes_put=… put_bytes_max=…
 *     volume 'db': size=… epoch=… committed_seq=…
 */
#include "daemon/statistics.h"

#include <inttypes.h>

#include "daemon/log.h"

static void add_nbd(struct nbd_counts *sum, const struct nbd_counts *part)
{
    sum->connections += part->connections;
    sum->connections_total += part->connections_total;
    sum->refused += part->refused;
    for (size_t i = 0; i < sizeof sum->requests / sizeof *sum->requests; i++)
        sum->requests[i] += part->requests[i];
    sum->errors += part->errors;
    sum->bytes_read += part->bytes_read;
    sum->bytes_written += part->bytes_written;
    sum->handshakes_failed += part->handshakes_failed;
}

static void add_store(struct store_counts *sum, const struct store_counts *part)
{
    sum->gets += part->gets;
    sum->puts += part->puts;
    sum->deletes += part->deletes;
    sum->lists += part->lists;
    sum->failed += part->failed;
    sum->bytes_got += part->bytes_got;
    sum->bytes_put += part->bytes_put;
    if (sum->put_bytes_max < part->put_bytes_max)
        sum->put_bytes_max = part->put_bytes_max;
}

static void print_volume(struct event_sink *log, const struct volume_line *line)
{
    const struct volume_counts *counts = &line->counts;

    log_always(log, line->subject,
               "size=%" PRIu64 " epoch=%" PRIu64 " committed_seq=%" PRIu64 " commits=%" PRIu64 " commit_bytes=%" PRIu64
               " objects=%" PRIu64 " object_bytes=%" PRIu64 " dirty_bytes=%" PRIu64 " uncommitted_batches=%" PRIu64
               " mapped_pages=%" PRIu64 " map_bytes=%" PRIu64 " fetches=%" PRIu64 " fetched_bytes=%" PRIu64
               " checkpoints=%" PRIu64 " root_seq=%" PRIu64 " leaf_bytes=%" PRIu64 " renewals=%" PRIu64
               " lease_in_doubt=%d",
               line->size, counts->epoch, counts->committed_seq, counts->commits, counts->commit_bytes, counts->objects,
               counts->object_bytes, counts->dirty_bytes, counts->uncommitted_batches, counts->mapped_pages,
               counts->map_bytes, counts->fetches, counts->fetched_bytes, counts->checkpoints, counts->root_seq,
               counts->leaf_bytes, counts->renewals, counts->lease_in_doubt);
}

void statistics_print(const struct shard_common *common)
{
    enum { READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES }; /* as nbd/service.h counts them */
    struct nbd_counts nbd = { 0 };
    struct store_counts store = { 0 };
    struct event_sink *log = common->events;

    for (int i = 0; i < common->count; i++) {
        add_nbd(&nbd, &common->all[i].counts.nbd);
        add_store(&store, &common->all[i].counts.store);
    }
    log_always(log, "statistics",
               "connections open=%" PRIu64 " total=%" PRIu64 " refused=%" PRIu64 " failed_handshakes=%" PRIu64,
               nbd.connections, nbd.connections_total, nbd.refused, nbd.handshakes_failed);
    log_always(log, "statistics",
               "requests read=%" PRIu64 " write=%" PRIu64 " flush=%" PRIu64 " trim=%" PRIu64 " cache=%" PRIu64
               " write_zeroes=%" PRIu64 " disc=%" PRIu64 " errors=%" PRIu64 " bytes_read=%" PRIu64
               " bytes_written=%" PRIu64,
               nbd.requests[READ], nbd.requests[WRITE], nbd.requests[FLUSH], nbd.requests[TRIM], nbd.requests[CACHE],
               nbd.requests[WRITE_ZEROES], nbd.requests[DISC], nbd.errors, nbd.bytes_read, nbd.bytes_written);
    log_always(log, "statistics",
               "store gets=%" PRIu64 " puts=%" PRIu64 " deletes=%" PRIu64 " lists=%" PRIu64 " failed=%" PRIu64
               " bytes_got=%" PRIu64 " bytes_put=%" PRIu64 " put_bytes_max=%" PRIu64,
               store.gets, store.puts, store.deletes, store.lists, store.failed, store.bytes_got, store.bytes_put,
               store.put_bytes_max);
    for (int i = 0; i < common->count; i++)
        for (size_t j = 0; j < common->all[i].counts.volume_count; j++)
            print_volume(log, &common->all[i].counts.volumes[j]);
}
