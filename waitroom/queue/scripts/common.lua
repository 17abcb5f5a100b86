-- What every script shares; the store puts it before each of them.
-- All keys of a room carry one hash tag, so the bitmaps, whose names are made here, are on the same node.
-- ARGV begins with the wall clock in ms and the server's run id, each '' to take the server's own.
local ROOM, WAITING, CALLED, AWAY, MISSED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ACTIVE, ENDED, TABLE, SEEN = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local GIVEN, HEARD, NOTES = KEYS[10], KEYS[11], KEYS[12]
local TURNS, MOVED, MOVED_UNTIL, HARD_ENDS, FEED = KEYS[13], KEYS[14], KEYS[15], KEYS[16], KEYS[17]

local MAX_STEP_MS = 10000    -- what one look at the clock may add: an outage or a jump ages nobody
local WINDOW_MS = 15000      -- one bitmap of who was seen covers so long
local CHUNK = 65536          -- places per bitmap: 8 KiB; the store's SEEN_CHUNK
local SLOT_MARGIN_MS = 30000 -- a slot outlives its pass by so much
local BATCH = 1000           -- members handled in one command, well under Lua's limit for unpack
local ANSWER_KEPT_MS = 10000 -- much longer than anyone asks again
local MOST_NOTES = 1000      -- for the audit log; people make them, and every second they are taken away
local FEED_MS = 30000        -- ended sessions are listed for so long: workers look twice a second
local TOLD, EXTENDED = '1', '2' -- what TURNS says of a called visitor

local function text(number)
  return string.format('%.0f', number)
end

local function decimal(number)
  return string.format('%.17g', number)
end

local FIELDS = {
  'clock', 'wall', 'rate', 'max_active', 'session_ms', 'claim_ms', 'away_ms', 'keep_ms', 'method', 'state',
  'tokens', 'seq', 'head', 'generation', 'base', 'run_id', 'freed',
  'told_ms', 'session_max_ms', 'blocked_ms',
  'pace_clock', 'pace_freed', 'pace_slot_ms', 'pace_since_ms', 'pace_told', 'pace_called', 'pace_met',
}
local WORDS = { method = true, state = true, run_id = true }

-- Tokens gather at the rate, up to one second's worth (at least 1).
local function burst(rate)
  return math.max(1, rate / 60)
end

local function wall_clock()
  if ARGV[1] ~= '' then
    return tonumber(ARGV[1])
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function server_run_id()
  if ARGV[2] ~= '' then
    return ARGV[2]
  end
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

local function takes_claims(room)
  return room.state == 'open' or room.state == 'paused'
end

-- The room as it stands now, whichever server it was opened under; nil where nobody has opened it.
-- The room's own clock never goes back and never leaps: it follows the wall clock by at most MAX_STEP_MS a look.
local function read_room()
  local values = redis.call('HMGET', ROOM, unpack(FIELDS))
  if not values[1] then
    return nil
  end
  local room = {}
  for i, field in ipairs(FIELDS) do
    room[field] = WORDS[field] and values[i] or tonumber(values[i])
  end
  local wall = wall_clock()
  local step = math.min(math.max(wall - room.wall, 0), MAX_STEP_MS)
  room.wall = wall
  room.clock = room.clock + step
  room.tokens = math.min(room.tokens + step * room.rate / 60000, burst(room.rate))
  -- Rooms stored before these three fields existed.
  room.told_ms = room.told_ms or math.min(90000, room.claim_ms)
  room.session_max_ms = room.session_max_ms or 14400000
  room.blocked_ms = room.blocked_ms or 0
  -- Turns run by a clock of their own, which stands still while nobody can claim one.
  if not takes_claims(room) then
    room.blocked_ms = room.blocked_ms + step
  end
  room.turn_clock = room.clock - room.blocked_ms
  return room
end

-- The room as it stands now, or nil where it must be opened. It must be once for every run of the server: one that was
-- started or promoted may have lost what was answered last, and would give the same places again.
local function load_room()
  local room = read_room()
  if room and room.run_id == server_run_id() then
    return room
  end
  return nil
end

-- Writes back what every look at the clock changes, and the pairs given.
local function save_room(room, ...)
  redis.call('HSET', ROOM, 'clock', text(room.clock), 'wall', text(room.wall),
    'tokens', decimal(room.tokens), 'freed', text(room.freed), 'blocked_ms', text(room.blocked_ms), ...)
end

local function count(counter, by)
  if by > 0 then
    redis.call('HINCRBY', ROOM, 'total:' .. counter, by)
  end
end

-- Makes the room another version, so that whoever decided something on the old values is to look again, and writes down
-- whose change that is. Returns it as it is remembered.
local function remember_change(room, who, undoable, old, new)
  redis.call('HINCRBY', ROOM, 'version', 1)
  local change = cjson.encode({ at_ms = text(room.wall), who = who, undoable = undoable, old = old, new = new })
  redis.call('HSET', ROOM, 'last_change', change)
  return change
end

