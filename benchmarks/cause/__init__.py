"""Part `cause`: why a write inside the request took 84 ms in the earlier design."""
