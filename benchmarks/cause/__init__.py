"""Why a write inside the request took 84 ms."""
