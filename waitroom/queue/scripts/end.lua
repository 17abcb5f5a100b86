-- Ends a session by an operator's word. ARGV, after the clock and the run id: the session, ms a pass for it may still be
-- about, what the audit log is told, a word that no other such call has.
-- Returns 1, or 0 where nobody is inside with it: a number that nobody has yet must not be ended before it is anybody's.
-- Nil where the room isn't open.
local room = load_room()
if not room then
  return false
end
local before = answered(ARGV[6])
if before then
  return before
end
local inside = redis.call('ZSCORE', ACTIVE, ARGV[3]) and 1 or 0
if inside == 1 then
  local _, called = leave_line(ARGV[3])
  local ended = end_session(room, ARGV[3], tonumber(ARGV[4]), 'ended')
  room.freed = room.freed + called + ended
  count('left:ended', ended)
  leave_note(room, ARGV[5], {}, {})
end
save_room(room)
return answer(ARGV[6], inside)
