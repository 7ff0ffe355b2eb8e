-- Makes wrk send another cookie with each request: COUNT of them from number FROM on in FILE, whose lines are WIDTH bytes long.
-- WALK: each thread sends each cookie of its half once, and stops.
local threads = 0

function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

function init(args)
  file, width, from, count, walk = io.open(args[1], "rb"), tonumber(args[2]), tonumber(args[3]), tonumber(args[4]), args[5] == "true"
  math.randomseed(os.time() * 2 + id)
  if walk then
    from, count = from + id * math.floor(count / 2), math.floor(count / 2)
  end
  at = 0
end

function request()
  if not walk then
    at = math.random(0, count - 1)
  elseif at == count then
    wrk.thread:stop()
    at = 0
  end
  file:seek("set", (from + at) * width)
  wrk.headers["Cookie"] = "theme=dark; " .. file:read(width):match("%S+")
  at = at + 1
  return wrk.format()
end
