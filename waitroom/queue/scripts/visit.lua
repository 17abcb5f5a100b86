-- What became of tickets whose turn may have come, or whose generation is an older one.
-- ARGV, after the clock and the run id, for each: place, generation, '1' to claim a called one.
-- Returns for each {state, ms left to claim}: waiting, called, admitted or unknown; nil where the room isn't open.
local room = load_room()
if not room then
  return false
end
local slot_until = text(room.clock + room.session_ms + SLOT_MARGIN_MS)
local answers, back = {}, {}
local admitted, returned = 0, 0

-- A place of an older generation that isn't here was lost with the store, unless what has survived of it once gave
-- that place, or has taken it back before: then its holder has had their turn, or gave it up. Each is taken back once.
local function was_lost(place, generation)
  if generation == room.generation or place > room.base or redis.call('ZSCORE', ENDED, text(place)) then
    return false
  end
  local given_after = redis.call('ZRANGEBYSCORE', GIVEN, text(place), '+inf', 'LIMIT', 0, 1)[1]
  if given_after and place > tonumber(given_after) then
    return false
  end
  return redis.call('SETBIT', TAKEN_BACK .. ':' .. text(math.floor(place / CHUNK)), place % CHUNK, 1) == 0
end

for i = 3, #ARGV, 3 do
  local place, generation, claim = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2] == '1'
  local member = text(place)
  local state, left = 'unknown', 0
  local claim_by = redis.call('ZSCORE', CALLED, member)
  if claim_by then
    state, left = 'called', math.max(0, tonumber(claim_by) - room.clock)
    if claim and (room.state == 'open' or room.state == 'paused') then
      redis.call('ZREM', CALLED, member)
      redis.call('SREM', MISSED, member)
      redis.call('ZADD', ACTIVE, slot_until, member)
      admitted = admitted + 1
      state, left = 'admitted', 0
    end
  elseif redis.call('ZSCORE', ACTIVE, member) then
    state = 'admitted'
  elseif redis.call('ZSCORE', WAITING, member) then
    state = 'waiting'
    back[#back + 1] = place
  elseif redis.call('ZREM', AWAY, member) == 1 or was_lost(place, generation) then
    redis.call('ZADD', WAITING, member, member)
    state = 'waiting'
    returned = returned + 1
    back[#back + 1] = place
  end
  answers[#answers + 1] = { state, left }
end
mark_seen(room, back)
count('admitted', admitted)
count('returned', returned)
save_room(room)
return answers
