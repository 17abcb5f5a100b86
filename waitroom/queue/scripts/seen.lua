-- Marks waiting visitors as seen now.
-- ARGV: pairs of a chunk's number and the offsets of places in it, separated by blanks: a thousand arguments would cost
-- the caller more than the whole work here.
-- Returns 1.
local room = load_room()
if not room then
  return false
end
for i = FIRST, #ARGV, 2 do
  local chunk, listed = ARGV[i], ARGV[i + 1]
  local offsets = {}
  for offset in string.gmatch(listed, '%d+') do
    offsets[#offsets + 1] = offset
  end
  mark_chunk(room, chunk, offsets)
end
save_room(room)
return 1
