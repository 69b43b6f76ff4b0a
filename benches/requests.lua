-- Sends every line of a file as one GET, each wrk thread its share of the lines; ends with one JSON line of figures.
-- Usage: wrk -s requests.lua URL -- FILE THREADS

local count = 0
local requests = {}
local tail = " HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 "
   .. "(KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\r\n"
local at = 0

function setup(thread)
   thread:set("id", count)
   count = count + 1
end

function init(args)
   local threads, number = tonumber(args[2]), 0
   for line in io.lines(args[1]) do
      if number % threads == id then
         requests[#requests + 1] = "GET " .. line .. tail
      end
      number = number + 1
   end
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format('{"micros":%d,"requests":%d,"failed":%d,"refused":%d,"p50":%d,"p99":%d,"max":%d}\n',
      summary.duration, summary.requests, e.connect + e.read + e.write + e.timeout, e.status,
      latency:percentile(50), latency:percentile(99), latency.max))
end
