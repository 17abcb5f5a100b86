-- What became of tickets whose turn may have come, or whose generation is an older one.
-- ARGV, after the clock and the run id, for each: place, generation, and what for:
--   look    the visitor is told nothing of it
--   tell    the visitor is told the answer
--   claim   a called visitor goes in
--   more    a called visitor is told, and gets the time for it once more
-- A visitor who is told of the turn has `told_ms` from the first time on. Visitors who miss it lose their place ahead:
-- their next visit gives them a new one, behind everybody. The old ticket stands for the new place for as long as it is
-- used, and `keep_ms` longer.
-- Returns for each {state, ms left, new place or 0}: waiting, called (ms left to claim), admitted (ms left until the
-- session's hard end) or unknown; nil where the room isn't open.
local room = load_room()
if not room then
  return false
end
local slot_until = text(room.clock + math.min(room.session_ms, room.session_max_ms) + SLOT_MARGIN_MS)
local keep_until = text(room.clock + room.keep_ms)
local answers, back = {}, {}
local admitted, returned = 0, 0
local seq = room.seq

local function called(member, claim_by, what)
  if not takes_claims(room) or what == 'look' then
    return 'called', math.max(0, claim_by - room.turn_clock)
  end
  if what == 'claim' then
    redis.call('ZREM', CALLED, member)
    redis.call('SREM', MISSED, member)
    redis.call('HDEL', TURNS, member)
    redis.call('ZADD', ACTIVE, slot_until, member)
    redis.call('ZADD', HARD_ENDS, text(room.clock + room.session_max_ms), member)
    admitted = admitted + 1
    return 'admitted', room.session_max_ms
  end
  local turn = redis.call('HGET', TURNS, member)
  if not turn then
    claim_by = math.min(claim_by, room.turn_clock + room.told_ms)
  end
  local becomes = turn or TOLD
  if what == 'more' and turn ~= EXTENDED then
    claim_by = claim_by + room.told_ms
    becomes = EXTENDED
  end
  if becomes ~= turn then
    redis.call('HSET', TURNS, member, becomes)
    redis.call('ZADD', CALLED, text(claim_by), member)
  end
  return 'called', math.max(0, claim_by - room.turn_clock)
end

local function inside(member, slot_end)
  local hard_end = redis.call('ZSCORE', HARD_ENDS, member)
  if not hard_end then -- admitted before hard ends were stored
    hard_end = text(room.clock + room.session_max_ms)
    redis.call('ZADD', HARD_ENDS, hard_end, member)
  end
  local left = math.max(tonumber(hard_end), slot_end - SLOT_MARGIN_MS) - room.clock
  if left > 0 then
    return 'admitted', left
  end
  return 'unknown', 0
end

local function waiting(place)
  back[#back + 1] = place
  return 'waiting', 0
end

-- Out of those who are away. Visitors who were told of the turn and missed it go to the end, and may miss no other one.
local function returns(place, member)
  returned = returned + 1
  if redis.call('HDEL', TURNS, member) == 0 then
    redis.call('ZADD', WAITING, member, member)
    return waiting(place)
  end
  seq = seq + 1
  local new = text(seq)
  redis.call('SREM', MISSED, member)
  redis.call('SADD', MISSED, new)
  redis.call('ZADD', WAITING, new, new)
  redis.call('HSET', MOVED, member, new)
  redis.call('ZADD', MOVED_UNTIL, keep_until, member)
  waiting(seq)
  return 'waiting', 0, seq
end

local function visit(place, generation, what) -- calls itself once, for the new place
  local member = text(place)
  local claim_by = redis.call('ZSCORE', CALLED, member)
  if claim_by then
    return called(member, tonumber(claim_by), what)
  end
  local slot_end = redis.call('ZSCORE', ACTIVE, member)
  if slot_end then
    return inside(member, tonumber(slot_end))
  end
  if redis.call('ZSCORE', WAITING, member) then
    return waiting(place)
  end
  if redis.call('ZREM', AWAY, member) == 1 then
    return returns(place, member)
  end
  local new = redis.call('HGET', MOVED, member)
  if new then
    redis.call('ZADD', MOVED_UNTIL, keep_until, member)
    local state, left = visit(tonumber(new), room.generation, what)
    return state, left, state ~= 'unknown' and tonumber(new) or 0
  end
  if generation ~= room.generation and remember(room, place) then
    redis.call('ZADD', WAITING, member, member)
    returned = returned + 1
    return waiting(place)
  end
  return 'unknown', 0
end

for i = 3, #ARGV, 3 do
  local state, left, new = visit(tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2])
  answers[#answers + 1] = { state, left, new or 0 }
end
mark_seen(room, back)
count('admitted', admitted)
count('returned', returned)
save_room(room, 'seq', text(seq))
return answers
