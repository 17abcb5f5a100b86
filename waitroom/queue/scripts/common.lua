-- Shared by all scripts of the queue, and prepended to each of them.
-- Before this text the loader defines a local for each key (ROOM, WAITING, ...) and for each constant that is named
-- here or in the script; see waitroom/queue/store.py. All keys of a room carry one hash tag, so the bitmaps, whose
-- names are made here, are on the same node.
-- Every script returns nil if the room must be opened first.

-- The first arguments of every script: the wall clock in ms and the server's run id, each '' for the server's own.
local WALL_CLOCK, RUN_ID = ARGV[1], ARGV[2]
local FIRST = 3 -- the first of the script's own arguments

local NOTIFIED, EXTENDED = '1', '2' -- in TURNS: the visitor was notified of the turn; got more time for it

local function to_string(number)
  return string.format('%.0f', number)
end

local function decimal(number)
  return string.format('%.17g', number)
end

-- Tokens accumulate at the rate, up to one second's worth and at least one.
local function burst(rate)
  return math.max(1, rate / 60)
end

local function wall_clock()
  if WALL_CLOCK ~= '' then
    return tonumber(WALL_CLOCK)
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function server_run_id()
  if RUN_ID ~= '' then
    return RUN_ID
  end
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

local function accepts_claims(room)
  return room.state == 'open' or room.state == 'paused' or room.state == 'prequeue'
end

-- The room's state: the one that was set, unless the room's method or the current event closes it, or the event opens
-- its prequeue.
local function effective_state(room)
  if room.own_state ~= 'closed' and room.own_state ~= 'sold_out' then
    if room.method == 'reject' then
      return 'closed'
    end
    if room.event_phase == 'scheduled' and room.event_before == 'closed' then
      return 'closed'
    end
    if room.event_phase == 'prequeue' then
      return 'prequeue'
    end
  end
  return room.own_state
end

-- Fills in the fields of rooms that were stored before these fields existed.
local function fill_in(room)
  room.told_ms = room.told_ms or math.min(90000, room.claim_ms)
  room.session_max_ms = room.session_max_ms or 14400000
  room.blocked_ms = room.blocked_ms or 0
  room.recovery_ms = room.recovery_ms or 30000
  room.changes = room.changes or 0
  room.resume_at = room.resume_at or 0
  if not room.event_due then
    room.event, room.event_phase, room.event_before, room.event_due = '', '', '', 0
    room.draws, room.void_place, room.ended_place = '', 0, 0
    room.state_by, room.state_before = '', ''
    room.stock_zero_at, room.reopened_at, room.reopened_sold, room.reopened_admitted = 0, 0, 0, 0
  end
end

-- How many of the keys that say where visitors are exist, and how many of the other keys that only scripts change.
local function existing_keys()
  return redis.call('EXISTS', WAITING, CALLED, AWAY, ACTIVE), redis.call('EXISTS', MISSED, ENDED, SEEN, ISSUED_RANGES,
    TURNS, MOVED, MOVED_UNTIL, HARD_ENDS, FEED, REPORTED)
end

-- Sets `intact` to whether all keys are there that the last script left, and `fates_lost` to whether one that says
-- where visitors are is missing. A script of an earlier version moves the clock without recording the keys.
local function check_keys(room)
  local fates, others = existing_keys()
  local stamp = room.key_stamp
  if stamp and math.floor(stamp / KEY_COUNTS) == room.clock then
    local counts = stamp % KEY_COUNTS
    room.fates_lost = fates ~= math.floor(counts / OTHER_KEYS)
    room.intact = not room.fates_lost and others == counts % OTHER_KEYS
  else
    room.fates_lost, room.intact = false, true
  end
end

