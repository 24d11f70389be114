/* What the credential chain reads: the shared files, settings, JSON; and what it leaves out of messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../lib/credential_bench.h"
#include "base/memory.h"
#include "store/credentials_internal.h"

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

/* ---- the files' form ---- */

static struct profiles *parse(enum profile_file file, const char *text)
{
    struct profiles *profiles = profiles_new();
    struct error error = ERROR_NONE;
    int failed = profiles_parse(profiles, file, "FILE", text, strlen(text), &error);
    said(error.story);
    assert_int_equal(failed, 0);
    return profiles;
}

static void assert_malformed(const char *text, const char *expected)
{
    struct profiles *profiles = profiles_new();
    struct error error = ERROR_NONE;
    assert_int_equal(profiles_parse(profiles, PROFILE_CONFIG, "FILE", text, strlen(text), &error), -EINVAL);
    said(error.story);
    assert_string_equal(error.story, expected);
    assert_false(profiles_have(profiles, "default"));
    profiles_free(profiles);
}

static void assert_value(const struct profiles *profiles, const char *profile, const char *key, const char *value)
{
    const char *found = profiles_get(profiles, profile, key);
    if (value == NULL) {
        assert_null(found);
    } else {
        assert_non_null(found);
        assert_string_equal(found, value);
    }
}

static void test_config_file(void **state)
{
    struct profiles *profiles = parse(PROFILE_CONFIG, "# a comment\n"
                                                      "[default]\n"
                                                      "region = eu-west-1\n"
                                                      "; another\n"
                                                      "\n"
                                                      "[profile dev]   # behind it is fine\n"
                                                      "Region=us-east-2\r\n"
                                                      "credential_process = run --with '#' # all of it\n"
                                                      "empty =\n"
                                                      "[profile \"with blanks\"]\n"
                                                      "\tregion\t=\teu-north-1\t\n"
                                                      "[dev2]\n"
                                                      "region = no-profile\n"
                                                      "[services dev3]\n"
                                                      "region = no-profile\n");
    assert_value(profiles, "default", "region", "eu-west-1");
    assert_value(profiles, "dev", "region", "us-east-2");
    assert_value(profiles, "dev", "credential_process", "run --with '#' # all of it");
    assert_value(profiles, "dev", "empty", NULL);
    assert_value(profiles, "with blanks", "region", "eu-north-1");
    assert_value(profiles, "dev2", "region", NULL);
    assert_false(profiles_have(profiles, "dev2"));
    assert_false(profiles_have(profiles, "dev3"));
    assert_true(profiles_have_services(profiles, "dev3"));
    profiles_free(profiles);
}

static void test_nested_settings(void **state)
{
    struct profiles *profiles = parse(PROFILE_CONFIG, "[profile dev]\n"
                                                      "s3 =\n"
                                                      "  addressing_style = path\n"
                                                      "  # inside too\n"
                                                      "\n"
                                                      "  region = nested\n"
                                                      "services = local\n"
                                                      "[services local]\n"
                                                      "dynamodb =\n"
                                                      "  endpoint_url = http://d\n"
                                                      "s3 =\n"
                                                      "  endpoint_url = http://s\n"
                                                      "endpoint_url = http://none\n");
    assert_value(profiles, "dev", "region", NULL);
    assert_value(profiles, "dev", "services", "local");
    assert_string_equal(profiles_service(profiles, "local", "s3", "endpoint_url"), "http://s");
    assert_string_equal(profiles_service(profiles, "local", "dynamodb", "endpoint_url"), "http://d");
    assert_null(profiles_service(profiles, "local", "sts", "endpoint_url"));
    assert_null(profiles_service(profiles, "other", "s3", "endpoint_url"));
    profiles_free(profiles);
}

