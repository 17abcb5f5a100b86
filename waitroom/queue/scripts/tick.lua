-- One admission tick. ARGV, after the clock and the run id: how many waiting visitors it may look at at the most.
-- Ends what has run out, then calls the first who are there, as many as rate and slots allow; who isn't there is
-- stepped over and keeps the place. Nothing here walks the queue: every loop is bounded by ARGV[3] or BATCH.
-- Returns {called, stepped over, ended sessions, missed turns, dropped places, 1 where it had to stop early};
-- nil where the room isn't open.
local PIECE = 100           -- of the line, looked at together
local SMALL_ROOM = 20       -- slots; a smaller room remembers the pace as long as one of this size
local PRESENCE_MEMORY = 300 -- visitors
local CHANCE = 1.3          -- a pace that differs by less has not changed

local room = load_room()
if not room then
  return false
end
local look_ups = tonumber(ARGV[3])
local now = text(room.clock)
local stopped_early = 0

local function run_out(key, clock)
  local members = redis.call('ZRANGEBYSCORE', key, '-inf', clock or now, 'LIMIT', 0, BATCH)
  if #members > 0 then
    redis.call('ZREM', key, unpack(members))
    if #members == BATCH then
      stopped_early = 1
    end
  end
  return members
end

local taken = redis.call('ZCARD', ACTIVE) + redis.call('ZCARD', CALLED)

-- Sessions whose slot ran out.
local ended = run_out(ACTIVE)
in_batches('ZREM', HARD_ENDS, ended)
count('left:expired', #ended)
run_out(ENDED)
run_out(FEED, '(' .. text((room.clock - FEED_MS) * 1000))
in_batches('HDEL', MOVED, run_out(MOVED_UNTIL))

-- Turns that were missed: the first time the place is kept, the second time it is lost. TURNS keeps the
-- visitors who were told: these return to the end.
local missed = run_out(CALLED, text(room.turn_clock))
local keep_until = text(room.clock + room.keep_ms)
local away, second = {}, {}
for _, place in ipairs(missed) do
  if redis.call('SADD', MISSED, place) == 1 then
    away[#away + 1] = keep_until
    away[#away + 1] = place
  else
    second[#second + 1] = place
  end
end
in_batches('ZADD', AWAY, away)

-- Places kept long enough.
local dropped = run_out(AWAY)
for _, gone in ipairs({ second, dropped }) do
  in_batches('SREM', MISSED, gone)
  in_batches('HDEL', TURNS, gone)
end
count('left:missed', #second)
count('left:away', #dropped)

-- Seen within away_ms? The windows are looked at from the newest back; those before the oldest are forgotten.
local newest = math.floor(room.clock / WINDOW_MS)
local oldest = math.floor((room.clock - room.away_ms) / WINDOW_MS)
local forgotten = redis.call('ZRANGEBYSCORE', SEEN, '-inf', '(' .. text(oldest), 'LIMIT', 0, BATCH)
for _, bitmap in ipairs(forgotten) do
  redis.call('DEL', seen_key(bitmap))
  redis.call('ZREM', SEEN, bitmap)
end

-- Which of some places, in order, were seen, by their indexes. The marks of a chunk are read together, a window at a time.
local function who_is_there(places)
  local there = {}
  local from = 1
  while from <= #places do
    local chunk = math.floor(places[from] / CHUNK)
    local to = from
    while to < #places and math.floor(places[to + 1] / CHUNK) == chunk do
      to = to + 1
    end
    local first_byte = math.floor(places[from] % CHUNK / 8)
    local last_byte = math.floor(places[to] % CHUNK / 8)
    local missing = to - from + 1
    for window = newest, oldest, -1 do
      local marks = redis.call('GETRANGE', seen_key(seen_bitmap(window, text(chunk))), first_byte, last_byte)
      for i = from, marks == '' and 0 or to do
        if not there[i] then
          local offset = places[i] % CHUNK
          local byte = string.byte(marks, math.floor(offset / 8) - first_byte + 1) or 0
          if math.floor(byte / 2 ^ (7 - offset % 8)) % 2 == 1 then
            there[i] = true
            missing = missing - 1
          end
        end
      end
      if missing == 0 then
        break
      end
    end
    from = to + 1
  end
  return there
end

local waiting = redis.call('ZCARD', WAITING)
local called, stepped, gone = {}, {}, {}
local head = room.head
if room.state == 'open' then
  local wanted = math.min(free_slots(room), BATCH)
  local claim_by = text(room.turn_clock + room.claim_ms)
  local rank = 0
  while #called / 2 < wanted and rank < waiting do
    if look_ups <= 0 then
      stopped_early = 1
      break
    end
    local piece = redis.call('ZRANGE', WAITING, rank, rank + math.min(PIECE, look_ups) - 1)
    local places = {}
    for i, place in ipairs(piece) do
      places[i] = tonumber(place)
    end
    local there = who_is_there(places)
    for i, place in ipairs(piece) do
      if #called / 2 >= wanted then
        break
      end
      look_ups = look_ups - 1
      local list, until_ms = called, claim_by
      if not there[i] then
        list, until_ms = stepped, keep_until
      end
      list[#list + 1] = until_ms
      list[#list + 1] = place
      gone[#gone + 1] = place
      head = math.max(head, places[i])
    end
    rank = rank + #piece
  end
  in_batches('ZREM', WAITING, gone)
  in_batches('ZADD', CALLED, called)
  in_batches('ZADD', AWAY, stepped)
  spend(room, #called / 2)
  if #called / 2 == BATCH then
    stopped_early = 1
  end
end

-- How fast slots get free: so many in so many slot-milliseconds, as long back as the full shop turns over twice or so.
local freed = room.freed + #ended + #missed
room.freed = 0
room.pace_since_ms = room.pace_since_ms + taken * (room.clock - room.pace_clock)
if freed > 0 then
  local fade = math.exp(-room.pace_since_ms / (2 * room.session_ms * math.max(room.max_active, SMALL_ROOM)))
  room.pace_freed = room.pace_freed * fade + freed
  room.pace_slot_ms = room.pace_slot_ms * fade + room.pace_since_ms
  room.pace_since_ms = 0
end
-- What is told of it stands while the rest may be chance, lest a wait that was told rises and falls with every visitor.
-- Between two slots the pace is steady: only one that is overdue slows it.
local lately = math.min(room.pace_freed / math.max(1, room.pace_slot_ms),
  (room.pace_freed + 1) / math.max(1, room.pace_slot_ms + room.pace_since_ms))
if lately > room.pace_told * CHANCE or lately * CHANCE < room.pace_told then
  room.pace_told = lately
end

-- How many of those whose turn it was were there, of the last few hundred.
local met = (#called + #stepped) / 2
local fade = math.exp(-met / PRESENCE_MEMORY)
room.pace_met = room.pace_met * fade + met
room.pace_called = room.pace_called * fade + #called / 2

save_room(room, 'head', text(head), 'pace_clock', now, 'pace_freed', decimal(room.pace_freed),
  'pace_slot_ms', decimal(room.pace_slot_ms), 'pace_since_ms', decimal(room.pace_since_ms),
  'pace_told', decimal(room.pace_told), 'pace_called', decimal(room.pace_called), 'pace_met', decimal(room.pace_met))
return { #called / 2, #stepped / 2, #ended, #missed, #second + #dropped, stopped_early }
