-- Changes fields of the room for the shop, whatever the room's version.
-- ARGV: the audit event, JSON with `who`; '1' if only while something may be on sale: in a room that is open, paused or
-- sold out by its stock; '' for always; then pairs of field and value.
-- The tokens accumulated so far are those of the old rate.
-- Returns 1.
local audit_event, only_on_sale = ARGV[3], ARGV[4] == '1'

local room = load_room()
if not room then
  return false
end
local on_sale = room.state == 'open' or room.state == 'paused' or room.state_by == 'stock'
if on_sale or not only_on_sale then
  local old, new = set_fields(5)
  if next(new) then
    record_change(room, cjson.decode(audit_event).who, false, old, new)
    enqueue_audit_event(room, audit_event, old, new)
  end
end
save_room(room)
return 1
