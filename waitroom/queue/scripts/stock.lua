-- Takes in the shop's report of the units that are left.
-- ARGV: the units; how many ms ago the shop reported them; '1' if by the API, '' if with a response; the audit event,
-- JSON with `who`.
-- At zero the room sells out by itself, unless it is closed or no sale is running yet. Units that come back open it
-- again, but only if the stock had sold it out: a state that a person or the shop has set stays.
-- Reports with responses come from several workers, not always in the order in which they were read. One that was read
-- before the stock began or before another is outdated. Responses overtake each other at the shop, too: a report that
-- rises from zero must have been read later by RISE_AFTER_ZERO_MS, and only one that was read so much later outdates a
-- zero. All this is by the wall clock, because the room's leaves out most of an outage; a time in the future is of
-- another clock, and says nothing.
-- The report itself is no change of the room; what it does to the state is.
-- Returns 1.
local units, age_ms, by_api, audit_event = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]

local room = load_room()
if not room then
  return false
end
local before = tonumber(room.remaining)
local read_at = room.wall - age_ms

local function past(time)
  return time and time <= room.wall and time or 0
end

local times = redis.call('HMGET', ROOM, 'stock_began_at', 'stock_read_at')
local has_begun = times[1]
local began_at, newest, zero_at = past(tonumber(times[1])), past(tonumber(times[2])), past(room.stock_zero_at)

local function is_outdated()
  if by_api then
    return false
  end
  if units == 0 then
    return read_at < began_at or newest - read_at >= RISE_AFTER_ZERO_MS
  end
  return read_at < newest or before == 0 and read_at - zero_at < RISE_AFTER_ZERO_MS
end

local function count_units()
  if before then
    count('sold', before - units)
    count('units_returned', units - before)
  end
end

local function record(changes)
  record_change(room, cjson.decode(audit_event).who, false, changes.old, changes.new)
  enqueue_audit_event(room, audit_event, changes.old, changes.new)
end

local function sell_out()
  set_number(room, 'stock_zero_at', read_at)
  if room.state == 'open' or room.state == 'paused' then
    local changes = { old = {}, new = {} }
    redis.call('HSET', ROOM, 'state_before', room.own_state)
    set_state(room, changes, 'sold_out', 'stock')
    record(changes)
  end
end

local function reopen()
  if room.own_state == 'sold_out' and room.state_by == 'stock' then
    local changes = { old = {}, new = {} }
    lift_state(room, changes)
    set_number(room, 'reopened_at', room.clock)
    set_number(room, 'reopened_sold', units_sold())
    set_number(room, 'reopened_admitted', tonumber(redis.call('HGET', ROOM, 'total:admitted') or 0))
    record(changes)
  end
end

if not has_begun or not before and read_at >= began_at then
  begin_stock(read_at)
  began_at, newest = read_at, read_at
end
if not is_outdated() then
  count_units()
  redis.call('HSET', ROOM, 'remaining', to_string(units), 'stock_read_at', to_string(math.max(newest, read_at)))
  if units == 0 and before ~= 0 then
    sell_out()
  elseif units > 0 then
    reopen()
  end
end
save_room(room)
return 1
