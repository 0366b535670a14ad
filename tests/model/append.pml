/* Compare-and-append over numbered versions (daskpki/store/linear.py), step by step.

   A store gives each new version the next number and takes no condition with it. Reading a number is strong, `latest`
   is any number that was ever the newest. Requests are lost, their answers are lost, or they arrive late. Operators
   crash between any two steps. One stranger puts copies of older payloads back.

   Shown: what was acknowledged stays on the chain, once; whoever looks gets a head of that chain, never one older than
   when the look began, and nobody finds the newest version unreadable.

   Variants that must fail: NO_COMPARE, HIGHEST_WINS, LOSER_DESTROYS. Bounds: VERSIONS, APPENDS, RESENDS.
   Beside the two operators: NODE, a reader; LATE, requests that arrive after they were given up; RESTORER. */

#ifndef VERSIONS
#define VERSIONS 5
#endif
#ifndef APPENDS
#define APPENDS 2
#endif
#ifndef RESENDS
#define RESENDS 1
#endif
#define OPERATORS 2
#define LIMIT (VERSIONS + 1)
#define OPERATIONS (OPERATORS * APPENDS + 1)

#ifdef HIGHEST_WINS
#define BETTER >=
#else
#define BETTER >
#endif

byte seq[LIMIT], prev[LIMIT], op[LIMIT];   /* payloads by number; kept after `gone` as a ghost, for the checks only */
bit gone[LIMIT];
byte count = 0;
bit acknowledged[OPERATIONS];
byte late_seq[OPERATORS], late_prev[OPERATORS], late_op[OPERATORS];   /* requests still on their way */
byte restored = 0;

byte at, walk, head, times, which;   /* scratch of the checks, always left at 0 */

inline true_head() {
  head = 0; at = 1;
  do
  :: at <= count -> if :: !gone[at] && (head == 0 || seq[at] BETTER seq[head]) -> head = at :: else fi; at++
  :: else -> break
  od
}

/* Every acknowledged operation stands on the chain of the head exactly once, any other at most once. */
inline check() {
  true_head(); which = 1;
  do
  :: which < OPERATIONS ->
     times = 0; walk = head;
     do
     :: walk != 0 -> if :: op[walk] == which -> times++ :: else fi; walk = prev[walk]
     :: else -> break
     od;
     assert(times <= 1);
     assert(!acknowledged[which] || times == 1);
     which++
  :: else -> break
  od;
  at = 0; head = 0; which = 0; times = 0
}

inline store_adds(s, p, o) {
  count++; seq[count] = s; prev[count] = p; op[count] = o
}

/* What whoever looks takes for the head has to stand on the true chain. */
inline check_found(found) {
  true_head(); walk = head;
  do
  :: walk != 0 && walk != found && seq[walk] > seq[found] -> walk = prev[walk]
  :: else -> break
  od;
  assert(found == 0 || (op[walk] == op[found] && seq[walk] == seq[found]));
  at = 0; head = 0; walk = 0
}

/* Reads by number, from n to the first that does not exist; n, best and unreadable are the caller's. */
inline scan() {
  d_step { best = 0; unreadable = 0 };
  do
  :: atomic { n <= count ->
       unreadable = gone[n];
       if :: !gone[n] && (best == 0 || seq[n] BETTER seq[best]) -> best = n :: else fi;
       n++ }
  :: atomic { n > count -> break }
  od
}

/* `latest`: 0 for none yet, or any version that is readable (the search goes downwards from one that is not). */
inline hint(number) {
  atomic {
    number = 0;
    do
    :: number < count -> number++
    :: number == 0 || !gone[number] -> break
    od }
}

inline tip() {
  hint(hinted);
  d_step {
    if
    :: hinted == 0 -> n = 1
    :: hinted != 0 && prev[hinted] < hinted -> n = prev[hinted] + 1
    :: else -> n = hinted   /* a copy may claim a later predecessor */
    fi };
  scan();
  atomic { skip; d_step { assert(!unreadable); known = best; newest = n - 1; hinted = 0; n = 0; best = 0 } }
}

