/* Readiness of a file descriptor that somebody else owns: for libraries with
 * sockets of their own, such as libcurl.  Of a real loop only. */
#ifndef CAIRN_RT_WATCH_H
#define CAIRN_RT_WATCH_H

struct error;
struct loop;
struct watch;

enum watch_events { WATCH_READABLE = 1, WATCH_WRITABLE = 2 };

/* ready(arg, events) is called on the loop's own stack, level-triggered, for as long as it is watched for; an error or
 * hang-up of the descriptor is told as both events.  Nothing is watched for at first.  The fd is set non-blocking. */
int watch_new(struct loop *loop, int fd, void (*ready)(void *arg, int events), void *arg, struct watch **ret_watch,
              struct error *error);
void watch_set(struct watch *watch, int events); /* of enum watch_events; 0: nothing */
/* Before the fd is closed; also from inside ready().  NULL is fine. */
void watch_free(struct watch *watch);

#endif
