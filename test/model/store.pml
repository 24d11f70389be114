/* The store as a contender, an owner and a keeper see it: one register, a numbered log, data objects, pieces of
 * checkpoints.  Also what was promised to whom, which no program knows and the checks need.
 *
 * A set is a bit mask: of commits by their number, of log entries and roots by their seq, of people by their number. */

#define bit(n) (1 << (n))
#define has(set, n) (((set) >> (n)) & 1)
#define put(set, n) set = set | bit(n)
#define drop(set, n) set = set & ~bit(n)
#define up_to(n) (bit((n) + 1) - 1)
#define between(low, high) (up_to(high) & ~up_to(low)) /* above low, to high; nothing when high is not above */

/* What stands at a key of the log: nothing, a commit by its number, or the fence of an owner. */
#define ABSENT 0
#define FENCE 16
#define fence_of(p) (FENCE + (p))
#define is_fence(e) ((e) >= FENCE)
#define is_commit(e) ((e) > ABSENT && (e) < FENCE)

#define epoch_of(e) (is_fence(e) -> epoch[(e) - FENCE] : epoch[author[e]])

/* Each commit writes one page and puts it into one data object that has the commit's number. */
#define page_of(c) ((c) % PAGES)

/* ---- the register ---- */

byte reg_epoch = 1;
byte reg_owner = 0;     /* its nonce */
byte reg_renewal = 0;   /* the owner's last write, by its nonce; whoever pins leaves it as it is */
byte reg_root = 0;      /* seq of the newest root; the empty one at the beginning */
short reg_content = 0;  /* the commits whose effects that root holds */
short reg_roots = 1;    /* seqs of all roots named: the newest and the older ones */
byte reg_committed = 0;
byte reg_horizon = 0;
byte reg_pins = 0;      /* the keepers who have a pin here */
byte pin_at[2];         /* the pinned seq */
byte pin_base[2];       /* the root from which the log is read up to it */

/* Those who know the version (ETag) of the body that stands there now.  A body never recurs, so a conditional PUT lands
 * exactly when its sender is still among them: every landing leaves only the one who made it. */
byte current = 1;
#define keeper_number(i) (PEOPLE + (i))

/* ---- the log and the data ---- */

byte entry[SLOTS + 2];   /* what stands at each key now */
byte history[SLOTS + 2]; /* what stood there first */
byte slot_of[COMMITS + 1]; /* where each commit was sent */
byte author[COMMITS + 1];
byte commits = 0;       /* how many were made */
short objects = 0;      /* data objects that are there, and nobody may delete */
short pieces = 1;       /* roots whose pieces are there, and nobody may delete */
short doomed = 0;       /* log keys for which a DELETE was sent: it may happen at any time from then on, and again */

/* ---- the people ---- */

/* Owners by their number, then copies of owner 0. */
#define PEOPLE (OWNERS + CLONES)
#define name_of(p) ((p) < OWNERS -> (p) : 0) /* the nonce as owner */
#define is_copied(p) (name_of(p) == 0 && (serving >> OWNERS) != 0)

byte taken = 1;         /* how many have become owners */
byte epoch[PEOPLE];
byte position[PEOPLE];  /* the last entry that the owner has read or written */
short content[PEOPLE];  /* the commits whose effects its map holds */
byte in_flight[PEOPLE]; /* the commit that was sent and of which no answer came: at most one */
byte serving = 1;       /* who has ever served */
byte releasing = 0;     /* who means to end: its next write of the register is its last */
short fence_sent[PEOPLE];
#if CLONES
byte gone = 0;          /* who is over */
#endif

/* What an owner has to say to the register: one write at a time. */
#define IDLE 0
#define SENT 1
#define LANDED 2
byte writing[PEOPLE];
byte written[PEOPLE];   /* the nonce of this write, or of the last; 0 is that of the takeover */
byte known[PEOPLE];     /* the nonce of the last one that is known to have landed */
byte new_root[PEOPLE];
short new_content[PEOPLE];
byte new_horizon[PEOPLE];
byte new_committed[PEOPLE];
byte writes = 0;        /* how many were begun */
#if MUTANT == pins_forgotten || MUTANT == pins_judged_from_memory
byte seen_pins[PEOPLE]; /* as of the last body that the owner knew before it was refused */
#endif

/* ---- what was promised ---- */

short acknowledged = 0; /* commits of which some client was told that they are durable */
byte promised = 0;      /* keepers who were told that their pin stands, and have not asked to drop it */

/* Scratch of steps that nobody interrupts; no part of the state. */
hidden byte i_; hidden byte j_; hidden byte k_; hidden byte t_; hidden byte base_; hidden byte died_; hidden byte top_;
hidden byte kept_; hidden short set_; hidden short held_;

/* The newest root of a set at or below `seq`. */
inline find_base(roots, seq, ret_base)
{
    ret_base = seq;
    do
    :: !has(roots, ret_base) -> assert(ret_base > 0); ret_base--
    :: else -> break
    od
}

/* The commits of a set that were sent to the entries up to `seq`. */
inline find_up_to(set, seq, ret_set)
{
    ret_set = 0;
    k_ = 1;
    do
    :: k_ <= COMMITS ->
        if
        :: has(set, k_) && slot_of[k_] <= seq -> put(ret_set, k_)
        :: else
        fi;
        k_++
    :: else -> break
    od
}

/* An entry appears. */
inline place(seq, what)
{
    entry[seq] = what;
    if
    :: history[seq] == ABSENT -> history[seq] = what
    :: else
    fi
}
