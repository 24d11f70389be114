/* The checkers (checker.h) as clients and servers call them: in the simulator itself, or from its clone (clone.h), for
 * which eras and operations are names of what lives in the original. */
#ifndef CAIRN_SIM_COURT_H
#define CAIRN_SIM_COURT_H

#include "checker.h"

struct disk;
struct sim;

struct checker_era *court_era(struct sim *sim, struct disk *disk, uint64_t epoch);
bool court_era_released(struct sim *sim, struct disk *disk, uint64_t epoch, char ret_story[CHECKER_STORY_MAX]);
void court_era_ended(struct sim *sim, struct checker_era *era);
void court_era_lost_are_over(struct sim *sim, struct checker_era *era);

/* `ret_bytes`: the payload, unless NULL. */
struct checker_op *court_write_begin(struct sim *sim, struct checker_era *era, uint64_t offset, uint64_t length,
                                     enum checker_content content, bool fua, uint8_t *ret_bytes);
struct checker_op *court_read_begin(struct sim *sim, struct checker_era *era, uint64_t offset, uint64_t length);
struct checker_op *court_flush_begin(struct sim *sim, struct checker_era *era);
bool court_write_end(struct sim *sim, struct checker_op *op, char ret_story[CHECKER_STORY_MAX]);
bool court_read_end(struct sim *sim, struct checker_op *op, const uint8_t *bytes, uint64_t length,
                    char ret_story[CHECKER_STORY_MAX]);
bool court_flush_end(struct sim *sim, struct checker_op *op, char ret_story[CHECKER_STORY_MAX]);
void court_op_failed(struct sim *sim, struct checker_op *op);
void court_op_lost(struct sim *sim, struct checker_op *op);

#endif
