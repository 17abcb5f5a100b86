-- Looks up tickets whose turn may have come, or whose generation is an older one.
-- ARGV: for each, the place, the generation, the purpose, how long the visitor has waited, and how long the page said
-- at first, both in seconds:
--   peek    the visitor doesn't see the reply
--   notify  the visitor sees the reply
--   claim   a called visitor enters
--   more    the visitor sees the reply, and a called one gets the time for the turn once more
-- From the first reply that notifies a visitor of the turn, it lasts `told_ms`. Visitors who were notified and miss it
-- lose their place ahead: their next visit gives them a new one, behind all others. The old ticket stands for the new
-- place for as long as it is used, and `keep_ms` longer.
-- Returns for each {state, ms left, new place or 0}: waiting, called (ms left to claim), admitted (ms left until the
-- session's hard end) or unknown.
local room = load_room()
if not room then
  return false
end
local slot_until = to_string(room.clock + math.min(room.session_ms, room.session_max_ms) + SLOT_MARGIN_MS)
local keep_until = to_string(room.clock + room.keep_ms)
local seen = {}
local admitted, returned = 0, 0
local seq = room.seq

-- Classes of times whose bounds grow by a fifth: the number of the class of some seconds.
local function class_of(seconds)
  return to_string(math.floor(math.log(seconds + 1) / math.log(1.2)))
end

local function enter(member, waited, promised)
  redis.call('ZREM', CALLED, member)
  redis.call('SREM', MISSED, member)
  redis.call('HDEL', TURNS, member)
  redis.call('ZADD', ACTIVE, slot_until, member)
  redis.call('ZADD', HARD_ENDS, to_string(room.clock + room.session_max_ms), member)
  admitted = admitted + 1
  count_event(room, 'wait:' .. class_of(waited), 1)
  if promised > 0 then
    count_event(room, 'eta:' .. class_of(math.abs(waited - promised)), 1)
  end
  return 'admitted', room.session_max_ms
end

local function visit_called(member, claim_by, purpose, waited, promised)
  report(room, tonumber(member), 'waiting')
  if not accepts_claims(room) or purpose == 'peek' then
    return 'called', math.max(0, claim_by - room.turn_clock)
  end
  if purpose == 'claim' then
    return enter(member, waited, promised)
  end
  local turn = redis.call('HGET', TURNS, member)
  if not turn then
    claim_by = math.min(claim_by, room.turn_clock + room.told_ms)
  end
  local new_turn = turn or NOTIFIED
  if purpose == 'more' and turn ~= EXTENDED then
    claim_by = claim_by + room.told_ms
    new_turn = EXTENDED
  end
  if new_turn ~= turn then
    redis.call('HSET', TURNS, member, new_turn)
    redis.call('ZADD', CALLED, to_string(claim_by), member)
  end
  return 'called', math.max(0, claim_by - room.turn_clock)
end

local function visit_active(member, slot_end)
  local hard_end = redis.call('ZSCORE', HARD_ENDS, member)
  if not hard_end then -- admitted before hard ends were stored
    hard_end = to_string(room.clock + room.session_max_ms)
    redis.call('ZADD', HARD_ENDS, hard_end, member)
  end
  local left = math.max(tonumber(hard_end), slot_end - SLOT_MARGIN_MS) - room.clock
  if left > 0 then
    report(room, tonumber(member), 'active')
    return 'admitted', left
  end
  return 'unknown', 0
end

local function visit_waiting(place)
  report(room, place, 'waiting')
  seen[#seen + 1] = place
  return 'waiting', 0
end

-- Puts an away visitor back into the queue. One who was notified of the turn and missed it goes to the end, and loses
-- the new place with the next turn missed.
local function come_back(place, member)
  returned = returned + 1
  if redis.call('HDEL', TURNS, member) == 0 then
    add_waiting(room, { member })
    return visit_waiting(place)
  end
  seq = seq + 1
  local new = to_string(seq)
  redis.call('SREM', MISSED, member)
  redis.call('SADD', MISSED, new)
  add_waiting(room, { new })
  redis.call('HSET', MOVED, member, new)
  redis.call('ZADD', MOVED_UNTIL, keep_until, member)
  visit_waiting(seq)
  return 'waiting', 0, seq
end

local function visit(place, generation, purpose, waited, promised) -- calls itself once, for the new place
  local member = to_string(place)
  local claim_by = redis.call('ZSCORE', CALLED, member)
  if claim_by then
    return visit_called(member, tonumber(claim_by), purpose, waited, promised)
  end
  local slot_end = redis.call('ZSCORE', ACTIVE, member)
  if slot_end then
    return visit_active(member, tonumber(slot_end))
  end
  if redis.call('ZSCORE', WAITING, member) then
    return visit_waiting(place)
  end
  if redis.call('ZREM', AWAY, member) == 1 then
    return come_back(place, member)
  end
  local new = redis.call('HGET', MOVED, member)
  if new then
    redis.call('ZADD', MOVED_UNTIL, keep_until, member)
    local state, left = visit(tonumber(new), room.generation, purpose, waited, promised)
    return state, left, state ~= 'unknown' and tonumber(new) or 0
  end
  if generation ~= room.generation and claim_lost_place(room, place) then
    add_waiting(room, { member })
    returned = returned + 1
    return visit_waiting(place)
  end
  return 'unknown', 0
end

local results = {}
for i = FIRST, #ARGV, 5 do
  local state, left, new = visit(tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2], tonumber(ARGV[i + 3]),
    tonumber(ARGV[i + 4]))
  results[#results + 1] = { state, left, new or 0 }
end
mark_seen(room, seen)
count('admitted', admitted)
count('returned', returned)
count_change(room, admitted + returned > 0)
save_room(room, 'seq', to_string(seq))
return results
