-- Changes fields of the room for an operator or the autopilot, in one step, if nobody else changed the room meanwhile.
-- ARGV: the version that the change is based on, '' for any; idempotency key; the author to record as the last one;
-- '1' if the change can be undone; the audit event, JSON, '' for none; then pairs of field and value.
-- The autopilot passes '' there: its many small changes aren't recorded as the last one and make no version stale,
-- but it can't base its own on a stale one. The tokens accumulated so far are those of the old rate.
-- Returns {1, the new version, the old values in order}, or {0, the current version} if the change is stale.
local expected, idempotency_key, who, undoable, audit_event = ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1', ARGV[7]

local room = load_room()
if not room then
  return false
end
local cached = cached_reply(idempotency_key) -- a retried change isn't made stale by itself
if cached then
  return cached
end
save_room(room)
local version = redis.call('HGET', ROOM, 'version') or '0'
if expected ~= '' and expected ~= version then
  return { 0, version }
end
local old, new, before = set_fields(8)
if next(new) and who ~= '' then
  local change = record_change(room, who, undoable, old, new)
  redis.call('HSET', ROOM, 'operator_change', change)
  version = redis.call('HGET', ROOM, 'version')
end
if audit_event ~= '' then
  enqueue_audit_event(room, audit_event, old, new)
end
return reply(idempotency_key, { 1, version, before })
