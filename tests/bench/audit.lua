-- audit.lua: POSTs the sample ads to /v1/audit in turn, with wrk (Debian package wrk), and counts the answers by status.
--
--   wrk -t1 -c1 -d30s --latency -s tests/bench/audit.lua http://127.0.0.1:8080/v1/audit -- tests/samples/test
--
-- wrk is closed-loop: a connection sends its next request when the answer is there. Its latencies are those of the
-- offered concurrency (-c), not of an arrival rate. Deadlines are lifted, so that slow answers are measured and not shed.
local boundary = "winnow-bench-7d1f"
local bodies, at = {}, 0

local function part(name, value, file)
	local head = "--" .. boundary .. '\r\nContent-Disposition: form-data; name="' .. name .. '"'
	if file then
		head = head .. '; filename="' .. file .. '"\r\nContent-Type: application/octet-stream'
	end
	return head .. "\r\n\r\n" .. value .. "\r\n"
end

-- The value of a string key in one line of our own metadata.jsonl (no escapes but \" and \\ occur in it).
local function field(line, key)
	local v = line:match('"' .. key .. '": "(.-[^\\])"') or ""
	return (v:gsub('\\(.)', '%1'))
end

function init(args)
	local dir = args[1] or "tests/samples/test"
	for line in io.lines(dir .. "/metadata.jsonl") do
		local name = field(line, "file_name")
		local f = assert(io.open(dir .. "/" .. name, "rb"))
		bodies[#bodies + 1] = part("image", f:read("*a"), name) .. part("text", field(line, "text")) ..
			part("assist", field(line, "assist")) .. "--" .. boundary .. "--\r\n"
		f:close()
	end
	assert(#bodies > 0, dir .. "/metadata.jsonl lists no ads")
	wrk.method = "POST"
	wrk.headers["Content-Type"] = "multipart/form-data; boundary=" .. boundary
	wrk.headers["X-Deadline-Ms"] = "10000"
end

function request()
	at = at % #bodies + 1
	return wrk.format(nil, nil, nil, bodies[at])
end

local threads = {}
function setup(thread)
	threads[#threads + 1] = thread
end

statuses = ""
local counts = {}
function response(status)
	counts[status] = (counts[status] or 0) + 1
	local text = {}
	for s, n in pairs(counts) do
		text[#text + 1] = s .. ":" .. n
	end
	statuses = table.concat(text, " ")
end

function done(summary, latency)
	for i, thread in ipairs(threads) do
		print("thread " .. i .. " statuses " .. (thread:get("statuses") or ""))
	end
	print(string.format("p50 %.2f ms  p90 %.2f ms  p99 %.2f ms  max %.2f ms  %.1f requests/s", latency:percentile(50) / 1e3,
		latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3, summary.requests / (summary.duration / 1e6)))
end
