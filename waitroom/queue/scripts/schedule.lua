-- Events: the steps from one phase to the next. Shared by all scripts, after common.lua.
-- The event that counts now is named in the room's fields; it is the running one, else the next, else the last. The
-- first script that runs after a phase was due takes the step, whichever client calls it, so it is taken exactly once.
-- A phase that was reached is recorded, and no clock that goes back undoes it.

local SCHEDULE = '{"who":"the schedule","via":"schedule","action":"event"}'

local function read_event(name)
  local text = name ~= '' and redis.call('HGET', EVENTS, name)
  return text and cjson.decode(text) or nil
end

local function write_event(event)
  redis.call('HSET', EVENTS, event.name, cjson.encode(event))
end

-- Sets a field of the room, and adds its old and new value to `changes` if it differs.
local function set_field(room, changes, field, value)
  local current = redis.call('HGET', ROOM, field) or ''
  if current ~= value then
    redis.call('HSET', ROOM, field, value)
    changes.old[field], changes.new[field] = current, value
  end
  if field == 'state' then
    room.own_state = value
  elseif TEXT_FIELDS[field] then
    room[field] = value
  else
    room[field] = tonumber(value)
  end
  if field == 'rate' then
    room.tokens = math.min(room.tokens, burst(room.rate))
  end
end

local function set_state(room, changes, state, state_by)
  set_field(room, changes, 'state', state)
  room.state_by = state_by
  redis.call('HSET', ROOM, 'state_by', state_by)
end

local function set_number(room, field, number)
  room[field] = number
  redis.call('HSET', ROOM, field, to_string(number))
end

local function totals()
  local found = {}
  local fields = redis.call('HGETALL', ROOM)
  for i = 1, #fields, 2 do
    local name = string.match(fields[i], '^total:(.*)')
    if name then
      found[name] = tonumber(fields[i + 1])
    end
  end
  return found
end

-- Counts something that the report of the running event shows.
local function count_event(room, name, by)
  if room.event_phase == 'running' and by > 0 then
    redis.call('HINCRBY', EVENT_STATS, name, by)
  end
end

local function raise_event_peak(room, name, value)
  if room.event_phase == 'running' and value > (tonumber(redis.call('HGET', EVENT_STATS, name)) or 0) then
    redis.call('HSET', EVENT_STATS, name, to_string(value))
  end
end

-- A place that is greater than all that were issued before a time.
local function place_at(wall)
  return math.max(0, (wall - EPOCH_MS) * PLACES_PER_MS)
end

-- The newest place of an event that ended at a time. If that was before this generation, it is what the store knew when
-- the room was opened, or what the time tells: places that are issued after the event are therefore greater than it.
local function end_places(room, ended_at)
  if ended_at < room.generation then
    return math.min(room.base, math.max(place_at(ended_at), room.known_seq or 0))
  end
  set_number(room, 'seq', math.max(room.seq, place_at(ended_at)))
  return room.seq
end

