-- Changes limits, state, message or units left while the room is open.
-- ARGV: wall clock or '', then pairs of field and value. What has gathered until now gathered at the old rate.
local room = load_room(ARGV[1])
if not room then
  return false
end
for i = 2, #ARGV, 2 do
  redis.call('HSET', ROOM, ARGV[i], ARGV[i + 1])
end
local rate = tonumber(redis.call('HGET', ROOM, 'rate'))
room.tokens = math.min(room.tokens, burst(rate))
save_room(room)
return 1
