/* The shared files of the AWS SDKs: store/credentials_profile.c; and credentials in JSON: store/credentials_json.c.
 *
 * The first byte tells which: 'j' JSON of a service, 'p' JSON of a process, 'c' a config file, else a credentials file.
 */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "fuzz.h"
#include "store/credentials_internal.h"

static void try_document(enum credentials_document kind, const uint8_t *bytes, size_t length)
{
    struct secrets secrets;
    struct error error = ERROR_NONE;
    if (credentials_parse_json(kind, bytes, length, &secrets, &error) < 0) {
        PROMISE(error.code != 0 && error.story[0] != '\0');
        return;
    }
    PROMISE(secrets.access_key[0] != '\0' && secrets.secret_key[0] != '\0');
    PROMISE(secrets.token == NULL || secrets.token[0] != '\0');
    PROMISE(secrets_same(&secrets, &secrets));
    secrets_free(&secrets);
}

/* What is looked up lies in memory, ended by a NUL; and no word of the file stands in a story. */
static void try_file(enum profile_file kind, const uint8_t *bytes, size_t length)
{
    static const char *const names[] = { "default", "dev", "with blanks", "" };
    static const char *const keys[] = { "region", "aws_secret_access_key", "credential_process", "s3" };
    struct profiles *profiles = profiles_new();
    struct error error = ERROR_NONE;
    if (profiles_parse(profiles, kind, "FILE", bytes, length, &error) < 0)
        PROMISE(error.code != 0 && strncmp(error.story, "FILE", 4) == 0 && strlen(error.story) < 100);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (size_t j = 0; j < sizeof keys / sizeof keys[0]; j++) {
            const char *value = profiles_get(profiles, names[i], keys[j]);
            PROMISE(value == NULL || (strlen(value) > 0 && strlen(value) <= length));
            PROMISE(value == NULL || profiles_have(profiles, names[i]));
            value = profiles_service(profiles, names[i], keys[j], "endpoint_url");
            PROMISE(value == NULL || profiles_have_services(profiles, names[i]));
        }
    }
    profiles_free(profiles);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char shown[64];
    if (size == 0)
        return 0;
    const uint8_t *bytes = data + 1;
    size_t length = size - 1;
    switch (data[0]) {
    case 'j':
        try_document(DOCUMENT_SERVICE, bytes, length);
        break;
    case 'p':
        try_document(DOCUMENT_PROCESS, bytes, length);
        break;
    case 'c':
        try_file(PROFILE_CONFIG, bytes, length);
        break;
    default:
        try_file(PROFILE_CREDENTIALS, bytes, length);
    }
    secret_redact((const char *)bytes, length, shown, sizeof shown);
    PROMISE(strlen(shown) < sizeof shown);
    return 0;
}