/* Indented alike, lines are settings; deeper, they go on with the one above. */
static void test_indented_settings(void **state)
{
    struct profiles *profiles = parse(PROFILE_CREDENTIALS, "\xef\xbb\xbf[default]\n"
                                                           "  aws_access_key_id = AKID\n"
                                                           "  aws_secret_access_key = " SECRET "\n"
                                                           "  credential_process = one \n"
                                                           "     two\n"
                                                           "\n"
                                                           "     three = four\n"
                                                           "  region = eu-west-1");
    assert_value(profiles, "default", "aws_access_key_id", "AKID");
    assert_value(profiles, "default", "aws_secret_access_key", SECRET);
    assert_value(profiles, "default", "credential_process", "one\ntwo\nthree = four");
    assert_value(profiles, "default", "region", "eu-west-1");
    profiles_free(profiles);
}

static void test_said_twice(void **state)
{
    struct profiles *profiles =
        parse(PROFILE_CONFIG, "[default]\nregion = a\nregion = b\n[profile default]\nregion = c\n"
                              "endpoint_url = config\nexternal_id = x\n");
    const char credentials[] = "[default]\nendpoint_url = credentials\n[profile x]\na = b\n";
    assert_int_equal(profiles_parse(profiles, PROFILE_CREDENTIALS, "FILE", credentials, sizeof credentials - 1, NULL),
                     0);
    assert_value(profiles, "default", "region", "c");
    assert_value(profiles, "default", "external_id", "x");
    assert_value(profiles, "default", "endpoint_url", "credentials");
    assert_false(profiles_have(profiles, "x"));
    profiles_free(profiles);
}

static void test_long_lines(void **state)
{
    enum { LENGTH = 5000 };
    char *text = memory_new(LENGTH + 100);
    size_t head = (size_t)sprintf(text, "[default]\naws_session_token = ");
    memset(text + head, 'x', LENGTH);
    struct profiles *profiles = parse(PROFILE_CREDENTIALS, text);
    assert_int_equal(strlen(profiles_get(profiles, "default", "aws_session_token")), LENGTH);
    profiles_free(profiles);
    free(text);
}

static void test_malformed_files(void **state)
{
    assert_malformed("\n[default\n" SECRET, "FILE, line 2: a section's name without ']'");
    assert_malformed("[]\n", "FILE, line 1: a section without a name");
    assert_malformed("[default] " SECRET "\n", "FILE, line 1: something behind a section's name");
    assert_malformed("aws_secret_access_key = " SECRET "\n[default]\n",
                     "FILE, line 1: a setting before the first [section]");
    assert_malformed("[default]\na = b\n" SECRET "\n",
                     "FILE, line 3: neither a [section], nor a setting 'key = value', nor a comment");
    assert_malformed("[default]\n= " SECRET "\n",
                     "FILE, line 2: neither a [section], nor a setting 'key = value', nor a comment");
    assert_malformed("[default]\ns3 =\n  " SECRET "\n", "FILE, line 3: a nested line that is not 'key = value'");
    struct error error = ERROR_NONE;
    struct profiles *profiles = profiles_new();
    assert_int_equal(profiles_parse(profiles, PROFILE_CONFIG, "FILE", "[a]\0b", 5, &error), -EINVAL);
    assert_string_equal(error.story, "FILE is not text: it has a NUL in it");
    profiles_free(profiles);
}

/* ---- region and endpoint ---- */

static int read_settings(const char *profile, char **ret_region, char **ret_endpoint, struct error *error)
{
    *error = (struct error)ERROR_NONE;
    int failed = credentials_read_settings(profile, ret_region, ret_endpoint, error);
    said(error->story);
    return failed;
}

static void assert_settings(const char *profile, const char *region, const char *endpoint)
{
    struct error error;
    char *found_region, *found_endpoint;
    assert_int_equal(read_settings(profile, &found_region, &found_endpoint, &error), 0);
    assert_string_equal(found_region != NULL ? found_region : "", region);
    assert_string_equal(found_endpoint != NULL ? found_endpoint : "", endpoint);
    free(found_region);
    free(found_endpoint);
}

