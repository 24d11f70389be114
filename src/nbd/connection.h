/* One connection, from its first byte to its last.
 *
 * Two coroutines work on it.  The first shakes hands (handshake.c) and then
 * becomes the sender of replies (reply.c); the second, the reader, lives while
 * requests are served (transmission.c).  Requests that must wait for the store
 * get a task each.
 *
 *     HANDSHAKE ──> OPENING ──> SERVING ──> FINISHING ──> ENDED
 *         │  ^         │                                   ^
 *         │  └─refused─┤                                   │
 *         └────────────┴───────────────────────────────────┘
 *
 * HANDSHAKE  options are answered, against a deadline
 * OPENING    waits for the volume, perhaps for its owner elsewhere; the deadline stands still
 * SERVING    the reader takes requests
 * FINISHING  no request is taken any more; those under way are answered if the peer still listens
 * ENDED      nobody works on it; it goes
 */
#ifndef CAIRN_NBD_CONNECTION_H
#define CAIRN_NBD_CONNECTION_H

#include "nbd/handshake.h"
#include "nbd/internal.h"
#include "nbd/limits.h"
#include "nbd/watchdog.h"

enum connection_state {
    CONNECTION_HANDSHAKE,
    CONNECTION_OPENING,
    CONNECTION_SERVING,
    CONNECTION_FINISHING,
    CONNECTION_ENDED,
};

struct connection {
    struct nbd_service *service;
    struct loop *loop;
    struct channel *channel;
    struct list in_service;
    int state;                       /* enum connection_state */
    char subject[PEER_TEXT_MAX + 8]; /* "client 127.0.0.1:4711", for events */
    const char *end;                 /* why it ended, for people; a static text, NULL until it is known */

    struct handshake *handshake; /* NULL once it is done */
    struct watchdog patience;    /* with a phase as a whole: the handshake, the farewell */
    bool structured;             /* replies are structured */

    struct opening *opening; /* under way */
    struct volume *volume;   /* held from OPENING's success to the end */
    struct volume_watch watch;
    struct nbd_export *export; /* NULL before it has joined, and after it has left */
    struct list in_export;
    uint64_t joined_wall_ns;

    struct group group; /* the reader and the tasks of requests */
    struct coroutine *sender;
    struct task *reader; /* NULL before it starts and after it ended */

    /* Requests: each is in `spare`, in `replies`, or in the hands of the reader, of a task or of the sender. */
    struct list spare;
    uint32_t spare_count;
    uint32_t in_flight;       /* all that are not in `spare` */
    uint32_t tasks;           /* of these, those that wait for the store */
    uint64_t bytes_in_flight; /* of READs among them */
    struct waitq room;        /* the reader waits for either to fall */

    /* Receiving: bytes [taken, received) of `receive` were received and not yet looked at. */
    uint8_t *receive; /* NBD_RECEIVE_BYTES; the options' data while shaking hands */
    uint32_t taken, received;
    uint64_t stream_bytes; /* received since the handshake */
    bool large_writes;     /* the last ones were */
    struct watchdog payload_stall;
    struct iovec payload_pieces[NBD_PAYLOAD_PIECES + 1];

    /* Older and newer connections of the same client (elders.c). */
    struct list changes; /* struct request in_changes, in the order of their places in the stream */
    struct list juniors; /* struct elder_wait: those that wait for us */
    struct list elders;  /* those that we wait for */
    uint64_t barrier;    /* a change that begins before this place of the stream comes too late */
    struct waitq elders_done;

    /* Sending. */
    struct list replies;
    struct list held; /* until the lease is beyond doubt */
    bool sender_idle; /* parked until there is something to do */
    bool broken;      /* no more replies are sent */
    bool lost;        /* the volume is: nothing but errors is sent */
    bool vanished;    /* the peer is not there any more, and did not say so */
    struct watchdog send_stall;
    struct iovec send_pieces[NBD_SEND_PIECES];
};

/* Takes over the channel, and `handshake`: NULL for a connection that begins, otherwise one that goes on. */
void connection_start(struct nbd_service *service, struct channel *channel, struct handshake *handshake);
void connection_move(struct connection *connection, enum connection_state to);

/* Takes no more requests; finishes and answers those that were received; ends. */
void connection_drain(struct connection *connection);
/* Ends it whatever is under way; its task is cancelled by the caller. */
void connection_cut(struct connection *connection);

/* Ends it on account of a newer connection of its client: nothing more of it is begun, finished, or answered. */
void connection_supersede(struct connection *connection);
/* Notes what the channel ended with. */
void connection_note_error(struct connection *connection, int code);

/* Whether the peer has sent its last request; what it sent before may still be under way. */
static inline bool connection_hung_up(const struct connection *connection)
{
    return connection->state >= CONNECTION_SERVING && connection->reader == NULL;
}
/* Where in the stream the next request begins, or the one of which a part has come. */
static inline uint64_t connection_place(const struct connection *connection)
{
    return connection->stream_bytes - (connection->received - connection->taken);
}
bool connection_same_peer(const struct connection *a, const struct connection *b);

/* From SERVING on: ends the reader, so that the sender ends the connection once all is answered. */
void connection_finish(struct connection *connection, const char *end);

#endif
