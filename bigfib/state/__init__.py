"""Store the position of every sequence durably. Knows neither HTTP nor Fibonacci numbers."""
