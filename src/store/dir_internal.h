/* What the files of the directory store share: see store/dir.c for the whole. */
#ifndef CAIRN_STORE_DIR_INTERNAL_H
#define CAIRN_STORE_DIR_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "store/store.h"

struct loop;

/* ---- names (store/dir_name.c) ---- */

#define DIR_SUFFIX ".obj"   /* of files; no directory's name ends so */
#define DIR_NAME_BYTES 240u /* of a name on disk, before the suffix or `+`; file systems allow 255 */

/* Every byte of a key escaped, a `+/` for each full name, the suffix, a NUL. */
#define DIR_PATH_MAX (3 * STORE_KEY_MAX + 2 * (3 * STORE_KEY_MAX / (DIR_NAME_BYTES - 3) + 1) + 16)

struct dir_path {
    char text[DIR_PATH_MAX]; /* of the object's file, below objects/ */
    size_t directory_length; /* of its directory's path, which begins text; 0: objects/ itself */
    size_t name_at;          /* where the file's own name begins in text */
};
void dir_path_of(const char *key, struct dir_path *ret_path);

/* Appends what a name on disk stands for to a key of *length bytes; false where it stands for nothing.
 * A directory's name adds its slash, or none when the next name goes on with the same component. */
bool dir_name_append(const char *name, bool is_directory, char key[STORE_KEY_MAX + 1], size_t *length);
bool dir_name_is_file(const char *name);

/* ---- listings (store/dir_list.c) ---- */

/* The keys that follow one place of a listing, so that its next pages need no new scan. */
struct dir_window {
    char *prefix;
    char *last;  /* the key after which the next page begins */
    char **keys; /* sorted; from `next` on still to be handed out */
    size_t count, next;
    bool complete; /* no key lay beyond the window when it was made */
};
void dir_window_free(struct dir_window *window);

/* One page, on a worker's thread.  *window (NULL: none) is used and kept up where it fits, else replaced. */
int dir_list_page(int objects_fd, const char *prefix, const char *after, size_t limit, struct dir_window **window,
                  struct store_listing *ret_listing, struct error *error);

/* ---- opening (store/dir_open.c) ---- */

/* An open store directory. */
struct dir_root {
    char *path; /* as it was given, for messages */
    int root_fd, objects_fd, locks_fd, temporaries_fd;
    int session_fd;   /* our own directory below tmp/, locked while we live; -1: nothing can be written here */
    char session[64]; /* its name */
};
int dir_root_open(const char *path, bool create, uint64_t random, struct dir_root *ret_root, struct error *error);
void dir_root_close(struct dir_root *root);

#endif
