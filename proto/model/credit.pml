/*
 * The credit protocol of ../weir/credit/v1/credit.proto on one stream: a client
 * and a server, each of which may send and receive. README.md says what is left
 * out and what each property means; ./check runs every configuration.
 *
 * Nobody counts to a limit here: applications go on for as long as they like,
 * and counters wrap, so that what is checked holds for streams of any length.
 *
 * Configuration (-D):
 *   W=1..3              window of every receiver; replenished at half of it
 *   CAP=1..             frames that the transport holds in each direction
 *   ONLY_CLIENT_SENDS, ONLY_SERVER_SENDS      (neither: full duplex)
 *   ONE_THREAD          an application receives only after its Send returned
 *   AHEAD=1..           and may have sent so many more than it received (W)
 *   BY_ROOM             replenished when half of the window is consumed, instead of
 *                       when the credit that is outstanding falls to half of it
 *   SENDERS=2           concurrent Sends at each sending end
 *   PIGGYBACK           grants ride on data instead of going before it
 *   ENDS, ERRORS, CANCELS, DRAINS=1..2, BREAKS    what happens, at any moment
 *   MEDDLER=0..1        only this end drains and cancels
 *   FAIR                the write lock serves a waiting Send before the flusher
 *   MUTANT_...          one defect, which the check has to find
 */
#ifndef W
#define W 1
#endif
#ifndef CAP
#define CAP 1
#endif
#ifndef AHEAD
#define AHEAD W
#endif
#ifndef SENDERS
#define SENDERS 1
#endif

#define CLIENT 0
#define SERVER 1
#define PEER (1 - me)

#ifdef ONLY_CLIENT_SENDS
#define SENDS(e) (e == CLIENT)
#else
#ifdef ONLY_SERVER_SENDS
#define SENDS(e) (e == SERVER)
#else
#define SENDS(e) true
#endif
#endif

/* True differences are 0..W; of the wrong ones -1 and W+1..2W can be told. */
#define MOD (2 * W + 1)
#define ADD(a, b) a = (a + (b)) % MOD
#define DIFF(a, b) ((a + MOD - b) % MOD)
#define LOW (W / 2)

mtype = { OPEN, REQUEST, CANCEL, COMPLETE, ERROR, DRAINED, DATA, EOF };
mtype = { ENDED, FAILED, LOST, CANCELED, NO_ROLE };

/*
 * The states of a direction at its two ends, as DESIGN.md and streamcredit/internal/ledger
 * name them. README.md says which of their states are not modelled.
 */
mtype = { OutOpen, OutClosed, OutCanceled };
mtype = { InOpen, InDraining, InEnded, InFailed, InCanceled, InClosed };

/*
 * wire[e] holds what e wrote: a frame, and two numbers.
 *   OPEN n, REQUEST n drain, COMPLETE total, ERROR total, DRAINED sent burned,
 *   DATA n (the grant that rides on it).
 * EOF is the client's half-close or the server's status.
 */
chan wire[2] = [CAP] of { mtype, byte, byte };
bool broken;      /* the connection is */
bool over[2];     /* this end knows that the RPC is over */
#define DOWN(e) (broken || over[e])

/* What the two halves of an end share. */
bool lock[2];     /* the write lock: its holder may write to the wire */
bool queued[2];   /* a Send waits for the lock */
bool openDue[2], opened[2], heard[2], closed[2];

/* The sending half of an end. */
byte credit[2];
byte sent[2];
byte burned[2];
bool drainedDue[2];
mtype out[2];
bool doneSending[2];
byte sending[2];    /* Sends that run at most */
bool wants[2];      /* a Send is under way */
#define STOPPED(e) (out[e] == OutCanceled || DOWN(e))

/* The receiving half of an end. */
byte asked[2];    /* what was requested, less what was burned */
byte got[2];      /* elements that arrived */
byte used[2];     /* elements that the application is done with */
byte due[2];      /* grants that add up until someone writes them */
byte held[2];     /* elements in the buffer */
bool late[2];     /* an element is handed over, but does not count as consumed */
bool drainDue[2], cancelDue[2];
mtype in[2];
mtype end[2];     /* the terminal for the application */
byte ends[2];     /* how many of them were made */