-- Returns the room's fields under the names of its hash, as of now, or nil if nobody has opened it yet; the server may
-- be another one than it was opened under. The room's clock never goes back and never jumps: it follows the wall clock
-- by at most MAX_STEP_MS per reading.
local function read_room()
  local values = redis.call('HMGET', ROOM, unpack(ROOM_FIELDS))
  local room = {}
  for i, field in ipairs(ROOM_FIELDS) do
    room[field] = TEXT_FIELDS[field] and values[i] or tonumber(values[i])
    if type(room[field]) == 'number' and room[field] - room[field] ~= 0 then -- infinite or NaN: no limit would hold
      error('field ' .. field .. ' is not finite')
    end
  end
  if not room.clock then
    return nil
  end
  if (room.schema or 0) > SCHEMA then
    error('schema ' .. room.schema .. ' is newer than ' .. SCHEMA) -- before anything is changed
  end
  check_keys(room)
  local wall = wall_clock()
  local step = math.min(math.max(wall - room.wall, 0), MAX_STEP_MS)
  room.wall = wall
  room.clock = room.clock + step
  room.tokens = math.min(room.tokens + step * room.rate / 60000, burst(room.rate))
  fill_in(room)
  room.own_state = room.state
  room.state = effective_state(room)
  -- Turns run by a clock of their own, which stops while nobody can claim one.
  if not accepts_claims(room) then
    room.blocked_ms = room.blocked_ms + step
  end
  room.turn_clock = room.clock - room.blocked_ms
  return room
end

-- Writes back what every reading of the clock changes, and the given pairs. The last step of a script: it records which
-- keys exist.
local function save_room(room, ...)
  local fates, others = existing_keys()
  redis.call('HSET', ROOM, 'clock', to_string(room.clock), 'wall', to_string(room.wall),
    'tokens', decimal(room.tokens), 'freed', to_string(room.freed), 'blocked_ms', to_string(room.blocked_ms),
    'changes', to_string(room.changes), 'resume_at', to_string(room.resume_at),
    'key_stamp', to_string(room.clock * KEY_COUNTS + fates * OTHER_KEYS + others), ...)
end

-- Counts a change of where visitors are, so that a worker that has seen it notices if the store loses it.
local function count_change(room, happened)
  if happened then
    room.changes = room.changes + 1
  end
end

local function count(counter, by)
  if by > 0 then
    redis.call('HINCRBY', ROOM, 'total:' .. counter, by)
  end
end

-- Raises the room's version, so that changes based on the old values are refused, and records the change as the last
-- one. Returns the record.
local function record_change(room, who, undoable, old, new)
  redis.call('HINCRBY', ROOM, 'version', 1)
  local change = cjson.encode({ at_ms = to_string(room.wall), who = who, undoable = undoable, old = old, new = new })
  redis.call('HSET', ROOM, 'last_change', change)
  return change
end

-- Adds an event to the outbox of the audit log, in the same step as what it records; a control process moves it to the
-- log. `audit_event` is JSON from the caller. Numbers ascend, by the wall clock even beyond a loss of the store, so
-- that the log recognizes events that it has.
local function enqueue_audit_event(room, audit_event, old, new)
  local number = math.max(room.wall, (tonumber(redis.call('HGET', ROOM, 'noted')) or 0) + 1)
  redis.call('HSET', ROOM, 'noted', to_string(number))
  redis.call('RPUSH', AUDIT_OUTBOX, cjson.encode({
    number = to_string(number), at_ms = to_string(room.wall), told = audit_event, old = old, new = new,
  }))
  redis.call('LTRIM', AUDIT_OUTBOX, -MAX_AUDIT_EVENTS, -1)
end