local function save_draws(room, list)
  room.draws = table.concat(list, ' ', math.max(1, #list - MAX_DRAWS + 1))
  room.draw_list = nil
  redis.call('HSET', ROOM, 'draws', room.draws)
end

local function split(text)
  local parts = {}
  for part in string.gmatch(text, '%S+') do
    parts[#parts + 1] = part
  end
  return parts
end

local function open_draw(room, seed)
  if not string.find(room.draws, seed, 1, true) then -- a store that went back may have it from a worker
    local list = split(room.draws)
    list[#list + 1] = to_string(room.seq) .. '::' .. seed
    save_draws(room, list)
  end
end

-- From now on newcomers stand behind the shuffled places.
local function close_draw(room)
  local list = split(room.draws)
  for i, part in ipairs(list) do
    local first, seed = string.match(part, '^(%d+)::(%x+)$')
    if first then
      set_number(room, 'seq', math.max(room.seq, tonumber(first) + SHUFFLE_SPAN))
      list[i] = first .. ':' .. to_string(room.seq) .. ':' .. seed
    end
  end
  save_draws(room, list)
end

-- Lifts a sold-out state, or one that the schedule has set. A room that was paused when its stock ran out stays so.
local function lift_state(room, changes)
  local paused = room.state_by == 'stock' and room.state_before == 'paused'
  set_state(room, changes, paused and 'paused' or 'open', '')
end

-- Nothing of the event before may count in this one.
local function open_event(room, changes)
  set_number(room, 'void_place', math.max(room.void_place, room.ended_place))
  if room.own_state == 'sold_out' or room.state_by ~= '' then
    lift_state(room, changes)
  end
end

local function open_prequeue(room, event, changes)
  open_event(room, changes)
  if event.method == 'random' then
    open_draw(room, event.seed)
  end
  event.prequeue_at = room.wall
  event.begin = totals()
end

-- The totals at the start. Visitors who joined or left during the prequeue took part in the event.
local function totals_at_start(event)
  local begin = totals()
  if event.phase == 'prequeue' then
    for _, name in ipairs({ 'joined', 'left:left', 'left:away' }) do
      begin[name] = event.begin[name]
    end
  end
  return begin
end

local function start_event(room, event, changes)
  if event.phase == 'prequeue' then
    close_draw(room)
  else
    open_event(room, changes)
  end
  local before = {}
  for _, field in ipairs(EVERY_LIMIT) do
    before[field] = redis.call('HGET', ROOM, field) or ''
  end
  redis.call('HSET', ROOM, 'before_event', cjson.encode(before))
  for field, value in pairs(event.limits) do
    set_field(room, changes, field, value)
  end
  if event.units >= 0 then
    set_field(room, changes, 'remaining', to_string(event.units))
  elseif room.remaining == '0' then
    set_field(room, changes, 'remaining', '')
  end
  set_number(room, 'reopened_at', 0)
  begin_stock(room.wall)
  redis.call('DEL', EVENT_STATS)
  event.begin = totals_at_start(event)
  event.started_at = room.wall
end

-- The places of the event are worth nothing any more. UNLINK frees the memory in the background.
local function void_queue(room)
  local called = redis.call('ZCARD', CALLED)
  local gone = redis.call('ZCARD', WAITING) + called + redis.call('ZCARD', AWAY)
  redis.call('UNLINK', WAITING, CALLED, AWAY, MISSED, TURNS, MOVED, MOVED_UNTIL, RANK_INDEX)
  room.freed = room.freed + called
  count('left:event_ended', gone)
  count_change(room, gone > 0)
  set_number(room, 'void_place', math.max(room.void_place, room.ended_place))
  set_number(room, 'head', math.max(room.head, room.seq)) -- so that workers look up the tickets of these places
end

-- The room after an event, by `after`. A room that a person has closed stays so, a paused one if the event leaves it
-- open.
local function apply_after(room, event, changes, ended_at)
  set_number(room, 'ended_place', math.max(room.ended_place, end_places(room, ended_at)))
  if event.after == 'open' then
    if room.own_state == 'sold_out' then
      lift_state(room, changes)
    end
    if room.remaining == '0' then
      set_field(room, changes, 'remaining', '')
    end
  else
    if room.own_state ~= 'closed' or room.state_by ~= '' then
      set_state(room, changes, event.after, 'schedule')
    end
    void_queue(room)
  end
end

-- The limits that were in force before the event.
local function put_limits_back(room, changes)
  for field, value in pairs(cjson.decode(redis.call('HGET', ROOM, 'before_event') or '{}')) do
    set_field(room, changes, field, value)
  end
  redis.call('HDEL', ROOM, 'before_event')
end

local function end_event(room, event, changes, ended_at)
  put_limits_back(room, changes)
  set_number(room, 'reopened_at', 0)
  apply_after(room, event, changes, ended_at)
  event.totals = totals()
  for name, value in pairs(event.totals) do
    event.totals[name] = value - (event.begin[name] or 0)
  end
  event.stats = {}
  local stats = redis.call('HGETALL', EVENT_STATS)
  for i = 1, #stats, 2 do
    event.stats[stats[i]] = tonumber(stats[i + 1])
  end
  redis.call('DEL', EVENT_STATS)
  event.ended_at = room.wall
end

-- When the next phase of an event begins, 0 for never, and which one it is.
local function next_step(event)
  if event.phase == 'scheduled' and event.prequeue > 0 then
    return event.prequeue, 'prequeue'
  elseif event.phase == 'scheduled' or event.phase == 'prequeue' then
    return event.start, 'running'
  elseif event.phase == 'running' then
    return event['end'], 'ended'
  end
  return 0, ''
end

-- Makes an event the current one.
local function make_current(room, event)
  local due = event and next_step(event) or 0
  room.event = event and event.name or ''
  room.event_phase = event and event.phase or ''
  room.event_before = event and event.before or ''
  room.event_due = due
  room.state = effective_state(room)
  redis.call('HSET', ROOM, 'event', room.event, 'event_phase', room.event_phase, 'event_before', room.event_before,
    'event_due', to_string(due))
end

-- Whether an event counts before another: one in progress does, else the earlier one.
local function precedes(event, other)
  if (event.phase == 'scheduled') ~= (other.phase == 'scheduled') then
    return event.phase ~= 'scheduled'
  end
  return event.start < other.start
end

-- Whether an event that has ended, or nil, did so before another. After a jump of the clock several have ended at the same time.
local function ended_later(event, other)
  if other and event.ended_at == other.ended_at then
    return event.start > other.start
  end
  return not other or event.ended_at > other.ended_at
end

-- Events of the settings file stay as long as they are in it: without their record they would begin again.
local function may_forget(room, event)
  return event.ended_at + EVENT_RETENTION_MS < room.wall and event.source ~= 'file'
end

-- Chooses the current event: the one in progress, else the next, else the last that ended. Removes those that ended
-- long ago.
local function choose_event(room)
  local current, last
  local stored = redis.call('HVALS', EVENTS)
  for _, text in ipairs(stored) do
    local event = cjson.decode(text)
    if event.phase ~= 'ended' then
      if not current or precedes(event, current) then
        current = event
      end
    elseif may_forget(room, event) then
      redis.call('HDEL', EVENTS, event.name)
    elseif not event.cancelled and ended_later(event, last) then
      last = event
    end
  end
  make_current(room, current or last)
end

local function record_step(room, event, changes)
  changes.old.event_phase, changes.new.event_phase = room.event_phase, event.phase
  changes.old.event, changes.new.event = '', event.name
  record_change(room, 'the schedule', false, changes.old, changes.new)
  enqueue_audit_event(room, SCHEDULE, changes.old, changes.new)
  redis.call('HINCRBY', ROOM, 'events_version', 1)
end

local function take_step(room, event, due, phase)
  local changes = { old = {}, new = {} }
  if phase == 'prequeue' then
    open_prequeue(room, event, changes)
  elseif phase == 'running' then
    start_event(room, event, changes)
  else
    end_event(room, event, changes, due)
  end
  event.phase = phase
  record_step(room, event, changes)
  write_event(event)
  if phase == 'ended' then
    choose_event(room)
  else
    make_current(room, event)
  end
end

-- Takes all steps that are due.
local function run_schedule(room)
  while room.event_due > 0 and room.wall >= room.event_due do
    local event = read_event(room.event)
    if not event then
      make_current(room, nil)
      return
    end
    local due, phase = next_step(event)
    take_step(room, event, due, phase)
  end
end

-- A shuffled range as it counts after a loss: no place of this generation is in it, and newcomers stand behind it.
local function restored_range(room, part)
  local first, last, seed = string.match(part, '^(%d+):(%d*):(%x+)$')
  if last == '' then
    return part
  end
  set_number(room, 'seq', math.max(room.seq, tonumber(first) + SHUFFLE_SPAN))
  return first .. ':' .. to_string(math.min(tonumber(last), room.base)) .. ':' .. seed
end

-- Adds the shuffled ranges that the caller has seen and the store has lost, in a list as in `draws`.
local function restore_draws(room, seen)
  local list, changed = split(room.draws), false
  for _, part in ipairs(split(seen)) do
    local seed = string.match(part, '%x+$')
    local known
    for i, one in ipairs(list) do
      if string.match(one, '%x+$') == seed then
        known = i
      end
    end
    if not known then
      list[#list + 1] = restored_range(room, part)
      changed = true
    elseif string.find(list[known], '::', 1, true) and not string.find(part, '::', 1, true) then
      list[known] = restored_range(room, part)
      changed = true
    end
  end
  if changed then
    save_draws(room, list)
  end
end

-- Closes shuffled ranges that are open although their event has begun or is over: a caller had seen them before the
-- loss.
local function close_stale_draws(room)
  if not string.find(room.draws, '::', 1, true) then
    return
  end
  local event = read_event(room.event)
  local pending = event and (event.phase == 'scheduled' or event.phase == 'prequeue') and event.seed
  local list = split(room.draws)
  for i, part in ipairs(list) do
    local seed = string.match(part, '::(%x+)$')
    if seed and seed ~= pending then
      list[i] = restored_range(room, (string.gsub(part, '::', ':' .. to_string(room.base) .. ':')))
    end
  end
  save_draws(room, list)
end

local function text_of(value)
  return type(value) == 'number' and to_string(value) or value
end

-- Gives an event another definition, from the settings file or an operator. The limits of a running event change
-- immediately.
local function redefine_event(room, event, definition, changes)
  if event.phase == 'running' and room.event == event.name then
    local before = cjson.decode(redis.call('HGET', ROOM, 'before_event') or '{}')
    for field in pairs(event.limits) do
      if not definition.limits[field] and before[field] then
        set_field(room, changes, field, before[field])
      end
    end
    for field, value in pairs(definition.limits) do
      if event.limits[field] ~= value then
        set_field(room, changes, field, value)
      end
    end
  end
  for name, value in pairs(definition) do
    if name == 'seed' then
      event.seed = event.phase == 'scheduled' and value or event.seed -- once places are shuffled, it stays
    elseif name ~= 'limits' and event[name] ~= value then
      changes.old[name], changes.new[name] = text_of(event[name]), text_of(value)
      event[name] = value
    end
  end
  event.limits = definition.limits
end

-- A new event; it has ended already if its end is over.
local function new_event(room, definition, source)
  local event = definition
  event.source = source
  event.phase, event.cancelled = 'scheduled', false
  event.prequeue_at, event.started_at, event.ended_at = 0, 0, 0
  if event['end'] > 0 and event['end'] <= room.wall then
    event.phase, event.ended_at = 'ended', event['end']
  end
  return event
end

-- Defines an event, with a new record if there is none or the old one has ended and the new one is later.
local function define_event(room, definition, source, changes)
  local event = read_event(definition.name)
  if event and not (event.phase == 'ended' and definition.start > event.ended_at) then
    redefine_event(room, event, definition, changes)
  else
    local ended = event
    event = new_event(room, definition, source)
    if ended then -- the file as it was read before doesn't redefine the event
      event.source, event.digest = ended.source, ended.digest
    end
    changes.old.event_phase, changes.new.event_phase = '', event.phase
  end
  changes.old.event, changes.new.event = '', event.name
  return event
end

-- Returns the room as of now, or nil if it must be opened: it must be once for every run of the server. A server that
-- was started or promoted may have lost its last writes, and would issue the same places again. A missing key means the
-- same.
local function load_room()
  local room = read_room()
  if not room or not room.intact or room.run_id ~= server_run_id() then
    return nil
  end
  if room.event ~= '' and redis.call('EXISTS', EVENTS) == 0 then
    return nil
  end
  run_schedule(room)
  return room
end
