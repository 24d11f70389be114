/* The NBD service over simulated connections and the fake engine, for tests: a world in which time is virtual, so every
 * deadline can be waited for, and clients that say what they are told.  Bytes arrive in random pieces. */
#ifndef CAIRN_TEST_NBD_RIG_H
#define CAIRN_TEST_NBD_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd/codec.h"
#include "nbd/limits.h"
#include "nbd/service.h"
#include "rt/loop_sim.h"
#include "rt/task.h"
#include "rt/wait.h"

#define KIB UINT64_C(1024)
#define DISK_BYTES (64 * KIB * KIB)

struct rig {
    struct world *world;
    struct loop *loop;
    struct volumes *volumes;
    struct nbd_settings settings;
    struct nbd_service *service;
    struct group others; /* tasks of the test besides its body */
    void (*body)(struct rig *rig);
    bool done;
};

/* Runs the body with some seeds; afterwards nothing may be left. */
void run(void (*body)(struct rig *rig));
void run_with(const struct nbd_settings *settings, void (*body)(struct rig *rig));
struct nbd_settings defaults(void);

/* ---- a client ---- */

struct client {
    struct channel *channel;
    bool structured;
    uint64_t size;
    uint16_t flags;
};

void put_be(uint8_t *bytes, uint64_t value, int count);
uint64_t get_be(const uint8_t *bytes, int count);
void say(struct client *client, const void *bytes, size_t length);
void hear(struct client *client, void *bytes, size_t length);

/* Connected; then greeted; then attached to a volume.  The peer is "somebody" where no other is named. */
struct client connect_to(struct rig *rig);
struct client greet(struct rig *rig);
struct client greet_as(struct rig *rig, const char *peer);
struct client attach(struct rig *rig, const char *name, bool structured);
void hang_up(struct client *client);
void assert_ended(struct client *client);

void say_option(struct client *client, uint32_t type, const void *data, uint32_t length);
/* The next reply's type; its data, as a string, in `text`. */
uint32_t hear_option(struct client *client, uint32_t option, char text[8192], uint32_t *ret_length);
void assert_option(struct client *client, uint32_t option, uint32_t reply);
void say_choice(struct client *client, uint32_t option, const char *name);
/* Sends INFO or GO and takes the answer: ACK, or the error whose text is in `text`. */
uint32_t choose(struct client *client, uint32_t option, const char *name, char text[8192]);

void ask(struct client *client, uint16_t command, uint16_t flags, uint64_t cookie, uint64_t offset, uint32_t length);
/* A reply's error; its cookie, and the data of a READ of `length` bytes. */
uint32_t hear_reply(struct client *client, uint64_t *ret_cookie, void *data, uint32_t length);
/* Both; a WRITE sends `data`, a READ fills it. */
uint32_t call(struct client *client, uint16_t command, uint16_t flags, uint64_t offset, uint32_t length, void *data);

#endif
