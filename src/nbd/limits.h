/* Every limit of the protocol layer, with its reason.
 *
 * "Specification" is doc/proto.md of the NetworkBlockDevice project.  What an
 * operator may want to change has its default here and a field in struct
 * nbd_settings; the rest is fixed. */
#ifndef CAIRN_NBD_LIMITS_H
#define CAIRN_NBD_LIMITS_H

/* ---- of the handshake ---- */

/* Strings of the protocol; the specification forbids longer ones. */
#define NBD_STRING_MAX 4096

/* Data of one option that is looked at.  The longest sensible one, a GO with a name of 4,096 bytes and every
 * information asked for, takes under 5 KiB; 64 KiB leave room for what later versions of the protocol add, and fit
 * the receive buffer. */
#define NBD_OPTION_DATA_MAX (64u << 10)

/* Data of options that are refused is read and thrown away so that the stream stays in step; a whole handshake may
 * cost us that much reading and no more, then the connection is closed. */
#define NBD_OPTION_DRAIN_MAX (16u << 20)

/* Options of one handshake.  A client that probes everything there is sends a few dozen; one that browses a list with
 * INFO sends one for each volume.  Those who send more are idling at our expense. */
#define NBD_OPTIONS_MAX 4096

/* The whole handshake, waiting for the volume excepted: generous for a slow link, short for those who hold sockets. */
#define NBD_HANDSHAKE_MS 30000

/* What a handshake under way is given to come to its end when the service is drained. */
#define NBD_HANDSHAKE_DRAIN_MS 1000

/* Replies to LIST gathered before they are sent: many names in one system call, and no list too long for memory. */
#define NBD_LIST_CHUNK_BYTES (64u << 10)

/* ---- of a connection ---- */

/* At once, for each shard: with their receive buffers 32 MiB at most.  A host's worth of guests with a few connections
 * each stays far below. */
#define NBD_CONNECTIONS 256

/* What one system call may receive: 31 WRITEs of 4 KiB with their headers.  Twice as much measured no better, half of
 * it a tenth worse for each such WRITE. */
#define NBD_RECEIVE_BYTES (128u << 10)

/* The part of the receive buffer that is offered behind the payload of a large WRITE.  What follows is most likely
 * another one, whose payload should go straight into its pages; what the buffer catches of it is copied. */
#define NBD_RECEIVE_TAIL_BYTES (8u << 10)
#define NBD_LARGE_WRITE_BYTES (32u << 10)

/* Memory areas that one call receives a payload into: 1 MiB of pages that are not adjacent. */
#define NBD_PAYLOAD_PIECES 256

/* The longest READ and WRITE.  The specification's default, which every client respects. */
#define NBD_PAYLOAD_MAX (32u << 20)

/* Requests of a connection that are not answered yet.  Twice what the deepest common client (fio, 512 in flight) asks
 * for; each takes about 300 bytes. */
#define NBD_REQUESTS_IN_FLIGHT 1024

/* Requests that wait for the store, each as a task with a stack of its own, of which two or three pages are used: for
 * each shard, and beyond that for each connection, so that nobody's requests keep another's FLUSH from starting.
 * 3,072 stacks at most with the default number of connections: 24 MiB or so, and a tenth of the memory mappings that
 * Linux allows a process. */
#define NBD_TASKS 2048
#define NBD_TASKS_OF_EACH 4

/* Bytes of READ replies that wait in memory for one connection, for the store or for the peer.  Half a second of a
 * 256 Mbit/s line, and enough for 16 reads of 1 MiB at once.  A single larger READ is still served. */
#define NBD_BYTES_IN_FLIGHT (16u << 20)

/* One system call sends at most that many replies, and stops gathering at that many bytes: the kernel takes no more at
 * once, and the first client byte should not wait for the last disk byte.  The pieces suffice for either. */
#define NBD_SEND_REPLIES 255
#define NBD_SEND_BYTES (1u << 20)
#define NBD_SEND_PIECES 640

/* A peer that takes nothing of a reply for so long is cut off.  Long, since the host of a suspended guest may well
 * come back; not for ever, since the replies hold memory. */
#define NBD_SEND_STALL_MS (10u * 60 * 1000)

/* A peer that has not sent a WRITE's payload after so long, and the time that it takes at NBD_PAYLOAD_BYTES_LEAST, is
 * cut off.  Shorter, because the memory set aside
 * for the payload counts as dirty, for which other clients may be waiting; as long as TCP keepalive gives the dead. */
#define NBD_PAYLOAD_STALL_MS (2u * 60 * 1000)

/* The same for both while others wait for the memory that is held: someone has to go, and it should be who makes no
 * progress.  From then on the payload of a WRITE must come at this rate at least, and a batch of replies (1 MiB at
 * most) be taken in that time. */
#define NBD_PRESSED_STALL_MS 10000
/* What is left of that at least to a WRITE whose header waited for memory while its client could send: the network's
 * hiccups. */
#define NBD_PRESSED_STALL_LEAST_MS 2000
#define NBD_PAYLOAD_BYTES_LEAST (64u << 10) /* a second */

/* A new connection's first request waits until the changes that older ones of its client had received before are made
 * (nbd/elders.c).  An older one that does nothing for so long, since it waits for bytes that its client does not send
 * or for replies that it does not take, is not waited for any longer: whoever reconnects has given the old connection
 * up. A living sibling on a bad line loses a packet, even five times in a row, and is back within this time. */
#define NBD_ELDER_STALL_MS 10000
/* One that waits for the store is given longer: as long as a read of the store may take, which is the longest that a
 * change of a part of a page waits for; and whatever it does, the new connection's client should not take it for dead.
 */
#define NBD_ELDER_WAIT_MS (60u * 1000)

/* What clients of a volume that was lost to another owner are given to take their last replies. */
#define NBD_FAREWELL_MS 5000

/* Answered requests kept for the next ones, and how many pieces and pages their arrays may have room for (128 KiB of
 * single pages): 256 KiB for each connection.  What is larger or more is given back. */
#define NBD_SPARE_REQUESTS 256
#define NBD_KEEP_PIECES 32

/* Text of errors on the wire. */
#define NBD_MESSAGE_MAX NBD_STRING_MAX

#endif
