-- Changes an event for an operator.
-- ARGV: the version that the change is based on, '' for any; idempotency key; the author; the audit event, JSON; the
-- action; the event's name; for `set` the definition, JSON.
--   set     defines a new event, or changes one that hasn't ended
--   start   begins the sale now
--   end     ends the running sale now
--   cancel  the event won't take place. If it kept the room closed, an operator opens the room
-- Returns {1, the new version}, {0, the current version} if the change is stale, or {2, why it can't be done}: unknown,
-- ended, not_started, started, busy (another event is in progress) or too_many.
local expected, idempotency_key, who, audit_event, action, name = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local room = load_room()
if not room then
  return false
end
local cached = cached_reply(idempotency_key)
if cached then
  return cached
end
local version = redis.call('HGET', ROOM, 'version') or '0'
if expected ~= '' and expected ~= version then
  save_room(room)
  return { 0, version }
end
local changes = { old = { event = '' }, new = { event = name } }
local event = read_event(name)

-- Makes room for a new event: the one that ended first is forgotten, unless the settings file has it. Returns whether there is room.
local function has_room()
  if redis.call('HLEN', EVENTS) < MAX_EVENTS then
    return true
  end
  local first
  for _, text in ipairs(redis.call('HVALS', EVENTS)) do
    local one = cjson.decode(text)
    if one.phase == 'ended' and one.source ~= 'file' and (not first or one.ended_at < first.ended_at) then
      first = one
    end
  end
  return first and redis.call('HDEL', EVENTS, first.name) == 1
end

local function cancel()
  local closes = room.event == name and room.state ~= room.own_state
  if event.phase == 'prequeue' then
    close_draw(room)
  end
  if closes then
    set_state(room, changes, 'closed', '')
  end
  changes.old.event_phase, changes.new.event_phase = event.phase, 'cancelled'
  event.phase, event.cancelled, event.ended_at = 'ended', true, room.wall
end

local function change()
  if action == 'set' then
    if not event and not has_room() then
      return 'too_many'
    end
    event = define_event(room, cjson.decode(ARGV[9]), 'operator', changes)
    return nil
  end
  if not event then
    return 'unknown'
  end
  if event.phase == 'ended' then
    return 'ended'
  end
  if action == 'end' then
    if event.phase ~= 'running' then
      return 'not_started'
    end
    event['end'] = room.wall
  elseif event.phase == 'running' then
    return 'started'
  elseif action == 'cancel' then
    cancel()
  elseif room.event ~= name and (room.event_phase == 'prequeue' or room.event_phase == 'running') then
    return 'busy'
  else
    event.start = room.wall
    if event.phase == 'scheduled' then
      event.prequeue = 0
    end
  end
end

local refusal = change()
if refusal then
  save_room(room)
  return reply(idempotency_key, { 2, refusal })
end
write_event(event)
record_change(room, who, false, changes.old, changes.new)
enqueue_audit_event(room, audit_event, changes.old, changes.new)
redis.call('HINCRBY', ROOM, 'events_version', 1)
redis.call('HSET', ROOM, 'schema', to_string(SCHEMA))
choose_event(room)
run_schedule(room)
save_room(room)
return reply(idempotency_key, { 1, redis.call('HGET', ROOM, 'version') })