static void assert_no_settings(const char *profile, const char *expected)
{
    struct error error;
    char *region = NULL, *endpoint = NULL;
    assert_int_equal(read_settings(profile, &region, &endpoint, &error), -EINVAL);
    assert_non_null(strstr(error.story, expected));
    assert_true(region == NULL && endpoint == NULL);
}

static void test_settings(void **state)
{
    assert_settings(NULL, "", "");
    write_file("config", "[default]\nregion = r1\n[profile dev]\nregion = r2\nendpoint_url = http://e2\nservices = s\n"
                         "[services s]\nsts =\n endpoint_url = http://sts\n[profile wrong]\nservices = t\n"
                         "[profile off]\nignore_configured_endpoint_urls = true\nendpoint_url = http://e3\n");
    assert_settings(NULL, "r1", "");
    assert_settings("dev", "r2", "http://e2");
    assert_settings("off", "", "");
    assert_no_settings("wrong", "[services t]");
    assert_no_settings("gone", "profile 'gone' is neither in ");
    setenv("AWS_PROFILE", "dev", 1);
    assert_settings(NULL, "r2", "http://e2");
    assert_settings("default", "r1", "");
    write_file("credentials", "[dev]\nregion = r4\n");
    assert_settings(NULL, "r4", "http://e2");
    setenv("AWS_DEFAULT_REGION", "r5", 1);
    assert_settings(NULL, "r5", "http://e2");
    setenv("AWS_REGION", "r6", 1);
    setenv("AWS_ENDPOINT_URL", "http://e6", 1);
    assert_settings(NULL, "r6", "http://e6");
    setenv("AWS_ENDPOINT_URL_S3", "http://e7", 1);
    assert_settings(NULL, "r6", "http://e7");
    setenv("AWS_ENDPOINT_URL_S3", "", 1);
    assert_settings(NULL, "r6", "http://e6");
    setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "TRUE", 1);
    assert_settings(NULL, "r6", "");
    setenv("AWS_PROFILE", "gone", 1);
    assert_no_settings(NULL, "profile 'gone' is neither in ");
}

static void test_services_of_a_profile(void **state)
{
    write_file("config",
               "[default]\nservices = s\nendpoint_url = http://all\n[services s]\ns3 =\n endpoint_url = http://s3\n");
    assert_settings(NULL, "", "http://s3");
}

static void test_where_the_files_are(void **state)
{
    write_file("elsewhere", "[default]\nregion = r1\n");
    setenv("AWS_CONFIG_FILE", path_of("elsewhere"), 1);
    assert_settings(NULL, "r1", "");
    setenv("AWS_CONFIG_FILE", "~/elsewhere", 1);
    assert_settings(NULL, "r1", "");
    setenv("AWS_CONFIG_FILE", "/dev/null", 1);
    assert_settings(NULL, "", "");
    setenv("AWS_CONFIG_FILE", path_of("absent"), 1);
    assert_settings(NULL, "", "");
    setenv("AWS_CONFIG_FILE", credential_bench_home(), 1);
    assert_no_settings(NULL, "is not a regular file");
    assert_int_equal(mkfifo(path_of("pipe"), 0600), 0);
    setenv("AWS_CONFIG_FILE", path_of("pipe"), 1);
    assert_no_settings(NULL, "is not a regular file");
    write_file("large", "[default]\nregion = %2000000d\n", 1);
    setenv("AWS_CONFIG_FILE", path_of("large"), 1);
    assert_no_settings(NULL, "has more than 1024 KiB");
    unsetenv("AWS_CONFIG_FILE");
    write_file("credentials", "[default]\n" SECRET "\n");
    assert_no_settings(NULL, "/.aws/credentials, line 2: neither");
}

/* ---- JSON ---- */

