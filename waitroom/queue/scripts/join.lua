-- Gives places to newcomers. ARGV, after the clock and the run id: how many, and a word that no other join has.
-- The first ones are admitted at once, but only where nobody waits; the rest wait, seen as of now.
-- Returns {generation, first place, how many of them were admitted, waiting now, state, room clock}; first place 0
-- where the room takes nobody; nil where the room isn't open.

local room = load_room()
if not room then
  return false
end
local before = answered(ARGV[4])
if before then
  return before
end
local wanted = tonumber(ARGV[3])
local waiting = redis.call('ZCARD', WAITING)
if room.state == 'closed' or room.state == 'sold_out' then
  save_room(room)
  return answer(ARGV[4], { text(room.generation), '0', 0, waiting, room.state, text(room.clock) })
end
local admitted = 0
if room.state == 'open' and waiting == 0 then
  admitted = math.min(wanted, free_slots(room))
  spend(room, admitted)
end
local first = room.seq + 1
local slot_until = text(room.clock + math.min(room.session_ms, room.session_max_ms) + SLOT_MARGIN_MS)
local hard_end = text(room.clock + room.session_max_ms)
local slots, hard_ends, places, entries = {}, {}, {}, {}
for i = 0, wanted - 1 do
  local place = text(first + i)
  if i < admitted then
    slots[#slots + 1] = slot_until
    slots[#slots + 1] = place
    hard_ends[#hard_ends + 1] = hard_end
    hard_ends[#hard_ends + 1] = place
  else
    entries[#entries + 1] = place
    entries[#entries + 1] = place
    places[#places + 1] = first + i
  end
end
in_batches('ZADD', ACTIVE, slots)
in_batches('ZADD', HARD_ENDS, hard_ends)
in_batches('ZADD', WAITING, entries)
mark_seen(room, places)
count('joined', wanted)
count('admitted', admitted)
save_room(room, 'seq', text(room.seq + wanted))
return answer(ARGV[4], { text(room.generation), text(first), admitted, waiting + wanted - admitted, room.state, text(room.clock) })
