-- Opens the room or resumes it; idempotent.
-- ARGV: the audit event of values that the settings file changed, JSON with `who`; what the caller has seen of the room,
-- as in recover.lua; then pairs of a limit's field and its value in the settings file.
-- A limit takes the file's value if that has changed since it was last read; otherwise a change made at run time stays.
-- A room of an older version is upgraded.
-- Returns the generation. It changes with the server's run id, because a server that was started or promoted may have
-- lost its last writes; tickets of an older generation are looked up before they are accepted. It also changes if a key
-- is missing, or if the room is behind what the caller has seen. Then writes were lost, and the recovery begins.
local audit_event = ARGV[3]
local seen_changes, seen_place, seen_waiting, seen_active =
  tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local function create_room()
  local wall = to_string(wall_clock())
  redis.call('HSET', ROOM, 'clock', wall, 'wall', wall, 'pace_clock', wall, unpack(NEW_ROOM))
end

-- Returns the old and the new values of the limits that the file changed.
local function read_file()
  local old, new = {}, {}
  for i = 9, #ARGV, 2 do
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

local function begin_generation(room, run_id, fates_lost)
  redis.call('HSET', ROOM, 'opened_changes', to_string(room.changes), 'opened_seq', to_string(room.seq),
    'opened_at', to_string(room.clock))
  if fates_lost then
    -- Nothing distinguishes a lost place from one whose visitor has had the turn: all tickets count again.
    redis.call('DEL', ISSUED_RANGES)
    redis.call('HSET', ROOM, 'recovered_in', to_string(math.max(room.wall, room.generation + 1)), 'opened_seq', '0')
  elseif room.seq > room.base then
    redis.call('ZADD', ISSUED_RANGES, to_string(room.seq), to_string(room.base))
    redis.call('ZREMRANGEBYRANK', ISSUED_RANGES, 0, -1 - MAX_RANGES)
  end
  room.generation = math.max(room.wall, room.generation + 1)
  room.base = math.max((room.wall - EPOCH_MS) * PLACES_PER_MS, room.seq, seen_place)
  room.seq = room.base
  local base = to_string(room.base)
  redis.call('HSET', ROOM, 'run_id', run_id, 'generation', to_string(room.generation), 'seq', base, 'base', base)
  redis.call('DEL', RANK_INDEX)
end

local known = read_room()
local fates, others = existing_keys()
local lost = known and not known.intact or not known and fates + others > 0
local fates_lost = known and known.fates_lost
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
local behind = seen_changes > room.changes or seen_place > room.seq
if room.run_id ~= run_id or lost or behind then
  local interrupted = get_recovery(room)
  if interrupted and interrupted.lost then
    lost = true
    seen_waiting = math.max(seen_waiting, interrupted.expected_waiting)
    seen_active = math.max(seen_active, interrupted.expected_active)
  end
  begin_generation(room, run_id, fates_lost)
  room.changes = math.max(room.changes, seen_changes)
  room.recovery = nil
  if lost or behind then
    begin_recovery(room, seen_waiting, seen_active)
  else
    room.resume_at = known and room.clock + SETTLE_MS or 0
  end
end
if (room.schema or 0) < SCHEMA then
  redis.call('HSET', ROOM, 'schema', to_string(SCHEMA))
end
save_room(room)
return to_string(room.generation)
