-- A visitor gives the place up, or the session that came of it. ARGV, after the clock and the run id: place, ms a pass
-- may be about, '1' where the visitor has shown one.
-- Only what has or may have a pass is remembered: a place that only waits is given up without a trace. One of an older
-- generation may have been admitted by a store that has lost that.
-- Returns 1 where there was something to give up; nil where the room isn't open.
local room = load_room()
if not room then
  return false
end
local place = current_place(ARGV[3])
if place ~= ARGV[3] then
  redis.call('HDEL', MOVED, ARGV[3])
  redis.call('ZREM', MOVED_UNTIL, ARGV[3])
end
local gone, called = leave_line(place)
local inside = 0
if ARGV[5] == '1' or tonumber(place) <= room.base or redis.call('ZSCORE', ACTIVE, place) then
  inside = end_session(room, place, tonumber(ARGV[4]), 'ended')
end
room.freed = room.freed + called + inside
count('left:left', gone)
count('left:released', inside)
save_room(room)
return gone + inside > 0 and 1 or 0
