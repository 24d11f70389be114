/* Options of the handshake, answered one by one. */
#ifndef CAIRN_NBD_OPTION_H
#define CAIRN_NBD_OPTION_H

#include "nbd/codec.h"
#include "nbd/handshake.h"

/* Answers an option whose data was received. */
CO enum handshake_outcome option_answer(struct connection *connection, const struct nbd_option *option,
                                        const uint8_t *data);
/* Answers one whose data was too long to be kept. */
CO enum handshake_outcome option_refuse_long(struct connection *connection, const struct nbd_option *option);
/* Opens the export that the handshake has pending, here, and tells the client. */
CO enum handshake_outcome option_open(struct connection *connection);
/* The service on whose shard the pending export's volume lives. */
struct nbd_service *option_home(const struct connection *connection);

#endif
