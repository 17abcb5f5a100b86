-- What every script shares; the store puts it before each of them.
-- All keys of a room carry one hash tag, so the bitmaps, whose names are made here, are on the same node.
-- ARGV begins with the wall clock in ms and the server's run id, each '' to take the server's own.
local ROOM, WAITING, CALLED, AWAY, MISSED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ACTIVE, ENDED, TABLE, SEEN = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local GIVEN, HEARD = KEYS[10], KEYS[11]

local MAX_STEP_MS = 10000    -- what one look at the clock may add: an outage or a jump ages nobody
local WINDOW_MS = 15000      -- one bitmap of who was seen covers so long
local CHUNK = 65536          -- places per bitmap: 8 KiB
local SLOT_MARGIN_MS = 30000 -- a slot outlives its pass by so much
local BATCH = 1000           -- members handled in one command, well under Lua's limit for unpack

local function text(number)
  return string.format('%.0f', number)
end

local function decimal(number)
  return string.format('%.17g', number)
end

local FIELDS = {
  'clock', 'wall', 'rate', 'max_active', 'session_ms', 'claim_ms', 'away_ms', 'keep_ms', 'method', 'state',
  'tokens', 'seq', 'head', 'generation', 'base', 'run_id', 'freed',
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
    'tokens', decimal(room.tokens), 'freed', text(room.freed), ...)
end

local function count(counter, by)
  if by > 0 then
    redis.call('HINCRBY', ROOM, 'total:' .. counter, by)
  end
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

-- The bitmap of who of a chunk of places was seen in a window, as SEEN lists it and as the key it has.
local function seen_bitmap(window, place)
  return text(window) .. ':' .. text(math.floor(place / CHUNK))
end

local function seen_key(bitmap)
  return SEEN .. ':' .. bitmap
end

-- Marks visitors as seen in the window of now. `places` are numbers.
-- The bitmaps are listed by window and not left to expire: a key expires by the wall clock, which may leap.
local function mark_seen(room, places)
  local window = math.floor(room.clock / WINDOW_MS)
  local keys = {}
  for _, place in ipairs(places) do
    local chunk = math.floor(place / CHUNK)
    local key = keys[chunk]
    if not key then
      local bitmap = seen_bitmap(window, place)
      redis.call('ZADD', SEEN, text(window), bitmap)
      key = seen_key(bitmap)
      keys[chunk] = key
    end
    redis.call('SETBIT', key, place % CHUNK, 1)
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
  local called = redis.call('ZREM', CALLED, place)
  return called + redis.call('ZREM', WAITING, place) + redis.call('ZREM', AWAY, place), called
end

-- Ends a session for good: until `pass_ms` have passed, a pass for it that is still about lets nobody in.
-- Returns whether it had a slot (1 or 0).
local function end_session(room, session, pass_ms)
  remember(room, tonumber(session))
  redis.call('ZADD', ENDED, text(room.clock + pass_ms), session)
  return redis.call('ZREM', ACTIVE, session)
end

-- Applies one command to members (and scores: pairs are score, member) in pieces that fit Lua's stack.
local function in_batches(command, key, list)
  for from = 1, #list, BATCH do
    redis.call(command, key, unpack(list, from, math.min(from + BATCH - 1, #list)))
  end
end
