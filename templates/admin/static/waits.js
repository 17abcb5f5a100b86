// The range of a wait in seconds, rounded as waitroom.wait_range.short_wait does; a browser test compares them.
export function waits(range) {
  if (!range) return "unknown";
  if (range[1] < 60) return "under 1 min";
  let [low, high, unit] = [Math.floor(range[0] / 60), Math.ceil(range[1] / 60), "min"];
  if (high > 20) [low, high] = [Math.floor(low / 5) * 5, Math.ceil(high / 5) * 5];
  if (high > 120) {
    [high, unit] = [Math.ceil(high / 60), "h"];
    if (low >= 60) low = Math.floor(low / 60);
    else if (low) return `${low} min to ${high} h`;
  }
  if (!low) return `up to ${high} ${unit}`;
  return low === high ? `${high} ${unit}` : `${low} to ${high} ${unit}`;
}