/* Complete, Error or the end of the stream was read. */
#define TERMINATED(e) (in[e] == InEnded || in[e] == InClosed)

#ifdef MUTANT_GRANT_DURING_DRAIN
#define MAY_ASK(e) true
#else
#define MAY_ASK(e) (in[e] != InDraining)
#endif
#define ASK_DUE(e) ((due[e] > 0 || drainDue[e]) && MAY_ASK(e))
#define CONTROL_DUE(e) (opened[e] && (cancelDue[e] || ASK_DUE(e) || drainedDue[e]))

/* Properties 2 and 5, of the direction that r receives. */
#define SENT_IN_BOUNDS(r) (DIFF(asked[r], sent[1 - r]) <= W)
#define HELD_IN_BOUNDS(r) (DIFF(asked[r], used[r]) <= W)

/* ---- Writing: only with the lock, never from the read loop ---- */

/* A write waits for the transport. Only the end of the stream frees it (D6). */
inline put(kind, n, x) {
	if
	:: !DOWN(me) && nfull(wire[me]) -> wire[me]!kind,n,x
	:: DOWN(me)
	fi
}

/*
 * An end that is down may lock as well: it has to find out. What is done with the
 * lock is atomic up to a write that waits: until then nobody could tell.
 */
inline acquire() {
	!lock[me] && (opened[me] || DOWN(me));
	lock[me] = true;
	queued[me] = false
}

inline release() { lock[me] = false }

inline takeGrants(n) {
	n = due[me];
	due[me] = 0;
	ADD(asked[me], n);
	assert(SENT_IN_BOUNDS(me));
	assert(HELD_IN_BOUNDS(me))
}

inline writeDrained() {
	drainedDue[me] = false;
	put(DRAINED, sent[me], burned[me]);
	burned[me] = 0
}

/*
 * Writes what is due, once: one that went on for as long as something is due would
 * keep the data behind it waiting for ever. What it takes, it takes before it may
 * have to wait.
 */
inline flush() {
	if
	:: opened[me] && cancelDue[me] -> cancelDue[me] = false; put(CANCEL, 0, 0)
	:: else
	fi;
	if
	:: opened[me] && ASK_DUE(me) ->
		takeGrants(n);
		x = drainDue[me];
		if
		:: x -> drainDue[me] = false; in[me] = InDraining
		:: else
		fi;
		put(REQUEST, n, x);
		n = 0; x = 0
	:: else
	fi;
	if
	:: opened[me] && drainedDue[me] -> writeDrained()
	:: else
	fi
}

/*
 * The flusher: control that finds no data to go with. It also opens and ends
 * the stream. The client keeps its half open for as long as it receives, since
 * it could not grant or cancel any more. A server may leave with a Cancel unsaid:
 * its status ends both directions.
 */
#ifdef MUTANT_EARLY_HALF_CLOSE
#define RECEIVED(e) (end[e] != 0 || e == CLIENT)
#else
#define RECEIVED(e) (end[e] != 0)
#endif
#ifdef FAIR
#define QUEUES true
#define FREE(e) (!lock[e] && !queued[e])
#else
#define QUEUES false
#define FREE(e) !lock[e]
#endif

proctype Flusher(bit me) {
	byte n, x;
	do
	:: atomic { openDue[me] && !lock[me] ->
		lock[me] = true; openDue[me] = false; opened[me] = true;
		if
		:: due[me] > 0 -> takeGrants(n)
		:: true
		fi;
		put(OPEN, n, 0);
		n = 0;
		release()
	   }
#ifndef MUTANT_NO_FLUSH
	:: atomic { FREE(me) && CONTROL_DUE(me) -> lock[me] = true; flush(); release() }
#endif
	:: atomic { opened[me] && !lock[me] && doneSending[me] && RECEIVED(me) &&
			(me == SERVER || !CONTROL_DUE(me)) ->
		lock[me] = true;
		put(EOF, 0, 0);
		closed[me] = true;
		release();
		break
	   }
	:: DOWN(me) -> break
	od
}

