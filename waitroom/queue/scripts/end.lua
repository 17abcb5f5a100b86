-- Ends a session at an operator's request.
-- ARGV: session; ms that a pass for it may remain in circulation; the audit event, JSON; idempotency key.
-- Returns 1, or 0 if no such session is active: a number that isn't issued yet must not be ended in advance.
local session, pass_ms, audit_event, idempotency_key = ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]

local room = load_room()
if not room then
  return false
end
local cached = cached_reply(idempotency_key)
if cached then
  return cached
end
local active = redis.call('ZSCORE', ACTIVE, session) and 1 or 0
if active == 1 then
  local _, called = leave_queue(session)
  local ended = end_session(room, session, pass_ms, 'ended')
  report(room, tonumber(session), 'active')
  room.freed = room.freed + called + ended
  count('left:ended', ended)
  count_change(room, true)
  enqueue_audit_event(room, audit_event, {}, {})
end
save_room(room)
return reply(idempotency_key, active)
