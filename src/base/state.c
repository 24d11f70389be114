/* State machines with a table of allowed moves: see base/state.h. */
#include "base/state.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

void state_move(const struct state_table *table, int *state, int to)
{
    assert(table->count > 0 && table->count <= 32);
    assert(*state >= 0 && *state < table->count);
    assert(to >= 0 && to < table->count);
    if ((table->moves[*state] >> to & 1) == 0) {
        fprintf(stderr, "cairn: bug: %s must not move from %s to %s\n", table->machine, table->names[*state],
                table->names[to]);
        abort();
    }
    *state = to;
}
