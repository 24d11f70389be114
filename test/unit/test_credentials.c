/* The credential chain: each source against a small local fake, their order, and refreshing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../lib/credential_bench.h"
#include "../lib/http_fake.h"
#include "../lib/in_loop.h"
#include "base/buffer.h"
#include "base/memory.h"
#include "rt/wait.h"
#include "store/credentials.h"
#include "store/http.h"

/* ---- the bench: a chain in a loop, and a server that plays every service ---- */

struct bench {
    struct loop *loop;
    struct http *http; /* NULL in the simulation, which knows processes only */
    struct credentials_setup setup;
    struct credential_chain *chain;
    char story[ERROR_STORY_MAX]; /* of the last get that failed */
};

struct run {
    void (*test)(struct bench *bench);
};

static void run_on_bench(struct loop *loop, void *arg)
{
    const struct run *run = arg;
    struct bench bench = { .loop = loop, .setup.events = &credential_bench_events };
    const struct http_setup setup = { .connections_max = 32, .idle_ms = 1000, .silence_ms = 10000 };
    assert_int_equal(http_new(loop, &setup, &bench.http, NULL), 0);
    run->test(&bench);
    credential_chain_close(bench.chain);
    http_free(bench.http);
}

static void run_in_simulation(struct loop *loop, void *arg)
{
    const struct run *run = arg;
    struct bench bench = { .loop = loop, .setup.events = &credential_bench_events };
    run->test(&bench);
    credential_chain_close(bench.chain);
}

static int begin(void **state)
{
    credential_bench_begin();
    return 0;
}

static int end(void **state)
{
    credential_bench_end();
    return 0;
}

/* Closes the chain that there was, if any, and makes another. */
static void fresh_chain(struct bench *bench)
{
    credential_chain_close(bench->chain);
    bench->chain = NULL;
    assert_int_equal(credential_chain_new(bench->loop, bench->http, &bench->setup, &bench->chain, NULL), 0);
}

static int get(struct bench *bench, struct credentials *ret_credentials)
{
    struct error error = ERROR_NONE;
    http_fake_settle();
    int failed = credential_chain_get(bench->chain, ret_credentials, &error);
    http_fake_settle();
    said(error.story);
    said(credential_chain_source(bench->chain));
    memcpy(bench->story, error.story, sizeof bench->story);
    assert_true((failed != 0) == (error.code != 0) && failed == -error.code);
    return failed;
}

static void assert_found(struct bench *bench, const char *access_key, const char *source)
{
    struct credentials found;
    int failed = get(bench, &found);
    if (failed != 0)
        fail_msg("%s", bench->story);
    assert_string_equal(found.access_key, access_key);
    assert_string_equal(credential_chain_source(bench->chain), source);
}

static void assert_fresh(struct bench *bench, const char *access_key, const char *source)
{
    fresh_chain(bench);
    assert_found(bench, access_key, source);
}

static void assert_not_found(struct bench *bench, int code, const char *expected)
{
    struct credentials none = { .generation = 4711 };
    fresh_chain(bench);
    assert_int_equal(get(bench, &none), -code);
    if (strstr(bench->story, expected) == NULL)
        fail_msg("%s", bench->story);
    assert_int_equal(none.generation, 4711);
    assert_string_equal(credential_chain_source(bench->chain), "");
}

