-- Opens the room or resumes it; idempotent.
-- ARGV: the audit event of values that the settings file changed, JSON with `who`; what the caller has seen of the room,
-- as in recover.lua; the definitions of the events in the settings file, JSON; then pairs of a limit's field and its
-- value in the settings file.
-- A limit or an event takes the file's value if that has changed since it was last read; otherwise a change made at run
-- time stays. While an event runs, a new limit of the file counts from its end on if the event overrides the limit.
-- A room of an older version is upgraded.
-- Returns the generation. It changes with the server's run id, because a server that was started or promoted may have
-- lost its last writes; tickets of an older generation are looked up before they are accepted. It also changes if a key
-- is missing, or if the room is behind what the caller has seen. Then writes were lost, and the recovery begins.
local audit_event = ARGV[3]
local seen_changes, seen_place, seen_waiting, seen_active =
  tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local seen_draws, file_events = ARGV[9], cjson.decode(ARGV[10])

local known = read_room()

local function create_room()
  local wall = to_string(wall_clock())
  redis.call('HSET', ROOM, 'clock', wall, 'wall', wall, 'pace_clock', wall, unpack(NEW_ROOM))
end

-- Returns the old and the new values of the limits that the file changed.
local function read_file()
  local old, new = {}, {}
  local stored = redis.call('HGET', ROOM, 'before_event')
  local before = stored and cjson.decode(stored)
  local event = before and read_event(redis.call('HGET', ROOM, 'event')) or { limits = {} }
  for i = 11, #ARGV, 2 do
    local field, value = ARGV[i], ARGV[i + 1]
    if redis.call('HGET', ROOM, 'file:' .. field) ~= value then
      local current = redis.call('HGET', ROOM, field)
      if before then
        before[field] = value
      end
      if not event.limits[field] then
        if current and current ~= value then -- the first value of a limit is no change
          old[field], new[field] = current, value
        end
        redis.call('HSET', ROOM, field, value)
      end
      redis.call('HSET', ROOM, 'file:' .. field, value)
    end
  end
  if before then
    redis.call('HSET', ROOM, 'before_event', cjson.encode(before))
  end
  return old, new
end

-- Events that the store has lost begin again, with the limits from before.
local function end_lost_event(room)
  local changes = { old = {}, new = {} }
  put_limits_back(room, changes)
  if next(changes.new) then
    record_change(room, 'the schedule', false, changes.old, changes.new)
    enqueue_audit_event(room, SCHEDULE, changes.old, changes.new)
  end
end

-- An event in progress takes its steps again in a room that the store has lost. Returns whether there are events.
local function restart_event()
  local stored = redis.call('HVALS', EVENTS)
  for _, text in ipairs(stored) do
    local event = cjson.decode(text)
    if event.phase ~= 'ended' then
      event.phase = 'scheduled'
      write_event(event)
    end
  end
  return #stored > 0
end

-- Removes an event that the settings file no longer has. If it kept the room closed, the room stays closed until the next
-- event, or an operator, opens it: another gateway may still have the old file.
local function remove_event(room, event, audit_event)
  redis.call('HDEL', EVENTS, event.name)
  if not known then
    return
  end
  local changes = { old = { event = '', event_phase = event.phase }, new = { event = event.name, event_phase = 'removed' } }
  if room.event == event.name and room.state ~= room.own_state then
    set_state(room, changes, 'closed', 'schedule')
  end
  record_change(room, cjson.decode(audit_event).who, false, changes.old, changes.new)
  enqueue_audit_event(room, audit_event, changes.old, changes.new)
end

local function unlisted_events(listed)
  local events = {}
  for _, text in ipairs(redis.call('HVALS', EVENTS)) do
    local event = cjson.decode(text)
    if event.source == 'file' and not listed[event.name] then
      events[#events + 1] = event
    end
  end
  table.sort(events, function(one, other) return one.name < other.name end)
  return events
end

-- Takes in the events of the settings file. Those that it no longer has are removed, unless they have begun.
local function read_events(room, audit_event)
  local changed, listed = not known and restart_event(), {}
  for _, text in ipairs(file_events) do
    local definition = cjson.decode(text)
    -- Another secret makes another seed, and is no change of the event.
    local digest = redis.sha1hex((string.gsub(text, '"seed": "%x*"', '')))
    local event = read_event(definition.name)
    listed[definition.name] = true
    if not event or event.digest ~= digest then
      local changes = { old = {}, new = {} }
      event = define_event(room, definition, 'file', changes)
      event.source, event.digest = 'file', digest
      write_event(event)
      changed = true
      if known then
        record_change(room, cjson.decode(audit_event).who, false, changes.old, changes.new)
        enqueue_audit_event(room, audit_event, changes.old, changes.new)
      end
    end
  end
  for _, event in ipairs(unlisted_events(listed)) do
    if event.phase == 'scheduled' then
      remove_event(room, event, audit_event)
      changed = true
    elseif event.phase == 'ended' then
      event.source = 'operator' -- forgotten in time, like those
      write_event(event)
    end
  end
  if changed or room.event ~= '' and redis.call('HEXISTS', EVENTS, room.event) == 0 then
    redis.call('HINCRBY', ROOM, 'events_version', 1)
    choose_event(room)
  end
end

-- A room that the store has lost is as the last event left it.
local function resume_after_events(room)
  local last
  for _, text in ipairs(redis.call('HVALS', EVENTS)) do
    local event = cjson.decode(text)
    if event.phase == 'ended' and not event.cancelled and ended_later(event, last) then
      last = event
    end
  end
  if last then
    apply_after(room, last, { old = {}, new = {} }, last.ended_at)
    room.state = effective_state(room)
  end
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

local fates, others = existing_keys()
local lost = known and not known.intact or not known and fates + others > 0
local fates_lost = known and known.fates_lost
if known then
  if known.event ~= '' and redis.call('EXISTS', EVENTS) == 0 then
    end_lost_event(known)
  end
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
room.known_seq = known and known.seq or 0
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
restore_draws(room, seen_draws)
read_events(room, audit_event)
if not known then
  resume_after_events(room)
end
run_schedule(room)
close_stale_draws(room)
local schema = (redis.call('EXISTS', EVENTS) == 1 or room.draws ~= '') and SCHEMA or SCHEMA_WITHOUT_EVENTS
if room.schema ~= schema then
  redis.call('HSET', ROOM, 'schema', to_string(schema))
end
save_room(room)
return to_string(room.generation)
