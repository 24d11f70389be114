/* Listing the directory store: pages in the order of keys, from directories
 * that are in no order at all.
 *
 * A scan reads every name below the prefix once and keeps the smallest keys
 * after the given one, a window of them, in memory that is bounded however many
 * there are.  The first page is the front of the window; the rest is kept for
 * the pages that follow, which then cost nothing.  So n keys take n / WINDOW
 * scans instead of n / page, which for a million keys is seconds instead of
 * minutes.  Directories whose keys all lie before the given key or behind the
 * window are not read.
 *
 * Only whole pages are continued from a window, and only right where the last
 * one ended: a question with a small limit ("is there anything after this?") is
 * always answered from the disk.
 *
 * Others put and delete meanwhile.  A key that is there all the time is listed;
 * one that comes or goes may be.  Some file systems move an entry when a file is
 * replaced, and a reader can miss it: a directory that changed while it was read
 * is read a second time, and both readings are taken together. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "store/dir_internal.h"

/* Some three megabytes of keys. */
#define WINDOW_KEYS 32768u

struct scan {
    int objects_fd;
    const char *prefix, *after;
    size_t wanted;
    char **keys; /* up to twice as many as wanted, sorted now and then */
    size_t count, capacity;
    bool cut;                /* keys behind the last of the wanted ones were dropped */
    char path[DIR_PATH_MAX]; /* of the directory being read */
    size_t path_length;
    char key[STORE_KEY_MAX + 1]; /* that its keys begin with */
    size_t key_length;
};

struct child {
    char *name;
    char *key; /* that all keys in it begin with */
};

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_children(const void *a, const void *b)
{
    return strcmp(((const struct child *)a)->key, ((const struct child *)b)->key);
}

static bool begins_with(const char *text, const char *beginning)
{
    return strncmp(text, beginning, strlen(beginning)) == 0;
}

/* Sorts, drops doubles, and drops what lies behind the wanted ones. */
static void scan_trim(struct scan *scan)
{
    qsort(scan->keys, scan->count, sizeof(*scan->keys), compare_keys);
    size_t kept = 0;
    for (size_t i = 0; i < scan->count; i++) {
        bool again = kept > 0 && strcmp(scan->keys[i], scan->keys[kept - 1]) == 0;
        if (again || kept == scan->wanted) {
            scan->cut |= !again;
            free(scan->keys[i]);
        } else {
            scan->keys[kept++] = scan->keys[i];
        }
    }
    scan->count = kept;
}

/* Whether keys from `key` on are behind all that can still be wanted. */
static bool scan_beyond(const struct scan *scan, const char *key)
{
    return scan->cut && strcmp(key, scan->keys[scan->wanted - 1]) > 0;
}

static void scan_add(struct scan *scan, const char *key)
{
    if (!begins_with(key, scan->prefix) || strcmp(key, scan->after) <= 0 || scan_beyond(scan, key))
        return;
    if (scan->count == scan->capacity && scan->capacity == 2 * scan->wanted)
        scan_trim(scan);
    if (scan->count == scan->capacity) {
        scan->capacity = scan->capacity > 0 ? 2 * scan->capacity : 64;
        if (scan->capacity > 2 * scan->wanted)
            scan->capacity = 2 * scan->wanted;
        scan->keys = memory_resize(scan->keys, scan->capacity, sizeof(*scan->keys));
    }
    scan->keys[scan->count++] = memory_string(key);
}

/* Whether a directory can hold keys that are looked for, given how they begin. */
static bool scan_enters(const struct scan *scan, const char *key)
{
    if (!begins_with(key, scan->prefix) && !begins_with(scan->prefix, key))
        return false;
    if (strcmp(key, scan->after) < 0 && !begins_with(scan->after, key))
        return false;
    return !scan_beyond(scan, key);
}

struct children {
    struct child *child;
    size_t count, capacity;
};