static void format_time(uint64_t time_s, char ret_text[32])
{
    time_t time = (time_t)time_s;
    struct tm parts;
    gmtime_r(&time, &parts);
    strftime(ret_text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

static const char *in_an_hour(void)
{
    static char text[32];
    format_time((uint64_t)time(NULL) + 3600, text);
    return text;
}

static void set_keys(void)
{
    setenv("AWS_ACCESS_KEY_ID", "AKIDENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
}

static void assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, text);
}

/* ---- given, environment, static keys ---- */

static void given(struct bench *bench)
{
    struct credentials found;
    set_keys();
    bench->setup.access_key = "AKIDGIVEN";
    bench->setup.secret_key = SECRET_2;
    bench->setup.session_token = TOKEN;
    assert_fresh(bench, "AKIDGIVEN", "the settings");
    assert_int_equal(get(bench, &found), 0);
    assert_string_equal(found.secret_key, SECRET_2);
    assert_string_equal(found.token, TOKEN);
    assert_int_equal(found.generation, 1);
    assert_false(credential_chain_refused(bench->chain, found.generation));
    assert_true(credential_chain_refused(bench->chain, found.generation + 1));
}

static void half_given(struct bench *bench)
{
    struct error error = ERROR_NONE;
    const struct credentials_setup without_secret = { .access_key = "AKID", .secret_key = "" };
    const struct credentials_setup without_access = { .secret_key = SECRET };
    assert_int_equal(credential_chain_new(bench->loop, bench->http, &without_secret, &bench->chain, &error), -EINVAL);
    assert_contains(error.story, "the secret key is missing");
    assert_int_equal(credential_chain_new(bench->loop, bench->http, &without_access, &bench->chain, &error), -EINVAL);
    assert_contains(error.story, "the access key is missing");
    assert_null(bench->chain);
}

static void environment(struct bench *bench)
{
    struct credentials found;
    set_keys();
    assert_fresh(bench, "AKIDENV", "AWS_ACCESS_KEY_ID");
    assert_int_equal(get(bench, &found), 0);
    assert_string_equal(found.secret_key, SECRET);
    assert_null(found.token);
    assert_false(credential_chain_refused(bench->chain, 1));
    setenv("AWS_SECURITY_TOKEN", "old" TOKEN, 1);
    fresh_chain(bench);
    assert_int_equal(get(bench, &found), 0);
    assert_string_equal(found.token, "old" TOKEN);
    setenv("AWS_SESSION_TOKEN", TOKEN, 1);
    fresh_chain(bench);
    assert_int_equal(get(bench, &found), 0);
    assert_string_equal(found.token, TOKEN);
    setenv("AWS_ACCESS_KEY_ID", "", 1);
    assert_not_found(bench, EINVAL, "AWS_SECRET_ACCESS_KEY is set, but not AWS_ACCESS_KEY_ID");
    setenv("AWS_ACCESS_KEY_ID", "AKIDENV", 1);
    unsetenv("AWS_SECRET_ACCESS_KEY");
    assert_not_found(bench, EINVAL, "AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY");
}

static void static_keys(struct bench *bench)
{
    struct credentials found;
    write_file("config", "[default]\naws_access_key_id = AKIDCONFIG\naws_secret_access_key = " SECRET "\n"
                         "[profile half]\naws_access_key_id = AKIDHALF\n");
    assert_fresh(bench, "AKIDCONFIG", "profile 'default' (static keys)");
    write_file("credentials", "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = " SECRET_2 "\n"
                              "[dev]\naws_access_key_id = AKIDDEV\naws_secret_access_key = " SECRET "\n"
                              "aws_session_token = " TOKEN "\n");
    assert_fresh(bench, "AKIDFILE", "profile 'default' (static keys)");
    setenv("AWS_PROFILE", "dev", 1);
    assert_fresh(bench, "AKIDDEV", "profile 'dev' (static keys)");
    assert_int_equal(get(bench, &found), 0);
    assert_string_equal(found.secret_key, SECRET);
    assert_string_equal(found.token, TOKEN);
    setenv("AWS_PROFILE", "half", 1);
    assert_not_found(bench, EINVAL, "profile 'half' has only one of");
    setenv("AWS_PROFILE", "gone", 1);
    assert_not_found(bench, EINVAL, "profile 'gone' is neither in ");
    bench->setup.profile = "dev";
    assert_fresh(bench, "AKIDDEV", "profile 'dev' (static keys)");
}

/* Tools of all kinds write new keys into the file. */
static void keys_that_were_replaced(struct bench *bench)
{
    struct credentials found;
    write_file("credentials", "[default]\naws_access_key_id = AKID1\naws_secret_access_key = " SECRET "\n");
    assert_fresh(bench, "AKID1", "profile 'default' (static keys)");
    write_file("credentials", "[default]\naws_access_key_id = AKID2\naws_secret_access_key = " SECRET "\n");
    assert_found(bench, "AKID1", "profile 'default' (static keys)");
    assert_true(credential_chain_refused(bench->chain, 1));
    assert_found(bench, "AKID2", "profile 'default' (static keys)");
    assert_int_equal(get(bench, &found), 0);
    assert_int_equal(found.generation, 2);
    assert_true(credential_chain_refused(bench->chain, 1));
    /* New ones that are refused at once are not the file's fault. */
    assert_false(credential_chain_refused(bench->chain, 2));
}

static void files_that_cannot_be_read(struct bench *bench)
{
    write_file("credentials", "[default]\naws_secret_access_key " SECRET "\n");
    assert_not_found(bench, EINVAL, "/.aws/credentials, line 2: neither a [section]");
    setenv("AWS_SHARED_CREDENTIALS_FILE", credential_bench_home(), 1);
    assert_not_found(bench, EINVAL, "is not a regular file");
}

static void browser(struct bench *bench)
{
    write_file("config", "[default]\nsso_session = s\nsso_account_id = 1\n");
    assert_not_found(bench, EINVAL, "credential_process = aws configure export-credentials --profile default");
}

static void nothing(struct bench *bench)
{
    assert_not_found(bench, ENOENT, "profile 'default' has none");
    assert_contains(bench->story, "not in a container");
    assert_contains(bench->story, "AWS_EC2_METADATA_DISABLED");
    assert_contains(bench->story, "or AWS_PROFILE");
    bench->setup.local_defaults = true;
    assert_fresh(bench, "minioadmin", "MinIO's defaults for a local server");
    assert_false(credential_chain_refused(bench->chain, 1));
}

/* ---- processes ---- */

static void set_process(const char *command)
{
    write_file("config", "[default]\ncredential_process = %s\n", command);
}

static void write_output(const char *access_key, const char *more)
{
    write_file("output", "{\"Version\": 1, \"AccessKeyId\": \"%s\", \"SecretAccessKey\": \"%s\"%s}\n", access_key,
               SECRET, more);
}

static void process(struct bench *bench)
{
    struct credentials found;
    write_output("AKIDPROCESS", ", \"SessionToken\": \"" TOKEN "\"");
    write_file("with blanks", "cat \"$1\"\n");
    set_process("sh \"$HOME/with blanks\" \"$HOME/output\" 2>&1");
    assert_fresh(bench, "AKIDPROCESS", "profile 'default' (credential_process)");
    assert_int_equal(get(bench, &found), 0);
    assert_string_equal(found.secret_key, SECRET);
    assert_string_equal(found.token, TOKEN);
    write_output("AKIDPROCESS2", "");
    assert_true(credential_chain_refused(bench->chain, found.generation));
    assert_found(bench, "AKIDPROCESS2", "profile 'default' (credential_process)");
}

static int child_of_the_process(void)
{
    FILE *file = fopen(path_of("child"), "r");
    int child = 0;
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%d", &child), 1);
    fclose(file);
    return child;
}

/* Nobody may have waited for it yet. */
static bool is_running(int pid)
{
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
    fclose(file);
    return state != 'Z' && state != 'X';
}

static void process_that_leaves_a_child(struct bench *bench)
{
    write_output("AKIDPROCESS", "");
    set_process("sleep 100 & echo $! > $HOME/child; cat $HOME/output");
    assert_fresh(bench, "AKIDPROCESS", "profile 'default' (credential_process)");
    int child = child_of_the_process();
    assert_true(is_running(child));
    assert_int_equal(kill(child, SIGKILL), 0);
}

static void process_that_is_killed(struct bench *bench)
{
    set_process("sleep 100 & echo $! > $HOME/child; yes");
    assert_not_found(bench, EPROTO, "credential_process: it printed more than 64 KiB");
    int child = child_of_the_process();
    while (is_running(child))
        sleep_ns(NS_PER_MS);
}

/* Of what we have open nothing, and signals as they should be. */
static void process_inherits_nothing(struct bench *bench)
{
    int open = dup2(STDERR_FILENO, 77);
    signal(SIGPIPE, SIG_IGN);
    set_process("test -e /proc/$$/fd/77 || echo closed >&2; exit 1");
    assert_not_found(bench, EIO, "it ended with status 1: closed");
    set_process("kill -PIPE $$; exit 1");
    assert_not_found(bench, EIO, "it was ended by signal 13");
    signal(SIGPIPE, SIG_DFL);
    close(open);
}

static void processes_that_fail(struct bench *bench)
{
    char now[32], command[200];
    set_process("echo 'no session; sign in, " SECRET "' >&2; echo " SECRET "; exit 3");
    assert_not_found(bench, EIO,
                     "profile 'default': credential_process: it ended with status 3: no session; sign in, […]");
    set_process("kill -9 $$");
    assert_not_found(bench, EIO, "credential_process: it was ended by signal 9");
    set_process("/nonexistent/program");
    assert_not_found(bench, EIO, "credential_process: it ended with status 127: ");
    set_process("yes");
    assert_not_found(bench, EPROTO, "credential_process: it printed more than 64 KiB");
    set_process("yes >&2");
    assert_not_found(bench, EPROTO, "credential_process: it complained more than 1024 KiB");
    set_process("echo '" SECRET "'");
    assert_not_found(bench, EPROTO, "credential_process: not JSON");
    set_process("true");
    assert_not_found(bench, EPROTO, "credential_process: nothing where JSON should be");
    format_time((uint64_t)time(NULL) - 5, now);
    snprintf(command, sizeof command, ", \"Expiration\": \"%s\"", now);
    write_output("AKIDOLD", command);
    set_process("cat $HOME/output");
    assert_not_found(bench, EIO, "profile 'default' (credential_process): expired on ");
    assert_contains(bench->story, "this machine's clock");
}

static void get_in_task(void *arg)
{
    struct bench *bench = arg;
    struct credentials none;
    struct error error = ERROR_NONE;
    assert_int_equal(credential_chain_get(bench->chain, &none, &error), -ECANCELED);
    said(error.story);
}

/* Neither the caller nor the chain waits for it. */
static void process_that_hangs(struct bench *bench)
{
    set_process("sleep 100");
    fresh_chain(bench);
    struct group group;
    group_init(&group, bench->loop);
    group_spawn(&group, "get", get_in_task, bench);
    sleep_ns(50 * NS_PER_MS);
    group_cancel(&group);
    group_join(&group);
    uint64_t start_ns = loop_boottime_ns(bench->loop);
    credential_chain_close(bench->chain);
    bench->chain = NULL;
    assert_true(loop_boottime_ns(bench->loop) - start_ns < 50 * NS_PER_S);
}

/* ---- the token service ---- */

/* What the server does, and what it was sent. */
struct service {
    struct http_fake *fake;
    int status;       /* 0: 200 and credentials */
    const char *body; /* of an answer with a status */
    enum http_fake_manner manner;
    unsigned failing;  /* the first so many answers are 500 */
    struct buffer log; /* a line for each request: what matters of it */
    bool roles_too;    /* of an instance: the list of roles is answered so as well */
};

static void log_header(struct service *service, const struct http_fake_request *request, const char *name)
{
    char *value = http_fake_header(request, name);
    if (value != NULL)
        buffer_printf(&service->log, " %s: %s;", name, value);
    free(value);
}

static const char *take_log(struct service *service)
{
    static char text[8192];
    snprintf(text, sizeof text, "%s", service->log.length > 0 ? (char *)service->log.data : "");
    buffer_clear(&service->log);
    return text;
}

static bool misbehave(struct service *service, const struct http_fake_request *request, struct http_fake_reply *reply)
{
    reply->manner = service->manner;
    if (request->number <= service->failing) {
        reply->status = 500;
        return true;
    }
    if (service->status == 0 && service->manner == HTTP_FAKE_ANSWER)
        return false;
    reply->status = service->status != 0 ? service->status : 200;
    reply->body = service->body != NULL ? memory_string(service->body) : NULL;
    return true;
}

static void answer_sts(void *arg, const struct http_fake_request *request, struct http_fake_reply *reply)
{
    struct service *service = arg;
    buffer_printf(&service->log, "%s %s %s", request->method, request->path, request->body);
    log_header(service, request, "Content-Type");
    log_header(service, request, "Authorization");
    log_header(service, request, "X-Amz-Security-Token");
    buffer_printf(&service->log, "\n");
    if (misbehave(service, request, reply))
        return;
    const char *action = strstr(request->body, "WithWebIdentity") != NULL ? "AssumeRoleWithWebIdentity" : "AssumeRole";
    struct buffer body = BUFFER_EMPTY;
    buffer_printf(
        &body,
        "<%sResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><%sResult><Credentials>"
        "<AccessKeyId>ASIA%u</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken>"
        "<Expiration>%s</Expiration></Credentials></%sResult></%sResponse>",
        action, action, request->number, SECRET_2, TOKEN, in_an_hour(), action, action);
    reply->body = (char *)body.data;
}

static void start_service(struct service *service, http_fake_answer *answer)
{
    *service = (struct service){ .manner = HTTP_FAKE_ANSWER };
    service->fake = http_fake_start(answer, service);
}

static void stop_service(struct service *service)
{
    http_fake_stop(service->fake);
    buffer_free(&service->log);
}

static void start_sts(struct service *sts)
{
    start_service(sts, answer_sts);
    setenv("AWS_ENDPOINT_URL_STS", http_fake_url(sts->fake), 1);
    setenv("AWS_REGION", "eu-test-1", 1);
}

#define BASE "[base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = " SECRET "\n"

static void assumed_role(struct bench *bench)
{
    struct service sts;
    struct credentials found;
    start_sts(&sts);
    write_file("credentials", BASE "aws_session_token = " TOKEN "\n");
    write_file("config", "[default]\nrole_arn = arn:aws:iam::1:role/one\nsource_profile = base\n"
                         "[profile full]\nrole_arn = arn:aws:iam::1:role/two\nsource_profile = base\n"
                         "role_session_name = me@here\nexternal_id = a b+c&d\nduration_seconds = 900\n");
    assert_fresh(bench, "ASIA1", "profile 'default' (assumed role)");
    assert_int_equal(get(bench, &found), 0);
    assert_string_equal(found.secret_key, SECRET_2);
    assert_string_equal(found.token, TOKEN);
    const char *log = take_log(&sts);
    assert_contains(log, "POST / Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fone"
                         "&RoleSessionName=cairn-");
    assert_contains(log, " Content-Type: application/x-www-form-urlencoded;");
    assert_contains(log, " Authorization: AWS4-HMAC-SHA256 Credential=AKIDBASE/");
    assert_contains(log, "/eu-test-1/sts/aws4_request");
    assert_contains(log, "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token");
    assert_contains(log, " X-Amz-Security-Token: " TOKEN ";");
    bench->setup.profile = "full";
    assert_fresh(bench, "ASIA2", "profile 'full' (assumed role)");
    assert_contains(take_log(&sts), "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Ftwo&RoleSessionName=me%40here"
                                    "&ExternalId=a%20b%2Bc%26d&DurationSeconds=900 ");
    stop_service(&sts);
}

static void roles_in_a_chain(struct bench *bench)
{
    struct service sts;
    start_sts(&sts);
    write_file("credentials", BASE);
    write_file("config", "[default]\nrole_arn = r1\nsource_profile = middle\n"
                         "[profile middle]\nrole_arn = r2\nsource_profile = base\n"
                         "[profile self]\nrole_arn = r3\nsource_profile = self\n"
                         "aws_access_key_id = AKIDSELF\naws_secret_access_key = " SECRET "\n");
    assert_fresh(bench, "ASIA2", "profile 'default' (assumed role)");
    const char *log = take_log(&sts);
    const char *first = strstr(log, "RoleArn=r2&"), *second = strstr(log, "RoleArn=r1&");
    assert_true(first != NULL && second != NULL && first < second);
    assert_contains(first, "Credential=AKIDBASE/");
    assert_contains(second, "Credential=ASIA1/");
    assert_contains(second, " X-Amz-Security-Token: " TOKEN);
    bench->setup.profile = "self";
    assert_fresh(bench, "ASIA3", "profile 'self' (assumed role)");
    assert_contains(take_log(&sts), "Credential=AKIDSELF/");
    stop_service(&sts);
}

static void assert_bad_role(struct bench *bench, const char *profile, const char *expected)
{
    bench->setup.profile = profile;
    assert_not_found(bench, EINVAL, expected);
}

static void roles_that_cannot_be(struct bench *bench)
{
    write_file("credentials", BASE);
    write_file("config", "[profile circle]\nrole_arn = r\nsource_profile = circle2\n"
                         "[profile circle2]\nrole_arn = r\nsource_profile = circle3\n"
                         "[profile circle3]\nrole_arn = r\nsource_profile = circle2\n"
                         "[profile self]\nrole_arn = r\nsource_profile = self\n"
                         "[profile gone]\nrole_arn = r\nsource_profile = nowhere\n"
                         "[profile none]\nrole_arn = r\nsource_profile = empty\n"
                         "[profile empty]\nregion = x\n"
                         "[profile both]\nrole_arn = r\nsource_profile = base\ncredential_source = Environment\n"
                         "[profile neither]\nrole_arn = r\n"
                         "[profile mfa]\nrole_arn = r\nsource_profile = base\nmfa_serial = arn:x\n"
                         "[profile long]\nrole_arn = r\nsource_profile = base\nduration_seconds = an hour\n"
                         "[profile odd]\nrole_arn = r\ncredential_source = Heaven\n"
                         "[profile env]\nrole_arn = r\ncredential_source = Environment\n"
                         "[profile token]\nweb_identity_token_file = /nonexistent\n"
                         "[profile token2]\nrole_arn = r\nweb_identity_token_file = /nonexistent\n");
    assert_bad_role(bench, "circle", "profile 'circle3': its source_profile 'circle2' leads back to itself");
    assert_bad_role(bench, "self", "profile 'self': its source_profile 'self' leads back to itself");
    assert_bad_role(bench, "gone", "profile 'gone': its source_profile 'nowhere' is neither in ");
    assert_bad_role(bench, "none", "profile 'none': its source_profile 'empty' has no credentials");
    assert_bad_role(bench, "both", "both source_profile and credential_source");
    assert_bad_role(bench, "neither", "neither source_profile nor credential_source");
    assert_bad_role(bench, "mfa", "profile 'mfa' asks for a code from a device (mfa_serial)");
    assert_bad_role(bench, "long", "duration_seconds is not a number");
    assert_bad_role(bench, "odd", "credential_source is Environment, EcsContainer or Ec2InstanceMetadata");
    assert_bad_role(bench, "env", "credential_source = Environment has no credentials");
    assert_bad_role(bench, "token", "profile 'token' has a web_identity_token_file, but no role_arn");
    assert_bad_role(bench, "token2", "profile 'token2': assume the role r: open /nonexistent");
    struct buffer chain = BUFFER_EMPTY;
    for (int i = 0; i < 20; i++)
        buffer_printf(&chain, "[profile p%d]\nrole_arn = r\nsource_profile = p%d\n", i, i + 1);
    write_file("config", "%s", (const char *)chain.data);
    buffer_free(&chain);
    assert_bad_role(bench, "p0", "profile 'p0' ends a chain of more than 8 profiles");
}

static void credential_sources(struct bench *bench)
{
    struct service sts;
    start_sts(&sts);
    set_keys();
    write_file("config", "[profile role]\nrole_arn = r\ncredential_source = Environment\n");
    bench->setup.profile = "role";
    assert_fresh(bench, "ASIA1", "profile 'role' (assumed role)");
    assert_contains(take_log(&sts), "Credential=AKIDENV/");
    stop_service(&sts);
}

/* Each of the token service's answers in turn. */
static void token_service_that_fails(struct bench *bench)
{
    struct service sts;
    start_sts(&sts);
    write_file("credentials", BASE);
    write_file("config", "[default]\nrole_arn = arn:r\nsource_profile = base\n");
    sts.status = 403;
    sts.body = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not for " SECRET "</Message>"
               "</Error></ErrorResponse>";
    assert_not_found(bench, EACCES, "profile 'default': assume the role arn:r: ");
    assert_contains(bench->story, "it answered 403 AccessDenied: not for […]");
    assert_int_equal(http_fake_count(sts.fake), 1);
    sts.status = 400;
    sts.body = "<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>";
    assert_not_found(bench, EIO, "it answered 400 Throttling: Rate exceeded");
    assert_int_equal(http_fake_count(sts.fake), 1 + 3);
    sts.status = 200;
    sts.body = "<html>" SECRET "</html>";
    assert_not_found(bench, EPROTO, "assume the role arn:r: ");
    sts.body = "<AssumeRoleResponse><AssumeRoleResult><Credentials><SecretAccessKey>" SECRET;
    assert_not_found(bench, EPROTO, "assume the role arn:r: ");
    sts.manner = HTTP_FAKE_ENDLESS;
    assert_not_found(bench, EPROTO, "assume the role arn:r: ");
    sts.manner = HTTP_FAKE_DROP;
    assert_not_found(bench, ECONNRESET, "assume the role arn:r: ");
    stop_service(&sts);
    assert_not_found(bench, ECONNREFUSED, "assume the role arn:r: ");
    setenv("AWS_ENDPOINT_URL_STS", "::", 1);
    assert_not_found(bench, EINVAL, "is not a URL such as https://sts.");
}

static void token_service_that_recovers(struct bench *bench)
{
    struct service sts;
    start_sts(&sts);
    sts.failing = 2;
    write_file("credentials", BASE);
    write_file("config", "[default]\nrole_arn = r\nsource_profile = base\n");
    assert_fresh(bench, "ASIA3", "profile 'default' (assumed role)");
    stop_service(&sts);
}

/* As for every service: its own variable, the variable for all, the profile's services, the profile. */
static void endpoints_of_the_token_service(struct bench *bench)
{
    struct service sts;
    start_sts(&sts);
    const char *url = http_fake_url(sts.fake);
    unsetenv("AWS_ENDPOINT_URL_STS");
    unsetenv("AWS_REGION");
    write_file("credentials", BASE);
    write_file("config",
               "[default]\nrole_arn = r\nsource_profile = base\nservices = s\nregion = profile-1\n"
               "endpoint_url = http://127.0.0.1:1\n[services s]\nsts =\n  endpoint_url = %s/path/\n",
               url);
    assert_fresh(bench, "ASIA1", "profile 'default' (assumed role)");
    const char *log = take_log(&sts);
    assert_contains(log, "POST /path/ ");
    assert_contains(log, "/profile-1/sts/aws4_request");
    setenv("AWS_ENDPOINT_URL", url, 1);
    assert_fresh(bench, "ASIA2", "profile 'default' (assumed role)");
    assert_contains(take_log(&sts), "POST / ");
    write_file("config", "[default]\nrole_arn = r\nsource_profile = base\n");
    bench->setup.region = "store-1";
    assert_fresh(bench, "ASIA3", "profile 'default' (assumed role)");
    assert_contains(take_log(&sts), "/store-1/sts/aws4_request");
    stop_service(&sts);
}

static void web_identity(struct bench *bench)
{
    struct service sts;
    start_sts(&sts);
    write_file("token", "  header." TOKEN "\n");
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", path_of("token"), 1);
    assert_not_found(bench, EINVAL, "but not AWS_ROLE_ARN");
    setenv("AWS_ROLE_ARN", "arn:web", 1);
    setenv("AWS_ROLE_SESSION_NAME", "session", 1);
    assert_fresh(bench, "ASIA1", "AWS_WEB_IDENTITY_TOKEN_FILE");
    const char *log = take_log(&sts);
    assert_contains(log, "POST / Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aweb"
                         "&RoleSessionName=session&WebIdentityToken=header.");
    assert_null(strstr(log, "Authorization"));
    /* The token was replaced. */
    write_file("token", "second");
    assert_true(credential_chain_refused(bench->chain, 1));
    assert_found(bench, "ASIA2", "AWS_WEB_IDENTITY_TOKEN_FILE");
    assert_contains(take_log(&sts), "&WebIdentityToken=second ");
    write_file("token", "two\n" SECRET "\n");
    assert_not_found(bench, EINVAL, "holds more than one line");
    write_file("token", " \n");
    assert_not_found(bench, EINVAL, "/token is empty");
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", path_of("absent"), 1);
    assert_not_found(bench, EINVAL, "AWS_WEB_IDENTITY_TOKEN_FILE: assume the role arn:web: open ");
    stop_service(&sts);
}

static void web_identity_of_a_profile(struct bench *bench)
{
    struct service sts;
    start_sts(&sts);
    write_file("token", "profile-token");
    write_file("config",
               "[default]\nrole_arn = r\nsource_profile = web\n"
               "[profile web]\nrole_arn = w\nrole_session_name = n\nweb_identity_token_file = %s\n",
               path_of("token"));
    bench->setup.profile = "web";
    assert_fresh(bench, "ASIA1", "profile 'web' (web identity)");
    assert_contains(take_log(&sts), "RoleArn=w&RoleSessionName=n&WebIdentityToken=profile-token ");
    bench->setup.profile = NULL;
    assert_fresh(bench, "ASIA3", "profile 'default' (assumed role)");
    assert_contains(take_log(&sts), "Credential=ASIA2/");
    stop_service(&sts);
}

/* ---- containers ---- */

static void put_document(struct http_fake_reply *reply, const char *access_key, unsigned number)
{
    struct buffer body = BUFFER_EMPTY;
    buffer_printf(&body,
                  "{\"Code\": \"Success\", \"AccessKeyId\": \"%s%u\", \"SecretAccessKey\": \"%s\", \"Token\": \"%s\", "
                  "\"Expiration\": \"%s\"}",
                  access_key, number, SECRET, TOKEN, in_an_hour());
    reply->body = (char *)body.data;
}

static void answer_container(void *arg, const struct http_fake_request *request, struct http_fake_reply *reply)
{
    struct service *service = arg;
    buffer_printf(&service->log, "%s %s", request->method, request->path);
    log_header(service, request, "Authorization");
    buffer_printf(&service->log, "\n");
    if (!misbehave(service, request, reply))
        put_document(reply, "CONT", request->number);
}

static void start_container(struct service *container)
{
    char url[200];
    start_service(container, answer_container);
    snprintf(url, sizeof url, "%s/credentials?id=1", http_fake_url(container->fake));
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
}

static void container(struct bench *bench)
{
    struct service agent;
    struct credentials found;
    start_container(&agent);
    assert_fresh(bench, "CONT1", "the container's credentials");
    assert_int_equal(get(bench, &found), 0);
    assert_string_equal(found.secret_key, SECRET);
    assert_string_equal(found.token, TOKEN);
    assert_string_equal(take_log(&agent), "GET /credentials?id=1\n");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic " TOKEN, 1);
    assert_fresh(bench, "CONT2", "the container's credentials");
    assert_contains(take_log(&agent), " Authorization: Basic " TOKEN ";");
    write_file("token", "from-file\n");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path_of("token"), 1);
    assert_fresh(bench, "CONT3", "the container's credentials");
    assert_contains(take_log(&agent), " Authorization: from-file;");
    /* As the source of a role. */
    struct service sts;
    start_sts(&sts);
    write_file("config", "[profile role]\nrole_arn = r\ncredential_source = EcsContainer\n");
    bench->setup.profile = "role";
    assert_fresh(bench, "ASIA1", "profile 'role' (assumed role)");
    assert_contains(take_log(&sts), "Credential=CONT4/");
    stop_service(&sts);
    stop_service(&agent);
}

