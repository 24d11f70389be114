/* What the files of the credential chain share; see credentials.h for what it is. */
#ifndef CAIRN_STORE_CREDENTIALS_INTERNAL_H
#define CAIRN_STORE_CREDENTIALS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "rt/coroutine.h"
#include "store/credentials.h"
#include "store/http.h"

/* ---- secrets (credentials_secret.c) ---- */

#define CREDENTIALS_SOURCE_MAX 160 /* a profile's name, and what kind of thing it is */

/* Credentials as a source gave them, and its name for messages. */
struct secrets {
    char *access_key, *secret_key;
    char *token;        /* NULL: none */
    uint64_t expires_s; /* since 1970; UINT64_MAX: they do not expire */
    char source[CREDENTIALS_SOURCE_MAX];
};

/* Each wipes the memory before it goes. */
void secrets_free(struct secrets *secrets);
void secret_free(char *text);
void secret_buffer_free(struct buffer *buffer);

bool secrets_same(const struct secrets *a, const struct secrets *b);

/* Foreign text (a server's message, what a process complained) made fit for a story: quoted, cut, one line, and words
 * that look like a key or a token left out.  Always terminated. */
void secret_redact(const char *bytes, size_t length, char *ret_text, size_t capacity);

/* ---- what every source is given ---- */

struct sourcing {
    struct loop *loop;
    struct http *http;
    const struct credentials_setup *setup; /* the chain's own copy */
    int stop_fd; /* an eventfd, readable once the chain closes: for what runs on a thread and sees no cancel */
};

/* "This source has none": not an error, the next is asked.  The story says in a few words why. */
#define SOURCE_NONE 1

/* Ordered as they are asked. */
enum credential_source {
    SOURCE_GIVEN,
    SOURCE_ENVIRONMENT,
    SOURCE_WEB_IDENTITY,
    SOURCE_PROFILE,
    SOURCE_CONTAINER,
    SOURCE_INSTANCE,
    SOURCE_LOCAL,
    SOURCE_COUNT,
};

/* Each returns 0, SOURCE_NONE or -errno; it does not look at the clock (credentials.c does). */
CO int credentials_given(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error);
CO int credentials_environment(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error);
CO int credentials_web_identity(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error);
CO int credentials_profile(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error);
CO int credentials_container(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error);
CO int credentials_instance(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error);
CO int credentials_local(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error);

/* The first source that has any.  -ENOENT: none has. */
CO int credential_source_first(const struct sourcing *sourcing, enum credential_source *ret_source,
                               struct secrets *ret_secrets, struct error *error);
/* That one again; that it has none now is an error. */
CO int credential_source_again(const struct sourcing *sourcing, enum credential_source source,
                               struct secrets *ret_secrets, struct error *error);
bool credential_source_can_change(enum credential_source source);

/* ---- variables and small files (credentials_file.c) ---- */

/* NULL where it is not set, or empty. */
const char *environment_text(const char *name);
/* Whether it says "true", in any case. */
bool environment_true(const char *name);

#define CREDENTIALS_FILE_MAX ((size_t)1 << 20) /* ~/.aws/config with thousands of profiles; a token has a few KiB */

/* Blocking.  The bytes are followed by a NUL; the caller frees with secret_buffer_free().  -ENOENT: not there, with a
 * story too. */
int credentials_read_file(const char *path, struct buffer *ret_bytes, struct error *error);
/* One line of text, such as a token, without blanks at its ends: read on a thread; freed with secret_free(). */
CO int credentials_read_token(struct loop *loop, const char *path, char **ret_token, struct error *error);

/* ---- profiles (credentials_profile.c) ---- */

enum profile_file { PROFILE_CONFIG, PROFILE_CREDENTIALS, PROFILE_FILES };

/* Both files; what one says about a profile stands beside what the other says. */
struct profiles;

