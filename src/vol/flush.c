/* What happens on FLUSH.
 *
 * Everything completed before it, on any connection of the volume, is in the
 * open batch or in one sealed earlier.  FLUSH seals the open batch, takes the newest as
 * its target, and waits until the committer (vol/commit.c, the next room) has
 * made a commit that covers it durable.  Flushes that meet wait for the same
 * commit; one that finds nothing uncommitted returns at once and costs no
 * request.
 *
 * It fails, and nothing is forgotten by that: the pages stay dirty and go on
 * being tried, so a later FLUSH succeeds when, and only when, they are durable.
 *   - at once, with the story, when an attempt made while it waited found no
 *     space or no permission: -ENOSPC, -EDQUOT, -EACCES, -EPERM, -EROFS;
 *   - at its deadline: -EIO with the last attempt's story;
 *   - when another owner has taken the volume: -ESHUTDOWN. */
#include "vol/flush.h"

#include <errno.h>

#include "vol/internal.h"

int volume_flush_try(struct volume *volume)
{
    if (volume->state != VOLUME_SERVING)
        return -ESHUTDOWN;
    return list_empty(&volume->batches) ? 0 : -EAGAIN;
}

int flush_until(struct volume *volume, uint64_t deadline_ns, struct error *error)
{
    uint64_t before = volume->next_batch - 1;
    bool skipped = MUTANT(flush_skips_open_batch) && volume->open != NULL;
    commit_seal(volume, true);
    uint64_t target = skipped ? before - 1 : volume->next_batch - 1;
    waitq_wake_all(&volume->hurry);
    uint64_t troubles = volume->trouble_count;
    if (MUTANT(acknowledge_before_commit) && deadline_ns != UINT64_MAX) /* a client's, not the keeper's */
        return 0;
    while (volume->committed_batch < target) {
        if (volume->state != VOLUME_SERVING)
            return error_set(error, ESHUTDOWN, "%s: another owner has taken it: %s", volume->subject,
                             volume->failure.story);
        int status = waitq_wait_until(&volume->committed, deadline_ns);
        if (status == -ECANCELED)
            return error_set(error, ECANCELED, "flush cancelled");
        if (volume->committed_batch >= target)
            break;
        if (volume->trouble_count != troubles && volume_is_hard(volume->trouble.code)) {
            error_copy(error, &volume->trouble);
            return error_context(error, "flush of %s", volume->subject);
        }
        if (status == -ETIMEDOUT)
            return error_set(error, EIO, "flush of %s: not durable in time: %s", volume->subject,
                             volume->trouble.code != 0 ? volume->trouble.story : "the store is slow");
    }
    return 0;
}

int volume_flush(struct volume *volume, struct error *error)
{
    if (volume->state != VOLUME_SERVING)
        return error_set(error, ESHUTDOWN, "%s is not served here any more", volume->subject);
    if (list_empty(&volume->batches))
        return 0;
    uint64_t deadline = loop_now_ns(volume->loop) + volume->all->settings.flush_deadline_ms * NS_PER_MS;
    return flush_until(volume, deadline, error);
}
