-- A visitor gives the place up, or the session that came of it. ARGV, after the clock and the run id: place, ms a pass may be about.
-- Returns 1 where there was something to give up; nil where the room isn't open.
local room = load_room()
if not room then
  return false
end
local place = ARGV[3]
local gone, called = leave_line(place)
local inside = end_session(room, place, tonumber(ARGV[4]))
room.freed = room.freed + called + inside
count('left:left', gone)
count('left:released', inside)
save_room(room)
return gone + inside > 0 and 1 or 0