static void assert_parsed(enum credentials_document kind, const char *text, const char *token, uint64_t expires_s)
{
    struct secrets secrets;
    struct error error = ERROR_NONE;
    int failed = credentials_parse_json(kind, text, strlen(text), &secrets, &error);
    said(error.story);
    assert_int_equal(failed, 0);
    assert_string_equal(secrets.access_key, "AKID");
    assert_string_equal(secrets.secret_key, SECRET);
    assert_string_equal(secrets.token != NULL ? secrets.token : "none", token);
    assert_true(secrets.expires_s == expires_s);
    secrets_free(&secrets);
}

static void assert_not_parsed(enum credentials_document kind, const char *text, int code, const char *expected)
{
    struct secrets secrets;
    struct error error = ERROR_NONE;
    assert_int_equal(credentials_parse_json(kind, text, strlen(text), &secrets, &error), -code);
    said(error.story);
    assert_non_null(strstr(error.story, expected));
}

#define KEYS "\"AccessKeyId\": \"AKID\", \"SecretAccessKey\": \"" SECRET "\""
#define PROCESS "{\"Version\": 1, " KEYS

static void test_documents(void **state)
{
    assert_parsed(DOCUMENT_PROCESS, PROCESS "}", "none", UINT64_MAX);
    assert_parsed(DOCUMENT_PROCESS, PROCESS ", \"SessionToken\": null, \"More\": {\"a\": [1]}}", "none", UINT64_MAX);
    assert_parsed(DOCUMENT_PROCESS,
                  PROCESS ", \"SessionToken\": \"" TOKEN "\", \"Expiration\": \"2030-01-02T03:04:05Z\"}", TOKEN,
                  1893553445);
    assert_parsed(DOCUMENT_PROCESS, PROCESS ", \"Expiration\": \"2030-01-02T03:04:05+00:00\"}", "none", 1893553445);
    assert_parsed(DOCUMENT_PROCESS, PROCESS ", \"Expiration\": \"2030-01-02T05:34:05.25+02:30\"}", "none", 1893553445);
    assert_parsed(DOCUMENT_PROCESS, PROCESS ", \"Expiration\": \"2030-01-01T22:04:05-05:00\"}", "none", 1893553445);
    assert_parsed(DOCUMENT_SERVICE, "{\"Code\": \"Success\", \"Token\": \"" TOKEN "\", " KEYS "}", TOKEN, UINT64_MAX);
    assert_parsed(DOCUMENT_SERVICE, "{" KEYS "}", "none", UINT64_MAX);
}

