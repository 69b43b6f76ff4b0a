-- Sends every line of a file as one GET, each wrk thread its share of the lines; ends with one JSON line of figures.
-- Usage: wrk -s requests.lua URL -- FILE THREADS [RATE]
-- With a rate, requests a second of all threads, moments are fixed before the load begins: a connection takes the next one
-- and waits for it, however long the answers before took. wrk counts waits in whole milliseconds, so it is up to one early.

local count = 0
local requests = {}
local tail = " HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 "
   .. "(KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\r\n"
local at = 0

local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds; long nanos; } moment; int clock_gettime(int clock, moment *at);")

local function millis()
   local at = ffi.new("moment")
   ffi.C.clock_gettime(1, at)
   return tonumber(at.seconds) * 1e3 + tonumber(at.nanos) / 1e6
end

-- From here on wrk asks how long to wait before each request.
local function pace(rate)
   local gap, due = 1e3 / rate, nil
   delay = function()
      due = (due or millis()) + gap
      return math.max(0, due - millis())
   end
end

function setup(thread)
   thread:set("id", count)
   count = count + 1
end

function init(args)
   local threads, number = tonumber(args[2]), 0
   if args[3] then
      pace(tonumber(args[3]) / threads)
   end
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
