-- Changes limits, state, message or units left while the room is open.
-- ARGV, after the clock and the run id: pairs of field and value. What has gathered until now gathered at the old rate.
local room = load_room()
if not room then
  return false
end
for i = 3, #ARGV, 2 do
  redis.call('HSET', ROOM, ARGV[i], ARGV[i + 1])
end
save_room(room)
return 1
