/* The simulated loop: many nodes, one thread, virtual time, one seed.
 *
 * A world holds the virtual clock, the random numbers and a queue of events
 * ordered by (time, order of creation).  Each node in it is a struct loop as
 * rt/loop.h has it: a host on which a server, a client or the store runs.
 * Nothing in a world depends on addresses, on real time or on other threads:
 * the same seed gives the same run, and the hash of its trace shows it.
 *
 * A node can be paused (its timers and wakes are held until it resumes, as
 * under SIGSTOP), and its clocks can be set apart from the world's.  A crash is
 * made above (test/sim): everything that reaches outside the node is cut off
 * first, then all its tasks are cancelled, so what unwinds can do no harm and
 * leaks nothing. */
#ifndef CAIRN_RT_LOOP_SIM_H
#define CAIRN_RT_LOOP_SIM_H

#include <stdint.h>

#include "rt/channel.h"
#include "rt/loop.h"

struct world;

struct world *world_new(uint64_t seed);
void world_free(struct world *world); /* nodes must have been freed */

uint64_t world_now_ns(struct world *world);
uint64_t world_random(struct world *world, uint64_t below); /* uniform in [0, below) */
bool world_chance(struct world *world, uint32_t permille);

/* fn(arg) on the world's own stack at now + delay. Not tied to a node: never paused. */
void world_after(struct world *world, uint64_t delay_ns, void (*fn)(void *arg), void *arg);

/* Runs events until none is left (true), or `until_ns` is reached, or world_stop() was called (false). */
bool world_run(struct world *world, uint64_t until_ns);
void world_stop(struct world *world);
/* Calls gate(arg, time) each time before the clock is set to a later time; NULL: no more. */
void world_set_gate(struct world *world, void (*gate)(void *arg, uint64_t next_ns), void *arg);

/* Mixes bytes into the trace hash: store requests and answers, channel traffic, events, checks. */
void world_trace(struct world *world, const void *bytes, size_t length);
uint64_t world_trace_hash(const struct world *world);

/* A node; freed with loop_free(). */
struct loop *loop_sim_new(struct world *world, const char *name);
const char *loop_sim_name(const struct loop *loop);
struct world *loop_sim_world(const struct loop *loop);
void loop_sim_pause(struct loop *loop);
void loop_sim_resume(struct loop *loop);
/* As resume, but of a host that was suspended as a whole: loop_now_ns() stood still meanwhile, so timers are as far
 * away as they were. */
void loop_sim_wake(struct loop *loop);
/* The node draws random numbers of its own from now on, not the world's: so a process and its copy draw the same ones,
 * whatever others do.  Other ones than before each time. */
void loop_sim_reseed(struct loop *loop);
/* What the node's clocks show beside the true time.  An offset of the boot-time clock that shrinks makes a clock that
 * stood still, or lost a pause, as that of a machine that goes on from a snapshot. */
void loop_sim_set_wall_offset(struct loop *loop, int64_t offset_ns);
void loop_sim_set_boottime_offset(struct loop *loop, int64_t offset_ns);
/* Both go faster (or slower) than the true time by so many millionths, and always have. */
void loop_sim_set_drift(struct loop *loop, int32_t ppm);

/* Two ends of a connection between two nodes. Bytes arrive in order after a random delay, in random
 * pieces. Either end may be cut: what is under way is lost, both see a reset after a while.  Or the line falls silent:
 * what is under way is lost, and each end gets -ETIMEDOUT `notice_ns` later, or up to 10 s after that, as TCP's
 * probes of a peer that has vanished do it. */
void channel_sim_pair(struct loop *a, struct loop *b, struct channel **ret_a, struct channel **ret_b);
void channel_sim_cut(struct channel *channel);
void channel_sim_silence(struct channel *channel, uint64_t notice_ns);
/* When the peer wrote the last byte that was read from `channel`; 0: none was. */
uint64_t channel_sim_written_ns(const struct channel *channel);

#endif
