/* cairn version: ours, the store format's, and the libraries' that are in use. */
#include <curl/curl.h>
#include <expat.h>
#include <gnutls/gnutls.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>
#include <xxhash.h>

#include "cli/command.h"
#include "cli/version.h"
#include "vol/format/format.h"

static int run(const struct config *config, const struct config_arguments *arguments, struct error *error)
{
    unsigned xxhash = XXH_versionNumber();

    printf("cairn %s\n", CAIRN_VERSION);
    printf("store format %d\n", FORMAT_VERSION);
    printf("libuv %s\n", uv_version_string());
    printf("libcurl %s\n", curl_version_info(CURLVERSION_NOW)->version);
    printf("GnuTLS %s\n", gnutls_check_version(NULL));
    printf("xxHash %u.%u.%u\n", xxhash / 10000, xxhash / 100 % 100, xxhash % 100);
    printf("Jansson %s\n", jansson_version_str());
    printf("Expat %s\n", XML_ExpatVersion() + strlen("expat_"));
    return EXIT_DONE;
}

const struct command command_version = {
    .name = "version",
    .arguments = "",
    .summary = "print the versions of cairn, of its store format, and of its libraries",
    .description = "Prints the versions of cairn, of the store format that it reads and writes, and of the libraries\n"
                   "that it runs with: what a report of a problem should begin with.",
    .examples = "  cairn version",
    .run = run,
};