static void container_that_fails(struct bench *bench)
{
    struct service agent;
    start_container(&agent);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a\r\nX: " SECRET, 1);
    assert_not_found(bench, EINVAL, "control bytes");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", TOKEN, 1);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path_of("absent"), 1);
    assert_not_found(bench, EINVAL, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: open ");
    unsetenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    assert_int_equal(http_fake_count(agent.fake), 0);
    agent.failing = 1;
    assert_fresh(bench, "CONT2", "the container's credentials");
    agent.status = 403;
    agent.body = "who is " TOKEN "?";
    assert_not_found(bench, EACCES, "credentials of the container: it answered 403: who is […]?");
    stop_service(&agent);
}

static void assert_bad_url(struct bench *bench, const char *url, const char *expected)
{
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
    assert_not_found(bench, EINVAL, expected);
}

static void containers_elsewhere(struct bench *bench)
{
    assert_bad_url(bench, "http://example.com/", "must be https://");
    assert_bad_url(bench, "http://10.0.0.1/", "must be https://");
    assert_bad_url(bench, "http://169.254.170.3/", "must be https://");
    assert_bad_url(bench, "http://127.0.0.1.example.com/", "must be https://");
    assert_bad_url(bench, "http://[fd00:ec2::24]/", "must be https://");
    assert_bad_url(bench, "ftp://127.0.0.1/", "must be https://");
    assert_bad_url(bench, "http://127.0.0.1@example.com/", "is not a URL such as");
    assert_bad_url(bench, "http://user:pass@127.0.0.1/", "is not a URL such as");
    assert_bad_url(bench, "/credentials", "is not a URL such as");
    assert_bad_url(bench, "http://127.0.0.1:99999/", "is not a URL such as");
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "credentials", 1);
    assert_not_found(bench, EINVAL, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with '/'");
}

/* ---- the instance ---- */

static void answer_instance(void *arg, const struct http_fake_request *request, struct http_fake_reply *reply)
{
    struct service *service = arg;
    static const char roles[] = "/latest/meta-data/iam/security-credentials/";
    char *token = http_fake_header(request, "X-aws-ec2-metadata-token");
    char *life = http_fake_header(request, "X-aws-ec2-metadata-token-ttl-seconds");
    bool is_put = strcmp(request->method, "PUT") == 0;
    buffer_printf(&service->log, "%s %s\n", request->method, request->path);
    if (is_put && life != NULL && strcmp(request->path, "/latest/api/token") == 0) {
        reply->manner = service->manner;
        reply->body = memory_string("ses" TOKEN);
    } else if (is_put || token == NULL || strcmp(token, "ses" TOKEN) != 0) {
        reply->status = 401;
    } else if (strcmp(request->path, roles) == 0) {
        reply->body = memory_string("web-server\n");
        if (service->roles_too) {
            free(reply->body);
            misbehave(service, request, reply);
        }
    } else if (!misbehave(service, request, reply)) {
        put_document(reply, "INST", request->number);
    }
    free(token);
    free(life);
}

static void start_instance(struct service *instance)
{
    start_service(instance, answer_instance);
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", http_fake_url(instance->fake), 1);
    unsetenv("AWS_EC2_METADATA_DISABLED");
}

static void instance(struct bench *bench)
{
    struct service metadata;
    start_instance(&metadata);
    assert_fresh(bench, "INST3", "the instance's role 'web-server'");
    assert_string_equal(take_log(&metadata), "PUT /latest/api/token\n"
                                             "GET /latest/meta-data/iam/security-credentials/\n"
                                             "GET /latest/meta-data/iam/security-credentials/web-server\n");
    setenv("AWS_EC2_METADATA_DISABLED", "True", 1);
    assert_not_found(bench, ENOENT, "instance: AWS_EC2_METADATA_DISABLED");
    assert_string_equal(take_log(&metadata), "");
    unsetenv("AWS_EC2_METADATA_DISABLED");
    struct service sts;
    start_sts(&sts);
    write_file("config", "[profile role]\nrole_arn = r\ncredential_source = Ec2InstanceMetadata\n");
    bench->setup.profile = "role";
    assert_fresh(bench, "ASIA1", "profile 'role' (assumed role)");
    assert_contains(take_log(&sts), "Credential=INST6/");
    stop_service(&sts);
    stop_service(&metadata);
}

static void instances_without(struct bench *bench)
{
    struct service metadata;
    start_instance(&metadata);
    bench->setup.local_defaults = true;
    metadata.manner = HTTP_FAKE_DROP;
    assert_fresh(bench, "minioadmin", "MinIO's defaults for a local server");
    metadata.manner = HTTP_FAKE_SILENCE;
    assert_fresh(bench, "minioadmin", "MinIO's defaults for a local server");
    metadata.manner = HTTP_FAKE_ANSWER;
    metadata.roles_too = true;
    metadata.status = 404;
    assert_fresh(bench, "minioadmin", "MinIO's defaults for a local server");
    bench->setup.local_defaults = false;
    assert_not_found(bench, ENOENT, "instance: the instance has no role");
    metadata.manner = HTTP_FAKE_DROP;
    assert_not_found(bench, ENOENT, "instance: no answer from http://127.0.0.1:");
    stop_service(&metadata);
}

static void instance_that_fails(struct bench *bench)
{
    struct service metadata;
    start_instance(&metadata);
    metadata.status = 200;
    metadata.body = "{\"Code\": \"AssumeRoleUnauthorizedAccess\", \"Message\": \"no trust\"}";
    assert_not_found(bench, EIO,
                     "credentials of the instance: role 'web-server': it says AssumeRoleUnauthorizedAccess: no trust");
    metadata.body = "{" SECRET;
    assert_not_found(bench, EPROTO, "credentials of the instance: role 'web-server': not JSON");
    metadata.status = 500;
    assert_not_found(bench, EIO, "role 'web-server': it answered 500");
    metadata.status = 200;
    metadata.roles_too = true;
    metadata.body = "../../user-data";
    assert_not_found(bench, EPROTO, "the name of its role is none");
    metadata.manner = HTTP_FAKE_ENDLESS;
    assert_not_found(bench, ENOENT, "without a token");
    stop_service(&metadata);
}

/* ---- which goes before which ---- */

static void order(struct bench *bench)
{
    struct service sts, agent, metadata;
    start_instance(&metadata);
    bench->setup.local_defaults = true;
    assert_fresh(bench, "INST3", "the instance's role 'web-server'");
    start_container(&agent);
    assert_fresh(bench, "CONT1", "the container's credentials");
    write_file("config", "[default]\nregion = x\n");
    assert_fresh(bench, "CONT2", "the container's credentials");
    write_file("config", "[default]\naws_access_key_id = AKIDCONFIG\naws_secret_access_key = " SECRET "\n");
    assert_fresh(bench, "AKIDCONFIG", "profile 'default' (static keys)");
    write_output("AKIDPROCESS", "");
    write_file("config", "[default]\naws_access_key_id = AKIDCONFIG\naws_secret_access_key = " SECRET "\n"
                         "credential_process = cat $HOME/output\n");
    assert_fresh(bench, "AKIDPROCESS", "profile 'default' (credential_process)");
    write_file("credentials", "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = " SECRET "\n");
    assert_fresh(bench, "AKIDFILE", "profile 'default' (static keys)");
    start_sts(&sts);
    write_file("config", "[default]\nrole_arn = r\nsource_profile = default\n");
    assert_fresh(bench, "ASIA1", "profile 'default' (assumed role)");
    write_file("token", "t");
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", path_of("token"), 1);
    setenv("AWS_ROLE_ARN", "arn:web", 1);
    assert_fresh(bench, "ASIA2", "AWS_WEB_IDENTITY_TOKEN_FILE");
    set_keys();
    assert_fresh(bench, "AKIDENV", "AWS_ACCESS_KEY_ID");
    /* Said to us, not to everybody. */
    bench->setup.profile = "default";
    assert_fresh(bench, "ASIA3", "profile 'default' (assumed role)");
    bench->setup.access_key = "AKIDGIVEN";
    bench->setup.secret_key = SECRET;
    assert_fresh(bench, "AKIDGIVEN", "the settings");
    stop_service(&sts);
    stop_service(&agent);
    stop_service(&metadata);
}

/* ---- many at once ---- */

struct asker {
    struct bench *bench;
    char access_key[32];
    int result;
};

static void ask_in_task(void *arg)
{
    struct asker *asker = arg;
    struct credentials found;
    struct error error = ERROR_NONE;
    http_fake_settle();
    asker->result = credential_chain_get(asker->bench->chain, &found, &error);
    if (asker->result == 0)
        snprintf(asker->access_key, sizeof asker->access_key, "%s", found.access_key);
    said(error.story);
}

static void many_at_once(struct bench *bench)
{
    struct service agent;
    struct asker askers[30];
    struct task *tasks[30];
    struct group group;
    start_container(&agent);
    fresh_chain(bench);
    group_init(&group, bench->loop);
    for (int i = 0; i < 30; i++) {
        askers[i] = (struct asker){ .bench = bench, .result = 1 };
        tasks[i] = group_spawn(&group, "ask", ask_in_task, &askers[i]);
    }
    coroutine_yield();
    task_cancel(tasks[0]); /* the one that began it */
    task_cancel(tasks[7]);
    group_join(&group);
    for (int i = 0; i < 30; i++) {
        bool cancelled = i == 0 || i == 7;
        assert_int_equal(askers[i].result, cancelled ? -ECANCELED : 0);
        assert_string_equal(askers[i].access_key, cancelled ? "" : "CONT1");
    }
    assert_int_equal(http_fake_count(agent.fake), 1);
    stop_service(&agent);
}

static void many_at_once_that_fail(struct bench *bench)
{
    struct service agent;
    struct asker askers[30];
    struct group group;
    start_container(&agent);
    agent.status = 403;
    fresh_chain(bench);
    group_init(&group, bench->loop);
    for (int i = 0; i < 30; i++) {
        askers[i] = (struct asker){ .bench = bench, .result = 1 };
        group_spawn(&group, "ask", ask_in_task, &askers[i]);
    }
    group_join(&group);
    for (int i = 0; i < 30; i++)
        assert_int_equal(askers[i].result, -EACCES);
    assert_int_equal(http_fake_count(agent.fake), 1);
    stop_service(&agent);
}

/* ---- expiry, in virtual time: the source is a process that the test's files drive ---- */

static void set_script(void)
{
    set_process("echo x >> $HOME/runs; cat $HOME/output");
}

static unsigned count_runs(void)
{
    char text[4096] = "";
    FILE *file = fopen(path_of("runs"), "r");
    if (file == NULL)
        return 0;
    size_t length = fread(text, 1, sizeof text, file);
    fclose(file);
    return (unsigned)length / 2;
}

/* The process will give these, which live for so long from now on. */
static void give(struct bench *bench, const char *access_key, uint64_t life_s)
{
    char expiration[32], more[80];
    format_time(loop_wall_ns(bench->loop) / NS_PER_S + life_s, expiration);
    snprintf(more, sizeof more, ", \"Expiration\": \"%s\"", expiration);
    write_output(access_key, more);
}

static void wait_s(struct bench *bench, uint64_t seconds)
{
    sleep_ns(seconds * NS_PER_S);
}

#define PROCESS_SOURCE "profile 'default' (credential_process)"

static void refreshed_ahead(struct bench *bench)
{
    set_script();
    give(bench, "A", 3600);
    assert_fresh(bench, "A", PROCESS_SOURCE);
    assert_contains(last_event(), "found: " PROCESS_SOURCE ", valid until 2025-01-01 01:00:");
    wait_s(bench, 3600 - 900 - 20);
    give(bench, "B", 3600);
    assert_found(bench, "A", PROCESS_SOURCE);
    wait_s(bench, 1);
    assert_int_equal(count_runs(), 1);
    /* From 15 minutes ahead, give or take the jitter, in the background. */
    wait_s(bench, 20 + 60);
    assert_found(bench, "A", PROCESS_SOURCE);
    wait_s(bench, 10);
    assert_found(bench, "B", PROCESS_SOURCE);
    assert_int_equal(count_runs(), 2);
    assert_int_equal(count_events(EVENT_INFO), 0);
}

static void waited_for(struct bench *bench)
{
    set_script();
    give(bench, "A", 3600);
    assert_fresh(bench, "A", PROCESS_SOURCE);
    /* Nobody asked for a long time. */
    wait_s(bench, 3600 - 600);
    give(bench, "B", 3600);
    assert_found(bench, "B", PROCESS_SOURCE);
    wait_s(bench, 4000);
    give(bench, "C", 3600);
    assert_found(bench, "C", PROCESS_SOURCE);
    assert_int_equal(count_runs(), 3);
    assert_int_equal(count_events(EVENT_INFO), 0);
}

/* A source that hands out the same until shortly before their end, as instances do. */
static void short_lives(struct bench *bench)
{
    set_script();
    give(bench, "A", 600);
    assert_fresh(bench, "A", PROCESS_SOURCE);
    for (int i = 0; i < 590; i++) {
        assert_found(bench, "A", PROCESS_SOURCE);
        wait_s(bench, 1);
    }
    assert_in_range(count_runs(), 2, 10);
    give(bench, "B", 600);
    wait_s(bench, 9);
    assert_found(bench, "B", PROCESS_SOURCE);
}

static void refresh_that_fails(struct bench *bench)
{
    struct credentials found;
    set_script();
    give(bench, "A", 3600);
    assert_fresh(bench, "A", PROCESS_SOURCE);
    wait_s(bench, 3600 - 700);
    write_file("output", "out of order: " SECRET);
    unsigned runs = count_runs();
    /* 690 seconds of a request each: what has not expired is kept, and the source is asked now and then. */
    for (int i = 0; i < 690; i++) {
        assert_found(bench, "A", PROCESS_SOURCE);
        wait_s(bench, 1);
    }
    assert_in_range(count_runs() - runs, 690 / 40, 690 / 8);
    assert_int_equal(count_events(EVENT_WARNING), 1);
    assert_contains(last_event(), "cannot be refreshed, those at hand are valid until 2025-01-01 01:00:");
    wait_s(bench, 60);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(get(bench, &found), -EPROTO);
        assert_contains(bench->story, "the credentials have expired, and cannot be refreshed: profile 'default': "
                                      "credential_process: not JSON");
        wait_s(bench, 1);
    }
    assert_int_equal(count_events(EVENT_WARNING), 2);
    assert_int_equal(count_events(EVENT_ERROR), 1);
    give(bench, "B", 3600);
    wait_s(bench, 21);
    assert_found(bench, "B", PROCESS_SOURCE);
    assert_contains(last_event(), "refreshed: " PROCESS_SOURCE);
    assert_int_equal(count_events(EVENT_INFO), 3);
}

