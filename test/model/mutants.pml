/* Deliberate mistakes.  -DMUTANT=name makes the one; each must make an assertion fail, in the small configuration for
 * what the word before the colon names.  test/model/run reads this table; test/model/README.md tells how to add a
 * line. */

#ifndef MUTANT
#define MUTANT 0
#endif
#define mutant(name) (MUTANT == name)

#define no_fence                      1 /* log: a new owner does not close the log's end */
#define no_second_reading             2 /* log: a new owner does not read the register again before it serves */
#define entry_before_fence_skipped    3 /* log: what stands where the fence was to go is stepped over, not read */
#define epoch_stands_still            4 /* log: a takeover does not raise the epoch */
#define higher_epoch_ignored          5 /* log: a contender goes on behind an entry of a later owner */
#define checkpoint_by_own_object      6 /* log: the newest root has an object of its own, read after the takeover */
#define commit_conflict_is_ours       7 /* log: a commit whose number another entry has counts as done */
#define unknown_commit_rebatched      8 /* log: a commit of unknown outcome is tried again with other content */
#define early_acknowledgement         9 /* log: a commit is acknowledged before it landed */
#define data_after_commit            10 /* log: a data object is uploaded after the commit that names it */
#define damage_at_first_sight        11 /* log: an entry missing below a higher one is lost without a second look */
#define register_conflict_is_landed  12 /* log: a write of the register that was refused counts as landed */
#define renewal_after_conflict       13 /* log: an owner that finds another one in the register writes upon that body */
#define root_of_uncommitted          14 /* log: a root holds a commit that has not landed */
#define root_of_later_content        15 /* log: a root is the state of a later entry than it says */
#define root_before_pieces           16 /* log: a root is published before its pieces are uploaded */
#define older_roots_dropped          17 /* log: older roots are dropped although states from the horizon on need them */
#define deleted_before_landing       18 /* log: deletion follows from a body that has only been sent */
#define fences_deleted               19 /* log: fences are deleted like commits */
#define horizon_ignored              20 /* log: objects are deleted as soon as they died */
#define own_uncommitted_deleted      21 /* log: objects of the own epoch that no commit names yet count as orphans */
#define orphans_before_fence         22 /* log: orphans are told before the log was replayed and closed */
#define unpublished_pieces_deleted   23 /* pins: pieces of a checkpoint whose CAS is on its way count as orphans */
#define takeover_drops_pins          24 /* pins: a takeover does not keep the pins of the body that it replaces */
#define renewal_ignored              25 /* pins: after a conflict any body with the own nonce counts as landed */
#define pins_forgotten               26 /* pins: after a conflict the owner writes pins from memory, not those read */
#define pins_judged_from_memory      27 /* pins: after a conflict deletion goes by pins from memory, not those read */
#define entries_of_pins_deleted      28 /* pins: entries in a pin's replay range are deleted */
#define pieces_of_pins_deleted       29 /* pins: pieces of a pin's base are deleted */
#define objects_of_pins_deleted      30 /* pins: objects that a pinned state shows are deleted */
#define base_recomputed              31 /* pins: a checkpoint moves the bases of pins to its root */
#define horizon_past_pins            32 /* pins: the horizon, when raised, drops the pins that come to lie below it */
#define pin_below_horizon            33 /* pins: a keeper pins a state below the horizon */
#define pin_resent_blindly           34 /* pins: a keeper, refused, sends seq and base again without another look */
#define pin_counts_as_renewal        35 /* pins: who pins puts a nonce of its own in as renewal */
#define commit_told_by_nonce         36 /* copies: an entry with the own epoch and nonce counts as the own commit */
#define entries_deleted_beside_copy  37 /* copies: entries are deleted while a copy may still commit there */
