/* The contract of store/store.h as test cases, for every store; and short forms for tests of stores. */
#ifndef CAIRN_TEST_LIB_STORE_CONTRACT_H
#define CAIRN_TEST_LIB_STORE_CONTRACT_H

#include "store/store.h"

struct loop;

struct bench {
    struct loop *loop;
    struct store *store; /* empty */
    bool folders; /* keys are paths of files: none may be another's folder, or have a name of more than 255 bytes */
    bool texts;   /* keys are UTF-8 */
    bool vague;   /* a put that lost a race may not know it: its outcome is unknown */
};

void contract_conditions(struct bench *bench);
void contract_ranges(struct bench *bench);
void contract_whole_objects(struct bench *bench);
void contract_large_objects(struct bench *bench);
void contract_listings(struct bench *bench);
void contract_listing_while_it_changes(struct bench *bench);
void contract_unusual_keys(struct bench *bench);
void contract_races(struct bench *bench);

int put_bytes(struct store *store, const char *key, const void *bytes, size_t length, enum store_condition condition,
              const char *etag, char *ret_etag);
int put_text(struct store *store, const char *key, const char *text, enum store_condition condition, const char *etag,
             char *ret_etag);
void put_named(struct store *store, const char *key); /* an object whose content is its key */
void assert_object(struct store *store, const char *key, const char *text, const char *etag); /* etag NULL: any */
void assert_absent(struct store *store, const char *key);
/* Lists in pages of `limit`, objects of put_named() alone, and returns how many there were. */
size_t list_all(struct store *store, const char *prefix, const char *after, size_t limit, char *ret_first,
                char *ret_last);

#endif
