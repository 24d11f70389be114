/* What the files that gather the settings share: see daemon/config.c. */
#ifndef CAIRN_DAEMON_CONFIG_INTERNAL_H
#define CAIRN_DAEMON_CONFIG_INTERNAL_H

#include "daemon/config.h"

#define ORIGIN_MAX 300

struct candidate {
    char *text; /* NULL: nobody said anything */
    enum config_source source;
    char origin[ORIGIN_MAX]; /* "NBD_PORT in .env line 3" */
};

struct gathering {
    const struct config_request *request;
    struct config *config;
    struct candidate candidates[SETTING_COUNT];
    enum config_source source; /* that is being read */
    const char *path;          /* of it */
};

/* Adds to the warnings. */
void config_warn(struct config *config, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Once all settings are parsed: which store is meant, and whether what was said of it fits together
 * (daemon/config_store.c). */
int config_settle_store(struct gathering *gathering, struct error *error);

#endif
