/* Who we are, for the registers of the volumes that we own, and whether an
 * owner that a register names is gone: the real struct host of vol/volume.h. */
#ifndef CAIRN_DAEMON_HOST_H
#define CAIRN_DAEMON_HOST_H

#include <stdbool.h>

#include "vol/volume.h"

struct error;

struct host_setup {
    const char *lock_directory; /* made where it does not exist */
    /* The store can be reached from this host alone (a directory on a local file system): then an owner of another
     * boot ran on this host too, and is gone. */
    bool store_is_local;
};

/* The directory for lock files that suits this process; malloc'd. */
char *host_lock_directory(void);

/* Without a lock file of our own (its directory could not be made, is not ours, is open to others) *ret_host is there
 * all the same, but after a crash its volumes must be taken with break-lease: then *ret_trouble tells why, and
 * otherwise its code is 0. */
void host_new(const struct host_setup *setup, struct host **ret_host, struct error *ret_trouble);
/* `clean`: all volumes have been released, so that nobody will ask for the lock file: it is removed.  Otherwise it
 * stays, as after a crash, for the next owner to see that we are gone. */
void host_free(struct host *host, bool clean);

#endif
