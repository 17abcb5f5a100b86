-- Gives up a place or its session, at the visitor's request.
-- ARGV: place; ms that a pass for it may remain in circulation; '1' if the visitor has presented a pass.
-- Only places that have or may have a pass are recorded as ended; one of an older generation may have been admitted by
-- a store that has lost it. A place that only waits leaves no trace.
-- Returns 1 if there was something to give up, else 0.
local ticket_place, pass_ms, has_pass = ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'

local room = load_room()
if not room then
  return false
end
local place = current_place(ticket_place)
if place ~= ticket_place then
  redis.call('HDEL', MOVED, ticket_place)
  redis.call('ZREM', MOVED_UNTIL, ticket_place)
end
local left, called = leave_queue(place)
local is_session = has_pass or redis.call('ZSCORE', ACTIVE, place)
local ended = 0
if is_session or tonumber(place) <= room.base then
  ended = end_session(room, place, pass_ms, 'ended')
end
if is_session then
  report(room, tonumber(place), 'active')
elseif left == 1 then
  report(room, tonumber(place), 'waiting')
end
room.freed = room.freed + called + ended
count('left:left', left)
count('left:released', ended)
count_change(room, left + ended > 0)
save_room(room)
return left + ended > 0 and 1 or 0
