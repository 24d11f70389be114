/* What was sent arrives when it likes: a PUT at any later time, and again after what it had written was deleted; a
 * DELETE at any later time, and any number of times.  What never arrives is a run in which it has not arrived yet. */

#if OWNERS > 4 || COMMITS > 6 || SLOTS > 9
#error the network knows of 4 owners, 6 commits and 9 entries at most
#endif

#define COMMIT_ARRIVES(c) \
    atomic { (c) <= commits && entry[slot_of[c]] == ABSENT -> d_step { place(slot_of[c], c); skip } }
#define WRITE_ARRIVES(p) atomic { writing[p] == SENT && has(current, p) -> d_step { land(p); skip } }
#define FENCE_ARRIVES(p, seq) atomic { entry[seq] == ABSENT && has(fence_sent[p], seq) -> place(seq, fence_of(p)) }
#define DELETE_ARRIVES(seq) atomic { entry[seq] != ABSENT && has(doomed, seq) -> entry[seq] = ABSENT }

proctype network()
{
    do
    :: WRITE_ARRIVES(0)
#if OWNERS > 1
    :: WRITE_ARRIVES(1)
#if SLOTS >= 1
    :: FENCE_ARRIVES(1, 1)
#endif
#if SLOTS >= 2
    :: FENCE_ARRIVES(1, 2)
#endif
#if SLOTS >= 3
    :: FENCE_ARRIVES(1, 3)
#endif
#if SLOTS >= 4
    :: FENCE_ARRIVES(1, 4)
#endif
#if SLOTS >= 5
    :: FENCE_ARRIVES(1, 5)
#endif
#if SLOTS >= 6
    :: FENCE_ARRIVES(1, 6)
#endif
#if SLOTS >= 7
    :: FENCE_ARRIVES(1, 7)
#endif
#if SLOTS >= 8
    :: FENCE_ARRIVES(1, 8)
#endif
#if SLOTS >= 9
    :: FENCE_ARRIVES(1, 9)
#endif
#endif
#if OWNERS > 2
    :: WRITE_ARRIVES(2)
#if SLOTS >= 1
    :: FENCE_ARRIVES(2, 1)
#endif
#if SLOTS >= 2
    :: FENCE_ARRIVES(2, 2)
#endif
#if SLOTS >= 3
    :: FENCE_ARRIVES(2, 3)
#endif
#if SLOTS >= 4
    :: FENCE_ARRIVES(2, 4)
#endif
#if SLOTS >= 5
    :: FENCE_ARRIVES(2, 5)
#endif
#if SLOTS >= 6
    :: FENCE_ARRIVES(2, 6)
#endif
#if SLOTS >= 7
    :: FENCE_ARRIVES(2, 7)
#endif
#if SLOTS >= 8
    :: FENCE_ARRIVES(2, 8)
#endif
#if SLOTS >= 9
    :: FENCE_ARRIVES(2, 9)
#endif
#endif
#if OWNERS > 3
    :: WRITE_ARRIVES(3)
#if SLOTS >= 1
    :: FENCE_ARRIVES(3, 1)
#endif
#if SLOTS >= 2
    :: FENCE_ARRIVES(3, 2)
#endif
#if SLOTS >= 3
    :: FENCE_ARRIVES(3, 3)
#endif
#if SLOTS >= 4
    :: FENCE_ARRIVES(3, 4)
#endif
#if SLOTS >= 5
    :: FENCE_ARRIVES(3, 5)
#endif
#if SLOTS >= 6
    :: FENCE_ARRIVES(3, 6)
#endif
#if SLOTS >= 7
    :: FENCE_ARRIVES(3, 7)
#endif
#if SLOTS >= 8
    :: FENCE_ARRIVES(3, 8)
#endif
#if SLOTS >= 9
    :: FENCE_ARRIVES(3, 9)
#endif
#endif
#if CLONES
    :: WRITE_ARRIVES(OWNERS)
#endif
    :: COMMIT_ARRIVES(1)
#if COMMITS >= 2
    :: COMMIT_ARRIVES(2)
#endif
#if COMMITS >= 3
    :: COMMIT_ARRIVES(3)
#endif
#if COMMITS >= 4
    :: COMMIT_ARRIVES(4)
#endif
#if COMMITS >= 5
    :: COMMIT_ARRIVES(5)
#endif
#if COMMITS >= 6
    :: COMMIT_ARRIVES(6)
#endif
#if SLOTS >= 1
    :: DELETE_ARRIVES(1)
#endif
#if SLOTS >= 2
    :: DELETE_ARRIVES(2)
#endif
#if SLOTS >= 3
    :: DELETE_ARRIVES(3)
#endif
#if SLOTS >= 4
    :: DELETE_ARRIVES(4)
#endif
#if SLOTS >= 5
    :: DELETE_ARRIVES(5)
#endif
#if SLOTS >= 6
    :: DELETE_ARRIVES(6)
#endif
#if SLOTS >= 7
    :: DELETE_ARRIVES(7)
#endif
#if SLOTS >= 8
    :: DELETE_ARRIVES(8)
#endif
#if SLOTS >= 9
    :: DELETE_ARRIVES(9)
#endif
    od
}
