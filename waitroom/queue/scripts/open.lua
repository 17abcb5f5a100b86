-- Opens the room or resumes it; idempotent.
-- ARGV: the audit event of values that the settings file changed, JSON with `who`; then pairs of a limit's field and
-- its value in the settings file.
-- A limit takes the file's value if that has changed since it was last read; otherwise a change made at run time stays.
-- A room of an older version is upgraded.
-- Returns the generation. It changes with the server's run id, because a server that was started or promoted may have
-- lost its last writes; tickets of an older generation are looked up before they are accepted.
local audit_event = ARGV[3]

local function create_room()
  local wall = to_string(wall_clock())
  redis.call('HSET', ROOM, 'clock', wall, 'wall', wall, 'pace_clock', wall, unpack(NEW_ROOM))
end

-- Returns the old and the new values of the limits that the file changed.
local function read_file()
  local old, new = {}, {}
  for i = 4, #ARGV, 2 do
    local field, value = ARGV[i], ARGV[i + 1]
    if redis.call('HGET', ROOM, 'file:' .. field) ~= value then
      local current = redis.call('HGET', ROOM, field)
      if current and current ~= value then -- the first value of a limit is no change
        old[field], new[field] = current, value
      end
      redis.call('HSET', ROOM, 'file:' .. field, value, field, value)
    end
  end
  return old, new
end

local function begin_generation(room, run_id)
  if room.seq > room.base then
    redis.call('ZADD', ISSUED_RANGES, to_string(room.seq), to_string(room.base))
    redis.call('ZREMRANGEBYRANK', ISSUED_RANGES, 0, -1 - MAX_RANGES)
  end
  room.generation = math.max(room.wall, room.generation + 1)
  local base = to_string(math.max((room.wall - EPOCH_MS) * PLACES_PER_MS, room.seq))
  redis.call('HSET', ROOM, 'run_id', run_id, 'generation', to_string(room.generation), 'seq', base, 'base', base)
  redis.call('DEL', RANK_INDEX)
end

local known = read_room()
if known then
  save_room(known) -- the tokens accumulated so far are those of the old rate
else
  create_room()
end
local old, new = read_file()
if known and next(new) then
  record_change(known, cjson.decode(audit_event).who, false, old, new)
  enqueue_audit_event(known, audit_event, old, new)
end
local room = read_room()
local run_id = server_run_id()
if room.run_id ~= run_id then
  begin_generation(room, run_id)
end
if (room.schema or 0) < SCHEMA then
  redis.call('HSET', ROOM, 'schema', to_string(SCHEMA))
end
save_room(room)
return to_string(room.generation)
