-- Changes fields of the room for the shop, whatever the room's version.
-- ARGV: the audit event, JSON with `who`; how many ms ago the shop said so if that counts only for what is on sale: if
-- the room is open, paused or sold out by its stock, and the sale hasn't begun since; '' for always; then pairs of field
-- and value.
-- The tokens accumulated so far are those of the old rate.
-- Returns 1.
local audit_event, age_ms = ARGV[3], tonumber(ARGV[4])

local room = load_room()
if not room then
  return false
end
local function is_on_sale()
  local began_at = tonumber(redis.call('HGET', ROOM, 'stock_began_at')) or 0
  return (room.state == 'open' or room.state == 'paused' or room.state_by == 'stock')
    and (began_at > room.wall or room.wall - age_ms >= began_at)
end

if not age_ms or is_on_sale() then
  local old, new = set_fields(5)
  if next(new) then
    record_change(room, cjson.decode(audit_event).who, false, old, new)
    enqueue_audit_event(room, audit_event, old, new)
  end
end
save_room(room)
return 1
