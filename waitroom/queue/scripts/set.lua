-- Changes limits, state, message or units left while the room is open, whatever its version.
-- ARGV, after the clock and the run id: what the audit log is told beside the values, JSON with `who`; then pairs of field
-- and value. What has gathered until now gathered at the old rate. The units left are news and no change.
local room = load_room()
if not room then
  return false
end
local old, new = {}, {}
for i = 4, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  local current = redis.call('HGET', ROOM, field) or ''
  if field ~= 'remaining' and current ~= value then
    old[field], new[field] = current, value
  end
  redis.call('HSET', ROOM, field, value)
end
if next(new) then
  remember_change(room, cjson.decode(ARGV[3]).who, false, old, new)
  leave_note(room, ARGV[3], old, new)
end
save_room(room)
return 1