/* The first search, too, is not made anew for each request. */
static void search_that_fails(struct bench *bench)
{
    struct credentials found;
    set_script();
    write_file("output", "nothing");
    fresh_chain(bench);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(get(bench, &found), -EPROTO);
        sleep_ns(NS_PER_MS);
    }
    assert_int_equal(count_runs(), 1);
    write_output("A", "");
    wait_s(bench, 2);
    assert_found(bench, "A", PROCESS_SOURCE);
    assert_int_equal(count_events(EVENT_INFO), 1);
    assert_contains(last_event(), "found: " PROCESS_SOURCE ", valid without an end");
}

static void refused_by_the_store(struct bench *bench)
{
    struct credentials found;
    set_script();
    give(bench, "A", 3600);
    assert_fresh(bench, "A", PROCESS_SOURCE);
    /* The same again: the number stays, and it makes no sense to try again at once. */
    assert_true(credential_chain_refused(bench->chain, 1));
    assert_int_equal(get(bench, &found), 0);
    assert_int_equal(found.generation, 1);
    assert_int_equal(count_runs(), 2);
    assert_false(credential_chain_refused(bench->chain, 1));
    wait_s(bench, 11);
    give(bench, "B", 3600);
    assert_true(credential_chain_refused(bench->chain, 1));
    assert_true(credential_chain_refused(bench->chain, 1));
    assert_int_equal(get(bench, &found), 0);
    assert_int_equal(found.generation, 2);
    assert_true(credential_chain_refused(bench->chain, 1));
    assert_int_equal(count_runs(), 3);
    /* Its refresh fails: what was refused is kept, since the store may have been wrong. */
    wait_s(bench, 11);
    write_file("output", "x");
    assert_true(credential_chain_refused(bench->chain, 2));
    assert_found(bench, "B", PROCESS_SOURCE);
    assert_false(credential_chain_refused(bench->chain, 2));
    assert_int_equal(count_events(EVENT_WARNING), 1);
}

