-- Tells the store what a worker has seen of the room in an older generation.
-- ARGV: the generation; how many changes it had counted; the newest place; how many waited or were called, and how many
-- were inside; the shuffled ranges, as in `draws`.
-- The recovery begins if the current generation began with less.
-- Returns 1 if it did, else 0.
local generation, changes, place = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local waiting, active = tonumber(ARGV[6]), tonumber(ARGV[7])

local room = load_room()
if not room then
  return false
end
local opened = redis.call('HMGET', ROOM, 'opened_changes', 'opened_seq')
local lost = 0
if generation < room.generation and opened[1] and
  (changes > tonumber(opened[1]) or place > tonumber(opened[2])) then
  lost = 1
  room.changes = math.max(room.changes, changes)
  begin_recovery(room, waiting, active)
  restore_draws(room, ARGV[8])
  close_stale_draws(room)
end
save_room(room)
return lost
