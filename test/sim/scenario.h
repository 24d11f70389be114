/* A run from its plan: servers, clients, accidents, healing, and the last checks. */
#ifndef CAIRN_SIM_SCENARIO_H
#define CAIRN_SIM_SCENARIO_H

#include "client.h"
#include "node.h"
#include "sim.h"

enum accident {
    ACCIDENT_NONE,
    ACCIDENT_CRASH,            /* a server process, now */
    ACCIDENT_CRASH_AT_REQUEST, /* one of the next store requests, at any of its moments */
    ACCIDENT_PAUSE,
    ACCIDENT_TAKEOVER,        /* another process takes a volume with break-lease; the old one lives on */
    ACCIDENT_PAUSED_TAKEOVER, /* the same, while the old one stands still at one of its store requests */
    ACCIDENT_MOVE,    /* clients are sent to another process, which may have the volume only when it is let go */
    ACCIDENT_STOP,    /* a clean shutdown */
    ACCIDENT_OUTAGE,  /* the store is out of reach for a while */
    ACCIDENT_DEAF,    /* its answers are lost for a while, though requests take effect */
    ACCIDENT_HALF,    /* requests and answers are lost for a while */
    ACCIDENT_FULL,    /* the store has no room for a while */
    ACCIDENT_CLOCK,   /* a wall clock jumps, or the store's */
    ACCIDENT_SUSPEND, /* a host sleeps for a while */
    ACCIDENT_FREEZE,  /* a host, being a virtual machine, stands still for a while with all its clocks */
    ACCIDENT_REBOOT,  /* of a host, its processes being killed */
    ACCIDENT_CLONE,   /* a server process goes on twice; once in a run */
    ACCIDENT_SILENCE, /* lines between clients and a server go dead without a word */
    ACCIDENTS,
};

struct plan {
    int hosts;
    int32_t drift_ppm[SIM_HOSTS_MAX], store_drift_ppm;
    int64_t wall_offset_ns[SIM_HOSTS_MAX], store_offset_ns;
    uint32_t breaks_permille; /* how often an operator breaks a lease instead of waiting */
    int disks;
    uint64_t sizes[SIM_DISKS_MAX];
    bool created_by_clients; /* by the first connection, else beforehand */
    int clients;             /* for each disk */
    struct client_profile profile;
    struct node_setup server;
    uint64_t pin_pause_ns;         /* between what somebody does who pins states; 0: there is nobody */
    uint64_t chaos_ns;             /* at most that long */
    uint64_t requests;             /* of clients, after which the chaos ends too */
    uint64_t accident_ns;          /* on average between two */
    uint32_t accidents[ACCIDENTS]; /* weights */

    /* One accident at a chosen store request (crash_points.c). */
    uint64_t crash_at;
    int crash_moment;             /* enum crash_moment */
    uint64_t crash_again;         /* so many requests later comes a crash; 0: none */
    bool pause_instead;           /* it stands still, and goes on once another one has taken over */
    uint64_t resume_least_ns;     /* then it stands still for so long at least */
    bool elsewhere;               /* who follows runs on another host */
    bool successor_breaks;        /* and breaks the lease */
    uint64_t *ret_chaos_requests; /* may be NULL: store requests made until all was healed */
};

/* Draws a plan; it depends on the seed alone. */
void plan_draw(struct sim *sim, struct plan *ret_plan);

/* Runs it to its end, or to the first broken promise (sim->failed).  Afterwards the run can be freed, unless it
 * failed: a broken run is left as it stands. */
void scenario_run(struct sim *sim, const struct plan *plan);

#endif
