/* Who owned a disk when, as the store saw it: what is demanded of every write of a register, and of every answer to a
 * client. */
#ifndef CAIRN_SIM_TENURE_H
#define CAIRN_SIM_TENURE_H

#include <stdbool.h>
#include <stdint.h>

#include "vol/format/format.h"

struct disk;
struct node;
struct sim;
struct store;
struct tenure; /* the time of one owner */

/* A process's view of the store, in between the store and the faulty way to it: it sees each request at the moment at
 * which it takes effect.  `node` NULL: somebody who is no server; `universe` (clone.h): or its clone.  Owns `inner`. */
struct store *tenure_watch(struct sim *sim, struct node *node, int universe, struct store *inner);

/* What a process last meant to write into a register. */
struct sent {
    struct nonce write;
    uint64_t counter, committed, seq, object_id;
    bool held;
};

/* The process begins to put an object. */
void tenure_sends(struct sim *sim, struct node *node, int universe, const char *key, const uint8_t *bytes,
                  size_t length);

/* The process has noticed that it lost the disk: it answers nothing more of that epoch. */
void tenure_lost(struct disk *disk, uint64_t epoch, int universe, uint64_t now_ns);

/* A success was sent to a client at `sent_ns`, by the owner of `epoch`, for whom no clock went on for `lied_ns`.
 * Failures go to sim_fail(). */
void tenure_answered(struct sim *sim, struct disk *disk, struct node *node, uint64_t epoch, int universe,
                     uint64_t lied_ns, uint64_t sent_ns);

void tenures_free(struct disk *disk);

#endif
