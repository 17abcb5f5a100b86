-- An operator's change: all of it in one step, and only if nobody changed the room meanwhile.
-- ARGV, after the clock and the run id: the version it was decided on ('' for any), a word that no other change has, who
-- changes, '1' if that may be undone, what the audit log is told beside the values, JSON or '' for nothing; then pairs of
-- field and value. Nobody ('') is the autopilot: its many small changes are
-- neither remembered as the last one nor make anybody's values stale, but it may not decide on stale ones itself.
-- What has gathered until now gathered at the old rate. Where every field has its value already nothing is changed.
-- Returns {1, the new version, the old values in order}, or {0, the room's version} for a stale one; nil where the room
-- isn't open.

local room = load_room()
if not room then
  return false
end
local before = answered(ARGV[4]) -- a change isn't stale by its own doing
if before then
  return before
end
save_room(room)
local version = redis.call('HGET', ROOM, 'version') or '0'
if ARGV[3] ~= '' and ARGV[3] ~= version then
  return { 0, version }
end
local old, was, is = {}, {}, {}
for i = 8, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  local current = redis.call('HGET', ROOM, field) or ''
  old[#old + 1] = current
  if current ~= value then
    was[field], is[field] = current, value
    redis.call('HSET', ROOM, field, value)
  end
end
if next(is) and ARGV[5] ~= '' then
  local change = remember_change(room, ARGV[5], ARGV[6] == '1', was, is)
  redis.call('HSET', ROOM, 'operator_change', change)
  version = redis.call('HGET', ROOM, 'version')
end
if ARGV[7] ~= '' then
  leave_note(room, ARGV[7], was, is)
end
return answer(ARGV[4], { 1, version, old })
