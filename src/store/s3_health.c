/* Whether the store answers: one event when it stops, one when it is back.
 *
 * Every attempt is reported here.  A store that fails now and then is nobody's
 * concern, since everything is tried again; it counts as down when at least two
 * attempts in a row failed, over more than a moment, with none that was
 * answered in between.  Any answer that makes sense is an answer: also a
 * refusal. */
#include <errno.h>

#include "base/event.h"
#include "rt/loop.h"
#include "store/s3_internal.h"

#define DOWN_NS NS_PER_S

void s3_health_failed(struct s3 *s3, uint64_t sent_ns, const struct error *error)
{
    struct s3_health *health = &s3->health;
    if (health->failures == 0)
        health->since_ns = sent_ns > health->answered_ns ? sent_ns : health->answered_ns;
    if (health->failures < UINT32_MAX)
        health->failures++;
    if (error->code == ETIMEDOUT)
        health->timed_out = true;
    if (health->told || health->failures < 2 || loop_now_ns(s3->loop) - health->since_ns <= DOWN_NS)
        return;
    health->told = true;
    event_raise(s3->events, EVENT_WARNING, s3->subject, "the store does not answer; trying on: %s", error->story);
}

void s3_health_answered(struct s3 *s3)
{
    struct s3_health *health = &s3->health;
    bool told = health->told;
    uint64_t now_ns = loop_now_ns(s3->loop), down_ns = now_ns - health->since_ns;
    *health = (struct s3_health){ .answered_ns = now_ns };
    if (told)
        event_raise(s3->events, EVENT_INFO, s3->subject, "the store answers again, after %llu.%llu s",
                    (unsigned long long)(down_ns / NS_PER_S),
                    (unsigned long long)(down_ns % NS_PER_S / (NS_PER_S / 10)));
}
