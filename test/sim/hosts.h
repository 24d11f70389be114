/* The hosts of a run: what all processes on one of them share.
 *
 * Its clocks drift, jump and, when it is a virtual machine that is frozen, stand still; a reboot ends all of its
 * processes and makes it another in the eyes of those that follow.  The store's clock drifts and jumps too. */
#ifndef CAIRN_SIM_HOSTS_H
#define CAIRN_SIM_HOSTS_H

#include <stdbool.h>
#include <stdint.h>

#include "vol/format/format.h"

struct node;
struct sim;

#define SIM_HOSTS_MAX 8

struct sim_host {
    int32_t drift_ppm; /* of boot-time and wall clock alike */
    int64_t wall_offset_ns, boottime_offset_ns;
    uint32_t boots;
    uint64_t stopped_ns; /* since when it is suspended or frozen; 0: it is not */
    bool frozen;
    bool set_back;      /* its wall clock was, once */
    uint64_t frozen_ns; /* all in all */
    uint64_t lied_ns;   /* of that, so long may a process there not know of */
};

struct store_clock {
    int32_t drift_ppm;
    int64_t offset_ns;
};

/* Gives a new process the clocks of its host. */
void host_join(struct node *node);
void host_boot_id(const struct sim *sim, int host, uint8_t ret_id[BOOT_ID_BYTES]);
/* So much true time passes while the host's clocks show `shown_ns`. */
uint64_t host_true_ns(const struct sim *sim, int host, uint64_t shown_ns);

void host_set_wall(struct sim *sim, int host, int64_t offset_ns);
/* All of its processes end. */
void host_reboot(struct sim *sim, int host);
/* Its processes stand still until host_wake().  Suspended: boot-time and wall clock go on, other timers do not.
 * Frozen, as a virtual machine is: nothing goes on. */
void host_stop(struct sim *sim, int host, bool frozen);
/* `set_right`: where it was frozen, its wall clock is set to what it missed. */
void host_wake(struct sim *sim, int host, bool set_right);

/* For mem_set_clock(): in whole seconds, as HTTP has it. */
uint64_t store_clock_ms(void *sim);

#endif
