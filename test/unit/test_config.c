/* Settings: who wins over whom, and that each error names its source. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/event.h"
#include "daemon/config.h"
#include "nbd/service.h"
#include "store/s3_url.h"

#define WORDS_MAX 8
#define BUCKET "my-bucket"

static char directory[] = "/tmp/cairn-test-config-XXXXXX";
static char dotenv_path[64], file_path[64], other_path[64];

/* What one run of the program is started with. */
struct start {
    const char *flags[WORDS_MAX], *environment[WORDS_MAX];
    const char *dotenv, *file; /* contents; NULL: there is no such file */
};

static void write_file(const char *path, const char *content)
{
    unlink(path);
    if (content == NULL)
        return;
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(content, file);
    fclose(file);
}

static int load_groups(const struct start *start, unsigned groups, struct config *config,
                       struct config_arguments *arguments, struct error *error)
{
    static bool yes;
    static const struct config_flag flags[] = { { "yes", NULL, "agree", &yes, NULL },
                                                { NULL, NULL, NULL, NULL, NULL } };
    char *argv[WORDS_MAX + 1] = { NULL }, *environment[WORDS_MAX + 1] = { NULL };
    int argc = 0;

    for (; argc < WORDS_MAX && start->flags[argc] != NULL; argc++)
        argv[argc] = (char *)start->flags[argc];
    for (int i = 0; i < WORDS_MAX && start->environment[i] != NULL; i++)
        environment[i] = (char *)start->environment[i];
    write_file(dotenv_path, start->dotenv);
    write_file(file_path, start->file);
    struct config_request request = { .groups = groups,
                                      .flags = flags,
                                      .positional_most = 1,
                                      .argc = argc,
                                      .argv = argv,
                                      .environment = environment,
                                      .dotenv_path = dotenv_path,
                                      .default_config_path = file_path };
    return config_load(&request, config, arguments, error);
}

static int load(const struct start *start, struct config *config, struct error *error)
{
    struct config_arguments arguments;

    return load_groups(start, SETTINGS_STORE | SETTINGS_LOG | SETTINGS_SERVE, config, &arguments, error);
}

static struct config load_good(const struct start *start)
{
    struct config config;
    struct error error = ERROR_NONE;

    if (load(start, &config, &error) != 0)
        fail_msg("%s", error.story);
    return config;
}

static void test_defaults(void **state)
{
    struct start start = { .environment = { "XDG_DATA_HOME=/data" } };
    struct config config = load_good(&start);

    assert_string_equal(config.host, "localhost");
    assert_int_equal(config.port, 10809);
    assert_null(config.unix_path);
    assert_int_equal(config.size_bytes, UINT64_C(1) << 30);
    assert_string_equal(config.store, "dir:/data/cairn");
    assert_int_equal(config.memory_bytes, UINT64_C(1) << 30);
    assert_int_equal(config.write_buffer_bytes, UINT64_C(1) << 29);
    assert_int_equal(config.flush_deadline_ms, 120000);
    assert_int_equal(config.handshake_deadline_ms, 30000);
    assert_int_equal(config.shutdown_deadline_ms, 30000);
    assert_int_equal(config.batch_age_ms, 5000);
    assert_int_equal(config.release_grace_ms, 5000);
    assert_int_equal(config.log_level, EVENT_INFO);
    assert_int_equal(config.read_only, 0);
    assert_int_equal(config.sharing, NBD_SHARING_PEER);
    assert_int_equal(config.lease_ms, 30000);
    assert_int_equal(config.owner_wait_ms, 45000);
    assert_int_equal(config.checkpoint_entries, 1024);
    assert_int_equal(config.checkpoint_bytes, UINT64_C(512) << 20);
    assert_int_equal(config.keepalive_idle_s, 60);
    assert_int_equal(config.keepalive_interval_s, 10);
    assert_int_equal(config.keepalive_probes, 6);
    assert_int_equal(config.tcp_user_timeout_ms, 110000);
    assert_int_equal(config.source[SETTING_PORT], SOURCE_DEFAULT);
    config_free(&config);
}

