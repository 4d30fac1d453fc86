package redis

import goredis "github.com/redis/go-redis/v9"

// The scripts run in Redis without any other command in between. Their key is the stream,
// and their first arguments are the group and the consumer.

// claimScript takes over pending entries: of other consumers if they were idle for ARGV[3]
// milliseconds, and orphans. An orphan belongs to this consumer, which does not know it,
// because a reply was lost or because it is the second of its name. ARGV[4] bounds the
// number, and ARGV[5] is the ID to begin with. ARGV[6] is "leave" to leave orphans alone,
// "count" to count another delivery of them, or "keep" to keep their count. ARGV[7] and more
// are the entries of this consumer that it does know. One call looks at 1,000 pending entries
// at most. It returns the ID to go on with, the number of trimmed entries, and the entries.
//
//nolint:dupword // Lua
var claimScript = goredis.NewScript(`
local known = {}
for i = 7, #ARGV do known[ARGV[i]] = true end
local from, got, trimmed = ARGV[5], {}, 0
for _ = 1, 10 do
	local page = redis.call('XPENDING', KEYS[1], ARGV[1], from, '+', 100)
	for _, p in ipairs(page) do
		local id, mine, count = p[1], p[2] == ARGV[2], p[4] + 1
		from = '(' .. id
		local take = p[3] >= tonumber(ARGV[3])
		if mine then take = ARGV[6] ~= 'leave' and not known[id] end
		if mine and ARGV[6] == 'keep' then count = p[4] end
		if take then
			local e = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', count)[1]
			if e then
				got[#got + 1] = {e[1], e[2], count}
			else
				redis.call('XACK', KEYS[1], ARGV[1], id)
				trimmed = trimmed + 1
			end
		end
		if #got == tonumber(ARGV[4]) then return {from, trimmed, got} end
	end
	if #page < 100 then return {'-', trimmed, got} end
end
return {from, trimmed, got}
`)

// The results of the scripts for one entry.
const (
	notPending = 0 // the entry does not belong to this consumer any more
	done       = 1
	wasTrimmed = 2 // the entry is no longer in the stream
)

// ackScript acknowledges the entry ARGV[2] and deletes it.
var ackScript = goredis.NewScript(`
local n = redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if n == 1 then redis.call('XDEL', KEYS[1], ARGV[2]) end
return n
`)

// pending is the beginning of scripts for the entry ARGV[3], which must belong to the
// consumer.
//
//nolint:dupword // Lua
const pending = `
local p = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #p == 0 then return 0 end
`

// inStream goes on only if the stream has the entry. XCLAIM would forget a trimmed one.
const inStream = `
if #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) == 0 then return 2 end
`

// extendScript sets the idle time of the entry to zero.
var extendScript = goredis.NewScript(pending + inStream + `
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
return 1
`)

// requeueScript gives the entry to the consumer ARGV[4], with the idle time ARGV[5].
var requeueScript = goredis.NewScript(pending + inStream + `
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[4], 0, ARGV[3], 'IDLE', ARGV[5], 'JUSTID')
return 1
`)

// deadScript copies the entry to the stream KEYS[2] and acknowledges it. It also deletes it
// if ARGV[4] is "delete". ARGV[5] and more are the fields of the copy.
var deadScript = goredis.NewScript(pending + `
local add = {'XADD', KEYS[2], '*'}
for i = 5, #ARGV do add[#add + 1] = ARGV[i] end
redis.call(unpack(add))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] == 'delete' then redis.call('XDEL', KEYS[1], ARGV[3]) end
return 1
`)

// leaveScript gives all entries of the consumer to the consumer ARGV[3], with the idle time
// ARGV[4], and deletes the consumer. It returns 1 if it has to be called again.
var leaveScript = goredis.NewScript(`
local page = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000, ARGV[2])
for _, p in ipairs(page) do
	redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, p[1], 'IDLE', ARGV[4], 'JUSTID')
end
if #page == 1000 then return 1 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 0
`)

// sweepScript deletes the consumers with the prefix ARGV[2] that have no entries and were idle for
// ARGV[3] milliseconds. Each process that crashed has left one.
//
//nolint:dupword // Lua
var sweepScript = goredis.NewScript(`
for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
	local info = {}
	for i = 1, #c, 2 do info[c[i]] = c[i + 1] end
	local ours = string.sub(info.name, 1, #ARGV[2]) == ARGV[2]
	if ours and info.pending == 0 and info.idle >= tonumber(ARGV[3]) then
		redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info.name)
	end
end
return 0
`)
