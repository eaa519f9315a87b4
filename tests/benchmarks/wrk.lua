-- What wrk sends: arguments are URL, authority, method, size of the body, "close" or "keep".
-- What it reports: one line of JSON, with a sample of the tokens that came back.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   wrk.path = args[1]
   wrk.headers["Host"] = args[2]
   wrk.method = args[3]
   if tonumber(args[4]) > 0 then wrk.body = string.rep("x", tonumber(args[4])) end
   if args[5] == "close" then wrk.headers["Connection"] = "close" end
   answers, unsigned, sampled, tokens = 0, 0, 0, ""
end

function response(status, headers, body)
   answers = answers + 1
   local token = headers["x-seen-jwt"]
   if not token or token == "" then
      unsigned = unsigned + 1
   elseif sampled < 50 and (answers % 31 == 1) then
      sampled = sampled + 1
      tokens = tokens .. '"' .. token .. '",'
   end
end

function done(summary, latency, requests)
   local errors, unsigned, tokens = summary.errors, 0, ""
   for _, thread in ipairs(threads) do
      unsigned = unsigned + thread:get("unsigned")
      tokens = tokens .. thread:get("tokens")
   end
   io.write(string.format(
      '\n{"requests": %d, "seconds": %.6f, "errors": %d, "unsigned": %d, "p50_ms": %.3f, "p99_ms": %.3f, "tokens": [%s]}\n',
      summary.requests - errors.status, summary.duration / 1e6,
      errors.connect + errors.read + errors.write + errors.timeout + errors.status,
      unsigned - errors.status, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, tokens:sub(1, -2)))
end
