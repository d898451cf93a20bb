-- Sends next and previous alternately, so that the numbers keep their length.
local count = 0

request = function()
  count = count + 1
  local method = wrk.path:find("/api1/") and "POST" or "GET"
  return wrk.format(method, wrk.path .. (count % 2 == 1 and "/next" or "/previous"))
end