static void test_default_store(void **state)
{
    static const struct {
        const char *environment[WORDS_MAX], *store;
    } cases[] = {
        { { "STATE_DIRECTORY=/var/lib/a:/var/lib/b", "XDG_DATA_HOME=/x" }, "dir:/var/lib/a" },
        { { "XDG_DATA_HOME=/x", "HOME=/home/u" }, "dir:/x/cairn" },
        { { "XDG_DATA_HOME=relative", "HOME=/home/u" }, NULL },
        { { "HOME=/home/u" }, NULL },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct start start = { 0 };
        memcpy(start.environment, cases[i].environment, sizeof start.environment);
        struct config config = load_good(&start);
        const char *home = geteuid() == 0 ? "dir:/var/lib/cairn" : "dir:/home/u/.local/share/cairn";
        assert_string_equal(config.store, cases[i].store != NULL ? cases[i].store : home);
        config_free(&config);
    }
}

/* Each source set, then without its strongest one, down to the default. */
static void test_precedence(void **state)
{
    struct start start = { .flags = { "--port", "1" },
                           .environment = { "NBD_PORT=2", "HOME=/h" },
                           .dotenv = "NBD_PORT=3\n",
                           .file = "port = 4\n" };
    static const enum config_source order[] = { SOURCE_FLAG, SOURCE_ENVIRONMENT, SOURCE_DOTENV, SOURCE_FILE };

    for (unsigned i = 0; i < 4; i++) {
        struct config config = load_good(&start);
        assert_int_equal(config.port, i + 1);
        assert_int_equal(config.source[SETTING_PORT], order[i]);
        config_free(&config);
        if (i == 0)
            start.flags[0] = NULL;
        else if (i == 1)
            start.environment[0] = "A=b";
        else if (i == 2)
            start.dotenv = NULL;
    }
}

/* A bad value that a good one beats is nobody's business; an empty variable counts as not set. */
static void test_only_winners_count(void **state)
{
    struct start start = { .flags = { "--port=7" },
                           .environment = { "NBD_PORT=x", "HOME=/h", "NBD_SIZE=" },
                           .dotenv = "NBD_SIZE=2MB\n" };
    struct config config = load_good(&start);

    assert_int_equal(config.port, 7);
    assert_int_equal(config.size_bytes, 2 << 20);
    config_free(&config);
}

static void test_config_by_variable(void **state)
{
    char variable[96];
    struct start start = { .environment = { "HOME=/h", variable }, .file = "port = 4\n" };

    snprintf(variable, sizeof variable, "NBD_CONFIG=%s", other_path);
    write_file(other_path, "[cairn]\nport = 5 ; a comment\nhost: ::1\nread-only = yes\n");
    struct config config = load_good(&start);
    assert_int_equal(config.port, 5);
    assert_string_equal(config.host, "::1");
    assert_int_equal(config.read_only, 1);
    config_free(&config);
}

