/* See hosts.h.
 *
 * What a process believes of its lease must hold whatever its clocks do, but for
 * one case that no clock of its own can show: a machine that is frozen as a whole
 * and whose wall clock nobody sets right afterwards, or somebody sets back.  Until
 * it hears from the store it does not know that it stood still; `lied_ns` is by
 * how much it may be wrong (see tenure.c). */
#include "hosts.h"

#include <inttypes.h>
#include <string.h>

#include "node.h"
#include "sim.h"

#define MILLION 1000000

static void apply(struct sim *sim, int host)
{
    list_for_each (link, &sim->nodes) {
        struct node *node = container_of(link, struct node, link);
        if (node->setup.host == host && node->loop != NULL)
            host_join(node);
    }
}

void host_join(struct node *node)
{
    const struct sim_host *host = &node->sim->hosts[node->setup.host];
    loop_sim_set_drift(node->loop, host->drift_ppm);
    loop_sim_set_wall_offset(node->loop, host->wall_offset_ns);
    loop_sim_set_boottime_offset(node->loop, host->boottime_offset_ns);
}

void host_boot_id(const struct sim *sim, int host, uint8_t ret_id[BOOT_ID_BYTES])
{
    memset(ret_id, 0, BOOT_ID_BYTES);
    ret_id[0] = 0xb0;
    ret_id[1] = (uint8_t)host;
    ret_id[2] = (uint8_t)sim->hosts[host].boots;
}

uint64_t host_true_ns(const struct sim *sim, int host, uint64_t shown_ns)
{
    return (uint64_t)((unsigned __int128)shown_ns * MILLION / (unsigned)(MILLION + sim->hosts[host].drift_ppm));
}

void host_set_wall(struct sim *sim, int host, int64_t offset_ns)
{
    struct sim_host *set = &sim->hosts[host];
    if (offset_ns < set->wall_offset_ns) {
        set->set_back = true;
        set->lied_ns = set->frozen_ns;
    }
    set->wall_offset_ns = offset_ns;
    sim_trace(sim, "host %d: wall clock %" PRId64 " ms off", host, offset_ns / (int64_t)NS_PER_MS);
    apply(sim, host);
}

void host_reboot(struct sim *sim, int host)
{
    sim_trace(sim, "host %d reboots", host);
    host_wake(sim, host, true);
    list_for_each (link, &sim->nodes) {
        struct node *node = container_of(link, struct node, link);
        if (node->setup.host == host && node_alive(node))
            node_crash(node);
    }
    sim->hosts[host].boots++;
}

void host_stop(struct sim *sim, int host, bool frozen)
{
    struct sim_host *stopped = &sim->hosts[host];
    if (stopped->stopped_ns != 0)
        return;
    stopped->stopped_ns = world_now_ns(sim->world);
    stopped->frozen = frozen;
    sim_trace(sim, "host %d is %s", host, frozen ? "frozen" : "suspended");
    list_for_each (link, &sim->nodes) {
        struct node *node = container_of(link, struct node, link);
        if (node->setup.host == host)
            node_suspend(node);
    }
}

void host_wake(struct sim *sim, int host, bool set_right)
{
    struct sim_host *stopped = &sim->hosts[host];
    if (stopped->stopped_ns == 0)
        return;
    int64_t missed_ns = (int64_t)(world_now_ns(sim->world) - stopped->stopped_ns);
    sim_trace(sim, "host %d wakes%s", host, stopped->frozen && set_right ? ", its wall clock set right" : "");
    if (stopped->frozen) {
        /* What the clocks would have shown of it, which drift. */
        int64_t shown_ns = missed_ns + (int64_t)((__int128)missed_ns * stopped->drift_ppm / (int64_t)MILLION);
        stopped->boottime_offset_ns -= shown_ns;
        stopped->frozen_ns += (uint64_t)missed_ns;
        if (!set_right)
            stopped->wall_offset_ns -= shown_ns;
        if (!set_right || stopped->set_back)
            stopped->lied_ns += (uint64_t)missed_ns;
        apply(sim, host);
    }
    stopped->stopped_ns = 0;
    list_for_each (link, &sim->nodes) {
        struct node *node = container_of(link, struct node, link);
        if (node->setup.host == host)
            node_wake(node);
    }
}

uint64_t store_clock_ms(void *arg)
{
    const struct sim *sim = arg;
    int64_t now_ns = (int64_t)world_now_ns(sim->world);
    int64_t drifted_ns = now_ns + (int64_t)((__int128)now_ns * sim->store_clock.drift_ppm / MILLION);
    int64_t seconds = (drifted_ns + sim->store_clock.offset_ns) / (int64_t)NS_PER_S;
    return (uint64_t)(STORE_CLOCK_START_S + seconds) * 1000;
}
