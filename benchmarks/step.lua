-- next and previous in turn, so that the numbers keep their length
local count = 0

request = function()
  count = count + 1
  return wrk.format("GET", count % 2 == 1 and "/api0/next" or "/api0/previous")
end
