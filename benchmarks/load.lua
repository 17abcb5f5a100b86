-- wrk's part: sends one request after the other, each with the next of many cookies, and tells the figures as JSON.
-- Arguments: a file with the request, a line "@COOKIE@" in its place; a file with the cookies, one a line.
local requests, count, at = {}, 0, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local before, after = file:read("*a"):match("^(.-)@COOKIE@(.*)$")
  file:close()
  for cookie in io.lines(args[2]) do
    count = count + 1
    requests[count] = before .. cookie .. after
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'FIGURES {"requests":%d,"seconds":%.6f,"bytes":%d,"refused":%d,"broken":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
