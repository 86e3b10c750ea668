"""What both HTTP services share: server, middleware, back-pressure, operations endpoints."""