/* One line for a change, whether what is at hand expires or not. */
static void refused_without_an_end(struct bench *bench)
{
    set_script();
    write_output("A", "");
    assert_fresh(bench, "A", PROCESS_SOURCE);
    write_file("output", "x");
    for (int i = 0; i < 5; i++) {
        assert_true(credential_chain_refused(bench->chain, 1));
        assert_found(bench, "A", PROCESS_SOURCE);
        wait_s(bench, 30);
    }
    assert_int_equal(count_runs(), 6);
    assert_int_equal(count_events(EVENT_WARNING), 1);
    assert_contains(last_event(), "cannot be read again: profile 'default': credential_process: not JSON");
}

static void clock_that_jumps(struct bench *bench)
{
    set_script();
    give(bench, "A", 3600);
    assert_fresh(bench, "A", PROCESS_SOURCE);
    loop_sim_set_wall_offset(bench->loop, INT64_C(4000) * (int64_t)NS_PER_S);
    give(bench, "B", 3600);
    assert_found(bench, "B", PROCESS_SOURCE);
    loop_sim_set_wall_offset(bench->loop, -INT64_C(4000) * (int64_t)NS_PER_S);
    assert_found(bench, "B", PROCESS_SOURCE);
    assert_int_equal(count_runs(), 2);
}