-- Leaves what the audit log is to be told, in the same step as what was done: a control process writes it there, this
-- one or whichever comes next. `told` is JSON from whoever did it. The numbers only ever grow, by the wall clock even
-- over a store that was lost, so that it can be told which were written.
local function leave_note(room, told, old, new)
  local number = math.max(room.wall, (tonumber(redis.call('HGET', ROOM, 'noted')) or 0) + 1)
  redis.call('HSET', ROOM, 'noted', text(number))
  redis.call('RPUSH', NOTES,
    cjson.encode({ number = text(number), at_ms = text(room.wall), told = told, old = old, new = new }))
  redis.call('LTRIM', NOTES, -MOST_NOTES, -1)
end

-- What a call with this word was answered, or nil: it is asked again, because the answer was lost. Nothing that gives
-- something away or is written down may happen twice.
local function answered(word)
  local before = redis.call('GET', ROOM .. ':answered:' .. word)
  return before and cjson.decode(before) or nil
end

local function answer(word, given)
  redis.call('SET', ROOM .. ':answered:' .. word, cjson.encode(given), 'PX', ANSWER_KEPT_MS)
  return given
end

-- How many more may be called or admitted at this instant.
local function free_slots(room)
  if room.method == 'passthrough' then
    return math.huge
  end
  local taken = redis.call('ZCARD', ACTIVE) + redis.call('ZCARD', CALLED)
  return math.max(0, math.min(math.floor(room.tokens + 1e-9), room.max_active - taken))
end

local function spend(room, tokens)
  if room.method ~= 'passthrough' then
    room.tokens = room.tokens - tokens
  end
end

-- The bitmap of who of a chunk of places was seen in a window, as SEEN lists it and as the key it has. `chunk` is text.
local function seen_bitmap(window, chunk)
  return text(window) .. ':' .. chunk
end

local function seen_key(bitmap)
  return SEEN .. ':' .. bitmap
end

-- Marks some of a chunk as seen in the window of now; `offsets` are theirs in its bitmap. Many of them in one BITFIELD
-- cost half of a SETBIT for each.
-- The bitmaps are listed by window and not left to expire: a key expires by the wall clock, which may leap.
local function mark_chunk(room, chunk, offsets)
  local window = math.floor(room.clock / WINDOW_MS)
  local bitmap = seen_bitmap(window, chunk)
  redis.call('ZADD', SEEN, text(window), bitmap)
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

-- Marks visitors as seen. `places` are numbers.
local function mark_seen(room, places)
  local chunks = {}
  for _, place in ipairs(places) do
    local chunk = math.floor(place / CHUNK)
    local offsets = chunks[chunk] or {}
    chunks[chunk] = offsets
    offsets[#offsets + 1] = place % CHUNK
  end
  for chunk, offsets in pairs(chunks) do
    mark_chunk(room, text(chunk), offsets)
  end
end

-- Notes that a place was heard of. Returns whether it had been lost with the store: it is of an older generation, and
-- what has survived neither gave that place nor has heard of it since. So each is lost but once, and nobody has two turns.
local function remember(room, place)
  if place > room.base then
    return false
  end
  local given_after = redis.call('ZRANGEBYSCORE', GIVEN, text(place), '+inf', 'LIMIT', 0, 1)[1]
  if given_after and place > tonumber(given_after) then
    return false
  end
  return redis.call('SETBIT', HEARD .. ':' .. text(math.floor(place / CHUNK)), place % CHUNK, 1) == 0
end

-- Takes a place out of the line; returns whether it was there, and whether it had been called (1 or 0).
local function leave_line(place)
  redis.call('SREM', MISSED, place)
  redis.call('HDEL', TURNS, place)
  local called = redis.call('ZREM', CALLED, place)
  return called + redis.call('ZREM', WAITING, place) + redis.call('ZREM', AWAY, place), called
end

-- Where the holder of an older ticket stands now: those who were told of their turn and missed it got a new place at
-- the end when they returned.
local function current_place(place)
  return redis.call('HGET', MOVED, place) or place
end

-- Ends a session for good: until `pass_ms` have passed, a pass for it that is still about lets nobody in. It is listed
-- for the workers as `kind`: 'ended', or 'released' by the shop. Returns whether it had a slot (1 or 0).
local function end_session(room, session, pass_ms, kind)
  remember(room, tonumber(session))
  local slot_until = tonumber(redis.call('ZSCORE', ACTIVE, session) or 0)
  -- A hold may have made its pass last longer than the caller knows.
  local pass_until = math.max(room.clock + pass_ms, slot_until - SLOT_MARGIN_MS)
  redis.call('ZADD', ENDED, text(pass_until), session)
  -- The numbers grow with the room's clock, so that they tell both the order and the age.
  local newest = tonumber(redis.call('ZRANGE', FEED, -1, -1, 'WITHSCORES')[2] or 0)
  redis.call('ZADD', FEED, text(math.max(room.clock * 1000, newest + 1)), kind .. ':' .. session)
  redis.call('ZREM', HARD_ENDS, session)
  return redis.call('ZREM', ACTIVE, session)
end

-- Applies one command to members (and scores: pairs are score, member) in pieces that fit Lua's stack.
local function in_batches(command, key, list)
  for from = 1, #list, BATCH do
    redis.call(command, key, unpack(list, from, math.min(from + BATCH - 1, #list)))
  end
end
