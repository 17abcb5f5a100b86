-- Opens the room, or takes it up where it was left. Idempotent.
-- ARGV, after the clock and the run id: what the audit log is told of values that the file changed, JSON with `who`; then
-- pairs of limit and value as the settings file has them.
-- A limit takes the file's value when the file changed since it was last read; else a change made at run time stays.
-- Returns the generation: it changes with the server's run id, because a server that was started or promoted may have
-- lost what it answered last. Tickets of an older generation are looked up before they are believed in.
local EPOCH_MS = 1767225600000 -- 2026-01-01
local PLACES_PER_MS = 100      -- more than anyone joins, so that a later generation's places all come after
local SPANS = 1000             -- of places given in older generations are remembered

local room = read_room()
if room then
  save_room(room) -- what has gathered until now gathered at the old rate
else
  local wall = text(wall_clock())
  redis.call('HSET', ROOM, 'clock', wall, 'wall', wall, 'state', 'open', 'head', '0', 'tokens', '1', 'run_id', '',
    'generation', '0', 'base', '0', 'seq', '0', 'message', '', 'remaining', '', 'freed', '0', 'pace_clock', wall,
    'pace_freed', '0', 'pace_slot_ms', '0', 'pace_since_ms', '0', 'pace_told', '0', 'pace_called', '0', 'pace_met', '0',
    'version', '0', 'blocked_ms', '0')
end
local old, new = {}, {}
for i = 4, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  if redis.call('HGET', ROOM, 'file:' .. name) ~= value then
    local current = redis.call('HGET', ROOM, name)
    if current and current ~= value then -- a limit that the room never had is no change of it
      old[name], new[name] = current, value
    end
    redis.call('HSET', ROOM, 'file:' .. name, value, name, value)
  end
end
if room and next(new) then
  remember_change(room, cjson.decode(ARGV[3]).who, false, old, new)
  leave_note(room, ARGV[3], old, new)
end
room = read_room()
local run_id = server_run_id()
if room.run_id ~= run_id then
  if room.seq > room.base then
    redis.call('ZADD', GIVEN, text(room.seq), text(room.base))
    redis.call('ZREMRANGEBYRANK', GIVEN, 0, -1 - SPANS)
  end
  room.generation = math.max(room.wall, room.generation + 1)
  local base = text(math.max((room.wall - EPOCH_MS) * PLACES_PER_MS, room.seq))
  redis.call('HSET', ROOM, 'run_id', run_id, 'generation', text(room.generation), 'seq', base, 'base', base)
  redis.call('DEL', TABLE)
end
save_room(room)
return text(room.generation)
