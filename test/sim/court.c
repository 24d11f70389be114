/* See court.h.  Eras and operations are pointers into the original's memory, and are nothing but names here when this
 * is its clone. */
#include "court.h"

#include <stdlib.h>
#include <string.h>

#include "line.h"
#include "sim.h"

static void *pointer(uint64_t name)
{
    return (void *)(uintptr_t)name;
}

static uint64_t name(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

static uint64_t disk_number(const struct sim *sim, const struct disk *disk)
{
    return (uint64_t)(disk - sim->disks);
}

/* Asks, and returns the answer's first number; its code in *ret_code unless NULL. */
static uint64_t ask(struct sim *sim, struct message *message, int *ret_code, char *ret_story)
{
    line_ask(sim->remote, message);
    if (ret_code != NULL)
        *ret_code = message->code;
    if (ret_story != NULL)
        memcpy(ret_story, message->text, CHECKER_STORY_MAX);
    free(message->bytes);
    return message->numbers[0];
}

static void tell(struct sim *sim, enum line_kind kind, const void *what)
{
    struct message message = { .kind = kind, .numbers = { name(what) } };
    ask(sim, &message, NULL, NULL);
}

static bool end(struct sim *sim, struct message *message, char *ret_story)
{
    int code;
    ask(sim, message, &code, ret_story);
    return code == 0;
}

struct checker_era *court_era(struct sim *sim, struct disk *disk, uint64_t epoch)
{
    if (sim->remote < 0)
        return checker_era(disk->checker, epoch);
    struct message message = { .kind = LINE_ERA, .numbers = { disk_number(sim, disk), epoch } };
    return pointer(ask(sim, &message, NULL, NULL));
}

bool court_era_released(struct sim *sim, struct disk *disk, uint64_t epoch, char ret_story[CHECKER_STORY_MAX])
{
    if (sim->remote < 0)
        return checker_era_released(disk->checker, epoch, false, ret_story);
    struct message message = { .kind = LINE_ERA_RELEASED, .numbers = { disk_number(sim, disk), epoch } };
    return end(sim, &message, ret_story);
}

void court_era_ended(struct sim *sim, struct checker_era *era)
{
    if (sim->remote < 0)
        checker_era_ended(era);
    else
        tell(sim, LINE_ERA_ENDED, era);
}

void court_era_lost_are_over(struct sim *sim, struct checker_era *era)
{
    if (sim->remote < 0)
        checker_era_lost_are_over(era);
    else
        tell(sim, LINE_ERA_LOST_ARE_OVER, era);
}

struct checker_op *court_write_begin(struct sim *sim, struct checker_era *era, uint64_t offset, uint64_t length,
                                     enum checker_content content, bool fua, uint8_t *ret_bytes)
{
    if (sim->remote < 0) {
        struct checker_op *op = checker_write_begin(era, offset, length, content, fua);
        if (ret_bytes != NULL)
            checker_fill(op, ret_bytes);
        return op;
    }
    struct message message = {
        .kind = LINE_WRITE_BEGIN,
        .code = ret_bytes != NULL,
        .numbers = { name(era), offset, length, (uint64_t)content, fua },
    };
    line_ask(sim->remote, &message);
    if (ret_bytes != NULL)
        memcpy(ret_bytes, message.bytes, message.length);
    free(message.bytes);
    return pointer(message.numbers[0]);
}

struct checker_op *court_read_begin(struct sim *sim, struct checker_era *era, uint64_t offset, uint64_t length)
{
    if (sim->remote < 0)
        return checker_read_begin(era, offset, length);
    struct message message = { .kind = LINE_READ_BEGIN, .numbers = { name(era), offset, length } };
    return pointer(ask(sim, &message, NULL, NULL));
}

struct checker_op *court_flush_begin(struct sim *sim, struct checker_era *era)
{
    if (sim->remote < 0)
        return checker_flush_begin(era);
    struct message message = { .kind = LINE_FLUSH_BEGIN, .numbers = { name(era) } };
    return pointer(ask(sim, &message, NULL, NULL));
}

bool court_write_end(struct sim *sim, struct checker_op *op, char ret_story[CHECKER_STORY_MAX])
{
    if (sim->remote < 0)
        return checker_write_end(op, ret_story);
    struct message message = { .kind = LINE_WRITE_END, .numbers = { name(op) } };
    return end(sim, &message, ret_story);
}

bool court_read_end(struct sim *sim, struct checker_op *op, const uint8_t *bytes, uint64_t length,
                    char ret_story[CHECKER_STORY_MAX])
{
    if (sim->remote < 0)
        return checker_read_end(op, bytes, ret_story);
    struct message message = {
        .kind = LINE_READ_END, .numbers = { name(op) }, .length = length, .bytes = (uint8_t *)bytes
    };
    return end(sim, &message, ret_story);
}

bool court_flush_end(struct sim *sim, struct checker_op *op, char ret_story[CHECKER_STORY_MAX])
{
    if (sim->remote < 0)
        return checker_flush_end(op, ret_story);
    struct message message = { .kind = LINE_FLUSH_END, .numbers = { name(op) } };
    return end(sim, &message, ret_story);
}

void court_op_failed(struct sim *sim, struct checker_op *op)
{
    if (sim->remote < 0)
        checker_op_failed(op);
    else
        tell(sim, LINE_OP_FAILED, op);
}

void court_op_lost(struct sim *sim, struct checker_op *op)
{
    if (sim->remote < 0)
        checker_op_lost(op);
    else
        tell(sim, LINE_OP_LOST, op);
}
