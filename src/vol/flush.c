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
 *     space or no permission: -ENOSPC, -EDQUOT, -EACCES, -EPERM, -EROFS.  Not for
 *     attempts of a checkpoint, unless commits wait for that;
 *   - at its deadline: -EIO with the last attempt's story;
 *   - when another owner has taken the volume: -ESHUTDOWN. */
#include "vol/flush.h"

#include <errno.h>

#include "vol/checkpoint.h"
#include "vol/internal.h"

int volume_flush_try(struct volume *volume)
{
    if (volume->state != VOLUME_SERVING)
        return -ESHUTDOWN;
    return list_empty(&volume->batches) ? 0 : -EAGAIN;
}

struct watched {
    uint64_t commits, checkpoints;
};

static struct watched watch_troubles(const struct volume *volume)
{
    const struct error *last;
    return (struct watched){ .commits = volume->trouble_count, .checkpoints = checkpoint_trouble(volume, &last) };
}

/* Why an attempt has failed that was made since, and that commits wait for; NULL: none has. */
static const struct error *trouble_in_the_way(const struct volume *volume, const struct watched *since)
{
    const struct error *last;
    if (volume->trouble_count != since->commits && volume->trouble.code != 0)
        return &volume->trouble;
    bool failed = checkpoint_trouble(volume, &last) != since->checkpoints && last->code != 0;
    return failed && checkpoint_lags(volume) ? last : NULL;
}

int flush_until(struct volume *volume, uint64_t deadline_ns, struct error *error)
{
    uint64_t before = volume->newest_sealed;
    bool skipped = MUTANT(flush_skips_open_batch) && volume->open != NULL;
    commit_seal(volume, true);
    uint64_t target = skipped ? before : volume->newest_sealed;
    waitq_wake_all(&volume->hurry);
    if (checkpoint_lags(volume))
        checkpoint_hurry(volume);
    struct watched watched = watch_troubles(volume);
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
        const struct error *trouble = trouble_in_the_way(volume, &watched);
        if (trouble != NULL && volume_is_hard(trouble->code)) {
            error_copy(error, trouble);
            return error_context(error, "flush of %s", volume->subject);
        }
        if (status == -ETIMEDOUT) {
            if (trouble == NULL && volume->trouble.code != 0) /* from before, and not over */
                trouble = &volume->trouble;
            return error_set(error, EIO, "flush of %s: not durable in time: %s", volume->subject,
                             trouble != NULL ? trouble->story : "the store is slow");
        }
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
