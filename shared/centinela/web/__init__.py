"""HTTP as every service speaks it: application, refusals, back-pressure, OpenAPI, operations endpoints, server."""
