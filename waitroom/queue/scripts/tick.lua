-- One admission tick: removes what has expired, then calls the first present visitors, as many as rate and slots allow.
-- Absent ones are skipped and keep their place.
-- ARGV: the most waiting visitors to look at. One with a shuffled place counts SHUFFLED_LOOK_UP times, because the marks
-- of neighbours in the queue are far apart then.
-- No tick walks the queue: every loop is bounded by that number or by BATCH.
-- Returns {called, skipped, ended sessions, missed turns, dropped places, 1 if more is due immediately}.
local look_ups = tonumber(ARGV[3])

local room = load_room()
if not room then
  return false
end
local now = to_string(room.clock)
local keep_until = to_string(room.clock + room.keep_ms)
local stopped_early = 0

-- Removes up to BATCH members whose time has come, and returns them.
local function take_expired(key, clock)
  local members = redis.call('ZRANGEBYSCORE', key, '-inf', clock, 'LIMIT', 0, BATCH)
  if #members > 0 then
    redis.call('ZREM', key, unpack(members))
    if #members == BATCH then
      stopped_early = 1
    end
  end
  return members
end

-- Returns how many sessions ended because their slot expired.
local function expire_sessions()
  local ended = take_expired(ACTIVE, now)
  in_batches('ZREM', HARD_ENDS, ended)
  count('left:expired', #ended)
  take_expired(ENDED, now)
  take_expired(FEED, '(' .. to_string((room.clock - FEED_MS) * 1000))
  in_batches('HDEL', MOVED, take_expired(MOVED_UNTIL, now))
  return #ended
end

-- Returns how many turns were missed and how many places were dropped. A place is kept the first time its visitor
-- misses a turn, and lost the second time; TURNS still holds the visitors who were notified, who return to the end.
local function expire_turns()
  local missed = take_expired(CALLED, to_string(room.turn_clock))
  local away, missed_twice = {}, {}
  for _, place in ipairs(missed) do
    if redis.call('SADD', MISSED, place) == 1 then
      away[#away + 1] = keep_until
      away[#away + 1] = place
    else
      missed_twice[#missed_twice + 1] = place
    end
  end
  in_batches('ZADD', AWAY, away)
  local kept_too_long = take_expired(AWAY, now)
  for _, dropped in ipairs({ missed_twice, kept_too_long }) do
    in_batches('SREM', MISSED, dropped)
    in_batches('HDEL', TURNS, dropped)
  end
  count('missed_turns', #missed)
  count('left:missed', #missed_twice)
  count('left:away', #kept_too_long)
  return #missed, #missed_twice + #kept_too_long
end

-- A visitor is present if seen within away_ms, in any window from the newest back to the oldest.
local newest = math.floor(room.clock / WINDOW_MS)
local oldest = math.floor((room.clock - room.away_ms) / WINDOW_MS)

local function delete_old_marks()
  for _, bitmap in ipairs(redis.call('ZRANGEBYSCORE', SEEN, '-inf', '(' .. to_string(oldest), 'LIMIT', 0, BATCH)) do
    redis.call('DEL', seen_key(bitmap))
    redis.call('ZREM', SEEN, bitmap)
  end
end

local bitmaps = {}
for _, bitmap in ipairs(redis.call('ZRANGEBYSCORE', SEEN, to_string(oldest), '+inf')) do
  bitmaps[bitmap] = true
end

-- Marks that lie close together are read in one piece, and others one by one; both return 1 or 0 for each of `group`, the
-- indexes of places in one chunk.
local function near_marks(places, group, key, first, last)
  local first_byte = math.floor(first / 8)
  local bytes = redis.call('GETRANGE', key, first_byte, math.floor(last / 8))
  local marks = {}
  for n, i in ipairs(group) do
    local offset = places[i] % CHUNK
    local byte = string.byte(bytes, math.floor(offset / 8) - first_byte + 1) or 0
    marks[n] = math.floor(byte / 2 ^ (7 - offset % 8)) % 2
  end
  return marks
end

local function far_marks(places, group, key)
  local reads = { key }
  for n, i in ipairs(group) do
    reads[3 * n - 1], reads[3 * n], reads[3 * n + 1] = 'GET', 'u1', places[i] % CHUNK
  end
  return redis.call('BITFIELD', unpack(reads))
end

-- Sets present[i] for each of the places with indexes `group`, all in one chunk, whose visitor is present. Their marks
-- are read together, one window at a time.
local function find_present_in_chunk(places, group, chunk, present)
  local first, last = CHUNK, 0
  for _, i in ipairs(group) do
    first, last = math.min(first, places[i] % CHUNK), math.max(last, places[i] % CHUNK)
  end
  local near = last - first < FAR_MARKS * #group
  for window = newest, oldest, -1 do
    local bitmap = seen_bitmap(window, to_string(chunk))
    if bitmaps[bitmap] then
      local key = seen_key(bitmap)
      local marks = near and near_marks(places, group, key, first, last) or far_marks(places, group, key)
      local missing = {}
      for n, i in ipairs(group) do
        if marks[n] == 1 then
          present[i] = true
        else
          missing[#missing + 1] = i
        end
      end
      group = missing
    end
    if #group == 0 then
      return
    end
  end
end

-- Returns which of some places have a present visitor, by index.
local function find_present(places)
  local groups, present = {}, {}
  for i, place in ipairs(places) do
    local chunk = math.floor(place / CHUNK)
    local group = groups[chunk] or {}
    groups[chunk] = group
    group[#group + 1] = i
  end
  for chunk, group in pairs(groups) do
    find_present_in_chunk(places, group, chunk, present)
  end
  return present
end

local high_water_mark = room.head -- the greatest rank that was ever called or skipped

-- Calls present visitors from the front. Returns how many were called and how many were skipped.
local function call_visitors()
  if room.state ~= 'open' then
    return 0, 0
  end
  local waiting = redis.call('ZCARD', WAITING)
  local wanted = math.min(free_slots(room), BATCH)
  local claim_by = to_string(room.turn_clock + room.claim_ms)
  local called, skipped, gone = {}, {}, {}
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
    local present = find_present(places)
    for i, place in ipairs(piece) do
      if #called / 2 >= wanted or look_ups <= 0 then
        break
      end
      look_ups = look_ups - (rank_of(room, places[i]) == places[i] and 1 or SHUFFLED_LOOK_UP)
      local list, until_ms = called, claim_by
      if not present[i] then
        list, until_ms = skipped, keep_until
      end
      list[#list + 1] = until_ms
      list[#list + 1] = place
      gone[#gone + 1] = place
      rank = rank + 1
    end
  end
  if #gone > 0 then
    high_water_mark = math.max(high_water_mark, rank_of(room, tonumber(gone[#gone])))
  end
  in_batches('ZREM', WAITING, gone)
  in_batches('ZADD', CALLED, called)
  in_batches('ZADD', AWAY, skipped)
  take_tokens(room, #called / 2)
  if #called / 2 == BATCH then
    stopped_early = 1
  end
  return #called / 2, #skipped / 2
end

-- Nothing is left for visitors who were called and haven't entered: they get their places back, and have missed no turn.
local function return_called()
  if room.state ~= 'sold_out' or room.state_by ~= 'stock' then
    return 0
  end
  local called = redis.call('ZRANGE', CALLED, 0, BATCH - 1)
  in_batches('ZREM', CALLED, called)
  in_batches('HDEL', TURNS, called)
  add_waiting(room, called)
  room.freed = room.freed + #called
  if #called == BATCH then
    stopped_early = 1
  end
  return #called
end

-- How fast slots become free: slots per slot-millisecond, over about two turnovers of the full shop.
local function measure_released_slots(slots, taken)
  room.pace_since_ms = room.pace_since_ms + taken * (room.clock - room.pace_clock)
  if slots > 0 then
    local fade = math.exp(-room.pace_since_ms / (2 * room.session_ms * math.max(room.max_active, SMALL_ROOM)))
    room.pace_freed = room.pace_freed * fade + slots
    room.pace_slot_ms = room.pace_slot_ms * fade + room.pace_since_ms
    room.pace_since_ms = 0
  end
  -- The reported value stays the same while the difference may be chance, so that announced waits don't rise and fall
  -- with every visitor. Between two slots the measured value is steady: only one that is overdue lowers it.
  local measured = math.min(room.pace_freed / math.max(1, room.pace_slot_ms),
    (room.pace_freed + 1) / math.max(1, room.pace_slot_ms + room.pace_since_ms))
  if measured > room.pace_told * TOLERANCE or measured * TOLERANCE < room.pace_told then
    room.pace_told = measured
  end
end

-- The share of visitors who were present when their turn came, over the last few hundred turns.
local function measure_presence(present, turns)
  local fade = math.exp(-turns / PRESENCE_MEMORY)
  room.pace_met = room.pace_met * fade + turns
  room.pace_called = room.pace_called * fade + present
end

-- Looks at up to BATCH members of a key for visitors who haven't reported since the loss, from its end to the beginning;
-- `field` of the recovery is how many are still to be looked at. Returns them, and whether all have been looked at.
local function find_unreported(recovery, field, key)
  local left = recovery[field] < 0 and redis.call('ZCARD', key) or recovery[field]
  local from = math.max(0, left - BATCH)
  local unreported = {}
  for _, member in ipairs(left > 0 and redis.call('ZRANGE', key, from, left - 1) or {}) do
    local place = tonumber(member)
    if place <= room.base and not has_reported(place) then
      unreported[#unreported + 1] = member
    end
  end
  recovery[field] = from
  redis.call('HSET', ROOM, field, to_string(from))
  return unreported, from == 0
end

-- Ends the recovery when its time is over. A store that went back may hold turns and slots of visitors who have left:
-- these turns become places kept, and the slots are freed. Slots stay if many known sessions are missing: the workers
-- that knew them have died.
-- Returns how many sessions ended.
local function end_recovery()
  local recovery = get_recovery(room)
  if not recovery or room.clock < room.resume_at then
    return 0
  end
  local called_done, active_done, freed = true, true, {}
  if recovery.lost then
    local called
    called, called_done = find_unreported(recovery, 'sweep_called', CALLED)
    local away = {}
    for _, place in ipairs(called) do
      away[#away + 1] = keep_until
      away[#away + 1] = place
    end
    in_batches('ZREM', CALLED, called)
    in_batches('HDEL', TURNS, called)
    in_batches('ZADD', AWAY, away)
    if recovery.expected_active >= 0 and
      recovery.reported_active >= recovery.expected_active * ENOUGH_REPORTED then
      freed, active_done = find_unreported(recovery, 'sweep_active', ACTIVE)
      in_batches('ZREM', ACTIVE, freed)
      in_batches('ZREM', HARD_ENDS, freed)
      count('left:expired', #freed)
    end
    count_change(room, #called + #freed > 0)
  end
  if called_done and active_done then
    room.resume_at = 0
    forget_reports()
  else
    stopped_early = 1
  end
  return #freed
end

local taken = taken_slots()
local ended = expire_sessions()
local missed, dropped = expire_turns()
delete_old_marks()
local swept = end_recovery()
local given_back = return_called()
raise_event_peak(room, 'peak_waiting', redis.call('ZCARD', WAITING) + redis.call('ZCARD', AWAY))
local called, skipped = call_visitors()
count_change(room, called + skipped + ended + missed + dropped + given_back > 0)
raise_event_peak(room, 'peak_active', redis.call('ZCARD', ACTIVE))
raise_event_peak(room, 'overshoot', taken_slots() - room.max_active)
measure_released_slots(room.freed + ended + missed, taken)
room.freed = 0
measure_presence(called, called + skipped)
save_room(room, 'head', to_string(high_water_mark), 'pace_clock', now, 'pace_freed', decimal(room.pace_freed),
  'pace_slot_ms', decimal(room.pace_slot_ms), 'pace_since_ms', decimal(room.pace_since_ms),
  'pace_told', decimal(room.pace_told), 'pace_called', decimal(room.pace_called), 'pace_met', decimal(room.pace_met))
return { called, skipped, ended + swept, missed, dropped, stopped_early }
