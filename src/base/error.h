/* Errors that carry a story.
 *
 * A function that can fail returns 0 or a negative errno value and tells the
 * rest in a struct error: what failed, on what, why, and where it helps, what
 * to do.  The code is for programs, the story is for people; each level that
 * knows something the level below did not puts it in front:
 *
 *     flush of volume 'db': commit 17: put v/…/log/…17: No space left on device
 *
 * A struct error lives on its user's stack or inside a longer-lived object.
 * It owns no memory, is copied by assignment, and never needs freeing.
 */
#ifndef CAIRN_BASE_ERROR_H
#define CAIRN_BASE_ERROR_H

/* Long enough for three levels of context with a key of 200 bytes among them;
 * a longer story loses its tail, never its head. */
#define ERROR_STORY_MAX 480

struct error {
    int code; /* positive errno, 0: no error so far */
    char story[ERROR_STORY_MAX];
};

#define ERROR_NONE                                                                                                     \
    {                                                                                                                  \
        .code = 0, .story = ""                                                                                         \
    }

/* Replaces what stood in `error` by `code` (a positive errno) and a story.
 * `error` may be NULL.  Returns -code. */
int error_set(struct error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Like error_set, with ": " and the text of `code` at the end. */
int error_set_errno(struct error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of the story that `error` holds; the code stays.
 * Returns -error->code (or -EIO where `error` is NULL). */
int error_context(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Copies `from` to `to`, either of which may be NULL.  Returns -from->code. */
int error_copy(struct error *to, const struct error *from);

#endif