static void children_add(struct children *children, const char *name, const char *key)
{
    if (children->count == children->capacity) {
        children->capacity = children->capacity > 0 ? 2 * children->capacity : 16;
        children->child = memory_resize(children->child, children->capacity, sizeof(*children->child));
    }
    children->child[children->count++] = (struct child){ .name = memory_string(name), .key = memory_string(key) };
}

static void children_free(struct children *children)
{
    for (size_t i = 0; i < children->count; i++) {
        free(children->child[i].name);
        free(children->child[i].key);
    }
    free(children->child);
}

/* A file is ours when its path is the one that its key has. */
static bool path_is_canonical(const struct scan *scan, const char *name)
{
    struct dir_path path;
    dir_path_of(scan->key, &path);
    return strncmp(path.text, scan->path, scan->path_length) == 0 && path.name_at == scan->path_length &&
           strcmp(path.text + path.name_at, name) == 0;
}

static int read_names(struct scan *scan, DIR *stream, struct children *children, struct error *error)
{
    size_t key_length = scan->key_length;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (entry == NULL)
            return errno == 0 ? 0 : error_set_errno(error, errno, "read the directory objects/%s", scan->path);
        bool is_file = dir_name_is_file(entry->d_name);
        if (entry->d_name[0] != '.' && dir_name_append(entry->d_name, !is_file, scan->key, &scan->key_length)) {
            if (!is_file && scan_enters(scan, scan->key))
                children_add(children, entry->d_name, scan->key);
            if (is_file && path_is_canonical(scan, entry->d_name))
                scan_add(scan, scan->key);
        }
        scan->key_length = key_length;
        scan->key[key_length] = '\0';
    }
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Adds the keys of the directory at scan->path; collects those of its directories that are worth a look. */
static int read_directory(struct scan *scan, struct children *children, struct error *error)
{
    /* Without its slash at the end, which would have a link followed. */
    bool top = scan->path_length == 0;
    if (!top)
        scan->path[scan->path_length - 1] = '\0';
    int fd = openat(scan->objects_fd, top ? "." : scan->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (!top)
        scan->path[scan->path_length - 1] = '/';
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return 0;
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
    if (stream == NULL) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return error_set_errno(error, code, "open the directory objects/%s", scan->path);
    }
    int failed = 0;
    for (int reading = 0; reading < 2 && failed == 0; reading++) {
        struct stat before, now;
        bool known = fstat(fd, &before) == 0;
        failed = read_names(scan, stream, children, error);
        if (known && fstat(fd, &now) == 0 && same_time(&before.st_mtim, &now.st_mtim))
            break;
        rewinddir(stream);
    }
    closedir(stream);
    return failed;
}

static int scan_directory(struct scan *scan, struct error *error)
{
    struct children children = { 0 };
    int failed = read_directory(scan, &children, error);
    if (children.count > 0)
        qsort(children.child, children.count, sizeof(*children.child), compare_children);
    size_t path_length = scan->path_length, key_length = scan->key_length;
    for (size_t i = 0; i < children.count && failed == 0; i++) {
        const struct child *child = &children.child[i];
        bool again = i > 0 && strcmp(child->key, children.child[i - 1].key) == 0;
        size_t name_length = strlen(child->name);
        if (again || scan_beyond(scan, child->key) || path_length + name_length + 2 > sizeof scan->path)
            continue;
        memcpy(scan->path + path_length, child->name, name_length);
        memcpy(scan->path + path_length + name_length, "/", 2);
        scan->path_length = path_length + name_length + 1;
        scan->key_length = strlen(child->key);
        memcpy(scan->key, child->key, scan->key_length + 1);
        failed = scan_directory(scan, error);
        scan->path_length = path_length;
        scan->path[path_length] = '\0';
        scan->key_length = key_length;
        scan->key[key_length] = '\0';
    }
    children_free(&children);
    return failed;
}

