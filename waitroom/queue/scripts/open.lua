-- Opens the room, or takes it up where it was left. Idempotent.
-- ARGV: wall clock or '', the store's run id, then pairs of limit and value as the settings file has them.
-- A limit takes the file's value when the file changed since it was last read; else a change made at run time stays.
-- Returns the generation: it changes with the store's run id, because a store that was started or promoted may have
-- lost what it answered last. Tickets of an older generation are looked up before they are believed in.
local EPOCH_MS = 1767225600000 -- 2026-01-01
local PLACES_PER_MS = 100      -- more than anyone joins, so that a later generation's places all come after

local function wall_clock(given)
  if given ~= '' then
    return tonumber(given)
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local wall = wall_clock(ARGV[1])
local known = redis.call('HMGET', ROOM, 'run_id', 'generation', 'seq', 'head', 'clock')
if not known[5] then
  redis.call('HSET', ROOM, 'clock', text(wall), 'wall', text(wall), 'state', 'open', 'head', '0',
    'tokens', '1', 'pace_called', '0', 'pace_ms', '0', 'message', '', 'remaining', '')
end
for i = 3, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  if redis.call('HGET', ROOM, 'file:' .. name) ~= value then
    redis.call('HSET', ROOM, 'file:' .. name, value, name, value)
  end
end
if known[1] ~= ARGV[2] then
  local generation = math.max(wall, tonumber(known[2] or 0) + 1)
  local base = math.max((wall - EPOCH_MS) * PLACES_PER_MS, tonumber(known[3] or 0))
  redis.call('HSET', ROOM, 'run_id', ARGV[2], 'generation', text(generation), 'seq', text(base), 'base', text(base),
    'lost_after', known[4] or '-1')
  redis.call('DEL', TABLE)
end
local room = load_room(ARGV[1])
save_room(room)
return text(room.generation)
