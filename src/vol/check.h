/* Whether everything that a store has of a volume agrees with itself: vol/check.c tells the story.
 *
 * Only reads, and may be used while a server works on the volume. */
#ifndef CAIRN_VOL_CHECK_H
#define CAIRN_VOL_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "rt/coroutine.h"

struct loop;
struct store;

enum check_kind {
    CHECK_DAMAGED,      /* does not have the bytes that were written, or breaks the format's rules */
    CHECK_MISSING,      /* something names it */
    CHECK_FOREIGN,      /* whole, but of another volume or another place */
    CHECK_NEWER,        /* this release cannot tell */
    CHECK_INCONSISTENT, /* sound by itself, and does not agree with others */
    CHECK_UNREADABLE,   /* the store has it, and does not give it */
};

struct check_finding {
    enum check_kind kind;
    const char *key; /* of the object that is wrong, or that says what is not so */
    const char *story;
};

struct check_counts {
    uint64_t findings;
    uint64_t log_entries, data_objects;        /* listed */
    uint64_t unreferenced, unreferenced_bytes; /* data objects that nothing names: what a crashed owner did not commit,
                                                  or a living one will */
    uint64_t unknown;                          /* keys beside them that are not of this format */
    uint64_t roots;                            /* that the register names, empty ones left out */
    uint64_t pieces;                           /* of their checkpoints, those that several share counted for each */
    uint64_t frames, frame_bytes;              /* of pages, that were read */
    uint64_t size;                             /* of the disk as of the newest root; 0: not known */
    uint64_t epoch;
};

struct check {
    struct loop *loop;
    struct store *store;
    const char *name;
    size_t name_length;
    bool data; /* read all pages, too */
    /* Each finding once; not after the first CHECK_FINDINGS_TOLD, which are counted only. */
    void (*found)(void *arg, const struct check_finding *finding);
    /* Now and then: what is being read, how many of them, and of how many (0: not known). */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t of);
    void *arg;
};

/* Who has more than these needs no more, and a broken store would have millions. */
#define CHECK_FINDINGS_TOLD 1000u

/* 0: all was looked at, and ret_counts->findings says whether it is sound.  -ENOENT: there is no such volume. Others:
 * the store failed, and nothing can be said.  ret_counts is filled as far as it went in any case. */
CO int volume_check(const struct check *check, struct check_counts *ret_counts, struct error *error);

#endif
