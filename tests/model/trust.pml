/* Signed commits, trust documents and a rollover, with strangers at the store.

   One append is one step here, which append.pml shows to be sound. Records form a tree by their hashes; a record names
   its parent and who signed it, and its state follows from its parent's. A document names the record that it was made
   from. Believing is what daskpki/authority/anchoring.py does: the newest document that verifies from what this reader
   remembers, then the deepest log that has its record and whose commits after that are each signed by the CA that was
   acting before.

   CA 1 is the first, CA 2 the successor, CA 3 the stranger's own. Strangers: FORGER_RECORDS and FORGER_TRUST may add to
   one secret and hold no key of the cluster, RESTORER hides the newest of everything, THIEF has CA 1's key and adds to
   both.

   Variants that must fail: UNSIGNED (commits need no signature), FORGETFUL (readers remember nothing), FIRST_DOCUMENT
   (of two branches that verify, the one with the greater epoch is taken). */

#ifndef RECORDS
#define RECORDS 7
#endif
#ifndef DOCUMENTS
#define DOCUMENTS 6
#endif
#ifndef COMMITS
#define COMMITS 2
#endif
#ifndef FORGERIES
#define FORGERIES 2
#endif

#define CA(g) (1 << (g))

byte parent[RECORDS + 1], depth[RECORDS + 1], signed_by[RECORDS + 1];
byte acting[RECORDS + 1], upcoming[RECORDS + 1], living[RECORDS + 1];
bit revoked[RECORDS + 1], both[RECORDS + 1], false_record[RECORDS + 1], hidden_record[RECORDS + 1];
byte records = 0;

byte epoch[DOCUMENTS + 1], doc_acting[DOCUMENTS + 1], doc_living[DOCUMENTS + 1], doc_signed[DOCUMENTS + 1];
byte doc_record[DOCUMENTS + 1], doc_heir[DOCUMENTS + 1];   /* heir: whom CA 1 names as its successor, for those who missed it */
bit doc_revoked[DOCUMENTS + 1], false_doc[DOCUMENTS + 1], hidden_doc[DOCUMENTS + 1];
byte documents = 0;

byte forgeries = 0;
bit stolen = 0;        /* the thief has begun */
bit replaced = 0;      /* an honest document that drops CA 1 is in the store */

byte i, j, walk, d, h;   /* scratch */
bit good, rival;

/* Whether document `b` verifies for whoever holds document `a`; into `good`. */
inline verifies(a, b) {
  if
  :: !(doc_signed[b] & CA(doc_acting[b])) -> good = 0
  :: (doc_signed[b] & CA(doc_acting[b])) && (doc_signed[b] & doc_living[a]) -> good = 1
  :: (doc_signed[b] & CA(doc_acting[b])) && !(doc_signed[b] & doc_living[a]) ->
     good = ((doc_living[a] & CA(1)) && doc_heir[b] != 0 && (doc_signed[b] & CA(doc_heir[b])) -> 1 : 0)
  fi
}

/* The newest document for a reader who remembers document `mine`; into `d`, 0 when two branches verify. */
inline newest(mine) {
  d = 0; i = 1;
  do
  :: i <= documents ->
     verifies(mine, i);
     if
     :: good && !hidden_doc[i] && epoch[i] >= epoch[mine] && (d == 0 || epoch[i] > epoch[d]) -> d = i
     :: else
     fi;
     i++
  :: else -> break
  od;
  rival = 0; i = 1;
#ifndef FIRST_DOCUMENT
  do
  :: d != 0 && i <= documents ->
     verifies(mine, i);
     if
     :: good && !hidden_doc[i] && i != d && epoch[i] >= epoch[mine] ->
        verifies(i, d); if :: !good -> rival = 1 :: else fi
     :: else
     fi;
     i++
  :: else -> break
  od;
#endif
  if :: rival || d == 0 || (epoch[d] == epoch[mine] && d != mine) -> d = 0 :: else fi;
  i = 0; good = 0; rival = 0
}