/* ---- The sending application ---- */

/*
 * Credit is awaited without the lock and taken with it. Taken earlier, an element
 * would be counted by a Drained that overtakes it.
 */
inline send() {
	wants[me] = true;
	do
	:: STOPPED(me) -> break
#ifdef MUTANT_CREDIT_BEFORE_LOCK
	:: atomic { !STOPPED(me) && credit[me] > 0 ->
		credit[me]--;
		ADD(sent[me], 1);
		assert(SENT_IN_BOUNDS(PEER))
	   };
		atomic { acquire(); flush(); put(DATA, 0, 0); release(); break }
#else
	:: atomic { !STOPPED(me) && credit[me] > 0 -> queued[me] = QUEUES };
		atomic {
			acquire();
#ifdef MUTANT_LOST_CREDIT
			if
			:: credit[me] > 0 -> credit[me]--
			:: true
			fi;
#endif
#if !defined(PIGGYBACK) && !defined(MUTANT_HOLDER_KEEPS_GRANTS)
			flush();
#endif
#ifdef MUTANT_FLUSH_FOREVER
			do
			:: CONTROL_DUE(me) -> flush()
			:: else -> break
			od;
#endif
			if
#ifdef MUTANT_DOUBLE_SPEND
			:: !STOPPED(me) ->
#else
			:: !STOPPED(me) && credit[me] > 0 ->
#endif
				credit[me]--;
				ADD(sent[me], 1);
				assert(SENT_IN_BOUNDS(PEER));
#ifdef PIGGYBACK
				if
				:: due[me] > 0 && MAY_ASK(me) && !drainDue[me] -> takeGrants(n)
				:: else
				fi;
#endif
				put(DATA, n, 0);
				n = 0;
				release();
				break
			:: else -> release()
			fi
		}
#endif
	od;
	wants[me] = false
}

inline terminate() {
	atomic { acquire(); flush() };
	atomic {
#ifndef MUTANT_DRAINED_AFTER_COMPLETE
		/* A drain that came after the flush: the terminal answers it. */
		drainedDue[me] = false;
		burned[me] = 0;
#endif
		if
		:: out[me] == OutOpen ->
			out[me] = OutClosed;
			credit[me] = 0;
			if
			:: put(COMPLETE, sent[me], 0)
#ifdef ERRORS
			:: put(ERROR, sent[me], 0)
#endif
			fi;
#ifdef MUTANT_SECOND_TERMINAL
			put(ERROR, sent[me], 0);
#endif
		:: else /* canceled meanwhile: no terminal */
		fi;
		release()
	}
}

/*
 * Says how the direction ends, or leaves that to the end of the stream: after
 * a Cancel, and where nothing is received any more. In full duplex the end of
 * the stream cannot say it, because each side would wait for the other's.
 */
inline finish() {
	atomic {
		sending[me]--;
		if
		:: sending[me] > 0 -> goto stop
		:: else
		fi
	};
	if
	:: terminate()
	:: STOPPED(me)
#ifdef MUTANT_IMPLICIT_ENDS
	:: true
#else
	:: end[me] != 0
#endif
	fi;
	d_step {
		out[me] = (out[me] == OutOpen -> OutClosed : out[me]);
		credit[me] = 0;
		doneSending[me] = true
	}
}

proctype Sender(bit me) {
	byte n, x;
	do
	:: !STOPPED(me) -> send()
	:: STOPPED(me) -> break
#ifdef ENDS
	:: break
#endif
	od;
	finish();
stop:	skip
}

/* ---- The receiving application ---- */

inline post(t) {
	if
#ifdef MUTANT_CANCEL_RACE
	:: true ->
#else
	:: end[me] == 0 ->
#endif
		due[me] = 0;
		drainDue[me] = false;
		end[me] = t;
		ends[me]++;
		assert(ends[me] == 1);
		if
		:: t == CANCELED -> used[me] = 0; in[me] = InCanceled
		:: t == LOST -> used[me] = 0; in[me] = InFailed
		:: else
		fi
	:: else
	fi
}

