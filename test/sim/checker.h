/* The checker: a model of one disk that holds every read and flush against what is allowed.
 *
 * It is told of each operation twice, when it is invoked and when it is
 * answered, in the order in which these things happen in the one thread of the
 * simulation; its own clock ticks at each call.  What it knows and what it
 * demands is told at the top of checker.c. */
#ifndef CAIRN_SIM_CHECKER_H
#define CAIRN_SIM_CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECKER_STORY_MAX 1024

struct checker;     /* of one disk */
struct checker_era; /* what clients of one owner (epoch) of the disk may see */
struct checker_op;  /* an operation that is under way */

enum checker_content {
    CONTENT_DATA,  /* bytes that tell the write and the place */
    CONTENT_ZERO,  /* a trim, a write of zeroes, or data that are all zero */
    CONTENT_MIXED, /* as CONTENT_DATA, with some whole pages of zeroes */
};

/* `size`: bytes of the disk.  Contents of disks with different salts differ. */
struct checker *checker_new(uint64_t size, uint64_t salt);
void checker_free(struct checker *checker);

/* The era of `epoch`; made from the one with the next lower epoch when it is new: to be called as soon as a client
 * was told that it is served by that owner. */
struct checker_era *checker_era(struct checker *checker, uint64_t epoch);
/* The owner has given the volume back in good order: everything that was answered until now is durable. */
bool checker_era_released(struct checker *checker, uint64_t epoch, bool forked, char ret_story[CHECKER_STORY_MAX]);
/* The owner of `epoch` is two from now on: a process and its clone, each with an era of its own that begins with all
 * that is so by now.  Once for a checker. */
void checker_fork(struct checker *checker, uint64_t epoch);
/* The era of the clone; of an epoch that was not forked, checker_era(). */
struct checker_era *checker_era_of_fork(struct checker *checker, uint64_t epoch);
/* One of the two has written to the log since. */
void checker_fork_wrote(struct checker *checker, uint64_t epoch, bool forked);
/* One of the two can write nothing to the log any more: if it never did since the fork, nothing that came to it is ever
 * seen by later owners.  False: something was. */
bool checker_fork_lost(struct checker *checker, uint64_t epoch, bool forked, char ret_story[CHECKER_STORY_MAX]);
/* The owner's process is gone: what was unanswered takes no effect any more. */
void checker_era_ended(struct checker_era *era);

/* Begin: before the first byte of the request is sent.  For a write of CONTENT_DATA or CONTENT_MIXED the payload is
 * made by checker_fill(). */
struct checker_op *checker_write_begin(struct checker_era *era, uint64_t offset, uint64_t length,
                                       enum checker_content content, bool fua);
struct checker_op *checker_read_begin(struct checker_era *era, uint64_t offset, uint64_t length);
struct checker_op *checker_flush_begin(struct checker_era *era);
void checker_fill(const struct checker_op *op, uint8_t *ret_bytes);

/* End: when the answer has been received whole.  They free the op; false: a promise was broken, `ret_story` tells. */
bool checker_write_end(struct checker_op *op, char ret_story[CHECKER_STORY_MAX]);
bool checker_read_end(struct checker_op *op, const uint8_t *bytes, char ret_story[CHECKER_STORY_MAX]);
bool checker_flush_end(struct checker_op *op, char ret_story[CHECKER_STORY_MAX]);
/* Answered with an error: a write may have taken effect until now, not later. */
void checker_op_failed(struct checker_op *op);
/* Never answered (the connection broke): a write may take effect until its era ends, or until this is called:
 * the server has finished with all connections that broke. */
void checker_op_lost(struct checker_op *op);
void checker_era_lost_are_over(struct checker_era *era);

/* Visits the runs of the disk that were ever written or zeroed in the latest era, in order. */
void checker_touched(const struct checker *checker, void (*visit)(void *arg, uint64_t offset, uint64_t length),
                     void *arg);

#endif
