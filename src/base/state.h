/* State machines with a table of allowed moves, checked at run time.
 *
 * A long-lived thing holds its state as a small enum and moves by state_move();
 * a move that its table does not list is a bug and aborts with both names. */
#ifndef CAIRN_BASE_STATE_H
#define CAIRN_BASE_STATE_H

#include <stdint.h>

struct state_table {
    const char *machine;      /* "volume", for the message */
    const char *const *names; /* names[state] */
    const uint32_t *moves;    /* moves[from]: bit `to` set where the move is allowed */
    int count;                /* at most 32 */
};

/* Sets *state to `to`, or aborts. */
void state_move(const struct state_table *table, int *state, int to);

#endif
