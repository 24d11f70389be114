/* The sockets that clients come in by: TCP, a unix socket, those of systemd. */
#ifndef CAIRN_DAEMON_LISTEN_H
#define CAIRN_DAEMON_LISTEN_H

#include <stdbool.h>

struct buffer;
struct config;
struct error;
struct event_sink;
struct listeners;
struct loop;

/* Listens where `config` says, and on what systemd opened; a TCP socket or a unix socket is opened beside those of
 * systemd only when a flag or a variable asked for it.  accepted() owns the sockets that it gets, which are set up to
 * notice a peer that is gone. */
int listeners_open(struct loop *loop, const struct config *config, struct event_sink *events,
                   void (*accepted)(void *arg, int fd), void *arg, struct listeners **ret_listeners,
                   struct error *error);
void listeners_close(struct listeners *listeners); /* NULL is fine */

/* "localhost:10809 and /run/cairn.sock" */
void listeners_describe(const struct listeners *listeners, struct buffer *ret_text);
/* A URI for an export NAME, as nbdinfo and others take it. */
void listeners_uri(const struct listeners *listeners, struct buffer *ret_text);

#endif
