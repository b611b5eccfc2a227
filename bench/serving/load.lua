-- wrk -s load.lua URL -- REQUESTS FIRST_SEED
-- REQUESTS is a file of whole HTTP requests, divided by NUL. Each time one of them is drawn; {seed} in it becomes the next number,
-- from FIRST_SEED on, all of which have equally many digits.

local requests, seed = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for text in file:read("*a"):gmatch("[^%z]+") do
    local before, after = text:match("^(.*){seed}(.*)$")
    requests[#requests + 1] = { before or text, after }
  end
  file:close()
  seed = tonumber(args[2])
  math.randomseed(seed)
end

function request()
  local drawn = #requests == 1 and requests[1] or requests[math.random(#requests)]
  if drawn[2] == nil then
    return drawn[1]
  end
  seed = seed + 1
  return drawn[1] .. string.format("%d", seed) .. drawn[2]
end

function done(summary, latency, _)
  local errors = summary.errors
  print(string.format(
    'RESULT {"requests": %d, "microseconds": %d, "bytes": %d, "p50": %d, "p99": %d, "refused": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
