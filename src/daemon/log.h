/* The log: where events of the libraries become lines, on standard error.
 *
 *     2026-11-23 04:15:07.123 INFO    volume 'db': open, 1 GiB, epoch 3
 *     {"time":"2026-11-23T04:15:07.123Z","level":"INFO","subject":"volume 'db'","text":"open, 1 GiB, epoch 3"}
 *
 * Under systemd, whose journal keeps time and level itself, a line of text has
 * the journal's priority in front instead.  Any thread may raise events. */
#ifndef CAIRN_DAEMON_LOG_H
#define CAIRN_DAEMON_LOG_H

#include "base/event.h"

enum log_format { LOG_TEXT, LOG_JSON };

/* To file descriptor `fd`, from `least` on.  Free with free(). */
struct event_sink *log_new(int fd, enum log_format format, enum event_level least);

/* A line that was asked for (statistics): whatever the least level is. */
void log_always(struct event_sink *log, const char *subject, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
