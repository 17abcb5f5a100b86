-- Keeps and ends sessions. ARGV, after the clock and the run id, for each: operation, session, milliseconds.
--   keep    activity under a good pass; ms = what is left until the session's hard end, in case the store lost it
--   resume  a pass that ran out: kept only where its slot is still there; ms as for keep
--   hold    payment under way: no end before ms have passed, whatever the hard end says; at most session_max_ms beyond it
--   extend  at least ms more, up to the hard end
--   end     the slot is free; ms = how long a pass for it may still be about
--   release the same, by the shop
-- Returns for each 1, or 0 where the session is over; nil where the room isn't open.
-- A session that has a good pass but no slot (the store lost it, or it was admitted without the store) gets one, even
-- beyond max_active: nobody inside is thrown out. Such a one is counted as an overshoot.
local room = load_room()
if not room then
  return false
end

-- Whether a session that has a slot has come to its hard end, and no hold lasts.
local function worn_out(hard_end, slot_end)
  return math.max(hard_end, slot_end - SLOT_MARGIN_MS) <= room.clock
end

local answers = {}
local over, gone = 0, { ended = 0, released = 0 }
for i = 3, #ARGV, 3 do
  local operation, session, ms = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local inside = redis.call('ZSCORE', ACTIVE, session)
  local hard_end = tonumber(redis.call('ZSCORE', HARD_ENDS, session))
  local keeps = operation == 'keep' or operation == 'resume'
  local alive = 1
  if operation == 'end' or operation == 'release' then
    local _, called = leave_line(session)
    local kind = operation == 'end' and 'ended' or 'released'
    local ended = end_session(room, session, ms, kind)
    room.freed = room.freed + called + ended
    gone[kind] = gone[kind] + ended
  elseif redis.call('ZSCORE', ENDED, session) then
    alive = 0
  elseif not inside and (operation == 'resume' or (keeps and ms <= 0)) then
    alive = 0
  elseif inside and keeps and hard_end and worn_out(hard_end, tonumber(inside)) then
    alive = 0
  else
    if not inside then
      -- Its place may still be in the line, or may have come back there: one slot is enough.
      leave_line(session)
      remember(room, tonumber(session))
      if redis.call('ZCARD', ACTIVE) + redis.call('ZCARD', CALLED) >= room.max_active then
        over = over + 1
      end
    end
    if keeps and not hard_end then
      hard_end = room.clock + ms
      redis.call('ZADD', HARD_ENDS, text(hard_end), session)
    end
    -- Where the hard end was lost and nobody has said it yet, it is as far off as it can be.
    local left = (hard_end or room.clock + room.session_max_ms) - room.clock
    if keeps then
      ms = math.min(room.session_ms, left)
    elseif operation == 'extend' then
      ms = math.min(ms, left)
    else
      ms = math.min(ms, left + room.session_max_ms)
    end
    -- A slot's end only ever moves on, so that a hold lasts whatever comes after it.
    redis.call('ZADD', ACTIVE, 'GT', text(room.clock + ms + SLOT_MARGIN_MS), session)
  end
  answers[#answers + 1] = alive
end
count('overshoot', over)
count('left:ended', gone.ended)
count('left:released', gone.released)
save_room(room)
return answers
