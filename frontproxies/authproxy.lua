-- The HAProxy action that asks authproxy whether a request may pass: for HAProxy 2.6 and later.
-- Written by "authproxy print-config haproxy-lua"; "authproxy print-config haproxy" writes the configuration that uses it:
--
--   http-request lua.authproxy URL SOCKET SCHEME HOST HEADERS
--
-- URL is that of PREFIX/verify/haproxy, SOCKET is unix@/path or -, SCHEME and HOST are what the client asks for, and HEADERS,
-- with commas, are the headers by which the answer says who the user is. A request that may pass gets exactly these. Any other
-- is answered here: with authproxy's answer, or with 503 when there is none.

local timeout = 2500 -- milliseconds of each of the four times that HAProxy asks before it gives up

local secret = os.getenv("AUTHPROXY_SHARED_SECRET")

-- What is not authproxy's business: the body and the connection.
local not_asked = {}
for _, name in ipairs({
	"host", "content-length", "transfer-encoding", "content-encoding", "expect", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade",
	"x-forwarded-method", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri", "x-forwarded-for", "x-authproxy-secret",
}) do
	not_asked[name] = true
end

-- What of authproxy's answer is not for the client: how it was sent.
local not_answered = {}
for _, name in ipairs({ "content-length", "transfer-encoding", "connection", "keep-alive" }) do
	not_answered[name] = true
end

-- values returns the values of a header, which HAProxy counts from 0.
local function values(header)
	local all = {}
	for i = 0, #header do
		if header[i] ~= nil then
			all[#all + 1] = header[i]
		end
	end
	return all
end

local function answer(txn, status, headers, body)
	local reply = txn:reply({ status = status })
	for name, header in pairs(headers) do
		if not not_answered[name] then
			for _, value in ipairs(values(header)) do
				reply:add_header(name, value)
			end
		end
	end
	if txn.f:method() ~= "HEAD" then
		reply:set_body(body or "")
	end
	txn:done(reply)
end

local function ask(txn, url, socket, scheme, host)
	local headers = {}
	local came = txn.http:req_get_headers()
	for name, header in pairs(came) do
		if not not_asked[name] then
			headers[name] = values(header)
		end
	end
	if came["upgrade"] and not came["sec-websocket-key"] then -- HTTP/2 has no key, but a handshake it is
		headers["sec-websocket-key"] = { "HTTP/2" }
	end
	headers["x-forwarded-method"] = { txn.f:method() }
	headers["x-forwarded-proto"] = { scheme }
	headers["x-forwarded-host"] = { host }
	headers["x-forwarded-uri"] = { txn.f:pathq() }
	headers["x-forwarded-for"] = { tostring(txn.f:src()) }
	if secret then
		headers["x-authproxy-secret"] = { secret }
	end
	local question = { url = url, headers = headers, timeout = timeout }
	if socket ~= "-" then
		question.dst = socket
	end
	return core.httpclient():get(question)
end

core.register_action("authproxy", { "http-req" }, function(txn, url, socket, scheme, host, identity)
	local ok, got = pcall(ask, txn, url, socket, scheme, host)
	local status = ok and got and got.status or 0
	if status == 200 then
		for name in identity:gmatch("[^,]+") do
			txn.http:req_del_header(name)
			local value = got.headers[name:lower()]
			if value and value[0] and value[0] ~= "" then
				txn.http:req_set_header(name, value[0])
			end
		end
		return
	end
	if status >= 300 and status < 500 then
		answer(txn, status, got.headers, got.body)
	else
		answer(txn, 503, { ["retry-after"] = { [0] = "5" }, ["cache-control"] = { [0] = "no-store" }, ["content-type"] = { [0] = "text/plain" } },
			"This cannot be decided at the moment. Please try again.\n")
	end
end, 5)
