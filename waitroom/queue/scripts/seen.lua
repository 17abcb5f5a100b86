-- Marks waiting visitors as seen now. ARGV, after the clock and the run id, for each chunk: its number, and the offsets of
-- places in it, with blanks between them: a thousand arguments cost the caller more than all that is done with them.
-- Returns 1; nil where the room isn't open.
local room = load_room()
if not room then
  return false
end
for i = 3, #ARGV, 2 do
  local offsets = {}
  for offset in string.gmatch(ARGV[i + 1], '%d+') do
    offsets[#offsets + 1] = offset
  end
  mark_chunk(room, ARGV[i], offsets)
end
save_room(room)
return 1
