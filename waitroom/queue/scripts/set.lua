-- Changes fields of the room for the shop, whatever the room's version.
-- ARGV: the audit event, JSON with `who`; then pairs of field and value.
-- The tokens accumulated so far are those of the old rate.
-- Returns 1.
local audit_event = ARGV[3]

local room = load_room()
if not room then
  return false
end
local old, new = set_fields(4)
if next(new) then
  record_change(room, cjson.decode(audit_event).who, false, old, new)
  enqueue_audit_event(room, audit_event, old, new)
end
save_room(room)
return 1
