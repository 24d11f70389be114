/* A command that looks at a store needs what the server has, once: a loop of its own that ends with its work. */
#include "cli/offline.h"

#include "daemon/marker.h"
#include "daemon/store_url.h"
#include "rt/loop.h"
#include "rt/task.h"

struct offline_job {
    struct offline offline;
    bool any;
    int (*fn)(struct offline *offline, void *arg, struct error *error);
    void *arg;
    int result;
    struct error *error;
};

static CO int work(struct offline_job *job)
{
    struct offline *offline = &job->offline;

    int result = store_url_open(offline->loop, offline->config->store, false, &offline->store, job->error);
    if (result < 0)
        return result;
    if (!job->any)
        result = marker_check(offline->loop, offline->store, false, job->error);
    if (result == 0)
        result = job->fn(offline, job->arg, job->error);
    store_close(offline->store);
    return result;
}

static CO void work_task(void *arg)
{
    struct offline_job *job = arg;

    job->result = work(job);
    loop_stop(job->offline.loop);
}

int offline_run(const struct config *config, bool any,
                int (*fn)(struct offline *offline, void *arg, struct error *error), void *arg, struct error *error)
{
    struct offline_job job = { .offline.config = config, .any = any, .fn = fn, .arg = arg, .error = error };
    struct group group;

    int result = loop_uv_new(&job.offline.loop, error);
    if (result < 0)
        return result;
    group_init(&group, job.offline.loop);
    group_spawn(&group, "command", work_task, &job);
    loop_run(job.offline.loop);
    loop_free(job.offline.loop);
    return job.result;
}
