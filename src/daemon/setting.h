/* The settings: one table from which flags, environment variables, the .env
 * file, the configuration file and --help are all made.
 *
 * A setting `write-buffer` is the flag --write-buffer, the variable
 * NBD_WRITE_BUFFER and the key `write-buffer` of the configuration file.  Where
 * values come from, and who wins, is daemon/config.h. */
#ifndef CAIRN_DAEMON_SETTING_H
#define CAIRN_DAEMON_SETTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct error;

enum setting_id {
    SETTING_HOST,
    SETTING_PORT,
    SETTING_UNIX,
    SETTING_STORE,
    SETTING_S3_ENDPOINT,
    SETTING_S3_ACCESS_KEY,
    SETTING_S3_SECRET_KEY,
    SETTING_S3_SESSION_TOKEN,
    SETTING_S3_BUCKET,
    SETTING_S3_REGION,
    SETTING_S3_PROFILE,
    SETTING_S3_ADDRESSING,
    SETTING_S3_CA,
    SETTING_S3_UPLOADS,
    SETTING_S3_READS,
    SETTING_S3_ATTEMPTS,
    SETTING_S3_CONNECT_TIMEOUT,
    SETTING_S3_READ_TIMEOUT,
    SETTING_S3_HEDGE,
    SETTING_S3_CREATE_BUCKET,
    SETTING_SIZE,
    SETTING_READ_ONLY,
    SETTING_SHARING,
    SETTING_MEMORY,
    SETTING_WRITE_BUFFER,
    SETTING_THREADS,
    SETTING_CONNECTIONS,
    SETTING_REQUESTS,
    SETTING_BATCH_AGE,
    SETTING_RELEASE_GRACE,
    SETTING_LEASE,
    SETTING_OWNER_WAIT,
    SETTING_CHECKPOINT_ENTRIES,
    SETTING_CHECKPOINT_BYTES,
    SETTING_FLUSH_DEADLINE,
    SETTING_HANDSHAKE_DEADLINE,
    SETTING_SHUTDOWN_DEADLINE,
    SETTING_KEEPALIVE_IDLE,
    SETTING_KEEPALIVE_INTERVAL,
    SETTING_KEEPALIVE_PROBES,
    SETTING_TCP_USER_TIMEOUT,
    SETTING_LOG_LEVEL,
    SETTING_LOG_FORMAT,
    SETTING_CONFIG,
    SETTING_COUNT,
};

/* Which commands use a setting; a command takes flags for its groups only. */
enum setting_group {
    SETTINGS_STORE = 1, /* all that work on a store */
    SETTINGS_LOG = 2,   /* those that run long enough to have something to log */
    SETTINGS_SERVE = 4,
};

enum setting_kind {
    SETTING_TEXT,
    SETTING_SECRET,    /* a text that no message repeats, and that is wiped when it is not needed any more */
    SETTING_NUMBER,    /* least to most */
    SETTING_BYTES,     /* likewise, "1GB" */
    SETTING_DISK_SIZE, /* bytes that a disk can have */
    SETTING_DURATION,  /* likewise, in milliseconds: "30", "30s", "2m", "500ms" */
    SETTING_SECONDS,   /* likewise, in whole seconds */
    SETTING_SWITCH,    /* yes or no; as a flag alone: yes */
    SETTING_CHOICE,    /* one of `choices`; its number is kept */
};

/* Flag names, the longest variable, and a value's text: for buffers. */
#define SETTING_NAME_MAX 32
#define SETTING_VALUE_MAX 4096

struct setting {
    const char *name;
    enum setting_kind kind;
    unsigned groups;
    size_t offset;              /* in struct config: char * for texts and secrets, uint64_t for all else */
    const char *fallback;       /* NULL: none, or made by config.c */
    uint64_t least, most;       /* NUMBER, BYTES, DURATION, SECONDS */
    const char *const *choices; /* CHOICE: ends with NULL */
    const char *argument;       /* what --help calls the value */
    const char *help;
};

extern const struct setting setting_table[SETTING_COUNT];

/* The setting of that name ('_' and capitals are not the same as '-' and small letters); NULL: none. */
const struct setting *setting_find(const char *name);
/* The name that is nearest to a misspelt one; NULL when none is near. */
const char *setting_suggest(const char *name);

/* "NBD_WRITE_BUFFER" */
void setting_variable(const struct setting *setting, char ret_variable[SETTING_NAME_MAX + 4]);
/* The setting of an environment variable; NULL: none. */
const struct setting *setting_of_variable(const char *variable);
/* Whether it concerns S3 alone: giving it says that the disks are kept there. */
bool setting_is_s3(const struct setting *setting);

/* Puts the value of `text` into `config`.  The story of a failure says what is wrong with the text and what would be
 * right, and never holds a secret; the caller puts in front where it came from. */
int setting_parse(const struct setting *setting, const char *text, struct config *config, struct error *error);

#endif