/*
 * Outstanding credit falls when an element arrives, and the room for more comes
 * when one is consumed, in either order: both call this.
 */
#ifdef BY_ROOM
#define AT_LOW_WATER(e) (DIFF(asked[e], used[e]) <= LOW)
#else
#define AT_LOW_WATER(e) (DIFF(asked[e], got[e]) <= LOW)
#endif

inline replenish() {
	if
	:: end[me] == 0 && MAY_ASK(me) && AT_LOW_WATER(me) ->
#ifdef MUTANT_WINDOW
		due[me] = W
#else
		due[me] = W - DIFF(asked[me], used[me])
#endif
	:: else
	fi
}

inline consumed() {
	ADD(used[me], 1);
	replenish()
}

#ifdef MUTANT_END_FIRST
#define AT_END(e) (end[e] != 0)
#else
#define AT_END(e) (end[e] != 0 && (held[e] == 0 || end[e] == CANCELED))
#endif

/* An element counts as consumed when it is handed over. */
inline take() {
	held[me]--;
#ifdef MUTANT_CONSUMED_AT_NEXT_RECV
	late[me] = true
#else
	consumed()
#endif
}

/* Recv has given everything. What was sent was delivered (property 3). */
inline checkEnd() {
	assert(ends[me] == 1);
	assert((end[me] != ENDED && end[me] != FAILED) || used[me] == sent[PEER]);
	used[me] = 0
}

proctype Receiver(bit me) {
	do
	:: d_step { held[me] > 0 && end[me] != CANCELED -> take() }
	:: d_step { AT_END(me) -> checkEnd() }; break
	od
}

/*
 * One thread that sends and receives. It sends up to AHEAD elements more than
 * it receives: with more than W, two such applications wait for each other over
 * any protocol with this window.
 */
proctype App(bit me) {
	byte n, x, ahead;
	bool more = true, open = true;
	do
	:: more && (ahead < AHEAD || !open) ->
		send();
		if
		:: STOPPED(me) -> finish(); more = false
		:: !STOPPED(me) && open -> ahead++
		:: !STOPPED(me) && !open
		fi
	:: open && (ahead > 0 || !more) ->
#ifdef MUTANT_CONSUMED_AT_NEXT_RECV
		if
		:: d_step { late[me] -> late[me] = false; consumed() }
		:: else
		fi;
#endif
		if
		:: d_step { held[me] > 0 && end[me] != CANCELED -> take() };
			ahead = (more -> ahead - 1 : 0)
		:: d_step { AT_END(me) -> checkEnd(); open = false; ahead = 0 }
		fi
#ifdef ENDS
	:: more -> finish(); more = false; ahead = 0
#endif
	:: !more && !open -> break
	od;
stop:	skip
}

/* ---- The read loop: no step of it waits for anything but a frame ---- */

inline terminal(t) {
	assert(!TERMINATED(me));
	asked[me] = 0;
	got[me] = 0;
	post(t);
	in[me] = (in[me] == InCanceled -> InClosed : InEnded)
}

inline granted(n) {
	if
	:: out[me] == OutOpen -> credit[me] = credit[me] + n
	:: else
	fi
}

#ifdef MUTANT_READ_LOOP_BLOCKS
#define READS (held[me] == 0 || end[me] == CANCELED) && nempty(wire[PEER]) ->
#else
#define READS
#endif