/* Whether record `r` is record `ancestor` or follows it; into `good`. */
inline follows(r, ancestor) {
  walk = r;
  do :: walk != 0 && walk != ancestor -> walk = parent[walk] :: else -> break od;
  good = (walk == ancestor); walk = 0
}

/* Whether the log up to record `r` counts by document `d`; into `good`. */
inline counts(r) {
  walk = r; good = 1;
  do
  :: walk != 0 && walk != doc_record[d] ->
     if
#ifdef UNSIGNED
     :: 1 -> skip
#else
     :: !(signed_by[walk] & CA(acting[parent[walk]])) -> good = 0
     :: (signed_by[walk] & CA(acting[parent[walk]])) && both[walk] && !(signed_by[walk] & CA(acting[walk])) -> good = 0
     :: else
#endif
     fi;
     walk = parent[walk]
  :: else -> break
  od;
  if :: walk != doc_record[d] -> good = 0 :: else fi;
  walk = 0
}

/* The deepest log that counts by document `d` and has record `remembered`; into `h`, 0 when none does. */
inline head(remembered) {
  h = 0; j = 1;
  do
  :: d != 0 && j <= records ->
     counts(j);
     if
     :: good && !hidden_record[j] && (h == 0 || depth[j] > depth[h]) ->
        follows(j, remembered); if :: good -> h = j :: else fi
     :: else
     fi;
     j++
  :: else -> break
  od;
  j = 0; good = 0
}

inline add_record(p, signers, is_false) {
  records++;
  parent[records] = p; depth[records] = depth[p] + 1; signed_by[records] = signers; false_record[records] = is_false;
  acting[records] = acting[p]; upcoming[records] = upcoming[p]; living[records] = living[p];
  revoked[records] = revoked[p]
}

inline publish(e, r, signers, is_false) {
  documents++;
  epoch[documents] = e; doc_record[documents] = r; doc_signed[documents] = signers; false_doc[documents] = is_false;
  doc_acting[documents] = acting[r]; doc_living[documents] = living[r]; doc_revoked[documents] = revoked[r]
}

/* What an operator must never build on. Until he holds an honest document that drops CA 1, its thief *is* the CA. */
inline check_believed() {
  if
  :: !stolen || (doc_living[seen_doc] == CA(2) && !false_doc[seen_doc]) ->
     assert(!false_doc[d]);
     walk = h;
     do :: walk != 0 -> assert(!false_record[walk] || depth[walk] <= depth[doc_record[d]]); walk = parent[walk] :: else -> break od
  :: else
  fi;
  assert(!replaced || !stolen || false_doc[seen_doc] || !false_doc[d]);   /* of two roots, none is taken on trust */
  follows(h, own); assert(good);            /* all that this operator was acknowledged is there */
  walk = 0; good = 0
}

proctype Operator() {
  byte seen_doc = 1, seen = 1, own = 1, left = COMMITS;
  do
  :: left == 0 -> break
  :: atomic { left > 0 && records < RECORDS && documents < DOCUMENTS ->
       d_step {
         left--;
#ifdef FORGETFUL
         newest(1); head(1);
#else
         newest(seen_doc); head(seen);
#endif
         if :: d != 0 && h != 0 -> check_believed() :: else fi };
       if
       :: d == 0 || h == 0 || acting[h] == 3 -> d = 0; h = 0; goto refused   /* exit 3, or he has no such key */
       :: else
       fi;
       if
       :: !revoked[h] -> add_record(h, CA(acting[h]), 0); revoked[records] = 1
       :: acting[h] == 1 && upcoming[h] == 0 -> add_record(h, CA(1), 0); upcoming[records] = 2
       :: acting[h] == 1 && upcoming[h] == 2 -> add_record(h, CA(1), 0);
          acting[records] = 2; upcoming[records] = 0; living[records] = CA(1) | CA(2)
       :: acting[h] == 2 && (living[h] & CA(1)) -> add_record(h, CA(2), 0); living[records] = CA(2)
       :: acting[h] == 1 -> add_record(h, CA(1) | CA(2), 0);            /* --emergency: the old key and the new sign */
          acting[records] = 2; upcoming[records] = 0; living[records] = CA(2); both[records] = 1
       :: else -> d = 0; h = 0; goto refused              /* nothing is left to do */
       fi;
       seen = records; own = records; seen_doc = d; d = 0; h = 0
     };
     if
     :: goto refused                                                    /* a crash between commit and publication */
     :: atomic {
          d_step { newest(seen_doc); head(seen); if :: d != 0 && h != 0 -> check_believed() :: else fi };
          if
          :: d != 0 && h != 0 && acting[h] != 3 && documents < DOCUMENTS ->
             publish(epoch[d] + 1, h, living[h] | doc_living[d], 0);
             doc_heir[documents] = ((living[h] & CA(1)) == 0 -> 2 : 0);
             replaced = replaced || doc_living[documents] == CA(2);
             seen_doc = documents; seen = h
          :: else
          fi;
          d = 0; h = 0
        }
     fi;
refused:
     skip
  od
}

