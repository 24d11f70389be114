/* For tests of credentials: an environment of nothing but the test's own variables, a home directory of its own, and
 * everything that was said, looked through for secrets at the end. */
#ifndef CAIRN_TEST_LIB_CREDENTIAL_BENCH_H
#define CAIRN_TEST_LIB_CREDENTIAL_BENCH_H

#include "base/error.h"
#include "base/event.h"

/* Every secret of a test holds MARK, and nothing that is said may. */
#define MARK "sEcReT9"
#define SECRET MARK "/Abc+dEf0123456789GhIjKlMnOpQrStU"
#define SECRET_2 "AnOtHeR0+" MARK "/Abc+0123456789GhIjKlMn"
#define TOKEN "FwoGZXIvYXdzE" MARK "aDLmN0pQ1r2s3t4u5v6w7x8y9z=="

/* Sets both up; the instance's metadata are disabled. */
void credential_bench_begin(void);
/* Asserts that no secret was said; removes the directory. */
void credential_bench_end(void);

const char *credential_bench_home(void);
/* "credentials", "config": in ~/.aws; others in the home directory. */
void write_file(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *path_of(const char *name); /* the last few stay valid */

/* Keeps what was said, for the search at the end. */
void said(const char *text);
/* What the last event said; and how many there were of at least a level. */
extern struct event_sink credential_bench_events;
const char *last_event(void);
unsigned count_events(enum event_level least);

#endif
