/* Listening sockets of a real loop. */
#ifndef CAIRN_RT_LISTENER_H
#define CAIRN_RT_LISTENER_H

#include <stdbool.h>

struct error;
struct listener;
struct loop;

/* Calls accepted(arg, fd) on the loop's own stack for each connection; the callee owns the fd.
 * Running out of descriptors pauses accepting for a while instead of spinning.
 * A host name with several addresses is listened on at all that this host has, under one port;
 * NULL, "" and "*" are all addresses of the host. */
int listener_tcp(struct loop *loop, const char *host, const char *port, void (*accepted)(void *arg, int fd), void *arg,
                 struct listener **ret_listener, struct error *error);
/* Replaces a socket file that nobody listens on; -EADDRINUSE when somebody does, or when it is not a socket. */
int listener_unix(struct loop *loop, const char *path, void (*accepted)(void *arg, int fd), void *arg,
                  struct listener **ret_listener, struct error *error);
/* A socket that is listening already (systemd socket activation). */
int listener_fd(struct loop *loop, int fd, void (*accepted)(void *arg, int fd), void *arg,
                struct listener **ret_listener, struct error *error);
/* "127.0.0.1:10809" or the path; the port that the kernel chose where 0 was asked for. */
const char *listener_name(const struct listener *listener);
int listener_port(const struct listener *listener); /* 0 for unix sockets */
void listener_close(struct listener *listener);     /* unlinks a unix socket's file if it is still ours */

#endif