proctype Node() {
  byte mine = 1;
  do
  :: atomic { epoch[documents] > epoch[mine] || epoch[documents - 1] > epoch[mine] ->
       d = 1;
       do :: d < documents -> d++ :: break od;
       if
       :: epoch[d] > epoch[mine] ->       /* pushed by anyone, or read from the store */
          d_step { verifies(mine, d) };
          if
          :: good ->
             d_step {
               if :: !stolen || (doc_living[mine] == CA(2) && !false_doc[mine]) -> assert(!false_doc[d]) :: else fi;
#ifndef RESTORER
               if :: !stolen -> assert(!doc_revoked[mine] || doc_revoked[d]) :: else fi;
#endif
               mine = d }
          :: else
          fi
       :: else
       fi;
       d = 0; good = 0
     }
  od
}

/* What a stranger writes: as deep, as new, with whatever contents help him, signed by every key that he has. */
inline forge_record(keys) {
  d_step { walk = 1 };
  do :: walk < records -> walk++ :: break od;
  if
  :: add_record(walk, keys, 1); upcoming[records] = 3
  :: add_record(walk, keys, 1); acting[records] = 3; living[records] = CA(3); both[records] = 1
  :: add_record(walk, keys, 1); revoked[records] = 0
  fi;
  walk = 0; forgeries++
}

inline forge_document(keys) {
  walk = 1;
  do :: walk < documents -> walk++ :: break od;
  if
  :: publish(epoch[walk] + 1, doc_record[walk], keys, 1)
  :: publish(epoch[walk] + 1, doc_record[walk], keys, 1); doc_revoked[documents] = 0
  :: publish(epoch[walk] + 1, doc_record[walk], keys, 1);
     doc_acting[documents] = 3; doc_living[documents] = CA(3); doc_heir[documents] = ((keys & CA(1)) -> 3 : 0)
  fi;
  walk = 0; forgeries++
}

proctype Stranger() {
  do
  :: forgeries == FORGERIES -> break
#ifdef FORGER_RECORDS
  :: atomic { forgeries < FORGERIES && records < RECORDS -> forge_record(CA(3)) }
#endif
#ifdef FORGER_TRUST
  :: atomic { forgeries < FORGERIES && documents < DOCUMENTS -> forge_document(CA(3)) }
#endif
#ifdef THIEF
  :: atomic { forgeries < FORGERIES && records < RECORDS -> stolen = 1; forge_record(CA(1) | CA(3)) }
  :: atomic { forgeries < FORGERIES && documents < DOCUMENTS -> stolen = 1; forge_document(CA(1) | CA(3)) }
#endif
#ifdef RESTORER
  :: atomic { forgeries < FORGERIES && records > 1 -> hidden_record[records] = 1; forgeries++ }
  :: atomic { forgeries < FORGERIES && documents > 1 -> hidden_doc[documents] = 1; forgeries++ }
#endif
  :: break
  od
}

init {
  atomic {
    records = 1; depth[1] = 1; acting[0] = 1; acting[1] = 1; living[1] = CA(1); signed_by[1] = CA(1);
    publish(1, 1, CA(1), 0);
    run Operator(); run Operator(); run Node(); run Stranger()
  }
}