-- Sets fields of the hash to the pairs of field and value in ARGV, from index `from` on. Returns the old and the new
-- values of those that changed, and the old values of all in order. A state that is set so is lifted by nothing else.
local function set_fields(from)
  local old, new, before = {}, {}, {}
  for i = from, #ARGV, 2 do
    local field, value = ARGV[i], ARGV[i + 1]
    local current = redis.call('HGET', ROOM, field) or ''
    before[#before + 1] = current
    if current ~= value then
      redis.call('HSET', ROOM, field, value)
      old[field], new[field] = current, value
    end
    if field == 'state' then
      redis.call('HSET', ROOM, 'state_by', '')
    end
  end
  return old, new, before
end

-- Returns the reply to an earlier call with this key, or nil. The caller retries if it got no reply; nothing may be
-- given away or recorded twice.
local function cached_reply(idempotency_key)
  local cached = redis.call('GET', ROOM .. ':answered:' .. idempotency_key)
  return cached and cjson.decode(cached) or nil
end

local function reply(idempotency_key, value)
  redis.call('SET', ROOM .. ':answered:' .. idempotency_key, cjson.encode(value), 'PX', REPLY_KEPT_MS)
  return value
end

local function taken_slots()
  return redis.call('ZCARD', ACTIVE) + redis.call('ZCARD', CALLED)
end

local function is_full(room)
  return taken_slots() >= room.max_active
end

-- Recovery. A store that has lost writes knows neither who waits nor who is inside. Until `resume_at` those who were
-- there have time to report: workers report their sessions, visitors come with their tickets. See docs/queue.md.
-- After a restart that seems to have lost nothing, the workers have SETTLE_MS to say otherwise.

-- Returns the state of the recovery, nil if there is none. The numbers expected are -1 where nobody knows them.
local function get_recovery(room)
  if room.resume_at == 0 then
    return nil
  end
  if not room.recovery then
    local values = redis.call('HMGET', ROOM, unpack(RECOVERY_FIELDS))
    room.recovery = {}
    for i, field in ipairs(RECOVERY_FIELDS) do
      room.recovery[field] = tonumber(values[i]) or 0
    end
    room.recovery.lost = room.recovery.lost_in == room.generation
  end
  return room.recovery
end

-- Whether visitors may be called or admitted directly: the recovery is over, or most of those who waited are back.
local function may_call(room)
  local recovery = get_recovery(room)
  if not recovery then
    return true
  end
  return recovery.lost and room.clock >= recovery.settled_at and room.clock < room.resume_at
    and recovery.expected_waiting >= 0
    and recovery.reported_waiting >= recovery.expected_waiting * ENOUGH_REPORTED
end

-- How many slots are kept for sessions that were known and haven't reported yet.
local function reserved_slots(room)
  local recovery = get_recovery(room)
  return recovery and recovery.lost and math.max(0, recovery.expected_active - recovery.reported_active) or 0
end

-- How many visitors there is room for, whatever the rate and the order.
local function vacant_slots(room)
  return room.max_active - taken_slots() - reserved_slots(room)
end

local function units_sold()
  local totals = redis.call('HMGET', ROOM, 'total:sold', 'total:units_returned')
  return (tonumber(totals[1]) or 0) - (tonumber(totals[2]) or 0)
end

local function sessions_ended()
  local sum = 0
  for _, total in ipairs(redis.call('HMGET', ROOM, 'total:left:ended', 'total:left:expired', 'total:left:released')) do
    sum = sum + (tonumber(total) or 0)
  end
  return sum
end

-- From now on visitors' purchases are measured (see waitroom/queue/stock.py), and reports count that were read from the
-- shop since then.
local function begin_stock(began_at)
  redis.call('HSET', ROOM, 'stock_began_at', to_string(began_at), 'stock_read_at', to_string(began_at),
    'stock_began_sold', to_string(units_sold()), 'stock_began_ended', to_string(sessions_ended()))
end

-- Once units have come back to a sold-out room: how many visitors may come for them, so that nobody else is called for
-- what others will buy. Those who were admitted since then count until they leave or have bought.
local function slots_by_stock(room)
  local remaining = tonumber(room.remaining)
  if room.reopened_at == 0 or not remaining then
    return math.huge
  end
  local inside = redis.call('ZCOUNT', HARD_ENDS, to_string(room.reopened_at + room.session_max_ms), '+inf')
  local admitted = tonumber(redis.call('HGET', ROOM, 'total:admitted') or 0) - room.reopened_admitted
  local buyers = math.min(inside, admitted - (units_sold() - room.reopened_sold))
  return math.max(0, remaining - redis.call('ZCARD', CALLED) - math.max(0, buyers))
end

local function reported_key(chunk)
  return REPORTED .. ':' .. chunk
end

-- Records that the holder of a place has reported, as `waiting` or as `active`. Only places issued before the loss
-- count.
local function report(room, place, kind)
  local recovery = get_recovery(room)
  if not recovery or not recovery.lost or place > room.base then
    return
  end
  local chunk = to_string(math.floor(place / CHUNK))
  if redis.call('SETBIT', reported_key(chunk), place % CHUNK, 1) == 0 then
    redis.call('SADD', REPORTED, chunk)
    local field = 'reported_' .. kind
    recovery[field] = recovery[field] + 1
    redis.call('HSET', ROOM, field, to_string(recovery[field]))
  end
end

local function has_reported(place)
  return redis.call('GETBIT', reported_key(to_string(math.floor(place / CHUNK))), place % CHUNK) == 1
end

local function forget_reports()
  for _, chunk in ipairs(redis.call('SMEMBERS', REPORTED)) do
    redis.call('DEL', reported_key(chunk))
  end
  redis.call('DEL', REPORTED)
end

-- Begins the recovery, at most once in a generation; a later caller may only know that more were there. Presence marks
-- are deleted: they may be those of visitors who have left.
local function begin_recovery(room, waiting, active)
  local lost_in = tonumber(redis.call('HGET', ROOM, 'lost_in')) or 0
  local recovery = get_recovery(room)
  if lost_in ~= room.generation then
    for _, bitmap in ipairs(redis.call('ZRANGE', SEEN, 0, -1)) do
      redis.call('DEL', SEEN .. ':' .. bitmap)
    end
    redis.call('DEL', SEEN)
    forget_reports()
    redis.call('HINCRBY', ROOM, 'total:recoveries', 1)
    room.resume_at = room.clock + room.recovery_ms
    recovery = { lost_in = room.generation, settled_at = room.clock + SETTLE_MS, expected_waiting = waiting,
      expected_active = active, reported_waiting = 0, reported_active = 0, sweep_called = -1, sweep_active = -1,
      lost = true }
  elseif not recovery then
    return
  end
  recovery.expected_waiting = math.max(recovery.expected_waiting, waiting)
  recovery.expected_active = math.max(recovery.expected_active, active)
  room.recovery = recovery
  for _, field in ipairs(RECOVERY_FIELDS) do
    redis.call('HSET', ROOM, field, to_string(recovery[field]))
  end
end

-- How many more may be called or admitted now.
local function free_slots(room)
  if room.method == 'passthrough' then
    return math.huge
  end
  if not may_call(room) then
    return 0
  end
  return math.max(0, math.min(math.floor(room.tokens + 1e-9), vacant_slots(room), slots_by_stock(room)))
end

local function take_tokens(room, tokens)
  if room.method ~= 'passthrough' then
    room.tokens = room.tokens - tokens
  end
end

-- Applies a command to members (or to pairs of score and member) in batches that fit Lua's stack.
local function in_batches(command, key, list)
  for from = 1, #list, BATCH do
    redis.call(command, key, unpack(list, from, math.min(from + BATCH - 1, #list)))
  end
end

-- The number that orders the queue: the place, unless the place was given in a shuffled prequeue. `draws` lists these
-- as FIRST:LAST:SEED, the places after FIRST up to LAST; an open one has no LAST.
local function rank_of(room, place)
  if room.draws == '' then
    return place
  end
  if not room.draw_list then
    room.draw_list = {}
    for first, last, seed in string.gmatch(room.draws, '(%d+):(%d*):(%x+)') do
      room.draw_list[#room.draw_list + 1] = { tonumber(first), tonumber(last) or math.huge, seed }
    end
  end
  for _, draw in ipairs(room.draw_list) do
    if place > draw[1] and place <= draw[2] then
      local digest = redis.sha1hex(draw[3] .. ':' .. to_string(place))
      return draw[1] + 1 + tonumber(string.sub(digest, 1, 8), 16) % SHUFFLE_SPAN
    end
  end
  return place
end

-- The rank of the last place that was given, or of the last one of an open shuffle.
local function last_rank(room)
  local first = string.match(room.draws, '(%d+)::%x+$')
  return first and tonumber(first) + SHUFFLE_SPAN or room.seq
end

-- Puts places, which are strings, into the queue.
local function add_waiting(room, places)
  local entries, shuffled = {}, room.draws ~= ''
  for i, place in ipairs(places) do
    entries[2 * i - 1] = shuffled and to_string(rank_of(room, tonumber(place))) or place
    entries[2 * i] = place
  end
  in_batches('ZADD', WAITING, entries)
end

-- The bitmap of the places of a chunk that were seen in a window: its name in SEEN, and its key. `chunk` is a string.
local function seen_bitmap(window, chunk)
  return to_string(window) .. ':' .. chunk
end

local function seen_key(bitmap)
  return SEEN .. ':' .. bitmap
end

-- Marks places of a chunk as seen in the current window; `offsets` are theirs in its bitmap. One BITFIELD costs half as
-- much as a SETBIT for each. The bitmaps are listed by window and don't expire by themselves: a key expires by the wall
-- clock, which may jump.
local function mark_chunk(room, chunk, offsets)
  local window = math.floor(room.clock / WINDOW_MS)
  local bitmap = seen_bitmap(window, chunk)
  redis.call('ZADD', SEEN, to_string(window), bitmap)
  local key = seen_key(bitmap)
  for first = 1, #offsets, BATCH do
    local marks, length = { key }, 1
    for i = first, math.min(first + BATCH - 1, #offsets) do
      marks[length + 1], marks[length + 2], marks[length + 3], marks[length + 4] = 'SET', 'u1', offsets[i], '1'
      length = length + 4
    end
    redis.call('BITFIELD', unpack(marks))
  end
end

-- Marks places, which are numbers, as seen.
local function mark_seen(room, places)
  local chunks = {}
  for _, place in ipairs(places) do
    local chunk = math.floor(place / CHUNK)
    local offsets = chunks[chunk] or {}
    chunks[chunk] = offsets
    offsets[#offsets + 1] = place % CHUNK
  end
  for chunk, offsets in pairs(chunks) do
    mark_chunk(room, to_string(chunk), offsets)
  end
end

-- Returns whether a place was lost with the store, and records that it was recovered: it is of an older generation, and
-- what survived neither issued it nor has recovered it. So each place is recovered once, and nobody has two turns.
-- A place that was lost with the beginning of this generation shows, soon after it, that there was a loss.
local function claim_lost_place(room, place)
  if place > room.base or place <= room.void_place then
    return false
  end
  local issued_after = redis.call('ZRANGEBYSCORE', ISSUED_RANGES, to_string(place), '+inf', 'LIMIT', 0, 1)[1]
  if issued_after and place > tonumber(issued_after) then
    return false
  end
  local opened = redis.call('HMGET', ROOM, 'recovered_in', 'opened_seq', 'opened_at')
  local bitmaps = opened[1] and RECOVERED .. ':' .. opened[1] or RECOVERED
  if redis.call('SETBIT', bitmaps .. ':' .. to_string(math.floor(place / CHUNK)), place % CHUNK, 1) == 1 then
    return false
  end
  if opened[2] and place > tonumber(opened[2]) and room.clock - tonumber(opened[3]) <= room.recovery_ms then
    begin_recovery(room, -1, -1)
  end
  return true
end

-- Removes a place from the queue. Returns whether it was there and whether it was called, each as 1 or 0.
local function leave_queue(place)
  redis.call('SREM', MISSED, place)
  redis.call('HDEL', TURNS, place)
  local called = redis.call('ZREM', CALLED, place)
  return called + redis.call('ZREM', WAITING, place) + redis.call('ZREM', AWAY, place), called
end

-- Returns the place that a ticket stands for now: visitors who were notified of their turn and missed it got a new
-- place at the end when they returned.
local function current_place(place)
  return redis.call('HGET', MOVED, place) or place
end

-- Lists a session for the workers: as `ended`, as `released` (by the shop), or as `prolonged`, whose new end the view
-- adds. The numbers grow with the room's clock, so that they give both the order and the age.
local function list_session(room, kind, session)
  local newest = tonumber(redis.call('ZRANGE', FEED, -1, -1, 'WITHSCORES')[2] or 0)
  redis.call('ZADD', FEED, to_string(math.max(room.clock * 1000, newest + 1)), kind .. ':' .. session)
end

-- Ends a session for good: for `pass_ms`, a pass for it that is still in circulation admits nobody. It is listed for
-- the workers as `kind`, 'ended' or 'released' (by the shop). Returns whether it had a slot, as 1 or 0.
local function end_session(room, session, pass_ms, kind)
  claim_lost_place(room, tonumber(session))
  local slot_until = tonumber(redis.call('ZSCORE', ACTIVE, session) or 0)
  -- Because of a hold its pass may last longer than the caller knows.
  local pass_until = math.max(room.clock + pass_ms, slot_until - SLOT_MARGIN_MS)
  redis.call('ZADD', ENDED, to_string(pass_until), session)
  list_session(room, kind, session)
  redis.call('ZREM', HARD_ENDS, session)
  return redis.call('ZREM', ACTIVE, session)
end
