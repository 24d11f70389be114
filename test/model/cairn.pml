/* Who may write a volume, and what may be deleted of it: a model of the register, the log, checkpoints, deletion and
 * pins, to be searched exhaustively.
 *
 * The protocol is that of DESIGN.md ("Owning a volume") and doc/format.md (recovery).  What makes it hard is not any
 * one step but the order in which steps of several servers may meet: a server pauses between any two steps for any
 * time, or for ever, which is a crash; what it has sent arrives late, twice, or after its sender is gone; it never
 * hears what became of it.  Here every such order is tried, at sizes that are small and yet have room for what is
 * known to go wrong: a contender that sleeps through another's takeover, an owner that wakes up superseded, a pin
 * amid a checkpoint.
 *
 * WHAT IS MODELLED
 *
 *   store.pml     the register (epoch, owner's nonce, write nonce as renewal, newest root, older roots, committed,
 *                 horizon, pins), the log, data objects, pieces of checkpoints
 *   network.pml   late and duplicated PUTs and DELETEs
 *   owner.pml     taking over; commits; the register's writer, which merges renewal, checkpoint, horizon and release,
 *                 and builds anew upon a pin that came between; copies of a process with all its memory
 *   keeper.pml    a third party that pins a state and later drops the pin
 *   deletion.pml  what may be deleted, by the register's body as landed
 *   check.pml     what must hold, and where it is asserted
 *   mutants.pml   deliberate mistakes, each of which must be found
 *
 * WHAT MUST HOLD
 *
 *   An acknowledged commit is visible to every later owner.
 *   An owner acknowledges only commits that precede every later owner's fence; nothing else of a superseded owner is
 *   ever visible.
 *   Nothing is deleted that the newest state, a state from the horizon on, or a pinned state can reach.
 *   A root is the state as of the entry that it names.
 *
 *   A lawful owner, the one whom the register names, is never fenced by a stale contender, and never finds a sound log
 *   damaged.  Who takes its write of the register for landed is right.  Nobody loses a pin.
 *
 * WHAT IS LEFT OUT, AND WHY THAT IS SOUND
 *
 *   Clocks and leases.  They say when to try, never who may.  Without them anybody may take over at any moment:
 *   after a release, after a crash, from a living owner (break-lease), while another is still about to.  `held` is
 *   not there for the same reason: it only says whether to wait.  A release is its last checkpoint and CAS, and the
 *   end.
 *
 *   Crashes.  A crash is a process that takes no further step, and every prefix of a run is searched.  A restart is
 *   the next owner.
 *
 *   Lost answers.  Sending, arriving and learning are separate steps.  Whoever learns does so by what stands in the
 *   store, at any later time: the same for a 2xx that was slow, a 412 to one's own write, and a read after no
 *   answer.  Sending identical bytes again changes nothing here, since whatever was sent may arrive at any time
 *   anyway.  Only the 2xx of a register's write is its own step: it tells of that write, not of what stands there
 *   now.
 *
 *   ETags.  No body of the register recurs.  So a conditional PUT lands exactly when nobody else's has landed since
 *   its sender read; `current` is the set of those for whom this is so.
 *
 *   Steps that are merged.  Reading a register and writing it under its ETag is one step where nothing is done
 *   between them: if the write lands, the body has not changed since.  A takeover whose answer is lost is one whose
 *   process is slow.  Replaying reads as many entries as there are at once: entries of a log do not change, and
 *   those that vanish vanish from behind a later owner's fence, for a contender that has lost.  Each object is
 *   uploaded, and known to be there, when its commit is sent; one whose commit never arrives is an orphan.
 *
 *   Superseded owners that begin another write of the register: it cannot land, and they learn what the conflict of
 *   a write that was begun before tells them too.
 *
 *   Counters of the register's writes: they tell an older register that somebody has put back, which nobody does here.
 *
 *   Content.  A commit is a number, a map the set of commits that went into it, a root such a set and a seq.  Each
 *   commit writes one page; with two pages objects outlive the next commit.  Pieces that roots share count as if
 *   each root had its own: a piece goes only when no root that is named lists it.
 *
 *   Epochs, hashes.  Owners are numbered in the order of their takeovers: who takes over first is called the first.
 *   The chain of hashes is not modelled; what it would find does not happen here.
 *
 *   A store that loses what it has, or does not keep its conditions; a register that somebody puts back; copies of
 *   other owners than the first, and of one that has not begun to serve; compaction, forks, reset, resize, deleting a
 *   volume: not modelled.
 *
 * ONE MODEL, SEVERAL SIZES
 *
 *   Everything lies in one model.  What a search costs is set by how many may do how much: the configurations in
 *   test/model/run give each concern the room that it needs, and the others less.  No configuration switches a rule
 *   off, with one exception, so each is a true part of the whole: any run of a smaller one is a run of a larger one.
 *   What none of them has room for is not shown.
 *
 *   The exception: beside a copy no log entries are deleted.  A copy that still waits to commit at a number whose
 *   entry is gone would get it, since no fence stands between two that share one epoch.  test/model/README.md says
 *   what follows. */

#ifndef OWNERS
#define OWNERS 3   /* takeovers, and the one who created the volume */
#endif
#ifndef COMMITS
#define COMMITS 2  /* of all owners together */
#endif
#ifndef WRITES
#define WRITES 2   /* of the register, of all owners together, beside the takeovers */
#endif
#ifndef KEEPERS
#define KEEPERS 0  /* third parties, with one pin each: 2 at most */
#endif
#ifndef CLONES
#define CLONES 0   /* copies of owner 0 with all its memory, made at any moment: 1 at most */
#endif
#ifndef PAGES
#define PAGES 1    /* of the disk; commits write them in turn */
#endif
#ifndef DELETION
#define DELETION 1 /* 0: entries of the log are not deleted */
#endif

/* Entries that a log can have: all commits, and a fence of each who took over. */
#define SLOTS (COMMITS + OWNERS - 1)

#include "mutants.pml"
#include "store.pml"
#include "check.pml"
#include "deletion.pml"
#include "owner.pml"
#include "keeper.pml"
#include "network.pml"

init
{
    atomic {
        epoch[0] = 1;
        i_ = 0;
        do
        :: i_ < PEOPLE -> run owner(i_); i_++
        :: else -> break
        od;
        i_ = 0;
        do
        :: i_ < KEEPERS -> run keeper(i_); i_++
        :: else -> break
        od;
        run network()
    }
}
