/* Damage to the store between two servers: something is deleted, cut short or changed by a byte. */
#ifndef CAIRN_SIM_DAMAGE_H
#define CAIRN_SIM_DAMAGE_H

#include "sim.h"

struct damage {
    char key[STORE_KEY_MAX + 1];
    struct disk *disk; /* whose it is; NULL: an object that no volume knows */
    bool deleted;
    uint8_t *bytes; /* as it reads since; owned */
    size_t length;
};

/* Damages one object of a volume, register included. False: there is none. */
bool damage_make(struct sim *sim, struct damage *ret_damage);

/* Nobody may have mended it, written over it or put anything in its place: failures go to sim_fail().  Frees it. */
void damage_check(struct sim *sim, struct damage *damage);

#endif