/* Starts in the directory that the prefix names with its whole components. */
static void scan_start(struct scan *scan)
{
    const char *slash = strrchr(scan->prefix, '/');
    if (slash == NULL || slash - scan->prefix + 1 >= STORE_KEY_MAX)
        return;
    scan->key_length = (size_t)(slash - scan->prefix) + 1;
    memcpy(scan->key, scan->prefix, scan->key_length);
    scan->key[scan->key_length] = '\0';
    /* The path of any key right below it begins with its own. */
    char below[STORE_KEY_MAX + 1];
    memcpy(below, scan->key, scan->key_length);
    memcpy(below + scan->key_length, "x", 2);
    struct dir_path path;
    dir_path_of(below, &path);
    scan->path_length = path.name_at;
    memcpy(scan->path, path.text, path.name_at);
    scan->path[path.name_at] = '\0';
}

void dir_window_free(struct dir_window *window)
{
    if (window == NULL)
        return;
    for (size_t i = window->next; i < window->count; i++)
        free(window->keys[i]);
    free(window->keys);
    free(window->last);
    free(window->prefix);
    free(window);
}

static int window_new(int objects_fd, const char *prefix, const char *after, size_t wanted,
                      struct dir_window **ret_window, struct error *error)
{
    struct scan scan = { .objects_fd = objects_fd, .prefix = prefix, .after = after, .wanted = wanted };
    scan_start(&scan);
    int failed = scan_directory(&scan, error);
    if (scan.count > 0)
        scan_trim(&scan);
    struct dir_window *window = memory_new(sizeof *window);
    window->prefix = memory_string(prefix);
    window->last = memory_string(after);
    window->keys = scan.keys;
    window->count = scan.count;
    window->complete = !scan.cut;
    if (failed != 0) {
        dir_window_free(window);
        return failed;
    }
    *ret_window = window;
    return 0;
}

/* Moves the window's next key into the listing, unless its object is gone. */
static int take_next(int objects_fd, struct dir_window *window, struct store_listing *listing, struct error *error)
{
    char *key = window->keys[window->next++];
    free(window->last);
    window->last = memory_string(key);
    struct dir_path path;
    struct stat status;
    dir_path_of(key, &path);
    if (fstatat(objects_fd, path.text, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        int code = errno;
        int failed = code == ENOENT ? 0 : error_set_errno(error, code, "look at %s", key);
        free(key);
        return failed;
    }
    if (!S_ISREG(status.st_mode)) {
        free(key);
        return 0;
    }
    listing->entries[listing->count++] = (struct store_entry){ .key = key, .size = (uint64_t)status.st_size };
    return 0;
}

int dir_list_page(int objects_fd, const char *prefix, const char *after, size_t limit, struct dir_window **window,
                  struct store_listing *ret_listing, struct error *error)
{
    bool whole_page = limit == STORE_LIST_MAX;
    bool fits =
        whole_page && *window != NULL && strcmp((*window)->prefix, prefix) == 0 && strcmp((*window)->last, after) == 0;
    struct dir_window *from = NULL;
    if (fits) {
        from = *window;
        *window = NULL;
    }
    struct store_listing listing = { .entries = memory_array(limit, sizeof(struct store_entry)) };
    int failed = 0;
    while (failed == 0 && listing.count < limit) {
        if (from != NULL && from->next < from->count) {
            failed = take_next(objects_fd, from, &listing, error);
            continue;
        }
        if (from != NULL && from->complete)
            break;
        struct dir_window *next = NULL;
        failed = window_new(objects_fd, prefix, from != NULL ? from->last : after, whole_page ? WINDOW_KEYS : limit,
                            &next, error);
        if (failed != 0)
            break;
        dir_window_free(from);
        from = next;
    }
    if (failed != 0) {
        dir_window_free(from);
        store_listing_free(&listing);
        return failed;
    }
    listing.more = from->next < from->count || !from->complete;
    if (listing.more && whole_page) {
        dir_window_free(*window);
        *window = from;
    } else {
        dir_window_free(from);
    }
    *ret_listing = listing;
    return 0;
}