static void test_bad_documents(void **state)
{
    char bomb[2000];
    memset(bomb, '[', sizeof bomb - 1);
    bomb[sizeof bomb - 1] = '\0';
    assert_not_parsed(DOCUMENT_PROCESS, "", EPROTO, "nothing where JSON should be");
    assert_not_parsed(DOCUMENT_PROCESS, bomb, EPROTO, "JSON that nests");
    assert_not_parsed(DOCUMENT_PROCESS, "[]", EPROTO, "not an object");
    assert_not_parsed(DOCUMENT_PROCESS, "\n  " SECRET, EPROTO, "not JSON, from line 2");
    assert_not_parsed(DOCUMENT_PROCESS, PROCESS ",", EPROTO, "not JSON");
    assert_not_parsed(DOCUMENT_PROCESS, PROCESS ", \"Version\": 1}", EPROTO, "not JSON");
    assert_not_parsed(DOCUMENT_PROCESS, "{" KEYS "}", EPROTO, "\"Version\" is not 1");
    assert_not_parsed(DOCUMENT_PROCESS, "{\"Version\": 2, " KEYS "}", EPROTO, "\"Version\" is not 1");
    assert_not_parsed(DOCUMENT_PROCESS, "{\"Version\": \"1\", " KEYS "}", EPROTO, "\"Version\" is not 1");
    assert_not_parsed(DOCUMENT_PROCESS, "{\"Version\": 1, \"AccessKeyId\": \"AKID\"}", EPROTO,
                      "no \"SecretAccessKey\"");
    assert_not_parsed(DOCUMENT_PROCESS, "{\"Version\": 1, \"SecretAccessKey\": \"" SECRET "\"}", EPROTO,
                      "no \"AccessKeyId\"");
    assert_not_parsed(DOCUMENT_PROCESS, "{\"Version\": 1, \"AccessKeyId\": \"\", \"SecretAccessKey\": \"" SECRET "\"}",
                      EPROTO, "no \"AccessKeyId\"");
    assert_not_parsed(DOCUMENT_PROCESS, "{\"Version\": 1, \"AccessKeyId\": 7, \"SecretAccessKey\": \"" SECRET "\"}",
                      EPROTO, "no \"AccessKeyId\"");
    assert_not_parsed(DOCUMENT_PROCESS, PROCESS ", \"SessionToken\": \"a\\r\\nX-Evil: b\"}", EPROTO, "control bytes");
    assert_not_parsed(DOCUMENT_PROCESS, PROCESS ", \"SessionToken\": \"a\\u0000b\"}", EPROTO, "not JSON");
    static const char *const times[] = { "tomorrow", "2030-01-02T03:04:05",       "2030-01-02T03:04:05+1:00", "+00:00",
                                         "1",        "2030-01-02T03:04:05+24:00", "2030-01-02T03:04:05+0a:00" };
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        char text[300];
        snprintf(text, sizeof text, PROCESS ", \"Expiration\": \"%s\"}", times[i]);
        assert_not_parsed(DOCUMENT_PROCESS, text, EPROTO, "\"Expiration\" is not a time");
    }
    assert_not_parsed(DOCUMENT_SERVICE,
                      "{\"Code\": \"AssumeRoleUnauthorizedAccess\", \"Message\": \"EC2 cannot assume it\"}", EIO,
                      "AssumeRoleUnauthorizedAccess: EC2 cannot assume it");
    assert_not_parsed(DOCUMENT_SERVICE, "{\"Code\": \"Failed\", " KEYS "}", EIO, "Failed");
}

/* ---- what is left out of messages ---- */

static void assert_redacted(const char *text, const char *expected)
{
    char shown[200];
    secret_redact(text, strlen(text), shown, sizeof shown);
    said(shown);
    assert_string_equal(shown, expected);
}

static void test_redaction(void **state)
{
    assert_redacted("", "");
    assert_redacted("cannot find it\n", "cannot find it");
    assert_redacted("User: arn:aws:iam::123456789012:user/somebody is not authorized",
                    "User: arn:aws:iam::123456789012:user/somebody is not authorized");
    assert_redacted("key " SECRET " is bad", "key […] is bad");
    assert_redacted("export AWS_SECRET_ACCESS_KEY=" SECRET "\nfailed", "export […] failed");
    assert_redacted("{\"Token\":\"" TOKEN "\"}", "{\\x22Token\\x22:\\x22[…]\\x22}");
    assert_redacted("/usr/lib/python3.11/site-packages/some.py line 3",
                    "/usr/lib/python3.11/site-packages/some.py line 3");
    assert_redacted("\x1b[31m", "\\x1b[31m");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_config_file, begin, end),
        cmocka_unit_test_setup_teardown(test_nested_settings, begin, end),
        cmocka_unit_test_setup_teardown(test_indented_settings, begin, end),
        cmocka_unit_test_setup_teardown(test_said_twice, begin, end),
        cmocka_unit_test_setup_teardown(test_long_lines, begin, end),
        cmocka_unit_test_setup_teardown(test_malformed_files, begin, end),
        cmocka_unit_test_setup_teardown(test_settings, begin, end),
        cmocka_unit_test_setup_teardown(test_services_of_a_profile, begin, end),
        cmocka_unit_test_setup_teardown(test_where_the_files_are, begin, end),
        cmocka_unit_test_setup_teardown(test_documents, begin, end),
        cmocka_unit_test_setup_teardown(test_bad_documents, begin, end),
        cmocka_unit_test_setup_teardown(test_redaction, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
