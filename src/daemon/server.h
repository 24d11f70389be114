/* The server: what `cairn serve` runs. */
#ifndef CAIRN_DAEMON_SERVER_H
#define CAIRN_DAEMON_SERVER_H

struct config;
struct error;
struct event_sink;

/* Serves until it is told to stop by SIGTERM or SIGINT.  0: everything was saved.  Otherwise it could not start, or
 * had to stop with something unsaved: the story says what. */
int server_run(const struct config *config, struct event_sink *log, struct error *error);

#endif
