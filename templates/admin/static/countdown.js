// The time left until a moment, such as 2 d 03:04:05 or 04:05.
export function countdown(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const two = (number) => String(number).padStart(2, "0");
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor((seconds % 86400) / 3600);
  const rest = `${two(Math.floor((seconds % 3600) / 60))}:${two(seconds % 60)}`;
  if (days) return `${days} d ${two(hours)}:${rest}`;
  return hours ? `${two(hours)}:${rest}` : rest;
}