static void profile_that_goes(struct bench *bench)
{
    set_script();
    give(bench, "A", 3600);
    setenv("AWS_PROFILE", "default", 1);
    assert_fresh(bench, "A", PROCESS_SOURCE);
    write_file("config", "[default]\n");
    wait_s(bench, 3000);
    assert_found(bench, "A", PROCESS_SOURCE);
    assert_contains(last_event(), "the source of the credentials has none any more: profile 'default' has none");
    wait_s(bench, 100);
    write_file("config", "[profile other]\n");
    assert_found(bench, "A", PROCESS_SOURCE);
    assert_int_equal(count_events(EVENT_WARNING), 1);
}

/* ---- */

#define REAL_TEST(name)                                                                                                \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        struct run run = { .test = name };                                                                             \
        in_real_loop(run_on_bench, &run);                                                                              \
    }
#define SIMULATED_TEST(name)                                                                                           \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        struct run run = { .test = name };                                                                             \
        in_sim_loop(4711, run_in_simulation, &run);                                                                    \
    }
REAL_TEST(given)
REAL_TEST(half_given)
REAL_TEST(environment)
REAL_TEST(static_keys)
REAL_TEST(keys_that_were_replaced)
REAL_TEST(files_that_cannot_be_read)
REAL_TEST(browser)
REAL_TEST(nothing)
REAL_TEST(process)
REAL_TEST(process_that_leaves_a_child)
REAL_TEST(process_that_is_killed)
REAL_TEST(process_inherits_nothing)
REAL_TEST(processes_that_fail)
REAL_TEST(process_that_hangs)
REAL_TEST(assumed_role)
REAL_TEST(roles_in_a_chain)
REAL_TEST(roles_that_cannot_be)
REAL_TEST(credential_sources)
REAL_TEST(token_service_that_fails)
REAL_TEST(token_service_that_recovers)
REAL_TEST(endpoints_of_the_token_service)
REAL_TEST(web_identity)
REAL_TEST(web_identity_of_a_profile)
REAL_TEST(container)
REAL_TEST(container_that_fails)
REAL_TEST(containers_elsewhere)
REAL_TEST(instance)
REAL_TEST(instances_without)
REAL_TEST(instance_that_fails)
REAL_TEST(order)
REAL_TEST(many_at_once)
REAL_TEST(many_at_once_that_fail)
SIMULATED_TEST(refreshed_ahead)
SIMULATED_TEST(waited_for)
SIMULATED_TEST(short_lives)
SIMULATED_TEST(refresh_that_fails)
SIMULATED_TEST(search_that_fails)
SIMULATED_TEST(refused_by_the_store)
SIMULATED_TEST(refused_without_an_end)
SIMULATED_TEST(clock_that_jumps)
SIMULATED_TEST(profile_that_goes)

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given),
        TEST(half_given),
        TEST(environment),
        TEST(static_keys),
        TEST(keys_that_were_replaced),
        TEST(files_that_cannot_be_read),
        TEST(browser),
        TEST(nothing),
        TEST(process),
        TEST(process_that_leaves_a_child),
        TEST(process_that_is_killed),
        TEST(process_inherits_nothing),
        TEST(processes_that_fail),
        TEST(process_that_hangs),
        TEST(assumed_role),
        TEST(roles_in_a_chain),
        TEST(roles_that_cannot_be),
        TEST(credential_sources),
        TEST(token_service_that_fails),
        TEST(token_service_that_recovers),
        TEST(endpoints_of_the_token_service),
        TEST(web_identity),
        TEST(web_identity_of_a_profile),
        TEST(container),
        TEST(container_that_fails),
        TEST(containers_elsewhere),
        TEST(instance),
        TEST(instances_without),
        TEST(instance_that_fails),
        TEST(order),
        TEST(many_at_once),
        TEST(many_at_once_that_fail),
        TEST(refreshed_ahead),
        TEST(waited_for),
        TEST(short_lives),
        TEST(refresh_that_fails),
        TEST(search_that_fails),
        TEST(refused_by_the_store),
        TEST(refused_without_an_end),
        TEST(clock_that_jumps),
        TEST(profile_that_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