proctype Reader(bit me) {
	mtype kind;
	byte n, x;
	do
	:: atomic { READS wire[PEER]?kind,n,x ->
		assert(heard[me] == (kind != OPEN));
		if
		:: kind == OPEN ->
			heard[me] = true;
			openDue[me] = !opened[me];
			granted(n)
		:: kind == REQUEST ->
			granted(n);
			if
			:: x && out[me] == OutOpen ->
				assert(!drainedDue[me]);
				burned[me] = credit[me];
#ifndef MUTANT_DRAIN_KEEPS_CREDIT
				credit[me] = 0;
#endif
#ifdef MUTANT_READ_LOOP_WRITES
				acquire();
				writeDrained();
				release()
#else
				drainedDue[me] = true
#endif
			:: else
			fi
		:: kind == CANCEL ->
			out[me] = OutCanceled;
			drainedDue[me] = false;
			burned[me] = 0;
			credit[me] = 0
		:: kind == DATA ->
			granted(n);
			assert(!TERMINATED(me));
			assert(DIFF(asked[me], got[me]) > 0);
			ADD(got[me], 1);
			if
			:: end[me] == 0 -> held[me]++; assert(held[me] <= W)
			:: else
			fi;
#ifndef MUTANT_REPLENISH_ONLY_AT_RECV
			replenish()
#endif
		:: kind == COMPLETE -> assert(n == got[me]); terminal(ENDED)
		:: kind == ERROR -> assert(n == got[me]); terminal(FAILED)
		:: kind == DRAINED ->
			assert(!TERMINATED(me) && in[me] != InOpen);
			assert(n == got[me]);
			assert((n + x) % MOD == asked[me]);
			ADD(asked[me], MOD - x);
			in[me] = (in[me] == InDraining -> InOpen : in[me]);
			replenish()
		:: kind == EOF ->
			if
#ifndef MUTANT_EOF_IS_SILENT
			:: !TERMINATED(me) && SENDS(PEER) -> terminal(ENDED)
#endif
			:: else
			fi;
			over[me] = (me == CLIENT);
			break
		fi;
		kind = 0; n = 0; x = 0
	   }
	:: atomic { broken -> post(LOST); break }
	:: atomic { closed[me] && me == SERVER -> break }
	od
}

/*
 * ---- What happens at any moment ----
 * Not at all is a moment, too: that is the configuration without it.
 */

inline cancel() {
	cancelDue[me] = (end[me] == 0);
	post(CANCELED)
}

/* Drain is a call that returns with the answer, or with the end. */
#define DRAINED_CAME(e) (!drainDue[e] && in[e] == InOpen)
#ifdef MUTANT_DRAIN_AWAITS_DRAINED
#define ANSWERED(e) DRAINED_CAME(e)
#else
#define ANSWERED(e) (DRAINED_CAME(e) || end[e] != 0)
#endif

#ifdef MEDDLER
#define MEDDLES(e) (e == MEDDLER)
#else
#define MEDDLES(e) true
#endif

#if defined(DRAINS) || defined(CANCELS)
proctype Meddler(bit me) {
#ifdef DRAINS
	do
	:: atomic { heard[me] && end[me] == 0 -> drainDue[me] = true };
		ANSWERED(me);
		if
		:: DRAINS == 1 -> break
		:: else
		fi
	:: break
	od;
#endif
#ifdef CANCELS
	atomic { cancel() }
#endif
}
#endif

proctype Network() {
	broken = true
}

inline start(e) {
	if
	:: SENDS(1 - e) -> due[e] = W
	:: else -> end[e] = NO_ROLE
	fi;
	out[e] = OutOpen;
	in[e] = InOpen;
	sending[e] = (SENDS(e) -> SENDERS : 0);
	doneSending[e] = !SENDS(e);
	run Reader(e);
	run Flusher(e);
#ifdef ONE_THREAD
	run App(e);
#else
	if
	:: SENDS(e) ->
		run Sender(e);
		if
		:: SENDERS == 2 -> run Sender(e)
		:: else
		fi
	:: else
	fi;
	if
	:: SENDS(1 - e) -> run Receiver(e)
	:: else
	fi;
#endif
#if defined(DRAINS) || defined(CANCELS)
	if
	:: SENDS(1 - e) && MEDDLES(e) -> run Meddler(e)
	:: else
	fi
#endif
}

init {
	atomic {
		openDue[CLIENT] = true;
		start(CLIENT);
		start(SERVER);
#ifdef BREAKS
		run Network()
#endif
	}
}

/* Property 6. Send also returns when its direction or the RPC is over. */
#ifdef LIVENESS
ltl progress { [] (wants[LIVENESS] -> <> !wants[LIVENESS]) }
#endif
