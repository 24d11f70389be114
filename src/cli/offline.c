/* A command that looks at a store needs what the server has, once: a loop of its own that ends with its work. */
#include "cli/offline.h"

#include <errno.h>

#include "daemon/marker.h"
#include "daemon/store_access.h"
#include "rt/loop.h"
#include "rt/task.h"

/* ---- a loop ---- */

struct loop_job {
    struct loop *loop;
    int (*fn)(struct loop *loop, void *arg, struct error *error);
    void *arg;
    int result;
    struct error *error;
};

static CO void loop_task(void *arg)
{
    struct loop_job *job = arg;

    job->result = job->fn(job->loop, job->arg, job->error);
    loop_stop(job->loop);
}

int offline_loop(int (*fn)(struct loop *loop, void *arg, struct error *error), void *arg, struct error *error)
{
    struct loop_job job = { .fn = fn, .arg = arg, .error = error };
    struct group group;

    int result = loop_uv_new(&job.loop, error);
    if (result < 0)
        return result;
    group_init(&group, job.loop);
    group_spawn(&group, "command", loop_task, &job);
    loop_run(job.loop);
    loop_free(job.loop);
    return job.result;
}

/* ---- and a store ---- */

struct offline_job {
    struct offline offline;
    bool any;
    int (*fn)(struct offline *offline, void *arg, struct error *error);
    void *arg;
};

static CO int work_on_store(struct offline_job *job, struct error *error)
{
    struct offline *offline = &job->offline;
    bool ours = true;
    int result = 0;

    if (!job->any)
        result = marker_check(offline->store, &ours, error);
    if (result == 0 && !ours)
        result = error_set(error, ENOENT,
                           "there is no cairn store in %s: start `cairn serve` on it once, or give another --store",
                           offline->config->store);
    return result == 0 ? job->fn(offline, job->arg, error) : result;
}

static CO int work(struct loop *loop, void *arg, struct error *error)
{
    struct offline_job *job = arg;
    struct offline *offline = &job->offline;
    struct store_access *access;

    offline->loop = loop;
    int result = store_access_new(offline->config, NULL, &access, error);
    if (result < 0)
        return result;
    result = store_access_reach(access, loop, &offline->store, error);
    if (result == 0) {
        result = work_on_store(job, error);
        store_close(offline->store);
    }
    store_access_free(access);
    return result;
}

int offline_run(const struct config *config, bool any,
                int (*fn)(struct offline *offline, void *arg, struct error *error), void *arg, struct error *error)
{
    struct offline_job job = { .offline.config = config, .any = any, .fn = fn, .arg = arg };

    return offline_loop(work, &job, error);
}
