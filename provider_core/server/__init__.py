"""HTTP in front: connections, routes, admission, streaming. What handlers dispatch through."""
