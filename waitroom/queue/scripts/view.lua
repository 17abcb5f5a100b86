-- Returns the room as workers keep it in memory.
-- ARGV: the stamp of the rank index that the caller has; the number up to which it has read the ended sessions, and in
-- which generation, '' if it has read none; the changes counted by then, and the generation that counted them. The room
-- must be opened again if it is behind them.
-- The rank index maps ranks to places (to what orders them, see rank_of): exact at the head, then at growing distances;
-- its last pair is the next newcomer's. The first caller to find it older than RANK_INDEX_MS rebuilds it.
-- Returns {the room's fields and values, waiting, called, away, active, stamp, rank index or '' if the caller has it,
-- the next listed sessions as KIND:SESSION, the number of the last of them, the state in force, the current event, JSON
-- or ''}. A prolonged session has the ms left until its end besides; one that is over since then is left out.
local known_stamp, ends_read, ends_generation = ARGV[3], ARGV[4], ARGV[5]

local seen_changes, seen_generation = tonumber(ARGV[6]), ARGV[7]

local room = load_room()
if not room or (seen_generation == to_string(room.generation) and seen_changes > room.changes) then
  return false
end
save_room(room)
local waiting = redis.call('ZCARD', WAITING)

local function rank_in_order(place)
  return to_string(rank_of(room, tonumber(place)))
end

local function build_rank_index()
  local parts = {}
  local head = redis.call('ZRANGE', WAITING, 0, EXACT_RANKS - 1)
  for i, place in ipairs(head) do
    parts[#parts + 1] = to_string(i - 1) .. ' ' .. rank_in_order(place)
  end
  local last = EXACT_RANKS - 1
  for i = 1, RANK_INDEX_POINTS do
    local share = i / RANK_INDEX_POINTS
    local rank = EXACT_RANKS - 1 + math.ceil((waiting - EXACT_RANKS) * share * share)
    if rank > last and rank < waiting then
      last = rank
      parts[#parts + 1] = to_string(rank) .. ' ' .. rank_in_order(redis.call('ZRANGE', WAITING, rank, rank)[1])
    end
  end
  parts[#parts + 1] = to_string(waiting) .. ' ' .. to_string(last_rank(room) + 1)
  return table.concat(parts, ' ')
end

-- Returns the stamp of the current rank index and the index.
local function rank_index()
  local stored = redis.call('HMGET', RANK_INDEX, 'stamp', 'table')
  local stamp, index = tonumber(stored[1]), stored[2]
  if not stamp or room.clock - stamp >= RANK_INDEX_MS then
    stamp, index = room.clock, build_rank_index()
    redis.call('HSET', RANK_INDEX, 'stamp', to_string(stamp), 'table', index)
  end
  return to_string(stamp), index
end

local function describe(entry)
  local session = string.match(entry, '^prolonged:(.*)')
  if not session then
    return entry
  end
  local slot_end = tonumber(redis.call('ZSCORE', ACTIVE, session))
  return slot_end and entry .. ':' .. to_string(math.max(0, slot_end - SLOT_MARGIN_MS - room.clock))
end

-- Returns the sessions that ended or were prolonged since the caller's last view, and the number of the last of them.
local function ended_sessions()
  local read = (room.clock - FEED_MS) * 1000
  if ends_generation == to_string(room.generation) then
    read = math.max(read, tonumber(ends_read))
  end
  local listed = redis.call('ZRANGEBYSCORE', FEED, '(' .. to_string(read), '+inf', 'WITHSCORES', 'LIMIT', 0,
    MAX_LISTED_ENDS)
  local ended = {}
  for i = 1, #listed, 2 do
    ended[#ended + 1] = describe(listed[i])
    read = tonumber(listed[i + 1])
  end
  return ended, to_string(read)
end

local current = room.event ~= '' and redis.call('HGET', EVENTS, room.event) or ''
local stamp, index = rank_index()
local ended, read = ended_sessions()
return { redis.call('HGETALL', ROOM), waiting, redis.call('ZCARD', CALLED), redis.call('ZCARD', AWAY),
  redis.call('ZCARD', ACTIVE), stamp, stamp == known_stamp and '' or index, ended, read, room.state, current }
