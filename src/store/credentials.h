/* Credentials for S3: the AWS SDKs' chain.
 *
 * In this order, the first that has any:
 *   1. given   --s3-access-key and --s3-secret-key, NBD_S3_…
 *   2. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 *   3. a web identity: AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN
 *   4. the profile (AWS_PROFILE, or "default") of ~/.aws/config and ~/.aws/credentials (AWS_CONFIG_FILE,
 *      AWS_SHARED_CREDENTIALS_FILE): static keys; role_arn with source_profile or credential_source; web identity;
 *      credential_process
 *   5. the container's endpoint: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI, with a token or token file
 *   6. the instance: IMDSv2 (AWS_EC2_METADATA_DISABLED, AWS_EC2_METADATA_SERVICE_ENDPOINT)
 *   7. where `local_defaults`: minioadmin, minioadmin
 * A profile that a setting names (not AWS_PROFILE) goes before 2 and 3, as in the AWS SDKs.
 *
 * The source that had them is the one that is asked again.  Those that expire are refreshed in the background by the
 * first get from 15 minutes ahead on; from 10 minutes ahead a get waits for it.  (With less than half an hour to live:
 * after a half, and two thirds, of that.)  A refresh that fails keeps what has not expired, and the next is made after
 * a while, not at each get.  A source that has credentials but is broken (a profile that is not there, a process that
 * fails) is an error, not passed over.  No secret ever stands in a story or an event. */
#ifndef CAIRN_STORE_CREDENTIALS_H
#define CAIRN_STORE_CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>

#include "rt/coroutine.h"

struct error;
struct event_sink;
struct http;
struct loop;

struct credentials_setup {
    const char *access_key, *secret_key, *session_token; /* given: both of the first two, or neither (-EINVAL) */
    const char *profile;                                 /* given by a setting; NULL: AWS_PROFILE, "default" */
    const char *region; /* of the store: for the token service where environment and profile name none; NULL: none */
    bool local_defaults;
    struct event_sink *events; /* cannot be refreshed, expired, refreshed again: one event a change */
};

struct credentials {
    const char *access_key, *secret_key;
    const char *token;   /* NULL: none */
    uint64_t generation; /* another number: other credentials; from 1 */
};

struct credential_chain;

/* Copies the setup; reads nothing yet.  `http` (not owned) carries the requests to STS, containers and instances. */
int credential_chain_new(struct loop *loop, struct http *http, const struct credentials_setup *setup,
                         struct credential_chain **ret_chain, struct error *error);
/* Its refresh under way is cancelled and waited for; no get may be under way.  NULL is fine. */
CO void credential_chain_close(struct credential_chain *chain);

/* Parks only at first and around expiry.  The strings are valid until the caller parks next.
 *   -ENOENT    no source has any: the story lists what was looked at and what to set
 *   -EINVAL    what somebody configured is wrong: trying again is no use before that is changed
 *   -EACCES    a service refused to give any
 *   -ECANCELED the caller's task was cancelled
 *   others     trying again may help (a service or process fails for now) */
CO int credential_chain_get(struct credential_chain *chain, struct credentials *ret_credentials, struct error *error);
/* The store has refused these as expired or unknown: the next get refreshes, unless the chain has others by now or its
 * credentials cannot change.  Returns whether trying again makes sense. */
bool credential_chain_refused(struct credential_chain *chain, uint64_t generation);
/* "profile 'dev' (assumed role)", "AWS_ACCESS_KEY_ID", for messages and `cairn doctor`; "" before the first get. */
const char *credential_chain_source(const struct credential_chain *chain);

/* What else the profile and the environment say: AWS_REGION, AWS_DEFAULT_REGION, the profile's region;
 * AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's endpoint_url, that of its services first (none of these where
 * AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is true).  Blocking: reads two small files.  Each is owned by the caller; NULL:
 * not said.  An unreadable or malformed file is an error, and so is a profile that somebody named and nobody wrote. */
int credentials_read_settings(const char *profile, char **ret_region, char **ret_endpoint, struct error *error);

#endif
