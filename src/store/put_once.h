/* Writing an object once: the conditional PUT with unknown outcomes resolved.
 *
 * The body is frozen at the first send.  2xx: done.  "Exists": read it back;
 * our whole body: done; another body: conflict; gone again: conflict.  Anything
 * else is unknown: back off, send the identical bytes under the same condition,
 * for as long as it takes.  Nothing of an unknown put is ever altered, and the
 * name is not used for anything else. */
#ifndef CAIRN_STORE_PUT_ONCE_H
#define CAIRN_STORE_PUT_ONCE_H

#include "rt/wait.h"
#include "store/store.h"

struct put_once {
    struct store *store;
    const char *key;
    const struct iovec *pieces; /* unchanged, as is their memory, until it returns */
    int count;
    bool urgent; /* as store_put.urgent */
    /* Called after each attempt that left the outcome unknown, with its story; NULL: nobody cares. */
    void (*troubled)(void *arg, const struct error *error);
    /* Asked after each such attempt whether to go on; NULL: always.  Only for those to whom an object that may still
     * land later does no harm. */
    bool (*give_up)(void *arg, const struct error *error);
    void *arg;           /* of both */
    struct waitq *hurry; /* a wake ends the back-off early; NULL: none */
};

/* 0: the object is there with exactly our bytes.  -EEXIST: another body is, or was, there: conflict.
 * -ECANCELED, or what the last attempt said where `give_up` was asked: given up, outcome unknown. */
CO int put_once(const struct put_once *put, struct error *error);

#endif