proctype Operator(byte me) {
  byte known = 0, newest = 0, turn = 0, mine = 0, number = 0, resent = 0;
  byte n = 0, best = 0, place = 0, hinted = 0;
  bit unreadable = 0;

  do
  :: turn == APPENDS -> break
  :: turn < APPENDS ->
     d_step { turn++; mine = me * APPENDS + turn; resent = 0 };
     if
     :: tip()
     :: hint(hinted);   /* `glance`: a head right behind its predecessor needs no look at what came after it */
        if
        :: atomic { hinted != 0 && hinted == prev[hinted] + 1 -> known = hinted; newest = hinted; hinted = 0 }
        :: else -> tip()
        fi
     fi;
propose:
     if
     :: d_step { count < VERSIONS -> store_adds(seq[known] + 1, known, mine); number = count; check() }
        if
#ifdef NO_COMPARE
        :: d_step { known = number; newest = number }; goto won
#else
        :: d_step { number == newest + 1 -> known = number; newest = number }; goto won
        :: number != newest + 1 -> goto settle
#endif
        :: goto unsure   /* the answer is lost */
        :: goto crash
        fi
     :: goto unsure      /* the request is lost */
#ifdef LATE
     :: atomic { late_seq[me] == 0 -> late_seq[me] = seq[known] + 1; late_prev[me] = known; late_op[me] = mine };
        goto unsure
#endif
     :: goto crash
     fi;
unsure:
     n = newest + 1; scan();
     if
     :: best == 0 || seq[best] < seq[known] + 1 ->
        if :: resent < RESENDS -> resent++; goto propose :: resent == RESENDS -> goto crash fi
     :: else -> goto settled
     fi;
settle:
     n = newest + 1; scan();
settled:
     atomic {
       assert(!unreadable);
       place = (best != 0 && seq[best] > seq[known] -> best : known);
       number = seq[known] + 1; resent = known;   /* the proposal's link: (number, resent, mine) */
       known = place; newest = n - 1; n = 0; best = 0 };
     do   /* back from the head to the proposal's place */
     :: atomic { seq[place] > number && !gone[prev[place]] -> place = prev[place] }
     :: atomic { seq[place] > number && gone[prev[place]] ->   /* the hash chain of the log can tell ... */
          do :: seq[place] > number -> place = prev[place] :: else -> break od }
     :: seq[place] > number -> goto crash                      /* ... and trust documents cannot: AmbiguousError */
     :: seq[place] <= number -> break
     od;
     if
     :: seq[place] == number && prev[place] == resent && op[place] == mine -> goto won
     :: else ->
#ifdef LOSER_DESTROYS
        atomic {
          place = count;
          do :: place > 0 && op[place] != mine -> place-- :: else -> break od;
          gone[place] = 1; check() };
#endif
        resent = 0; goto propose
     fi;
won:
     atomic { skip; d_step { acknowledged[mine] = 1; check(); check_found(known); n = 1 } };
     do   /* only what lies below a confirmed head is destroyed, but for its predecessor */
     :: d_step { n < known -> if :: n != prev[known] -> gone[n] = 1 :: else fi; n++; check() }
     :: n == known || n < known -> break   /* done, or it crashed */
     od;
crash:
     atomic { known = 0; newest = 0; number = 0; n = 0; best = 0; place = 0; hinted = 0; resent = 0; unreadable = 0 }
  od
}

proctype Node() {   /* by `tip`, as a reader without a key does */
  byte known = 0, newest = 0, n = 0, best = 0, hinted = 0, least = 0;
  bit unreadable = 0;
  d_step { true_head(); least = seq[head]; at = 0; head = 0 };
  tip();
  atomic { skip; d_step { assert(seq[known] >= least); check_found(known); least = 0; known = 0; newest = 0 } }
}

#if defined(LATE) || defined(RESTORER)
proctype Network() {
  do
#ifdef LATE
  :: d_step { late_seq[0] && count < VERSIONS -> store_adds(late_seq[0], late_prev[0], late_op[0]); late_seq[0] = 0; check() }
  :: d_step { late_seq[1] && count < VERSIONS -> store_adds(late_seq[1], late_prev[1], late_op[1]); late_seq[1] = 0; check() }
#endif
#ifdef RESTORER
  :: atomic { restored == 0 && count > 0 && count < VERSIONS ->
       restored = 1;
       do :: restored < count -> restored++ :: break od;
       store_adds(seq[restored], prev[restored], op[restored]); d_step { check() } }
#endif
  od
}
#endif

init {
  atomic {
    run Operator(0); run Operator(1);
#if defined(LATE) || defined(RESTORER)
    run Network();
#endif
#ifdef NODE
    run Node();
#endif
    skip
  }
}
