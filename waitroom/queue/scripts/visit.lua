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
  elseif redis.call('ZREM', AWAY, member) == 1 or (generation ~= room.generation and remember(room, place)) then
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
