/* The numbers that SIGUSR1 and the end of `cairn serve` print. */
#ifndef CAIRN_DAEMON_STATISTICS_H
#define CAIRN_DAEMON_STATISTICS_H

#include "daemon/server_shard.h"

/* Adds up what shard_count() gathered and prints it to the log, whatever its level: lines of name=number, which
 * programs may read. */
void statistics_print(const struct shard_common *common);

#endif
