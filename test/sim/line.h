/* Between a simulator and its clone (clone.h): one message each way at a time. */
#ifndef CAIRN_SIM_LINE_H
#define CAIRN_SIM_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

enum line_kind {
    LINE_NEXT, /* may I go on to this time? */
    LINE_BYE,
    LINE_FAIL,
    LINE_GET,
    LINE_PUT,
    LINE_LIST,
    LINE_ANSWERED,
    LINE_LOST,
    LINE_SENDS,
    LINE_ERA,
    LINE_ERA_RELEASED,
    LINE_ERA_ENDED,
    LINE_ERA_LOST_ARE_OVER,
    LINE_WRITE_BEGIN,
    LINE_READ_BEGIN,
    LINE_FLUSH_BEGIN,
    LINE_WRITE_END,
    LINE_READ_END,
    LINE_FLUSH_END,
    LINE_OP_FAILED,
    LINE_OP_LOST,
};

#define LINE_TEXT_MAX 1280
#define LINE_NUMBERS 5

struct message {
    enum line_kind kind;
    int32_t code;
    uint64_t numbers[LINE_NUMBERS];
    uint64_t date_ms; /* in answers */
    char text[LINE_TEXT_MAX];
    char etag[STORE_ETAG_MAX];
    uint64_t length;
    uint8_t *bytes; /* `length` of them; owned by who received it */
};

/* False: the other side is gone. */
bool line_send(int socket, const struct message *message);
bool line_receive(int socket, struct message *ret_message);
/* Sends it, and replaces it by the answer; for the clone, which ends when there is none. */
void line_ask(int socket, struct message *message);

#endif
