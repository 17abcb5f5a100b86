-- Gives places to newcomers.
-- ARGV: how many; idempotency key.
-- The first ones are admitted immediately, but only if nobody waits; the others wait, marked as seen now. A passthrough
-- room admits everybody, and counts those whom its limits would have let wait.
-- Returns {generation, first place, how many were admitted, how many wait now, state, the room's clock}. The first
-- place is 0 if the room accepts nobody.
local wanted, idempotency_key = tonumber(ARGV[3]), ARGV[4]

local room = load_room()
if not room then
  return false
end
local cached = cached_reply(idempotency_key)
if cached then
  return cached
end
local waiting = redis.call('ZCARD', WAITING)
if room.state == 'closed' or room.state == 'sold_out' then
  save_room(room)
  return reply(idempotency_key,
    { to_string(room.generation), '0', 0, waiting, room.state, to_string(room.clock) })
end
local admitted = 0
if room.state == 'open' and waiting == 0 then
  admitted = math.min(wanted, free_slots(room))
  take_tokens(room, admitted)
  if room.method == 'passthrough' then
    local by_rate = math.max(0, wanted - math.max(0, math.floor(room.tokens + 1e-9)))
    room.tokens = room.tokens - (wanted - by_rate)
    count('over:rate', by_rate)
    count('over:max_active', math.max(0, math.min(wanted, wanted - vacant_slots(room))))
  end
end
local first = room.seq + 1
local slot_until = to_string(room.clock + math.min(room.session_ms, room.session_max_ms) + SLOT_MARGIN_MS)
local hard_end = to_string(room.clock + room.session_max_ms)
local slots, hard_ends, places, entries = {}, {}, {}, {}
for i = 0, wanted - 1 do
  local place = to_string(first + i)
  if i < admitted then
    slots[#slots + 1] = slot_until
    slots[#slots + 1] = place
    hard_ends[#hard_ends + 1] = hard_end
    hard_ends[#hard_ends + 1] = place
  else
    entries[#entries + 1] = place
    places[#places + 1] = first + i
  end
end
in_batches('ZADD', ACTIVE, slots)
in_batches('ZADD', HARD_ENDS, hard_ends)
add_waiting(room, entries)
mark_seen(room, places)
count_change(room, wanted > 0)
count('joined', wanted)
count('admitted', admitted)
save_room(room, 'seq', to_string(room.seq + wanted))
return reply(idempotency_key, { to_string(room.generation), to_string(first), admitted, waiting + wanted - admitted,
  room.state, to_string(room.clock) })
