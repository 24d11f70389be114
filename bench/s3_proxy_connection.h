/* One client's connection: requests one after the other, each delayed, limited, counted, and passed on or served. */
#ifndef CAIRN_BENCH_S3_PROXY_CONNECTION_H
#define CAIRN_BENCH_S3_PROXY_CONNECTION_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct settings {
    struct sockaddr_in to; /* the server behind */
    bool sink;             /* none: serve objects from memory */
    uint64_t put_ns;       /* until the answer to anything but GET and HEAD, from the end of the request's head */
    uint64_t get_ns;       /* the same for GET and HEAD */
    double bytes_per_ns;   /* of one stream, each way; 0: no limit */
    FILE *trace;           /* a line for each request; NULL: none */
};

struct connection;

/* Takes the socket. */
void connection_new(const struct settings *settings, int epoll, int fd);
/* Something has happened to one of its descriptors. */
void connection_advance(struct connection *connection);
/* Those that ended since; not before all events of a round have been told. */
void connections_bury(void);
void connections_end(void); /* hangs up on all */

#endif