static void test_dotenv_forms(void **state)
{
    static const struct {
        const char *line, *host;
    } cases[] = {
        { "NBD_HOST=a", "a" },
        { "  export NBD_HOST=a  ", "a" },
        { "NBD_HOST= a b  # why", "a b" },
        { "NBD_HOST=a#b", "a#b" },
        { "NBD_HOST='a # b'", "a # b" },
        { "NBD_HOST='a\\n'", "a\\n" },
        { "NBD_HOST=\"a\\tb\\\"\\\\\\$\" # why", "a\tb\"\\$" },
        { "# NBD_HOST=b\n\nNBD_HOST=a\r\n", "a" },
        { "OTHER=x\nNBD_HOST=a\nNBD_HOST=c", "c" },
        { "NBD_HOST=#a", "localhost" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct start start = { .environment = { "HOME=/h" }, .dotenv = cases[i].line };
        struct config config = load_good(&start);
        assert_string_equal(config.host, cases[i].host);
        config_free(&config);
    }
}

static void test_warnings(void **state)
{
    struct start start = { .environment = { "HOME=/h", "NBD_COLOUR=red" }, .dotenv = "\nNBD_SHAPE=round\nOTHER=1\n" };
    struct config config = load_good(&start);

    assert_int_equal(config.warning_count, 2);
    assert_non_null(strstr(config.warnings[0], "NBD_SHAPE in "));
    assert_non_null(strstr(config.warnings[0], " line 2"));
    assert_non_null(strstr(config.warnings[1], "NBD_COLOUR in the environment"));
    config_free(&config);
}

static void test_lease(void **state)
{
    struct start start = { .environment = { "HOME=/h" }, .flags = { "--lease", "60s", "--sharing", "any" } };
    struct config config = load_good(&start);

    assert_int_equal(config.lease_ms, 60000);
    assert_int_equal(config.owner_wait_ms, 90000);
    assert_int_equal(config.sharing, NBD_SHARING_ANY);
    assert_int_equal(config.warning_count, 0);
    config_free(&config);

    start = (struct start){ .environment = { "HOME=/h", "NBD_LEASE=1", "NBD_OWNER_WAIT=0", "NBD_SHARING=SINGLE" },
                            .flags = { "--keepalive-idle", "0", "--tcp-user-timeout", "1500ms" } };
    config = load_good(&start);
    assert_int_equal(config.lease_ms, 1000);
    assert_int_equal(config.owner_wait_ms, 0);
    assert_int_equal(config.sharing, NBD_SHARING_SINGLE);
    assert_int_equal(config.keepalive_idle_s, 0);
    assert_int_equal(config.tcp_user_timeout_ms, 1500);
    assert_int_equal(config.warning_count, 1);
    assert_non_null(strstr(config.warnings[0], "NBD_LEASE in the environment: a lease of 1000 ms is short"));
    config_free(&config);
}

/* Each is refused, and its story holds all of the words. */
static void test_errors(void **state)
{
    static const struct {
        struct start start;
        const char *words[4];
    } cases[] = {
        { { .flags = { "--port", "99999" } }, { "--port: ", "'99999' is not a port" } },
        { { .environment = { "NBD_PORT=99999" } }, { "NBD_PORT in the environment: ", "'99999' is not a port" } },
        { { .dotenv = "\n\nNBD_PORT=99999\n" }, { "NBD_PORT in ", "dotenv line 3: ", "'99999' is not a port" } },
        { { .file = "# x\n[cairn]\nport = 99999\n" }, { "port in ", "cairn.conf line 3: ", "'99999' is not a port" } },
        { { .flags = { "--port", "-1" } }, { "--port: '-1' is not a port" } },
        { { .flags = { "--port", "12x" } }, { "--port: '12x' is not a port" } },
        { { .flags = { "--port", "" } }, { "--port: the value is empty" } },
        { { .flags = { "--port" } }, { "--port needs a value" } },
        { { .flags = { "--prot", "1" } }, { "'--prot' is not known", "--port" } },
        { { .flags = { "--wholly-unknown", "1" } }, { "'--wholly-unknown' is not known", "--help" } },
        { { .flags = { "-p", "1" } }, { "'-p' is not known" } },
        { { .environment = { "NBD_S3_HEDGE=101" } }, { "NBD_S3_HEDGE in the environment: '101'", "0 to 100" } },
        { { .flags = { "--s3-uploads", "0" } }, { "--s3-uploads: '0'", "1 to 256" } },
        { { .flags = { "--s3-addressing", "dns" } }, { "--s3-addressing: 'dns'", "auto, path or virtual" } },
        { { .flags = { "--s3-connect-timeout", "1ms" } }, { "--s3-connect-timeout: '1ms' is out of range" } },
        { { .flags = { "--s3-create-bucket=maybe" } }, { "--s3-create-bucket: 'maybe' is neither" } },
        { { .flags = { "--yes=no" } }, { "--yes takes no value" } },
        { { .flags = { "a", "b" } }, { "'b' is one argument too many" } },
        { { .flags = { "--size", "huge" } }, { "--size: 'huge' is not a size" } },
        { { .flags = { "--size", "0" } }, { "--size: '0' is no size for a disk" } },
        { { .flags = { "--size", "1000" } }, { "--size: '1000' is not a multiple of 512", "512 or 1024" } },
        { { .flags = { "--size", "100" } }, { "--size: '100' is not a multiple of 512" } },
        { { .flags = { "--size", "65TB" } }, { "--size: '65TB' is too large for a disk", "64TB" } },
        { { .flags = { "--size", "99999999999999999999" } }, { "--size: ", "beyond" } },
        { { .flags = { "--size", "-1" } }, { "--size: '-1' is not a size" } },
        { { .flags = { "--memory", "1MB" } }, { "--memory: '1MB' is too little", "128 MiB" } },
        { { .flags = { "--write-buffer", "1GB" } }, { "--write-buffer: '1GB' is more than half of --memory" } },
        { { .flags = { "--flush-deadline", "soon" } }, { "--flush-deadline: 'soon' is not a time" } },
        { { .flags = { "--flush-deadline", "10ms" } }, { "--flush-deadline: '10ms' is out of range" } },
        { { .flags = { "--lease", "999ms" } }, { "--lease: '999ms' is out of range" } },
        { { .environment = { "NBD_LEASE=11m" } }, { "NBD_LEASE in the environment: '11m' is out of range" } },
        { { .file = "owner-wait = soon\n" }, { "owner-wait in ", "line 1: 'soon' is not a time" } },
        { { .flags = { "--sharing", "all" } }, { "--sharing: 'all'", "single, peer or any" } },
        { { .flags = { "--keepalive-idle", "1500ms" } }, { "--keepalive-idle: '1500ms'", "whole seconds, from 0" } },
        { { .flags = { "--keepalive-idle", "32768" } }, { "--keepalive-idle: '32768'" } },
        { { .flags = { "--keepalive-interval", "0" } }, { "--keepalive-interval: '0'", "whole seconds, from 1" } },
        { { .flags = { "--keepalive-probes", "0" } }, { "--keepalive-probes: '0'", "from 1 to 127" } },
        { { .dotenv = "NBD_TCP_USER_TIMEOUT=2h\n" }, { "NBD_TCP_USER_TIMEOUT in ", "line 1: '2h' is not a time" } },
        { { .flags = { "--log-level", "loud" } }, { "--log-level: 'loud'", "DEBUG, INFO, WARNING or ERROR" } },
        { { .flags = { "--log-format=xml" } }, { "--log-format: 'xml'", "text or json" } },
        { { .flags = { "--read-only=maybe" } }, { "--read-only: 'maybe' is neither yes nor no" } },
        { { .flags = { "--store", "/srv" } }, { "--store: '/srv' is no store: write dir:/srv" } },
        { { .flags = { "--store", "dir:" } }, { "--store: 'dir:' names no directory" } },
        { { .flags = { "--store", "ftp://x" } }, { "--store: 'ftp://x' is no store" } },
        { { .file = "prot = 1\n" }, { "cairn.conf line 1", "'prot' is not known", "port" } },
        { { .file = "\nport = 1\nport = 2\n" }, { "cairn.conf line 3", "'port' stood there before", "line 2" } },
        { { .file = "port\n" }, { "cairn.conf line 1", "neither a section nor a setting" } },
        { { .file = "[other]\nport = 1\n" }, { "cairn.conf line 2", "[other]" } },
        { { .file = "config = /x\n" }, { "cairn.conf line 1", "cannot name another" } },
        { { .dotenv = "A=1\nwhat is this\n" }, { "dotenv line 2", "no assignment" } },
        { { .dotenv = "NBD_HOST='a\n" }, { "dotenv line 1", "not closed" } },
        { { .dotenv = "NBD_HOST='a' b\n" }, { "dotenv line 1", "behind the closing quote" } },
        { { .flags = { "--config", "/nowhere/at/all" } }, { "/nowhere/at/all" } },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config config;
        struct error error = ERROR_NONE;
        if (load(&cases[i].start, &config, &error) == 0)
            fail_msg("case %zu (%s) was taken", i, cases[i].words[0]);
        assert_int_not_equal(error.code, 0);
        for (int j = 0; j < 4 && cases[i].words[j] != NULL; j++)
            if (strstr(error.story, cases[i].words[j]) == NULL)
                fail_msg("case %zu: '%s' is not in: %s", i, cases[i].words[j], error.story);
    }
}

/* ---- which store is meant ---- */

static void test_s3_defaults(void **state)
{
    struct start start = { .flags = { "--store", "s3://" BUCKET "/some/prefix/" } };
    struct config config = load_good(&start);

    assert_string_equal(config.store, "s3://" BUCKET "/some/prefix");
    assert_string_equal(config.s3_bucket, BUCKET);
    assert_string_equal(config.s3_prefix, "some/prefix");
    assert_null(config.s3_endpoint);
    assert_null(config.s3_access_key);
    assert_string_equal(config.s3_region, "us-east-1");
    assert_int_equal(config.source[SETTING_S3_REGION], SOURCE_DEFAULT);
    assert_int_equal(config.s3_addressing, S3_ADDRESSING_AUTO);
    assert_int_equal(config.s3_uploads, 16);
    assert_int_equal(config.s3_reads, 32);
    assert_int_equal(config.s3_attempts, 5);
    assert_int_equal(config.s3_connect_timeout_ms, 5000);
    assert_int_equal(config.s3_read_timeout_ms, 60000);
    assert_int_equal(config.s3_hedge_percent, 5);
    assert_int_equal(config.source[SETTING_S3_CREATE_BUCKET], SOURCE_DEFAULT);
    config_free(&config);
}

/* Any word of S3 means S3; where words contradict each other, the stronger one wins, and is heard of. */
static void test_which_store(void **state)
{
    static const struct {
        struct start start;
        const char *store;
        const char *warning; /* what it holds; NULL: there is none */
    } cases[] = {
        { { .flags = { "--s3-endpoint", "http://localhost:9000" } }, "s3://nbd-storage", NULL },
        { { .environment = { "NBD_S3_UPLOADS=4" } }, "s3://nbd-storage", NULL },
        { { .dotenv = "NBD_S3_BUCKET=mine\n" }, "s3://mine", NULL },
        { { .file = "s3-hedge = 0\n" }, "s3://nbd-storage", NULL },
        { { .environment = { "NBD_S3_REGION=", "XDG_DATA_HOME=/d" } }, "dir:/d/cairn", NULL },
        { { .environment = { "NBD_S3_REGION=eu-west-1" }, .file = "store = s3://mine/p\n" }, "s3://mine/p", NULL },
        { { .environment = { "NBD_S3_BUCKET=mine" }, .dotenv = "NBD_STORE=s3://mine/p" }, "s3://mine/p", NULL },
        { { .flags = { "--store", "dir:/x" }, .environment = { "NBD_S3_BUCKET=mine" } },
          "dir:/x",
          "NBD_S3_BUCKET in the environment is passed over: --store says dir:/x" },
        { { .flags = { "--s3-bucket", "mine" }, .environment = { "NBD_STORE=dir:/x" } },
          "s3://mine",
          "NBD_STORE in the environment, dir:/x, is passed over: --s3-bucket speaks of S3" },
        { { .flags = { "--s3-bucket", "mine" }, .environment = { "NBD_STORE=s3://theirs/p" } },
          "s3://mine",
          "NBD_STORE in the environment, s3://theirs/p, is passed over: --s3-bucket names another bucket" },
        { { .flags = { "--store", "s3://mine/p" }, .environment = { "NBD_S3_BUCKET=theirs" } },
          "s3://mine/p",
          "NBD_S3_BUCKET in the environment is passed over: --store names another bucket" },
        { { .flags = { "--store", "s3://min/p", "--s3-bucket", "min" } }, "s3://min/p", NULL },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config config = load_good(&cases[i].start);
        assert_string_equal(config.store, cases[i].store);
        if (cases[i].warning == NULL && config.warning_count > 0)
            fail_msg("case %zu warns: %s", i, config.warnings[0]);
        if (cases[i].warning != NULL) {
            assert_int_equal(config.warning_count, 1);
            assert_string_equal(config.warnings[0], cases[i].warning);
        }
        config_free(&config);
    }
}

static void test_s3_errors(void **state)
{
    static const struct {
        struct start start;
        const char *words[4];
    } cases[] = {
        { { .flags = { "--store", "dir:/x", "--s3-bucket", "mine" } }, { "--store: 'dir:/x'", "--s3-bucket", "S3" } },
        { { .dotenv = "NBD_STORE=dir:/x\nNBD_S3_READS=4\n" }, { "line 1: 'dir:/x'", "NBD_S3_READS in ", "line 2" } },
        { { .flags = { "--store", "s3://a-a", "--s3-bucket", "b-b" } }, { "--store and --s3-bucket name different" } },
        { { .flags = { "--store", "s3://mine", "--s3-bucket", "min" } }, { "--store and --s3-bucket name different" } },
        { { .flags = { "--s3-bucket", "mine/p" } }, { "--s3-bucket: 'mine/p'", "--store s3://BUCKET/PREFIX" } },
        { { .environment = { "NBD_S3_BUCKET=Mine" } }, { "NBD_S3_BUCKET in the environment: 'Mine'", "lower-case" } },
        { { .flags = { "--store", "s3://" } }, { "--store: 's3://' names no bucket" } },
        { { .flags = { "--store", "s3:mine" } }, { "--store: 's3:mine'", "write s3://BUCKET" } },
        { { .flags = { "--store", "s3://mine/a//b" } }, { "--store: 'a//b'", "empty" } },
        { { .flags = { "--store", "http://h/b" } }, { "--store: ", "write s3://BUCKET/PREFIX", "--s3-endpoint" } },
        { { .flags = { "--s3-endpoint", "localhost:9000" } }, { "--s3-endpoint: ", "has no scheme" } },
        { { .flags = { "--s3-endpoint", "http://h/x" } }, { "--s3-endpoint: ", "'/x'" } },
        { { .flags = { "--s3-region", "x y" } }, { "'x y' is not a region" } },
        { { .environment = { "NBD_S3_ACCESS_KEY=Quartz" } }, { "NBD_S3_ACCESS_KEY in ", "NBD_S3_SECRET_KEY too" } },
        { { .flags = { "--s3-secret-key", "Quartz" } }, { "--s3-secret-key: ", "NBD_S3_ACCESS_KEY too" } },
        { { .dotenv = "NBD_S3_SESSION_TOKEN=Quartz" }, { "NBD_S3_SESSION_TOKEN in ", "line 1", "are missing" } },
        { { .flags = { "-s3-secret-key=Quartz" } }, { "'-s3-secret-key' is not known" } },
        { { .flags = { "--s3-secret-kay=Quartz" } }, { "'--s3-secret-kay' is not known", "--s3-secret-key" } },
        { { .file = "s3-secret-kay = Quartz\n" }, { "'s3-secret-kay' is not known" } },
        { { .file = "s3-secret-key Quartz\n" }, { "cairn.conf line 1" } },
        { { .dotenv = "NBD_S3_SECRET_KEY 'Quartz'\n" }, { "dotenv line 1" } },
        { { .dotenv = "NBD_S3_SECRET_KEY='Quartz\n" }, { "dotenv line 1" } },
        { { .flags = { "--s3-endpoint", "http://me:Quartz@h" } }, { "--s3-endpoint: ", "user's name" } },
        { { .flags = { "--store", "s3://me:Quartz@mine" } }, { "--store: ", "user's name" } },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config config;
        struct error error = ERROR_NONE;
        if (load(&cases[i].start, &config, &error) != -EINVAL)
            fail_msg("case %zu (%s) is not wrong usage", i, cases[i].words[0]);
        for (int j = 0; j < 4 && cases[i].words[j] != NULL; j++)
            if (strstr(error.story, cases[i].words[j]) == NULL)
                fail_msg("case %zu: '%s' is not in: %s", i, cases[i].words[j], error.story);
        if (strstr(error.story, "Quartz") != NULL)
            fail_msg("case %zu tells a secret: %s", i, error.story);
    }
}

/* Each from where it was said, the strongest first. */
static void test_secrets(void **state)
{
    struct start start = { .flags = { "--s3-session-token=t" },
                           .environment = { "NBD_S3_SECRET_KEY=s" },
                           .dotenv = "NBD_S3_SECRET_KEY=x\nNBD_S3_ACCESS_KEY='a b'\n" };
    struct config config = load_good(&start);

    assert_string_equal(config.s3_access_key, "a b");
    assert_string_equal(config.s3_secret_key, "s");
    assert_string_equal(config.s3_session_token, "t");
    config_free(&config);
    assert_null(config.s3_secret_key);
}

/* A command that works on no store has nothing to do with its settings. */
static void test_s3_without_store(void **state)
{
    struct start start = { .environment = { "NBD_S3_ACCESS_KEY=a", "NBD_S3_BUCKET=///" } };
    struct config config;
    struct config_arguments arguments;
    struct error error = ERROR_NONE;

    assert_int_equal(load_groups(&start, 0, &config, &arguments, &error), 0);
    assert_null(config.store);
    config_free(&config);
}

static void test_long_line_in_file(void **state)
{
    char file[1024], *end = file;
    struct start start = { .environment = { "HOME=/h" }, .file = file };
    struct config config;
    struct error error = ERROR_NONE;

    end += sprintf(end, "port = 1\nhost = ");
    memset(end, 'x', 500);
    strcpy(end + 500, "\n");
    assert_int_equal(load(&start, &config, &error), -EINVAL);
    assert_non_null(strstr(error.story, "line 2"));
}

/* A command takes the flags of its own groups only, but every variable and key is fine everywhere. */
static void test_groups(void **state)
{
    struct start start = { .flags = { "--yes", "a" },
                           .environment = { "HOME=/h", "NBD_PORT=bad" },
                           .file = "host = x\n" };
    struct config config;
    struct config_arguments arguments;
    struct error error = ERROR_NONE;

    assert_int_equal(load_groups(&start, SETTINGS_STORE, &config, &arguments, &error), 0);
    assert_int_equal(arguments.count, 1);
    assert_string_equal(arguments.positional[0], "a");
    config_free(&config);
    start.flags[0] = "--port";
    assert_int_equal(load_groups(&start, SETTINGS_STORE, &config, &arguments, &error), -EINVAL);
    assert_non_null(strstr(error.story, "--port is a flag of cairn serve"));
}

static void test_help_and_arguments(void **state)
{
    struct start start = { .flags = { "--port", "bad", "--help" }, .environment = { "HOME=/h" } };
    struct config config;
    struct config_arguments arguments;
    struct error error = ERROR_NONE;

    assert_int_equal(load_groups(&start, SETTINGS_SERVE, &config, &arguments, &error), 0);
    assert_true(arguments.help);
    config_free(&config);
    start.flags[0] = "--", start.flags[1] = "--help", start.flags[2] = NULL;
    assert_int_equal(load_groups(&start, SETTINGS_STORE, &config, &arguments, &error), 0);
    assert_false(arguments.help);
    assert_string_equal(arguments.positional[0], "--help");
    config_free(&config);
}

/* Every setting has a line in --help, and its variable leads back to it. */
static void test_table(void **state)
{
    struct buffer text = BUFFER_EMPTY;

    config_describe(SETTINGS_STORE | SETTINGS_LOG | SETTINGS_SERVE, NULL, &text);
    for (int i = 0; i < SETTING_COUNT; i++) {
        char flag[SETTING_NAME_MAX + 8], variable[SETTING_NAME_MAX + 4];
        snprintf(flag, sizeof flag, "  --%s", setting_table[i].name);
        assert_non_null(strstr((char *)text.data, flag));
        setting_variable(&setting_table[i], variable);
        assert_ptr_equal(setting_of_variable(variable), &setting_table[i]);
        assert_ptr_equal(setting_find(setting_table[i].name), &setting_table[i]);
    }
    buffer_free(&text);
    assert_null(setting_find("PORT"));
    assert_null(setting_of_variable("NBD_port"));
}

static int make_paths(void **state)
{
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(dotenv_path, sizeof dotenv_path, "%s/dotenv", directory);
    snprintf(file_path, sizeof file_path, "%s/cairn.conf", directory);
    snprintf(other_path, sizeof other_path, "%s/other.conf", directory);
    return 0;
}

static int remove_paths(void **state)
{
    unlink(dotenv_path);
    unlink(file_path);
    unlink(other_path);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_default_store),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_only_winners_count),
        cmocka_unit_test(test_config_by_variable),
        cmocka_unit_test(test_dotenv_forms),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_lease),
        cmocka_unit_test(test_long_line_in_file),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_help_and_arguments),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_s3_defaults),
        cmocka_unit_test(test_which_store),
        cmocka_unit_test(test_s3_errors),
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_s3_without_store),
    };

    return cmocka_run_group_tests(tests, make_paths, remove_paths);
}
