-- Prints the time within which 999 of 1,000 replies come.
done = function(summary, latency)
  io.write(string.format("99.9 %%: %d us\n", latency:percentile(99.9)))
end
