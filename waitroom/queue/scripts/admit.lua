-- Calls one visitor now, out of the order, by an operator's word. ARGV, after the clock and the run id: the place, what
-- the audit log is told, a word that no other such call has.
-- It takes a slot that must be free, and a token that need not be there yet: the line goes on that much later, and on
-- the average the rate holds. Called or inside already is as good as done.
-- Edges ask the store only about places that a tick has come to, so that those ahead of it are listed in `invited` for
-- as long as they are called or away.
-- Returns a word: called, admitted, unknown, not_open, full, too_many; nil where the room isn't open.
local MOST_INVITED = 100

local room = load_room()
if not room then
  return false
end
local place = current_place(ARGV[3])
local number = tonumber(place)

local function invited()
  local kept = {}
  for one in string.gmatch(redis.call('HGET', ROOM, 'invited') or '', '%d+') do
    local there = redis.call('ZSCORE', CALLED, one) or redis.call('ZSCORE', AWAY, one)
    if there and tonumber(one) > room.head then
      kept[#kept + 1] = one
    end
  end
  return kept
end

local function admit()
  if redis.call('ZSCORE', ACTIVE, place) then
    return 'admitted'
  end
  if redis.call('ZSCORE', CALLED, place) then
    return 'called'
  end
  if not (redis.call('ZSCORE', WAITING, place) or redis.call('ZSCORE', AWAY, place)) then
    return 'unknown'
  end
  if room.state ~= 'open' and room.state ~= 'paused' then
    return 'not_open'
  end
  local taken = redis.call('ZCARD', ACTIVE) + redis.call('ZCARD', CALLED)
  if room.method ~= 'passthrough' and taken >= room.max_active then
    return 'full'
  end
  if number > room.head then
    local others = invited()
    if #others >= MOST_INVITED then
      return 'too_many'
    end
    others[#others + 1] = place
    redis.call('HSET', ROOM, 'invited', table.concat(others, ' '))
  end
  redis.call('ZREM', WAITING, place)
  redis.call('ZREM', AWAY, place)
  redis.call('HDEL', TURNS, place)
  redis.call('ZADD', CALLED, text(room.turn_clock + room.claim_ms), place)
  spend(room, 1)
  return 'called'
end

local before = answered(ARGV[5])
if before then
  return before
end
local became = admit()
if became == 'called' or became == 'admitted' then
  leave_note(room, ARGV[4], {}, {})
end
save_room(room)
return answer(ARGV[5], became)
