/* What systemd and a service say to each other: see sd_notify(3) and sd_listen_fds(3).  Elsewhere these do nothing. */
#ifndef CAIRN_DAEMON_SYSTEMD_H
#define CAIRN_DAEMON_SYSTEMD_H

/* Sends `state`, such as "READY=1\nSTATUS=serving", to who asked for it. */
void systemd_notify(const char *state);

/* How many listening sockets we were started with; they are the descriptors from SYSTEMD_FIRST_FD on. */
#define SYSTEMD_FIRST_FD 3
int systemd_sockets(void);

#endif
