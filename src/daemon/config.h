/* What the operator asked for: the settings of one run, and where each came from.
 *
 * A flag beats the environment, the environment beats .env in the working
 * directory, that beats the configuration file, and that the default.  Only
 * the value that wins is looked at; what cannot be understood is an error that
 * names its source:
 *
 *     NBD_PORT in .env line 3: '99999' is not a port: write a number from 0 to 65535
 *
 * A variable that is set to nothing counts as not set.
 *
 * Any setting of S3 says that the disks are kept there, unless a stronger
 * source names a directory; who wins is told in daemon/config_store.c. */
#ifndef CAIRN_DAEMON_CONFIG_H
#define CAIRN_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/setting.h"

struct buffer;
struct error;

enum config_source { SOURCE_DEFAULT, SOURCE_FILE, SOURCE_DOTENV, SOURCE_ENVIRONMENT, SOURCE_FLAG };

struct config {
    char *host, *unix_path, *config_path; /* NULL: none */
    char *store;                          /* "dir:PATH", "s3://BUCKET" or "s3://BUCKET/PREFIX", always */
    /* With a store in S3; NULL: not given.  The bucket and the prefix ("" : none) are those of `store`. */
    char *s3_endpoint, *s3_bucket, *s3_prefix, *s3_region, *s3_profile, *s3_ca;
    char *s3_access_key, *s3_secret_key, *s3_session_token; /* secrets */
    uint64_t s3_addressing;                                 /* enum s3_addressing */
    uint64_t s3_uploads, s3_reads, s3_attempts, s3_hedge_percent;
    uint64_t s3_connect_timeout_ms, s3_read_timeout_ms;
    uint64_t s3_create_bucket; /* 0 or 1; where it was not given, the endpoint decides */
    uint64_t port;
    uint64_t size_bytes;
    uint64_t read_only; /* 0 or 1 */
    uint64_t sharing;   /* enum nbd_sharing */
    uint64_t memory_bytes, write_buffer_bytes;
    uint64_t threads, connections, requests;
    uint64_t batch_age_ms, release_grace_ms, flush_deadline_ms, handshake_deadline_ms, shutdown_deadline_ms;
    uint64_t lease_ms, owner_wait_ms;
    uint64_t checkpoint_entries, checkpoint_bytes;
    uint64_t keepalive_idle_s, keepalive_interval_s, keepalive_probes; /* of clients' TCP connections; idle 0: off */
    uint64_t tcp_user_timeout_ms;                                      /* 0: the kernel's */
    uint64_t log_level;                                                /* enum event_level */
    uint64_t log_format;                                               /* enum log_format */
    enum config_source source[SETTING_COUNT];
    char **warnings; /* what was passed over, one sentence each; for the log, once there is one */
    size_t warning_count;
};

/* A flag that is no setting: of one command alone, and on the command line only. */
struct config_flag {
    const char *name;
    const char *argument; /* NULL: a switch */
    const char *help;
    bool *given;
    const char **value; /* with an argument; points into argv */
};

#define CONFIG_POSITIONAL_MAX 4

struct config_request {
    unsigned groups;                 /* enum setting_group: which settings this command takes */
    const struct config_flag *flags; /* ends with a NULL name; NULL: none */
    int positional_most;             /* arguments that are no flags, at most CONFIG_POSITIONAL_MAX */
    int argc;                        /* behind the command's name */
    char **argv;
    char **environment;              /* as environ */
    const char *dotenv_path;         /* need not exist */
    const char *default_config_path; /* likewise */
};

struct config_arguments {
    const char *positional[CONFIG_POSITIONAL_MAX]; /* into argv */
    int count;
    bool help; /* --help was given: nothing else has been looked at */
};

/* -EINVAL: wrong usage, or a value that is no good; others: a file that could not be read. */
int config_load(const struct config_request *request, struct config *ret_config, struct config_arguments *ret_arguments,
                struct error *error);
void config_free(struct config *config);

/* The lines of --help for the settings of `groups`, and for `flags`. */
void config_describe(unsigned groups, const struct config_flag *flags, struct buffer *ret_text);

/* ---- the two files, line by line (daemon/dotenv.c, daemon/config_file.c) ---- */

/* Called for each name and value; a failure ends the reading. */
typedef int config_visit(void *arg, const char *name, const char *value, unsigned line, struct error *error);

/* Lines KEY=value, as shells and container tools read them: `export ` before the key is fine, '#' begins a comment,
 * single quotes keep everything, double quotes know \n \t \" \\ \$.  -ENOENT: there is no such file. */
int dotenv_read(const char *path, config_visit *visit, void *arg, struct error *error);
/* An INI file; keys stand before any section, or in [cairn]. */
int config_file_read(const char *path, config_visit *visit, void *arg, struct error *error);

#endif
