/* A volume engine in memory, behind the real one's front door (vol/volume.h).
 *
 * For tests of the layers above: it is linked instead of the engine, and does
 * what its controls say, so that every answer the front door can give is seen
 * by them, including those that the real engine gives once in a blue moon. */
#ifndef CAIRN_TEST_FAKE_VOLUME_H
#define CAIRN_TEST_FAKE_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

struct volumes;

struct fake_controls {
    bool wait;         /* every _try form says -EAGAIN, and the waiting forms park for a turn */
    bool hold;         /* acquires, waiting forms and flushes wait until it is false again, or they are cancelled */
    bool hold_changes; /* those of WRITE and TRIM alone, with `wait` */
    bool over;         /* a WRITE that has come whole is made at once */
    bool direct;       /* payloads go straight to their place: fast, and half-received ones show */
    bool writers_wait; /* as if others waited for memory */
    bool readers_wait;
    bool doubt;         /* nothing may be answered: the lease may have run out */
    int acquire_code;   /* what volumes_acquire() fails with, and so on; 0: it succeeds */
    int operation_code; /* READ, WRITE's finish, TRIM, … */
    int begin_code;     /* WRITE's begin */
    int flush_code;
    /* What happened: */
    _Atomic uint64_t begun, aborted, flushes, opened, closed, vanished;
};
extern struct fake_controls fake;

struct volumes *fake_volumes_new(void);          /* and all controls back to 0 */
void fake_volumes_free(struct volumes *volumes); /* asserts that nobody uses one */
void fake_volume_create(struct volumes *volumes, const char *name, uint64_t size);
/* As if another owner had taken the volume of that name. */
void fake_volume_lose(struct volumes *volumes, const char *name);
/* The end of doubt. */
void fake_volumes_resume(struct volumes *volumes);

#endif
