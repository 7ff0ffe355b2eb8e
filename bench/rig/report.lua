-- Makes wrk say what it counted in a form that is easy to read.
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\nREPORT %d %d %d %.3f %.3f\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