/* Blocking.  A file that is not there is none.  -EINVAL: malformed. */
int profiles_read(struct profiles **ret_profiles, struct error *error);
void profiles_free(struct profiles *profiles);
/* For messages: "~/.aws/credentials and ~/.aws/config" as they were looked for. */
const char *profiles_where(const struct profiles *profiles);

/* Without reading: for those who have the bytes. */
struct profiles *profiles_new(void);
int profiles_parse(struct profiles *profiles, enum profile_file file, const char *path, const void *bytes,
                   size_t length, struct error *error);

bool profiles_have(const struct profiles *profiles, const char *profile);
/* What the credentials file says, else the config file; NULL: neither, or nothing. */
const char *profiles_get(const struct profiles *profiles, const char *profile, const char *key);
const char *profiles_get_from(const struct profiles *profiles, enum profile_file file, const char *profile,
                              const char *key);
/* Of the section [services NAME], inside `service`. */
const char *profiles_service(const struct profiles *profiles, const char *services, const char *service,
                             const char *key);
bool profiles_have_services(const struct profiles *profiles, const char *services);

/* ---- region and endpoints (credentials_settings.c) ---- */

/* The profile that counts: given, AWS_PROFILE, "default"; ret_named: somebody named it. */
const char *profile_chosen(const char *given, bool *ret_named);
/* -EINVAL where a profile that was named is in neither file. */
int profile_check(const struct profiles *profiles, const char *given, struct error *error);
/* NULL: not said. */
const char *settings_region(const struct profiles *profiles, const char *profile);
/* `service`: "s3", "sts".  *ret_endpoint NULL: not said. */
int settings_endpoint(const struct profiles *profiles, const char *profile, const char *service,
                      const char **ret_endpoint, struct error *error);

/* ---- the security token service (credentials_sts.c) ---- */

struct sts_role {
    const char *endpoint; /* NULL: AWS's for the region */
    const char *region;
    const char *role_arn;
    const char *session_name; /* NULL: one is made */
    const char *external_id;  /* NULL: none */
    const char *duration_s;   /* decimal digits, NULL: the service's default */
    const char *token_file;   /* of a web identity; NULL: assumed with `with` */
};

/* Fills all of ret_secrets but its source. */
CO int sts_assume_role(const struct sourcing *sourcing, const struct sts_role *role, const struct secrets *with,
                       struct secrets *ret_secrets, struct error *error);

/* ---- a process (credentials_process.c) ---- */

/* Fills all of ret_secrets but its source. */
CO int credentials_run_process(const struct sourcing *sourcing, const char *command, struct secrets *ret_secrets,
                               struct error *error);

/* ---- documents (credentials_json.c): a pure function over bytes that anybody may have written ---- */

enum credentials_document {
    DOCUMENT_PROCESS, /* Version 1; SessionToken and Expiration may be absent */
    DOCUMENT_SERVICE, /* of a container's endpoint or an instance: Token, Expiration, Code */
};
int credentials_parse_json(enum credentials_document kind, const void *bytes, size_t length,
                           struct secrets *ret_secrets, struct error *error);

/* ---- requests (credentials_http.c) ---- */

#define EXCHANGE_HEADERS_MAX 6
#define EXCHANGE_BODY_MAX ((size_t)64 << 10) /* of an answer: credentials have 1 to 4 KiB */

struct exchange {
    const char *method, *url;
    struct http_header headers[EXCHANGE_HEADERS_MAX]; /* the first without a name ends them */
    const char *body;                                 /* NULL: none */
    uint64_t timeout_ms;                              /* of the whole */
    bool direct;                                      /* past any proxy */
};

/* 0: an answer with any status.  The body is freed with secret_buffer_free(). */
CO int exchange_perform(const struct sourcing *sourcing, const struct exchange *exchange, int *ret_status,
                        struct buffer *ret_body, struct error *error);
/* -EACCES or, where trying again may help, -EIO: "WHO answered 403: MESSAGE". */
int exchange_refused(const char *who, int status, const struct buffer *body, struct error *error);

#endif
