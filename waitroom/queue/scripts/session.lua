-- Keeps and ends sessions.
-- ARGV: the audit event of the commands by the API, JSON, '' for none; idempotency key, '' for none; for each session
-- the operation, the session and milliseconds, whose meaning depends on the operation:
--   keep    activity under a valid pass; the time left until the session's hard end, in case the store lost it
--   resume  as keep, for an expired pass: kept only if the session still has its slot. 0 ms if by the caller's clock
--           the session has ended: only the room's clock decides that
--   hold    a payment is under way: the session lasts at least that long, at most session_max_ms beyond its hard end
--   extend  at least that long, at most until the hard end
--   restore a worker reports a live session to a store of a new generation; the time left of its pass
--   end     the session is over; how long a pass for it may remain in circulation
--   release the same, by the shop
--   api_release, api_hold, api_extend   the same as without api_, for a session that the shop names: a number proves
--           nothing, so the session must have its slot. The workers learn of them from the view. A release has no ms
-- Returns for each 0 if the session is over, or unknown to a command by the API (a repeated release is done); else, for
-- resume, the ms left until its end, and 1 for the others.
-- A session with a valid pass but no slot gets one even in a full room, because no admitted visitor is thrown out:
-- the store lost its slot, or the visitor was admitted without the store. It is counted as an overshoot.
local audit_event, idempotency_key = ARGV[3], ARGV[4]

local room = load_room()
if not room then
  return false
end
local cached = idempotency_key ~= '' and cached_reply(idempotency_key)
if cached then
  return cached
end
local overshoots, adopted = 0, 0
local endings = { ended = 0, released = 0 }

-- Whether a session with a slot has reached its hard end, and the end of any hold.
local function is_over(hard_end, slot_end)
  return math.max(hard_end, slot_end - SLOT_MARGIN_MS) <= room.clock
end

local function finish(session, pass_ms, kind)
  local _, called = leave_queue(session)
  local ended = end_session(room, session, pass_ms, kind)
  report(room, tonumber(session), 'active')
  room.freed = room.freed + called + ended
  endings[kind] = endings[kind] + ended
end

-- Gives a slot to a session that has none.
local function adopt(session)
  -- Its place may still be in the queue, or may be there again: one slot is enough.
  leave_queue(session)
  claim_lost_place(room, tonumber(session))
  adopted = adopted + 1
  if is_full(room) then
    overshoots = overshoots + 1
  end
end

-- Moves a session's end forward. Returns as this script does.
local function prolong(operation, session, ms)
  if redis.call('ZSCORE', ENDED, session) then
    return 0
  end
  local slot_end = tonumber(redis.call('ZSCORE', ACTIVE, session))
  local hard_end = tonumber(redis.call('ZSCORE', HARD_ENDS, session))
  local keeps = operation == 'keep' or operation == 'resume'
  if not slot_end and (operation == 'resume' or (operation ~= 'hold' and operation ~= 'extend' and ms <= 0)) then
    return 0
  end
  if slot_end and keeps and hard_end and is_over(hard_end, slot_end) then
    return 0
  end
  if not slot_end then
    adopt(session)
  end
  report(room, tonumber(session), 'active')
  if keeps and not hard_end then
    hard_end = room.clock + ms
    redis.call('ZADD', HARD_ENDS, to_string(hard_end), session)
  end
  -- A hard end that was lost and that nobody has reported yet is as far off as it can be.
  local left = (hard_end or room.clock + room.session_max_ms) - room.clock
  if keeps then
    ms = math.min(room.session_ms, left)
  elseif operation == 'extend' then
    ms = math.min(ms, left)
  else
    ms = math.min(ms, left + room.session_max_ms)
  end
  -- The end of a slot never moves back, so that a hold lasts whatever comes after it.
  redis.call('ZADD', ACTIVE, 'GT', to_string(room.clock + ms + SLOT_MARGIN_MS), session)
  if operation == 'resume' then
    return math.max(1, left, slot_end - SLOT_MARGIN_MS - room.clock)
  end
  return 1
end

-- Executes a command by the API: release, hold or extend. Returns as this script does.
local function execute(command, session, ms)
  local slot_end = tonumber(redis.call('ZSCORE', ACTIVE, session))
  if not slot_end then
    return command == 'release' and redis.call('ZSCORE', ENDED, session) and 1 or 0
  end
  local hard_end = tonumber(redis.call('ZSCORE', HARD_ENDS, session)) or room.clock + room.session_max_ms
  if command == 'release' then
    -- A hold that the caller doesn't know of may have moved the end of a pass.
    finish(session, math.max(0, hard_end + room.session_max_ms - room.clock), 'released')
  elseif is_over(hard_end, slot_end) then
    return 0
  else
    prolong(command, session, ms)
    list_session(room, 'prolonged', session)
  end
  if audit_event ~= '' then
    enqueue_audit_event(room, audit_event, {}, {})
  end
  return 1
end

local results = {}
for i = FIRST + 2, #ARGV, 3 do
  local operation, session, ms = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local command = string.match(operation, '^api_(.*)')
  if operation == 'end' then
    finish(session, ms, 'ended')
    results[#results + 1] = 1
  elseif operation == 'release' then
    finish(session, ms, 'released')
    results[#results + 1] = 1
  elseif command then
    results[#results + 1] = execute(command, session, ms)
  else
    results[#results + 1] = prolong(operation, session, ms)
  end
end
count('overshoot', overshoots)
count('left:ended', endings.ended)
count('left:released', endings.released)
count('released_by_shop', endings.released)
count_change(room, adopted + endings.ended + endings.released > 0)
save_room(room)
if idempotency_key ~= '' then
  reply(idempotency_key, results)
end
return results
